package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/mimiuri"
	"github.com/privyseal/privyseal/internal/safehttp"
)

// The modes of revocation.
const (
	ModeHard = "hard" // what is not known to be good is refused
	ModeSoft = "soft" // what is not known to be bad goes, and is asked again
	ModeNone = "none" // only for credentials of a day at most
)

const (
	basicRefuse, basicTest, basicAllow = "refuse", "test", "allow"
	unknownReject, unknownQuarantine   = "reject", "quarantine"
	roleClient, roleHub                = "client", "hub"
	ekuStrict, ekuCompat               = "strict", "compat"
)

// suggestedNumbers are those of draft-ietf-mls-extensions-10 and
// draft-mahy-mls-sd-cwt-credential-02.
var suggestedNumbers = TypeNumbers{Multi: 3, WeakMulti: 4, SDCWT: 5, SDJWT: 6}

var entryName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

const day = 24 * 3600

func (c *Config) check() error {
	if c.Version != 1 {
		return wrong("version", "this release reads version 1, not %d", c.Version)
	}
	for _, f := range []func() error{c.Defaults.check, c.CredentialTypeNumbers.check, c.Basic.check, c.Fetch.check} {
		if err := f(); err != nil {
			return err
		}
	}
	if err := oneOf("unknown_issuer", c.UnknownIssuer, unknownReject, unknownQuarantine); err != nil {
		return err
	}
	if len(c.Issuers) > maxIssuers {
		return wrong("issuers", "more than %d", maxIssuers)
	}
	return c.checkIssuers()
}

func (c *Config) checkIssuers() error {
	names, tokens := map[string]int{}, map[[2]string]int{}
	for i := range c.Issuers {
		e, at := &c.Issuers[i], fmt.Sprintf("issuers[%d]", i)
		if err := e.check(at); err != nil {
			return err
		}
		if first, taken := names[e.Name]; taken {
			return wrong(at+".name", "%q is that of issuers[%d]", e.Name, first)
		}
		names[e.Name] = i
		if id := [2]string{e.Type, e.Iss}; e.Type != TypeX509 {
			if first, taken := tokens[id]; taken {
				return wrong(at+".iss", "%q is that of issuers[%d]; a token must lead to one entry", e.Iss, first)
			}
			tokens[id] = i
		}
	}
	return c.checkStatusIssuers(names)
}

func (c *Config) checkStatusIssuers(names map[string]int) error {
	for i := range c.Issuers {
		name, at := c.Issuers[i].Revocation.StatusIssuer, fmt.Sprintf("issuers[%d].revocation.status_issuer", i)
		if name == "" {
			continue
		}
		n, ok := names[name]
		if !ok {
			return wrong(at, "there is no issuer %q", name)
		}
		if c.Issuers[n].Type == TypeX509 {
			return wrong(at, "%q issues certificates; a status list is signed by an issuer of tokens", name)
		}
	}
	return nil
}

func oneOf(at, value string, allowed ...string) error {
	if !slices.Contains(allowed, value) {
		return wrong(at, "%.64q; use one of %q", value, allowed)
	}
	return nil
}

func within(at string, value, least, most int) error {
	if value < least || value > most {
		return wrong(at, "%d is not between %d and %d", value, least, most)
	}
	return nil
}

