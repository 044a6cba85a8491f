package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/privyseal/privyseal/internal/strictjson"
)

// Bounds of the configuration.
const (
	maxConfig  = 1 << 20
	maxIssuers = 1024
	maxList    = 256 // elements of any array in it
)

// A Config is the trust configuration: one JSON object, decoded strictly. It
// holds no secret. Paths are relative to the folder of the file.
type Config struct {
	// Version is the version of this format: 1. Required.
	Version  int      `json:"version"`
	Defaults Defaults `json:"defaults"`
	// CredentialTypeNumbers are the MLS credential types of what has no
	// registered number. All members of a deployment must agree on them.
	CredentialTypeNumbers TypeNumbers `json:"credential_type_numbers"`
	Basic                 Basic       `json:"basic"`
	// AutoDomain believes https://H, by its jwt-vc-issuer metadata, for the
	// names of mimi://H: trust then rests on DNS and the web's certificates.
	AutoDomain bool `json:"auto_domain"`
	// UnknownIssuer is what a member does with a commit that is already
	// ordered and brings a credential of an issuer that is not configured here:
	// "reject" (the default) or "quarantine".
	UnknownIssuer string `json:"unknown_issuer"`
	Fetch         Fetch  `json:"fetch"`

	Issuers []IssuerConfig `json:"issuers"`
}

// Defaults hold where an issuer entry says nothing else.
type Defaults struct {
	SkewS     int `json:"skew_s"`                    // clocks may differ by; 120
	LifetimeS int `json:"max_credential_lifetime_s"` // 7776000, 90 days
	MaxStaleS int `json:"max_stale_s"`               // how old what cannot be fetched anew may be; 86400
	// GraceS is for how long a member goes on with a leaf whose credential has
	// expired, beyond the skew; 600. Who decides gives no grace.
	GraceS     int    `json:"grace_s"`
	Revocation string `json:"revocation"`  // "hard", "soft" or "none"
	RequireCTI bool   `json:"require_cti"` // of SD-CWTs; true
}

// TypeNumbers are MLS credential types, each the suggested one or of the
// private range.
type TypeNumbers struct {
	Multi     uint16 `json:"multi"`
	WeakMulti uint16 `json:"weak_multi"`
	SDCWT     uint16 `json:"sd_cwt"`
	SDJWT     uint16 `json:"sd_jwt"`
}

// Basic says what is made of credentials that prove nothing.
type Basic struct {
	// Mode is "refuse" (the default), "test" (only for Hosts) or "allow" (for
	// Hosts, or for all if there are none).
	Mode    string   `json:"mode"`
	Hosts   []string `json:"hosts"`
	MaxRole uint32   `json:"basic_max_role"` // the highest role index of a participant without proof
}

// Fetch is how URLs are fetched.
type Fetch struct {
	// AllowPrivate lists networks, such as "10.0.0.0/8", beyond the public
	// internet that may be connected to.
	AllowPrivate []string `json:"allow_private"`
	// CAFile has the authorities for the servers' certificates in PEM,
	// instead of those of the operating system.
	CAFile   string `json:"ca_file"`
	TimeoutS int    `json:"timeout_s"` // 10
}

// The types of an issuer entry.
const (
	TypeX509  = "x509"
	TypeSDJWT = "sd_jwt"
	TypeSDCWT = "sd_cwt"
)

// An IssuerConfig is one authority.
type IssuerConfig struct {
	Name  string   `json:"name"`  // 1 to 64 of a-z, 0-9, '-', '.' and '_'
	Type  string   `json:"type"`  // x509, sd_jwt or sd_cwt
	Roles []string `json:"roles"` // client, hub or both
	Iss   string   `json:"iss"`   // of a token, exactly

	Keys  KeysConfig `json:"keys"`
	EKU   string     `json:"eku"` // x509: "strict" (the default) or "compat"
	Algs  []string   `json:"algs"`
	Types []ClaimKey `json:"typ"`
	VCT   []ClaimKey `json:"vct"`

	Claims             ClaimsConfig `json:"claims"`
	UserFromClientPath bool         `json:"user_from_client_path"`
	AcceptPlainCWT     bool         `json:"accept_plain_cwt"`
	Audiences          []string     `json:"audiences"`

	// Attested says that the issuer demands an attestation of the device key
	// before it issues; MinAttestation refuses credentials that do not say so,
	// at the level "stated", "tpm-listed" or "tpm-certified".
	Attested       bool   `json:"attested"`
	MinAttestation string `json:"min_attestation"`

	LifetimeS  int              `json:"max_credential_lifetime_s"`
	Grants     []GrantConfig    `json:"grants"`
	Revocation RevocationConfig `json:"revocation"`
}

// The sources of keys.
const (
	SourceAnchors       = "anchors"
	SourceJWKSFile      = "jwks_file"
	SourceJWKSURI       = "jwks_uri"
	SourceCOSEFile      = "cose_key_set_file"
	SourceCOSEURI       = "cose_key_set_uri"
	SourceJWTVCIssuer   = "jwt_vc_issuer"
	sourceOfAutoDomains = SourceJWTVCIssuer
)

