package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/mimiuri"
)

// Limits on what a peer sends.
const (
	MaxCertificates = 8
	MaxCertificate  = 16 << 10 // octets
	DefaultSkew     = 2 * time.Minute
)

// A Mode says how much of an old or foreign profile is let pass.
type Mode int

const (
	// Strict wants id-kp-imUri in the leaf, and only mimi: URIs in the
	// subject alternative name.
	Strict Mode = iota
	// Compat also takes a leaf with no extended key usage, or with clientAuth
	// or anyExtendedKeyUsage (as the mock-up of draft-mahy-mimi-identity-05);
	// ignores URIs of other schemes; and takes the host of a hub from a
	// dNSName.
	Compat
)

// An Entry is one configured authority and how it is recognised. Chains are
// believed only up to an anchor of an entry; the operating system's roots are
// not used.
type Entry struct {
	Name          string
	Anchors       []*x509.Certificate
	Pins          []KeyID             // SHA-256 of the SubjectPublicKeyInfo of roots that senders include
	Intermediates []*x509.Certificate // to complete chains that leave them out
	Mode          Mode
}

// A Verifier judges certificate chains. It is safe for concurrent use.
type Verifier struct {
	entries []*Entry
	skew    time.Duration
}

// NewVerifier returns a Verifier of the given entries. Two entries with the
// same anchor key are an error, since a chain must lead to exactly one. skew is
// what clocks may differ by; 0 means DefaultSkew, negative means none.
func NewVerifier(skew time.Duration, entries ...Entry) (*Verifier, error) {
	if skew == 0 {
		skew = DefaultSkew
	}
	v := &Verifier{skew: max(skew, 0)}
	owner := map[KeyID]string{}
	names := map[string]bool{}
	for _, e := range entries {
		if names[e.Name] {
			return nil, fmt.Errorf("two issuer entries are named %q", e.Name)
		}
		names[e.Name] = true
		for _, id := range e.anchorKeys() {
			if other, taken := owner[id]; taken && other != e.Name {
				return nil, fmt.Errorf("issuer entries %q and %q have the same anchor key; a chain must lead to one entry", other, e.Name)
			}
			owner[id] = e.Name
		}
		v.entries = append(v.entries, &e)
	}
	return v, nil
}

func (e *Entry) anchorKeys() []KeyID {
	ids := slices.Clone(e.Pins)
	for _, a := range e.Anchors {
		ids = append(ids, sha256.Sum256(a.RawSubjectPublicKeyInfo))
	}
	return ids
}

// isAnchor reports whether c is trusted by itself. A certificate with a pinned
// key must have been signed by that key: what else it says, such as its
// constraints, would otherwise be anybody's word.
func (e *Entry) isAnchor(c *x509.Certificate) bool {
	if slices.ContainsFunc(e.Anchors, c.Equal) {
		return true
	}
	return slices.Contains(e.Pins, sha256.Sum256(c.RawSubjectPublicKeyInfo)) && named(c, c) && checkLink(c, c, 0) == nil
}

// A Role is the place in which a certificate is presented.
type Role int

const (
	RoleClient Role = iota // a leaf of a group
	RoleHub                // external_senders and the franking agent
)

// A Check is one chain to be judged.
type Check struct {
	// Certificates in DER, end entity first, as in an MLS Credential of type
	// x509: Certificate certificates<V>.
	Certificates [][]byte
	Role         Role
	// Scheme and SignatureKey are those of the cipher suite and of the leaf
	// node (or external sender) in MLS encoding.
	Scheme       *credentials.Scheme
	SignatureKey []byte
	// AnyKey is for looking at a certificate by itself, where there is no
	// leaf node. Scheme and SignatureKey are then not used.
	AnyKey bool
	// At is the time to judge by.
	At time.Time
	// Authorize decides whether the entry may speak for the names. Its error
	// is returned as it is; nil means that the caller decides later.
	Authorize func(*Result) error
	// Revocation decides whether a certificate of the path is revoked, given
	// its issuer. It is asked for each certificate below the anchor, the
	// anchor's neighbour first. nil means that the caller decides later.
	Revocation func(ctx context.Context, r *Result, cert, issuer *x509.Certificate) error
}

