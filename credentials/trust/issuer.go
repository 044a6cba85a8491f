package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/mimiuri"
	"github.com/privyseal/privyseal/internal/safehttp"
)

// A Role is the place in which a credential is presented.
type Role = certs.Role

// The roles.
const (
	RoleClient = certs.RoleClient // a leaf of a group
	RoleHub    = certs.RoleHub    // external_senders and the franking agent
)

// An Issuer is one configured authority as it is used.
type Issuer struct {
	Name string
	Type string // x509, sd_jwt or sd_cwt
	// Attested says that its evidence is of a device key that was attested.
	Attested bool
	// ClientClaim and UserClaim of a token hold the URIs; nil is the default.
	ClientClaim, UserClaim any
	UserFromClient         bool
	// MaxLifetime is the longest life of a credential.
	MaxLifetime time.Duration
	// Mode is what follows when a revocation cannot be learned: hard, soft or
	// none.
	Mode     string
	MaxStale time.Duration

	config         *IssuerConfig
	requireCTI     bool
	minAttestation credentials.AttestationLevel
	grants         []Grant
	anchors        certs.Entry
	keys           keySource // of a token's issuer
	client         *safehttp.Client
	dir            string // of files
}

// Serves reports whether the issuer is for a role.
func (i *Issuer) Serves(role Role) bool {
	if role == RoleHub {
		return slices.Contains(i.config.Roles, roleHub)
	}
	return slices.Contains(i.config.Roles, roleClient)
}

// Allows reports whether the issuer may give a name in a role: a hub's is the
// bare provider, a client's is anything else.
func (i *Issuer) Allows(role Role, u mimiuri.URI) bool { return i.Grant(role, u) != nil }

// Grant returns the first grant that has a name in a role, or nil.
func (i *Issuer) Grant(role Role, u mimiuri.URI) *Grant {
	if !i.Serves(role) || u.IsZero() || (role == RoleHub) != (u.Kind() == mimiuri.Provider) {
		return nil
	}
	n := slices.IndexFunc(i.grants, func(g Grant) bool { return g.Allows(u) })
	if n < 0 {
		return nil
	}
	return &i.grants[n]
}

// compile turns entry n of the configuration into an Issuer, reading its files.
func (b *builder) compile(n int) (*Issuer, error) {
	e, at := &b.config.Issuers[n], fmt.Sprintf("issuers[%d]", n)
	d := &b.config.Defaults
	i := &Issuer{
		Name: e.Name, Type: e.Type, config: e, requireCTI: d.RequireCTI,
		MaxLifetime: seconds(orInt(e.LifetimeS, d.LifetimeS)), MaxStale: seconds(d.MaxStaleS), Mode: d.Revocation,
		UserFromClient: e.UserFromClientPath, client: b.snap.fetch, dir: b.dir,
	}
	i.setClaims()
	if e.Revocation.Mode != "" {
		i.Mode = e.Revocation.Mode
	}
	if e.Revocation.MaxStaleS != nil {
		i.MaxStale = seconds(*e.Revocation.MaxStaleS)
	}
	i.minAttestation, _ = credentials.ParseAttestationLevel(e.MinAttestation) // checked; "" is none
	i.Attested = e.Attested || i.minAttestation >= credentials.AttestationListed
	for g := range e.Grants {
		grant, err := newGrant(fmt.Sprintf("%s.grants[%d]", at, g), e.Grants[g])
		if err != nil {
			return nil, err
		}
		i.grants = append(i.grants, grant)
	}
	return i, b.findKeys(i, at+".keys")
}

// registered are the names of registered claims with their keys in a CWT, so
// that a configuration may say "sub" for both.
var registered = map[string]int64{"iss": 1, "sub": 2, "aud": 3}

func (i *Issuer) setClaims() {
	i.ClientClaim, i.UserClaim = i.config.Claims.Client.name(), i.config.Claims.User.name()
	for _, c := range []*any{&i.ClientClaim, &i.UserClaim} {
		name, isText := (*c).(string)
		if key, ok := registered[name]; isText && ok && i.Type == TypeSDCWT {
			*c = int(key)
		} else if key, isInt := (*c).(int64); isInt {
			*c = int(key)
		}
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func orInt(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// findKeys prepares the source of an issuer's keys.
func (b *builder) findKeys(i *Issuer, at string) error {
	k := &i.config.Keys
	if k.Source == SourceAnchors {
		return b.readAnchors(i, at)
	}
	var err error
	i.keys, err = b.keySource(i, at)
	return err
}

func (b *builder) readAnchors(i *Issuer, at string) error {
	k := &i.config.Keys
	e := certs.Entry{Name: i.Name}
	if i.config.EKU == ekuCompat {
		e.Mode = certs.Compat
	}
	var err error
	if e.Anchors, err = b.readCertificates(at+".file", k.File); err != nil {
		return err
	}
	if e.Intermediates, err = b.readCertificates(at+".intermediates", k.Intermediates); err != nil {
		return err
	}
	for _, pin := range k.Pins {
		id, err := hex.DecodeString(pin)
		if err != nil {
			return wrong(at+".pins", "%w", err)
		}
		e.Pins = append(e.Pins, [sha256.Size]byte(id))
	}
	i.anchors = e
	if i.Type != TypeX509 {
		i.keys = &certifiedKeys{issuer: i}
	}
	return nil
}

// maxKeyFile bounds a file of certificates or keys, and maxCertificates what is
// in one.
const (
	maxKeyFile      = 4 << 20
	maxCertificates = 256
)

// readCertificates reads PEM blocks of certificates and nothing else.
func (b *builder) readCertificates(at, name string) ([]*x509.Certificate, error) {
	if name == "" {
		return nil, nil
	}
	text, err := b.readFile(at, name)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for len(strings.TrimSpace(string(text))) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" || len(list) == maxCertificates {
			return nil, wrong(at, "%s has something else than at most %d certificates in PEM", name, maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, wrong(at, "%s: %w", name, err)
		}
		list, text = append(list, c), rest
	}
	if len(list) == 0 {
		return nil, wrong(at, "%s has no certificate", name)
	}
	return list, nil
}

func (b *builder) readFile(at, name string) ([]byte, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.dir, path)
	}
	text, err := readBounded(path, maxKeyFile)
	if err != nil {
		return nil, wrong(at, "%w", err)
	}
	b.hash.Write(text)
	return text, nil
}