func (d *Defaults) check() error {
	const at = "defaults."
	return firstError(
		within(at+"skew_s", d.SkewS, 0, 600),
		within(at+"max_credential_lifetime_s", d.LifetimeS, 60, 3660*day),
		within(at+"max_stale_s", d.MaxStaleS, 0, 30*day),
		within(at+"grace_s", d.GraceS, 0, day),
		oneOf(at+"revocation", d.Revocation, ModeHard, ModeSoft, ModeNone),
	)
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// check wants the suggested number or a private one for each, and no number
// twice.
func (n *TypeNumbers) check() error {
	const at = "credential_type_numbers"
	seen := map[uint16]bool{}
	for _, c := range []struct {
		name           string
		got, suggested uint16
	}{
		{"multi", n.Multi, suggestedNumbers.Multi}, {"weak_multi", n.WeakMulti, suggestedNumbers.WeakMulti},
		{"sd_cwt", n.SDCWT, suggestedNumbers.SDCWT}, {"sd_jwt", n.SDJWT, suggestedNumbers.SDJWT},
	} {
		if c.got != c.suggested && c.got < 0xF000 {
			return wrong(at+"."+c.name, "0x%04x; use 0x%04x or a private number, 0xF000 to 0xFFFF", c.got, c.suggested)
		}
		if seen[c.got] {
			return wrong(at+"."+c.name, "0x%04x is taken by another type", c.got)
		}
		seen[c.got] = true
	}
	return nil
}

func (b *Basic) check() error {
	if err := oneOf("basic.mode", b.Mode, basicRefuse, basicTest, basicAllow); err != nil {
		return err
	}
	if b.Mode == basicTest && len(b.Hosts) == 0 {
		return wrong("basic.hosts", "mode %q is for listed hosts only, and none is listed", basicTest)
	}
	for i, h := range b.Hosts {
		if err := checkHost(fmt.Sprintf("basic.hosts[%d]", i), h); err != nil {
			return err
		}
	}
	return nil
}

func checkHost(at, host string) error {
	if _, err := mimiuri.New(host, mimiuri.Provider); err != nil {
		return wrong(at, "%.100q: %w; give the provider's host in lower case, without a port or a wildcard", host, err)
	}
	return nil
}

func (f *Fetch) check() error {
	for i, text := range f.AllowPrivate {
		if _, err := netip.ParsePrefix(text); err != nil {
			return wrong(fmt.Sprintf("fetch.allow_private[%d]", i), "%w", err)
		}
	}
	return within("fetch.timeout_s", f.TimeoutS, 1, 120)
}

func (e *IssuerConfig) check(at string) error {
	if !entryName.MatchString(e.Name) {
		return wrong(at+".name", "%.64q; use 1 to 64 of a-z, 0-9, '-', '.' and '_'", e.Name)
	}
	if err := oneOf(at+".type", e.Type, TypeX509, TypeSDJWT, TypeSDCWT); err != nil {
		return err
	}
	if len(e.Roles) == 0 {
		return wrong(at+".roles", "is required: %q, %q or both", roleClient, roleHub)
	}
	for i, r := range e.Roles {
		if err := oneOf(fmt.Sprintf("%s.roles[%d]", at, i), r, roleClient, roleHub); err != nil {
			return err
		}
	}
	if e.LifetimeS != 0 {
		if err := within(at+".max_credential_lifetime_s", e.LifetimeS, 60, 3660*day); err != nil {
			return err
		}
	}
	if e.MinAttestation != "" {
		if l, err := credentials.ParseAttestationLevel(e.MinAttestation); err != nil || l == credentials.AttestationNone {
			return wrong(at+".min_attestation", "%.40q; use stated, tpm-listed or tpm-certified", e.MinAttestation)
		}
	}
	return firstError(e.checkFormat(at), e.Keys.check(at+".keys", e), e.checkGrants(at+".grants"), e.Revocation.check(at+".revocation", e))
}

// checkFormat looks at what only certificates, or only tokens, have.
func (e *IssuerConfig) checkFormat(at string) error {
	if e.Type == TypeX509 {
		return e.checkX509(at)
	}
	switch {
	case e.Iss == "" || len(e.Iss) > safehttp.MaxURL:
		return wrong(at+".iss", "is required: the issuer's iss, exactly")
	case e.EKU != "":
		return wrong(at+".eku", "is for type %q", TypeX509)
	case slices.Contains(e.Roles, roleHub):
		return wrong(at+".roles", "a hub is known by its certificate; use type %q", TypeX509)
	case e.AcceptPlainCWT && e.Type != TypeSDCWT:
		return wrong(at+".accept_plain_cwt", "is for type %q", TypeSDCWT)
	case e.Claims.User == nil && !e.UserFromClientPath:
		return wrong(at+".claims.user", "name the claim with the user's URI, or set user_from_client_path")
	case len(e.Audiences) > maxList || len(e.Types) > maxList || len(e.VCT) > maxList:
		return wrong(at, "a list of more than %d", maxList)
	}
	for i, alg := range e.Algs {
		if schemeByName(alg) == nil {
			return wrong(fmt.Sprintf("%s.algs[%d]", at, i), "%.32q; use ES256, ES384, ES512, ESP256, ESP384, ESP512, EdDSA or Ed25519", alg)
		}
	}
	for i, typ := range e.Types {
		if typ.IsInt && typ.Int == formatKBT || !typ.IsInt && notCredentials[strings.TrimPrefix(strings.ToLower(typ.Text), "application/")] {
			return wrong(fmt.Sprintf("%s.typ[%d]", at, i), "%v is of something else than credentials", typ.name())
		}
	}
	return e.checkClaimKeys(at)
}

// notCredentials are the types of tokens that are signed by the same keys, or
// by holders, and are no credentials.
var notCredentials = map[string]bool{
	"kb+jwt": true, "kb+cwt": true, "statuslist+jwt": true, "statuslist+cwt": true, "openid4vci-proof+jwt": true, "key-attestation+jwt": true,
}

func (e *IssuerConfig) checkX509(at string) error {
	switch {
	case e.Iss != "" || e.Algs != nil || e.Types != nil || e.VCT != nil || e.Audiences != nil || e.AcceptPlainCWT || e.UserFromClientPath || e.Claims != (ClaimsConfig{}):
		return wrong(at, "iss, algs, typ, vct, claims, audiences, accept_plain_cwt and user_from_client_path are for tokens")
	case e.EKU != "":
		return oneOf(at+".eku", e.EKU, ekuStrict, ekuCompat)
	}
	return nil
}

// checkClaimKeys wants integers nowhere but in a CWT.
func (e *IssuerConfig) checkClaimKeys(at string) error {
	if e.Type == TypeSDCWT {
		return nil
	}
	bad := func(k ClaimKey) bool { return k.IsInt || k.Text == "" }
	number := func(k ClaimKey) bool { return k.IsInt } // a typ may be "": a JWT that has none
	if slices.ContainsFunc(e.Types, number) || slices.ContainsFunc(e.VCT, bad) || e.Claims.Client != nil && bad(*e.Claims.Client) || e.Claims.User != nil && bad(*e.Claims.User) {
		return wrong(at, "typ, vct and claims of type %q are texts; integers are for %q", TypeSDJWT, TypeSDCWT)
	}
	return nil
}

// sourcesOf lists which sources of keys each type has.
var sourcesOf = map[string][]string{
	TypeX509:  {SourceAnchors},
	TypeSDJWT: {SourceAnchors, SourceJWKSFile, SourceJWKSURI, SourceJWTVCIssuer},
	TypeSDCWT: {SourceAnchors, SourceJWKSFile, SourceJWKSURI, SourceJWTVCIssuer, SourceCOSEFile, SourceCOSEURI},
}

func (k *KeysConfig) check(at string, e *IssuerConfig) error {
	if err := oneOf(at+".source", k.Source, sourcesOf[e.Type]...); err != nil {
		return err
	}
	anchors := k.Source == SourceAnchors
	fetched := k.Source == SourceJWKSURI || k.Source == SourceCOSEURI
	switch {
	case !anchors && (k.Pins != nil || k.Intermediates != ""):
		return wrong(at, "pins and intermediates are for source %q", SourceAnchors)
	case anchors && k.File == "" && len(k.Pins) == 0:
		return wrong(at, "source %q needs a file of certificates, or pins", SourceAnchors)
	case len(k.Pins) > maxList:
		return wrong(at+".pins", "more than %d", maxList)
	case strings.HasSuffix(k.Source, "_file") && k.File == "":
		return wrong(at+".file", "is required with source %q", k.Source)
	case (fetched || k.Source == SourceJWTVCIssuer) && k.File != "":
		return wrong(at+".file", "source %q reads no file", k.Source)
	case !fetched && k.URI != "":
		return wrong(at+".uri", "source %q fetches from no configured URI", k.Source)
	case k.CAFile != "" && !fetched && k.Source != SourceJWTVCIssuer:
		return wrong(at+".ca_file", "source %q fetches nothing", k.Source)
	}
	for i, pin := range k.Pins {
		if b, err := hex.DecodeString(pin); err != nil || len(b) != sha256.Size {
			return wrong(fmt.Sprintf("%s.pins[%d]", at, i), "is not a SHA-256 in hexadecimal")
		}
	}
	return k.checkURLs(at, e, fetched)
}

func (k *KeysConfig) checkURLs(at string, e *IssuerConfig, fetched bool) error {
	if fetched {
		if _, err := safehttp.CheckURL(k.URI, false); err != nil {
			return wrong(at+".uri", "%w", err)
		}
	}
	if k.Source == SourceJWTVCIssuer {
		if _, err := metadataURL(e.Iss); err != nil {
			return wrong(at+".source", "%q needs an https iss: %w", k.Source, err)
		}
	}
	return nil
}

func (e *IssuerConfig) checkGrants(at string) error {
	if len(e.Grants) == 0 || len(e.Grants) > maxList {
		return wrong(at, "an issuer needs 1 to %d grants: without one it may speak for nobody", maxList)
	}
	for i, g := range e.Grants {
		if _, err := newGrant(fmt.Sprintf("%s[%d]", at, i), g); err != nil {
			return err
		}
	}
	return nil
}

// methodsOf lists how the revocation of each type is learned.
var methodsOf = map[string][]string{
	TypeX509:  {MethodOCSP, MethodCRL},
	TypeSDJWT: {MethodStatusList},
	TypeSDCWT: {MethodStatusList},
}

// methods lists the ways that an entry may name: one whose tokens bring
// certificates has those of certificates too.
func (e *IssuerConfig) methods() []string {
	if e.Type != TypeX509 && e.Keys.Source == SourceAnchors {
		return slices.Concat(methodsOf[e.Type], methodsOf[TypeX509])
	}
	return methodsOf[e.Type]
}

func (r *RevocationConfig) check(at string, e *IssuerConfig) error {
	if r.Mode != "" {
		if err := oneOf(at+".mode", r.Mode, ModeHard, ModeSoft, ModeNone); err != nil {
			return err
		}
	}
	for i, m := range r.Methods {
		if err := oneOf(fmt.Sprintf("%s.methods[%d]", at, i), m, e.methods()...); err != nil {
			return err
		}
	}
	if r.MaxStaleS != nil {
		if err := within(at+".max_stale_s", *r.MaxStaleS, 0, 30*day); err != nil {
			return err
		}
	}
	token := e.Type != TypeX509
	switch {
	case r.Mode == ModeNone && (r.Methods != nil || r.CRL != nil || r.DeltaCRL != nil || r.OCSP != nil || r.StatusPrefixes != nil):
		return wrong(at, "mode %q asks nobody; leave the rest out", ModeNone)
	case token && e.Keys.Source != SourceAnchors && r.asksOfCertificates():
		return wrong(at, "crl, ocsp and follow_certificates are for type %q, and for tokens with keys of source %q", TypeX509, SourceAnchors)
	case !token && (r.StatusPrefixes != nil || r.StatusIssuer != "" || r.StatusFormats != nil):
		return wrong(at, "status_prefixes, status_issuer and status_formats are for tokens")
	case r.DeltaCRL != nil && r.CRL == nil && !r.FollowCertificates:
		return wrong(at+".delta_crl", "completes a full CRL; name that as crl, or set follow_certificates")
	case len(r.CRL) > 64 || len(r.DeltaCRL) > 64 || len(r.OCSP) > 64 || len(r.StatusPrefixes) > maxList:
		return wrong(at, "a list that is too long")
	}
	return r.checkURLs(at)
}

// asksOfCertificates reports whether it says whom to ask of certificates.
func (r *RevocationConfig) asksOfCertificates() bool {
	return r.CRL != nil || r.OCSP != nil || r.FollowCertificates
}

func (r *RevocationConfig) checkURLs(at string) error {
	if err := firstError(checkCRLs(at+".crl", r.CRL), checkCRLs(at+".delta_crl", r.DeltaCRL)); err != nil {
		return err
	}
	for i, u := range r.OCSP {
		if _, err := safehttp.CheckURL(u, true); err != nil {
			return wrong(fmt.Sprintf("%s.ocsp[%d]", at, i), "%w", err)
		}
	}
	for i, p := range r.StatusPrefixes {
		u, err := safehttp.CheckURL(p, false)
		if err != nil {
			return wrong(fmt.Sprintf("%s.status_prefixes[%d]", at, i), "%w", err)
		}
		if u.Path == "" {
			return wrong(fmt.Sprintf("%s.status_prefixes[%d]", at, i), "ends in its host; end it in a slash, or another host may begin alike")
		}
	}
	for i, f := range r.StatusFormats {
		if err := oneOf(fmt.Sprintf("%s.status_formats[%d]", at, i), f, "jwt", "cwt"); err != nil {
			return err
		}
	}
	return nil
}

// checkCRLs checks those that are URLs; the others are files.
func checkCRLs(at string, urls []string) error {
	for i, u := range urls {
		if !strings.Contains(u, "://") {
			continue
		}
		if _, err := safehttp.CheckURL(u, true); err != nil {
			return wrong(fmt.Sprintf("%s[%d]", at, i), "%w", err)
		}
	}
	return nil
}

// coseNames are the names of fully specified algorithms in COSE (RFC 9864).
var coseNames = map[string]*credentials.Scheme{
	"ESP256": credentials.ECDSAP256, "ESP384": credentials.ECDSAP384, "ESP512": credentials.ECDSAP521, "Ed25519": credentials.Ed25519,
}

// schemeByName returns the scheme with a name of JOSE or COSE, or nil.
func schemeByName(alg string) *credentials.Scheme {
	for _, s := range credentials.Schemes() {
		if s.AcceptsJOSE(alg) {
			return s
		}
	}
	return coseNames[alg]
}