// A Result is what a chain that was accepted says.
type Result struct {
	Names
	Entry string              // name of the issuer entry
	Chain []*x509.Certificate // from the leaf to the anchor
	// NotBefore and NotAfter bound the time in which the whole chain is
	// valid, the anchor included.
	NotBefore, NotAfter time.Time
	Serial              *big.Int // of the leaf
	CRL, OCSP           []string // where the leaf says its revocation is published
}

// Verify judges a chain. The rules are applied in this order, so that the
// error is that of the first rule broken:
//
//  1. 1 to 8 certificates of at most 16 KiB, DER without trailing octets,
//     none twice: malformed
//  2. the leaf's key is of the suite's scheme: cnf-curve; and is the
//     signature key: cnf-leaf-mismatch
//  3. each certificate is certified by the next, in the order sent: chain
//  4. the path ends in an anchor of exactly one entry: issuer-unknown;
//     validity: expired, not-yet-valid; CA, path length and key usage: chain;
//     name constraints: name-constraint; extensions: critical-extension
//  5. SHA-1, MD5, RSA below 2048 bits or above 8192: alg (before 3, where
//     without it the signature could not be verified)
//  6. the leaf's usage: key-usage
//  7. the intermediates' extended key usage: key-usage
//  8. the names: identity-missing, identity-malformed, identity-host-mismatch
//  9. Authorize: identity-unauthorized
//  10. Revocation: revoked, suspended, status-unavailable
func (v *Verifier) Verify(ctx context.Context, c Check) (*Result, error) {
	sent, err := parseChain(c.Certificates)
	if err != nil {
		return nil, err
	}
	if err := c.matchKey(sent[0]); err != nil {
		return nil, err
	}
	if err := checkLinks(sent); err != nil {
		return nil, err
	}
	entry, path, err := v.findPath(sent)
	if err != nil {
		return nil, err
	}
	if err := v.checkPath(path, c.At); err != nil {
		return nil, err
	}
	if err := checkUsage(path, entry.Mode); err != nil {
		return nil, err
	}
	names, err := leafNames(path[0], c.Role, entry.Mode)
	if err != nil {
		return nil, err
	}
	r := newResult(names, entry, path)
	if err := c.decide(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

func newResult(names Names, entry *Entry, path []*x509.Certificate) *Result {
	r := &Result{Names: names, Entry: entry.Name, Chain: path, Serial: path[0].SerialNumber, CRL: path[0].CRLDistributionPoints, OCSP: path[0].OCSPServer}
	r.NotBefore, r.NotAfter = path[0].NotBefore, path[0].NotAfter
	for _, c := range path[1:] {
		r.NotAfter = minTime(r.NotAfter, c.NotAfter)
		if c.NotBefore.After(r.NotBefore) {
			r.NotBefore = c.NotBefore
		}
	}
	return r
}

// decide asks the two judges outside this package.
func (c *Check) decide(ctx context.Context, r *Result) error {
	if c.Authorize != nil {
		if err := c.Authorize(r); err != nil {
			return err
		}
	}
	if c.Revocation == nil {
		return nil
	}
	for n := len(r.Chain) - 2; n >= 0; n-- {
		if err := c.Revocation(ctx, r, r.Chain[n], r.Chain[n+1]); err != nil {
			return err
		}
	}
	return nil
}

// parseChain is rule 1.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > MaxCertificates {
		return nil, credentials.Errorf(credentials.CodeMalformed, "certificates", "%d certificates, want 1 to %d", len(ders), MaxCertificates)
	}
	chain := make([]*x509.Certificate, len(ders))
	for n, der := range ders {
		if len(der) > MaxCertificate {
			return nil, credentials.Errorf(credentials.CodeMalformed, where(n), "%d octets, want at most %d", len(der), MaxCertificate)
		}
		if slices.ContainsFunc(ders[:n], func(d []byte) bool { return bytes.Equal(d, der) }) {
			return nil, credentials.Errorf(credentials.CodeMalformed, where(n), "is sent twice")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, credentials.Errorf(credentials.CodeMalformed, where(n), "not a certificate in DER: %w", err)
		}
		chain[n] = cert
	}
	return chain, nil
}