// KeysConfig says where an issuer's keys come from.
type KeysConfig struct {
	Source        string   `json:"source"`
	File          string   `json:"file"`          // anchors (PEM), jwks_file, cose_key_set_file
	Pins          []string `json:"pins"`          // anchors: SHA-256 of SubjectPublicKeyInfo, hexadecimal
	Intermediates string   `json:"intermediates"` // anchors: PEM file of what senders leave out
	URI           string   `json:"uri"`           // jwks_uri, cose_key_set_uri
	CAFile        string   `json:"ca_file"`       // for the server of the URI or of iss
}

// ClaimsConfig names the claims with the URIs.
type ClaimsConfig struct {
	Client *ClaimKey `json:"client"` // sub by default
	User   *ClaimKey `json:"user"`
}

// GrantConfig lets an issuer speak for names of one host.
type GrantConfig struct {
	Host  string   `json:"host"`
	Paths []string `json:"paths"`
}

// The ways to learn of a revocation.
const (
	MethodCRL        = "crl"
	MethodOCSP       = "ocsp"
	MethodStatusList = "status_list"
)

// RevocationConfig says how revocation is learned and what follows when it
// cannot be.
type RevocationConfig struct {
	Mode    string   `json:"mode"` // hard, soft or none
	Methods []string `json:"methods"`
	// CRL and OCSP are URLs, or for CRL files, that are asked instead of what
	// certificates name. In an entry of tokens they, or FollowCertificates,
	// have the certificates in x5c and x5chain asked for.
	CRL  []string `json:"crl"`
	OCSP []string `json:"ocsp"`
	// DeltaCRL are URLs or files with delta CRLs, which complete those of CRL.
	// With FollowCertificates they are where a CRL says that they are.
	DeltaCRL []string `json:"delta_crl"`
	// FollowCertificates asks the URLs that the certificates of this issuer
	// name. A client leaves it off and asks its own provider.
	FollowCertificates bool     `json:"follow_certificates"`
	StatusPrefixes     []string `json:"status_prefixes"`
	StatusIssuer       string   `json:"status_issuer"`  // name of an entry; this one by default
	StatusFormats      []string `json:"status_formats"` // jwt, cwt; by default that of the credential
	MaxStaleS          *int     `json:"max_stale_s"`
}

// A ClaimKey is the name of a claim, or an integer key or value of a CWT.
type ClaimKey struct {
	Text  string
	Int   int64
	IsInt bool
}

// UnmarshalJSON reads a string or an integer.
func (k *ClaimKey) UnmarshalJSON(b []byte) error {
	*k = ClaimKey{}
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &k.Text)
	}
	if err := json.Unmarshal(b, &k.Int); err != nil || k.Int < math.MinInt32 || k.Int > math.MaxInt32 {
		return errors.New("want a string or an integer of 32 bits")
	}
	k.IsInt = true
	return nil
}

// MarshalJSON is the inverse of UnmarshalJSON.
func (k ClaimKey) MarshalJSON() ([]byte, error) {
	if k.IsInt {
		return json.Marshal(k.Int)
	}
	return json.Marshal(k.Text)
}

// name returns the key as the token packages take it.
func (k *ClaimKey) name() any {
	switch {
	case k == nil:
		return nil
	case k.IsInt:
		return k.Int
	}
	return k.Text
}

// A ConfigError says where the configuration is wrong.
type ConfigError struct {
	File string
	At   string // of the member, such as "issuers[2].grants[0].host"
	Err  error
}

func (e *ConfigError) Error() string {
	s := "trust configuration"
	if e.File != "" {
		s += " " + e.File
	}
	if e.At != "" {
		s += ", " + e.At
	}
	return s + ": " + e.Err.Error()
}

func (e *ConfigError) Unwrap() error { return e.Err }

func wrong(at, format string, args ...any) *ConfigError {
	return &ConfigError{At: at, Err: fmt.Errorf(format, args...)}
}

// ParseConfig decodes a configuration and checks all that can be checked
// without its files.
func ParseConfig(b []byte) (*Config, error) {
	c := &Config{
		Defaults:              Defaults{SkewS: 120, LifetimeS: 90 * 24 * 3600, MaxStaleS: 24 * 3600, GraceS: 600, Revocation: ModeHard, RequireCTI: true},
		CredentialTypeNumbers: suggestedNumbers,
		Basic:                 Basic{Mode: basicRefuse},
		UnknownIssuer:         unknownReject,
		Fetch:                 Fetch{TimeoutS: 10},
	}
	if err := strictjson.Decode(b, maxConfig, c); err != nil {
		var at *strictjson.Error
		if errors.As(err, &at) {
			return nil, &ConfigError{At: at.At, Err: at.Err}
		}
		return nil, &ConfigError{Err: err}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}