func where(n int) string {
	if n == 0 {
		return "certificate 0 (leaf)"
	}
	return fmt.Sprintf("certificate %d", n)
}

// matchKey is rule 2.
func (c *Check) matchKey(leaf *x509.Certificate) error {
	scheme, err := credentials.SchemeOf(leaf.PublicKey)
	if err != nil {
		return credentials.Errorf(credentials.CodeCnfCurve, where(0), "%w", err)
	}
	if c.AnyKey {
		return nil
	}
	if c.Scheme == nil || scheme != c.Scheme {
		return credentials.Errorf(credentials.CodeCnfCurve, where(0), "key is for %v, the cipher suite has %v", scheme, c.Scheme)
	}
	point, err := credentials.MLSPublicKey(leaf.PublicKey)
	if err != nil || !bytes.Equal(point, c.SignatureKey) {
		return credentials.Errorf(credentials.CodeCnfLeafMismatch, where(0), "key is not the signature key of the leaf node")
	}
	return nil
}

// checkUsage is rules 6 and 7.
func checkUsage(path []*x509.Certificate, mode Mode) error {
	leaf := path[0]
	if leaf.IsCA {
		return credentials.Errorf(credentials.CodeKeyUsage, where(0), "is a CA certificate")
	}
	if extension(leaf.Extensions, oidKeyUsage) != nil && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return credentials.Errorf(credentials.CodeKeyUsage, where(0), "key usage without digitalSignature")
	}
	if !leafUsageAllowed(leaf, mode) {
		return credentials.Errorf(credentials.CodeKeyUsage, where(0), "extended key usage without id-kp-imUri")
	}
	for n, c := range path[1 : len(path)-1] {
		if hasEKU(c) && !hasOID(c.UnknownExtKeyUsage, OIDIMURI) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return credentials.Errorf(credentials.CodeKeyUsage, where(n+1), "extended key usage of the CA has neither id-kp-imUri nor anyExtendedKeyUsage")
		}
	}
	return nil
}

func leafUsageAllowed(leaf *x509.Certificate, mode Mode) bool {
	if hasOID(leaf.UnknownExtKeyUsage, OIDIMURI) {
		return true
	}
	if mode != Compat {
		return false
	}
	return !hasEKU(leaf) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

func hasEKU(c *x509.Certificate) bool { return extension(c.Extensions, oidExtKeyUsage) != nil }

// leafNames is rule 8.
func leafNames(leaf *x509.Certificate, role Role, mode Mode) (Names, error) {
	alt, err := readAltNames(leaf.Extensions, where(0))
	if err != nil {
		return Names{}, err
	}
	uris := alt.uris
	if mode == Compat {
		uris = slices.DeleteFunc(slices.Clone(uris), func(s string) bool { return !isMIMI(s) })
	}
	if role == RoleHub && mode == Compat && len(uris) == 0 {
		return hubFromDNS(alt.dns)
	}
	names, err := namesOf(uris, where(0))
	if err != nil {
		return names, err
	}
	if names.IsHub() != (role == RoleHub) {
		return Names{}, credentials.Errorf(credentials.CodeIdentityMalformed, where(0), "%q: the names of a hub serve no client, and those of a client no hub", names.URIs())
	}
	return names, nil
}

func isMIMI(s string) bool { return len(s) >= 5 && strings.EqualFold(s[:5], "mimi:") }

func hubFromDNS(dns []string) (Names, error) {
	if len(dns) != 1 {
		return Names{}, credentials.Errorf(credentials.CodeIdentityMissing, where(0), "%d DNS names, want one, or better the URI mimi://<host>", len(dns))
	}
	p, err := mimiuri.New(dns[0], mimiuri.Provider)
	if err != nil {
		return Names{}, credentials.Errorf(credentials.CodeIdentityMalformed, where(0), "%.100q: %w", dns[0], err)
	}
	return Names{Provider: p}, nil
}

var errNoEntry = errors.New("no issuer entry has the CA that the chain leads to")
