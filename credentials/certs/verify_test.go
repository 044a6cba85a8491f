package certs_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A forge is a root, an issuing CA and a device that are made with package
// x509 directly, so that every field can be wrong.
type forge struct {
	t                 testing.TB
	rootKey, caKey    crypto.Signer
	leafKey           crypto.Signer
	root, ca          *x509.Certificate
	rootTmpl          *x509.Certificate
	caTmpl, leafTmpl  *x509.Certificate
	leafPub           crypto.PublicKey // nil means that of leafKey
	uris              []string
	dns               []string
	noSAN             bool
	entry             certs.Entry
	role              certs.Role
	compat            bool
	order             func(leaf, ca, root *x509.Certificate) [][]byte
	change            func(c *certs.Check)
	between           func(f *forge) // after the CA, before the leaf
	unknownAnchorOnly bool
}

func newForge(t testing.TB) *forge {
	return &forge{
		t: t, rootKey: p256(t), caKey: p256(t), leafKey: p256(t),
		rootTmpl: &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: t0.Add(-time.Hour), NotAfter: t0.Add(1000 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: 1, SubjectKeyId: []byte{1},
		},
		caTmpl: &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "issuing"}, NotBefore: t0.Add(-time.Hour), NotAfter: t0.Add(900 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: 0, MaxPathLenZero: true, SubjectKeyId: []byte{2},
			PermittedURIDomains: []string{"acme.example"}, PermittedDNSDomainsCritical: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI},
		},
		leafTmpl: &x509.Certificate{
			SerialNumber: big.NewInt(3), NotBefore: t0.Add(-time.Hour), NotAfter: t0.Add(500 * time.Hour), BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI},
		},
		uris: []string{clientURI, userURI},
	}
}

func create(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	return mustParse(t, createDER(t, tmpl, parent, pub, key))
}

func createDER(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) []byte {
	t.Helper()
	p := *parent
	p.PublicKey = nil // package x509 would refuse a key that does not fit
	der, err := x509.CreateCertificate(rand.Reader, tmpl, &p, pub, key)
	must(t, err)
	return der
}

// san encodes a subject alternative name octet for octet.
func san(t testing.TB, critical bool, uris, dns []string) pkix.Extension {
	t.Helper()
	var names []asn1.RawValue
	for _, u := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	for _, d := range dns {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)})
	}
	der, err := asn1.Marshal(names)
	must(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: der}
}

// run forges the chain and verifies it.
func (f *forge) run() (*certs.Result, error) {
	t := f.t
	f.root = create(t, f.rootTmpl, f.rootTmpl, f.rootKey.Public(), f.rootKey)
	f.ca = create(t, f.caTmpl, f.root, f.caKey.Public(), f.rootKey)
	if f.between != nil {
		f.between(f)
	}
	if !f.noSAN {
		f.leafTmpl.ExtraExtensions = append(f.leafTmpl.ExtraExtensions, san(t, true, f.uris, f.dns))
	}
	pub := f.leafPub
	if pub == nil {
		pub = f.leafKey.Public()
	}
	leaf := &x509.Certificate{Raw: createDER(t, f.leafTmpl, f.ca, pub, f.caKey)} // not parsed: it may be malformed
	check := checkOf(t, f.leafKey.Public(), leaf, f.ca)
	check.Role = f.role
	if f.order != nil {
		check.Certificates = f.order(leaf, f.ca, f.root)
	}
	if f.change != nil {
		f.change(&check)
	}
	f.entry.Name, f.entry.Anchors = "forge", append(f.entry.Anchors, f.root)
	if f.compat {
		f.entry.Mode = certs.Compat
	}
	if f.unknownAnchorOnly {
		f.entry.Anchors = []*x509.Certificate{create(t, f.rootTmpl, f.rootTmpl, f.leafKey.Public(), f.leafKey)}
	}
	v, err := certs.NewVerifier(0, f.entry)
	must(t, err)
	return v.Verify(t.Context(), check)
}

func ders(list ...*x509.Certificate) (out [][]byte) {
	for _, c := range list {
		out = append(out, c.Raw)
	}
	return out
}

func uris(list ...string) func(*forge) { return func(f *forge) { f.uris = list } }

// unknownCritical is an extension that nobody knows.
var unknownCritical = pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7}, Critical: true, Value: []byte{5, 0}}

// weakRSA is a key of 1024 bits, which crypto/rsa makes only on demand.
func weakRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	return key
}

var refusedChains = []struct {
	name string
	code credentials.Code
	do   func(f *forge)
}{
	// Rule 1.
	{"no certificate", credentials.CodeMalformed, func(f *forge) { f.order = func(_, _, _ *x509.Certificate) [][]byte { return nil } }},
	{"nine certificates", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte {
			return append(ders(l, c), make([][]byte, 7)...)
		}
	}},
	{"trailing octet", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return [][]byte{append(bytes.Clone(l.Raw), 0), c.Raw} }
	}},
	{"cut short", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return [][]byte{l.Raw[:len(l.Raw)-1], c.Raw} }
	}},
	{"too large", credentials.CodeMalformed, func(f *forge) {
		f.leafTmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 8}, Value: make([]byte, certs.MaxCertificate)}}
	}},
	{"leaf twice", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return ders(l, l, c) }
	}},
	{"CA twice (a loop)", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return ders(l, c, c) }
	}},
	{"not DER", credentials.CodeMalformed, func(f *forge) {
		f.order = func(_, _, _ *x509.Certificate) [][]byte { return [][]byte{[]byte("-----BEGIN CERTIFICATE-----")} }
	}},
	{"empty certificate", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return [][]byte{l.Raw, {}, c.Raw} }
	}},
	{"octet after the CA", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return [][]byte{l.Raw, append(bytes.Clone(c.Raw), 0)} }
	}},
	{"PKCS#7 in the place of a chain", credentials.CodeMalformed, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte {
			return [][]byte{derSeq(derOID(1, 2, 840, 113549, 1, 7, 2), derCtx(0, l.Raw, c.Raw))}
		}
	}},
	{"URI with an invalid host", credentials.CodeMalformed, uris("mimi://a b.example/d/x", userURI)},
	{"URI with UTF-8", credentials.CodeMalformed, uris("mimi://acme.example/d/bücher", userURI)},
	{"two alternative names", credentials.CodeMalformed, func(f *forge) {
		f.leafTmpl.ExtraExtensions = []pkix.Extension{san(f.t, true, []string{clientURI}, nil)}
	}},
	// Rule 2.
	{"key of another curve", credentials.CodeCnfCurve, func(f *forge) { f.leafPub = mustKey(f.t, credentials.ECDSAP384).Public() }},
	{"RSA leaf", credentials.CodeCnfCurve, func(f *forge) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(f.t, err)
		f.leafPub = key.Public()
	}},
	{"P-224 leaf", credentials.CodeCnfCurve, func(f *forge) {
		key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		must(f.t, err)
		f.leafPub = key.Public()
	}},
	{"no scheme asked", credentials.CodeCnfCurve, func(f *forge) { f.change = func(c *certs.Check) { c.Scheme = nil } }},
	{"other key of the same curve", credentials.CodeCnfLeafMismatch, func(f *forge) { f.leafPub = p256(f.t).Public() }},
	{"no signature key", credentials.CodeCnfLeafMismatch, func(f *forge) { f.change = func(c *certs.Check) { c.SignatureKey = nil } }},
	{"signature key with an octet more", credentials.CodeCnfLeafMismatch, func(f *forge) {
		f.change = func(c *certs.Check) { c.SignatureKey = append(c.SignatureKey, 0) }
	}},
	// Rule 3.
	{"reordered", credentials.CodeCnfLeafMismatch, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return ders(c, l) }
	}},
	{"reordered above the leaf", credentials.CodeChain, func(f *forge) {
		f.order = func(l, c, r *x509.Certificate) [][]byte { return ders(l, r, c) }
	}},
	{"a stranger after the leaf", credentials.CodeChain, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte {
			o := create(f.t, f.rootTmpl, f.rootTmpl, f.leafKey.Public(), f.leafKey)
			return ders(l, o, c)
		}
	}},
	{"a stranger after the root", credentials.CodeChain, func(f *forge) {
		f.order = func(l, c, r *x509.Certificate) [][]byte {
			tmpl := *f.rootTmpl
			tmpl.Subject.CommonName = "stranger"
			return ders(l, c, r, create(f.t, &tmpl, &tmpl, f.leafKey.Public(), f.leafKey))
		}
	}},
	{"leaf signed by another key", credentials.CodeChain, func(f *forge) { f.between = func(f *forge) { f.caKey = p256(f.t) } }},
	{"CA of the same name, other key identifier", credentials.CodeChain, func(f *forge) {
		f.order = func(l, _, _ *x509.Certificate) [][]byte {
			tmpl := *f.caTmpl
			tmpl.SubjectKeyId = []byte{9}
			return ders(l, create(f.t, &tmpl, f.root, f.caKey.Public(), f.rootKey))
		}
	}},
	{"signature changed", credentials.CodeChain, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte {
			der := bytes.Clone(l.Raw)
			der[len(der)-1] ^= 1
			return [][]byte{der, c.Raw}
		}
	}},
	{"CA signed by another root of the same name and key identifier", credentials.CodeChain, func(f *forge) {
		f.unknownAnchorOnly = true
	}},
	// Rule 4.
	{"no such issuer", credentials.CodeIssuerUnknown, func(f *forge) {
		f.order = func(l, _, _ *x509.Certificate) [][]byte { return ders(l) }
	}},
	{"self-signed leaf", credentials.CodeIssuerUnknown, func(f *forge) {
		f.order = func(_, _, _ *x509.Certificate) [][]byte {
			tmpl := *f.leafTmpl
			tmpl.Subject.CommonName = "self"
			return ders(create(f.t, &tmpl, &tmpl, f.leafKey.Public(), f.leafKey))
		}
	}},
	{"expired leaf", credentials.CodeExpired, func(f *forge) { f.leafTmpl.NotAfter = t0.Add(-3 * time.Minute) }},
	{"leaf of tomorrow", credentials.CodeNotYetValid, func(f *forge) { f.leafTmpl.NotBefore = t0.Add(3 * time.Minute) }},
	{"expired intermediate", credentials.CodeExpired, func(f *forge) { f.caTmpl.NotAfter = t0.Add(-3 * time.Minute) }},
	{"intermediate of tomorrow", credentials.CodeNotYetValid, func(f *forge) { f.caTmpl.NotBefore = t0.Add(3 * time.Minute) }},
	{"expired anchor", credentials.CodeExpired, func(f *forge) { f.rootTmpl.NotAfter = t0.Add(-3 * time.Minute) }},
	{"intermediate is no CA", credentials.CodeChain, func(f *forge) {
		f.caTmpl.IsCA, f.caTmpl.MaxPathLen, f.caTmpl.MaxPathLenZero = false, 0, false
		f.caTmpl.PermittedURIDomains = nil
	}},
	{"intermediate without basicConstraints", credentials.CodeChain, func(f *forge) {
		f.caTmpl.BasicConstraintsValid, f.caTmpl.IsCA, f.caTmpl.MaxPathLen, f.caTmpl.MaxPathLenZero = false, false, 0, false
	}},
	{"intermediate without keyCertSign", credentials.CodeChain, func(f *forge) { f.caTmpl.KeyUsage = x509.KeyUsageCRLSign }},
	{"anchor without keyCertSign", credentials.CodeChain, func(f *forge) { f.rootTmpl.KeyUsage = x509.KeyUsageCRLSign }},
	{"path length of the anchor", credentials.CodeChain, func(f *forge) { f.rootTmpl.MaxPathLen, f.rootTmpl.MaxPathLenZero = 0, true }},
	{"path length of the intermediate", credentials.CodeChain, subCA},
	{"host outside the constraint", credentials.CodeNameConstraint, uris("mimi://globex.example/d/a/b", "mimi://globex.example/u/a")},
	{"subdomain of the constraint", credentials.CodeNameConstraint, uris("mimi://sub.acme.example/d/a/b", "mimi://sub.acme.example/u/a")},
	{"one of two hosts outside", credentials.CodeNameConstraint, uris(clientURI, "mimi://globex.example/u/a")},
	{"suffix of the constraint", credentials.CodeNameConstraint, uris("mimi://acme.example.evil/d/a/b", "mimi://acme.example.evil/u/a")},
	{"IP address under a constraint", credentials.CodeNameConstraint, uris("mimi://1.2.3.4/d/a/b", "mimi://1.2.3.4/u/a")},
	{"URI without a host under a constraint", credentials.CodeNameConstraint, uris("urn:uuid:1", clientURI, userURI)},
	{"domain itself under a leading dot", credentials.CodeNameConstraint, func(f *forge) { f.caTmpl.PermittedURIDomains = []string{".acme.example"} }},
	{"excluded host", credentials.CodeNameConstraint, func(f *forge) {
		f.caTmpl.PermittedURIDomains, f.caTmpl.ExcludedURIDomains = nil, []string{"acme.example"}
	}},
	{"host outside the anchor's constraint", credentials.CodeNameConstraint, func(f *forge) { f.rootTmpl.PermittedURIDomains = []string{"globex.example"} }},
	{"DNS name outside a DNS constraint", credentials.CodeNameConstraint, func(f *forge) {
		f.caTmpl.PermittedDNSDomains, f.dns = []string{"acme.example"}, []string{"globex.example"}
	}},
	{"unknown critical extension in the leaf", credentials.CodeCriticalExtension, func(f *forge) { f.leafTmpl.ExtraExtensions = []pkix.Extension{unknownCritical} }},
	{"unknown critical extension in the CA", credentials.CodeCriticalExtension, func(f *forge) { f.caTmpl.ExtraExtensions = []pkix.Extension{unknownCritical} }},
	{"unknown critical extension in the anchor", credentials.CodeCriticalExtension, func(f *forge) { f.rootTmpl.ExtraExtensions = []pkix.Extension{unknownCritical} }},
	// Rule 5.
	{"RSA-1024 intermediate", credentials.CodeAlg, func(f *forge) { f.caKey = weakRSA(f.t) }},
	{"RSA-1024 anchor", credentials.CodeAlg, func(f *forge) { f.rootKey = weakRSA(f.t) }},
	{"SHA-1 leaf", credentials.CodeAlg, func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return [][]byte{sha1Signed(f, l), c.Raw} }
	}},
	{"P-224 intermediate", credentials.CodeAlg, func(f *forge) {
		key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		must(f.t, err)
		f.caKey = key
	}},
	// Rule 6.
	{"CA as leaf", credentials.CodeKeyUsage, func(f *forge) {
		f.leafTmpl.IsCA, f.leafTmpl.Subject.CommonName = true, "leaf"
		f.leafTmpl.KeyUsage |= x509.KeyUsageCertSign
	}},
	{"key usage without digitalSignature", credentials.CodeKeyUsage, func(f *forge) { f.leafTmpl.KeyUsage = x509.KeyUsageKeyAgreement }},
	{"serverAuth", credentials.CodeKeyUsage, func(f *forge) {
		f.leafTmpl.UnknownExtKeyUsage, f.leafTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}},
	{"clientAuth in strict mode", credentials.CodeKeyUsage, func(f *forge) {
		f.leafTmpl.UnknownExtKeyUsage, f.leafTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}},
	{"any usage in strict mode", credentials.CodeKeyUsage, func(f *forge) {
		f.leafTmpl.UnknownExtKeyUsage, f.leafTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}},
	{"no extended key usage in strict mode", credentials.CodeKeyUsage, func(f *forge) { f.leafTmpl.UnknownExtKeyUsage = nil }},
	{"serverAuth in compat mode", credentials.CodeKeyUsage, func(f *forge) {
		f.compat = true
		f.leafTmpl.UnknownExtKeyUsage, f.leafTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}},
	// Rule 7.
	{"intermediate for TLS servers", credentials.CodeKeyUsage, func(f *forge) {
		f.caTmpl.UnknownExtKeyUsage, f.caTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}},
	{"intermediate for code", credentials.CodeKeyUsage, func(f *forge) {
		f.caTmpl.UnknownExtKeyUsage, f.caTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}},
	{"intermediate for TLS clients, compat", credentials.CodeKeyUsage, func(f *forge) {
		f.compat = true
		f.caTmpl.UnknownExtKeyUsage, f.caTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}},
	// Rule 8.
	{"no alternative name", credentials.CodeIdentityMissing, func(f *forge) { f.noSAN, f.leafTmpl.Subject.CommonName = true, userURI }},
	{"no URI", credentials.CodeIdentityMissing, func(f *forge) { f.uris, f.dns = nil, []string{"acme.example"} }},
	{"no user", credentials.CodeIdentityMissing, uris(clientURI)},
	{"no client", credentials.CodeIdentityMissing, uris(userURI)},
	{"two clients", credentials.CodeIdentityMalformed, uris(clientURI, "mimi://acme.example/d/alice/laptop", userURI)},
	{"the same client twice", credentials.CodeIdentityMalformed, uris(clientURI, clientURI, userURI)},
	{"two users", credentials.CodeIdentityMalformed, uris(clientURI, userURI, "mimi://acme.example/u/bob")},
	{"user and pseudonym", credentials.CodeIdentityMalformed, uris(clientURI, userURI, "mimi://acme.example/p/x")},
	{"upper-case host", credentials.CodeIdentityMalformed, uris("mimi://ACME.example/d/alice/phone", userURI)},
	{"upper-case scheme", credentials.CodeIdentityMalformed, uris("MIMI://acme.example/d/alice/phone", userURI)},
	{"port", credentials.CodeIdentityMalformed, uris("mimi://acme.example:443/d/alice/phone", userURI)},
	{"needless escape", credentials.CodeIdentityMalformed, uris("mimi://acme.example/d/b%6Fb/phone", userURI)},
	{"lower-case escape", credentials.CodeIdentityMalformed, uris("mimi://acme.example/d/b%2fb/phone", userURI)},
	{"query", credentials.CodeIdentityMalformed, uris(clientURI+"?x", userURI)},
	{"fragment", credentials.CodeIdentityMalformed, uris(clientURI+"#x", userURI)},
	{"user information", credentials.CodeIdentityMalformed, uris("mimi://me@acme.example/d/alice/phone", userURI)},
	{"empty segment", credentials.CodeIdentityMalformed, uris("mimi://acme.example/d/", userURI)},
	{"dot segments", credentials.CodeIdentityMalformed, uris("mimi://acme.example/d/alice/../bob", userURI)},
	{"unknown kind", credentials.CodeIdentityMalformed, uris("mimi://acme.example/b/bob", clientURI, userURI)},
	{"room beside a client", credentials.CodeIdentityMalformed, uris(clientURI, userURI, "mimi://acme.example/r/club")},
	{"provider beside a client", credentials.CodeIdentityMalformed, uris(clientURI, userURI, "mimi://acme.example")},
	{"https URI in strict mode", credentials.CodeIdentityMalformed, uris("https://acme.example/u/alice", clientURI, userURI)},
	{"upper-case scheme in compat mode", credentials.CodeIdentityMalformed, func(f *forge) {
		f.compat = true
		f.uris = []string{"MIMI://acme.example/d/x", clientURI, userURI}
	}},
	{"two hosts", credentials.CodeIdentityHostMismatch, func(f *forge) {
		f.caTmpl.PermittedURIDomains = []string{"acme.example", "globex.example"}
		f.uris = []string{clientURI, "mimi://globex.example/u/alice"}
	}},
	{"device as hub", credentials.CodeIdentityMalformed, func(f *forge) { f.role = certs.RoleHub }},
	{"hub as device", credentials.CodeIdentityMalformed, uris("mimi://acme.example")},
	{"two providers", credentials.CodeIdentityMalformed, func(f *forge) {
		f.role, f.uris = certs.RoleHub, []string{"mimi://acme.example", "mimi://acme.example"}
	}},
	{"hub by DNS name in strict mode", credentials.CodeIdentityMissing, func(f *forge) {
		f.role, f.uris, f.dns = certs.RoleHub, nil, []string{"acme.example"}
	}},
	{"hub by two DNS names", credentials.CodeIdentityMissing, func(f *forge) {
		f.compat, f.role, f.uris, f.dns = true, certs.RoleHub, nil, []string{"acme.example", "b.example"}
	}},
	{"hub by a wildcard", credentials.CodeIdentityMalformed, func(f *forge) {
		f.compat, f.role, f.uris, f.dns = true, certs.RoleHub, nil, []string{"*.acme.example"}
	}},
	{"slash at the end", credentials.CodeIdentityMalformed, uris(clientURI, userURI+"/")},
	{"two slashes", credentials.CodeIdentityMalformed, uris("mimi://acme.example//d/alice/phone", userURI)},
	{"dot at the end of the host", credentials.CodeMalformed, uris("mimi://acme.example./d/alice/phone", userURI)},
	{"no host", credentials.CodeNameConstraint, uris("mimi:///d/alice/phone", userURI)},
	{"no slashes before the host", credentials.CodeNameConstraint, uris("mimi:acme.example/d/alice/phone", userURI)},
	{"escape that is cut", credentials.CodeMalformed, uris("mimi://acme.example/d/alice%2/phone", userURI)},
	{"escaped slash in a user", credentials.CodeIdentityMalformed, uris(clientURI, "mimi://acme.example/u%2Falice")},
	{"hub with a path", credentials.CodeIdentityMalformed, func(f *forge) {
		f.role, f.uris = certs.RoleHub, []string{"mimi://acme.example/"}
	}},
	// Rules 9 and 10.
	{"not authorised", credentials.CodeIdentityUnauthorized, func(f *forge) {
		f.change = func(c *certs.Check) {
			c.Authorize = func(*certs.Result) error {
				return credentials.Errorf(credentials.CodeIdentityUnauthorized, "", "no grant")
			}
			c.Revocation = func(context.Context, *certs.Result, *x509.Certificate, *x509.Certificate) error {
				return errors.New("asked too early")
			}
		}
	}},
	{"revoked", credentials.CodeRevoked, func(f *forge) {
		f.change = func(c *certs.Check) {
			c.Revocation = func(context.Context, *certs.Result, *x509.Certificate, *x509.Certificate) error {
				return credentials.Errorf(credentials.CodeRevoked, "", "yes")
			}
		}
	}},
}

// subCA puts a second CA below one of path length 0.
func subCA(f *forge) {
	f.rootTmpl.MaxPathLen = 5
	f.between = func(f *forge) {
		first := f.ca
		tmpl := *f.caTmpl
		tmpl.Subject.CommonName, tmpl.SubjectKeyId = "below", []byte{7}
		key := p256(f.t)
		f.ca = create(f.t, &tmpl, first, key.Public(), f.caKey)
		f.caKey = key
		f.order = func(l, c, _ *x509.Certificate) [][]byte { return ders(l, c, first) }
	}
}

// sha1Signed returns a certificate with the algorithm ecdsa-with-SHA1 in place
// of ecdsa-with-SHA256, both outside and inside.
func sha1Signed(f *forge, c *x509.Certificate) []byte {
	sha256OID, sha1OID := []byte{0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}, []byte{0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1}
	if n := bytes.Count(c.Raw, sha256OID); n != 2 {
		f.t.Fatalf("%d algorithm identifiers", n)
	}
	var cert struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}
	_, err := asn1.Unmarshal(c.Raw, &cert)
	must(f.t, err)
	old := append([]byte{0x30, 10}, sha256OID...)
	inner := bytes.Replace(cert.TBS.Bytes, old, append([]byte{0x30, 9}, sha1OID...), 1)
	cert.TBS = asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: inner}
	cert.Alg.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	der, err := asn1.Marshal(cert)
	must(f.t, err)
	return der
}

func TestRefusedChains(t *testing.T) {
	if n := len(refusedChains); n < 100 {
		t.Fatalf("only %d cases", n)
	}
	if _, err := newForge(t).run(); err != nil {
		t.Fatalf("the chain with nothing wrong: %v", err)
	}
	for _, tt := range refusedChains {
		t.Run(tt.name, func(t *testing.T) {
			f := newForge(t)
			tt.do(f)
			r, err := f.run()
			wantCode(t, err, tt.code)
			if r != nil {
				t.Error("a result with an error")
			}
			if err != nil && len(err.Error()) > 1500 {
				t.Errorf("error of %d octets", len(err.Error()))
			}
		})
	}
}

var acceptedChains = []struct {
	name string
	do   func(f *forge)
}{
	{"as issued", func(*forge) {}},
	{"root sent too", func(f *forge) { f.order = func(l, c, r *x509.Certificate) [][]byte { return ders(l, c, r) } }},
	{"pseudonym", uris(clientURI, "mimi://acme.example/p/x")},
	{"user first", uris(userURI, clientURI)},
	{"short client URI", uris("mimi://acme.example/d/phone", userURI)},
	{"another type of name beside", func(f *forge) { f.dns = []string{"phone.acme.example"} }},
	{"within the skew", func(f *forge) { f.leafTmpl.NotBefore = t0.Add(time.Minute) }},
	{"ended within the skew", func(f *forge) { f.leafTmpl.NotAfter = t0.Add(-time.Minute) }},
	{"critical extended key usage", func(f *forge) {
		der, err := asn1.Marshal([]asn1.ObjectIdentifier{certs.OIDIMURI})
		must(f.t, err)
		f.leafTmpl.UnknownExtKeyUsage = nil
		f.leafTmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: der}}
	}},
	{"unknown extension, not critical", func(f *forge) {
		ext := unknownCritical
		ext.Critical = false
		f.leafTmpl.ExtraExtensions = []pkix.Extension{ext}
	}},
	{"no key usage", func(f *forge) { f.leafTmpl.KeyUsage = 0 }},
	{"intermediate for any usage", func(f *forge) {
		f.caTmpl.UnknownExtKeyUsage, f.caTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}},
	{"intermediate without extended key usage", func(f *forge) { f.caTmpl.UnknownExtKeyUsage = nil }},
	{"subdomain under a leading dot", func(f *forge) {
		f.caTmpl.PermittedURIDomains = []string{".acme.example"}
		f.uris = []string{"mimi://sub.acme.example/d/a/b", "mimi://sub.acme.example/u/a"}
	}},
	{"subdomain of an excluded host", func(f *forge) {
		f.caTmpl.PermittedURIDomains, f.caTmpl.ExcludedURIDomains = nil, []string{"example"}
	}},
	{"DNS name inside a DNS constraint", func(f *forge) {
		f.caTmpl.PermittedDNSDomains, f.dns = []string{"acme.example"}, []string{"phone.acme.example"}
	}},
	{"RSA-2048 intermediate", func(f *forge) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(f.t, err)
		f.caKey = key
	}},
	{"mock-up of the draft, compat", func(f *forge) {
		f.compat = true
		f.leafTmpl.UnknownExtKeyUsage, f.leafTmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		f.leafTmpl.KeyUsage |= x509.KeyUsageKeyAgreement
	}},
	{"no extended key usage, compat", func(f *forge) { f.compat, f.leafTmpl.UnknownExtKeyUsage = true, nil }},
	{"https URI, compat", func(f *forge) { f.compat, f.uris = true, []string{"https://acme.example/u/alice", clientURI, userURI} }},
	{"hub", func(f *forge) { f.role, f.uris = certs.RoleHub, []string{"mimi://acme.example"} }},
	{"hub by DNS name, compat", func(f *forge) { f.compat, f.role, f.uris, f.dns = true, certs.RoleHub, nil, []string{"acme.example"} }},
	{"any key", func(f *forge) {
		f.change = func(c *certs.Check) { c.AnyKey, c.Scheme, c.SignatureKey = true, nil, nil }
	}},
	{"intermediate from the entry", func(f *forge) {
		f.order = func(l, c, _ *x509.Certificate) [][]byte {
			f.entry.Intermediates = []*x509.Certificate{c}
			return ders(l)
		}
	}},
	{"authorised, not revoked", func(f *forge) {
		asked := 0
		f.change = func(c *certs.Check) {
			c.Authorize = func(r *certs.Result) error { return nil }
			c.Revocation = func(_ context.Context, r *certs.Result, cert, issuer *x509.Certificate) error {
				asked++
				if cert.CheckSignatureFrom(issuer) != nil || asked == 2 && !cert.Equal(r.Chain[0]) || asked > 2 {
					return errors.New("asked for the wrong certificate")
				}
				return nil
			}
		}
	}},
}

func TestAcceptedChains(t *testing.T) {
	for _, tt := range acceptedChains {
		t.Run(tt.name, func(t *testing.T) {
			f := newForge(t)
			tt.do(f)
			r, err := f.run()
			if err != nil {
				t.Fatal(err)
			}
			if r.Host() == "" || r.Entry != "forge" || !r.Chain[len(r.Chain)-1].Equal(f.root) {
				t.Errorf("result %+v", r)
			}
			goVerifies(t, r)
		})
	}
}

// goVerifies has package x509 judge a chain that was accepted: it may only be
// less strict.
func goVerifies(t testing.TB, r *certs.Result) {
	t.Helper()
	roots, inner := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(r.Chain[len(r.Chain)-1])
	for _, c := range r.Chain[1 : len(r.Chain)-1] {
		inner.AddCert(c)
	}
	_, err := r.Chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: inner, CurrentTime: r.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName && strings.Contains(err.Error(), "excluded") {
		return // package x509 takes an excluded host for all its subdomains
	}
	if err != nil {
		t.Errorf("package x509: %v", err)
	}
}

func TestPinnedRoot(t *testing.T) {
	f := newForge(t)
	f.order = func(l, c, r *x509.Certificate) [][]byte { return ders(l, c, r) }
	f.change = func(c *certs.Check) {
		v, err := certs.NewVerifier(0, certs.Entry{Name: "pin", Pins: []certs.KeyID{sha256.Sum256(f.root.RawSubjectPublicKeyInfo)}})
		must(t, err)
		if r, err := v.Verify(t.Context(), *c); err != nil || r.Entry != "pin" {
			t.Errorf("pinned root: %v", err)
		}
		// The pinned key, in a certificate that it did not sign.
		tmpl := *f.rootTmpl
		tmpl.MaxPathLen = 5
		forged := create(t, &tmpl, &tmpl, f.rootKey.Public(), f.leafKey)
		c2 := *c
		c2.Certificates = ders(mustParse(t, c.Certificates[0]), f.ca, forged)
		_, err = v.Verify(t.Context(), c2)
		wantCode(t, err, credentials.CodeIssuerUnknown)
	}
	_, err := f.run()
	must(t, err)
}

func mustParse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

func TestVerifierEntries(t *testing.T) {
	f := newForge(t)
	_, err := f.run()
	must(t, err)
	if _, err := certs.NewVerifier(0, certs.Entry{Name: "a", Anchors: []*x509.Certificate{f.root}}, certs.Entry{Name: "b", Anchors: []*x509.Certificate{f.root}}); err == nil {
		t.Error("one anchor in two entries")
	}
	if _, err := certs.NewVerifier(0, certs.Entry{Name: "a"}, certs.Entry{Name: "a"}); err == nil {
		t.Error("two entries of one name")
	}
	// Cross-certified: the issuing CA leads to two entries.
	other := create(t, f.rootTmpl, f.rootTmpl, f.leafKey.Public(), f.leafKey)
	cross := create(t, f.caTmpl, other, f.caKey.Public(), f.leafKey)
	leaf := create(t, f.leafTmpl, f.ca, f.leafKey.Public(), f.caKey)
	v, err := certs.NewVerifier(0,
		certs.Entry{Name: "a", Anchors: []*x509.Certificate{f.root}, Intermediates: []*x509.Certificate{f.ca}},
		certs.Entry{Name: "b", Anchors: []*x509.Certificate{other}, Intermediates: []*x509.Certificate{cross}})
	must(t, err)
	_, err = v.Verify(t.Context(), checkOf(t, f.leafKey.Public(), leaf))
	wantCode(t, err, credentials.CodeIssuerUnknown)
	// Each by itself is clear.
	r, err := v.Verify(t.Context(), checkOf(t, f.leafKey.Public(), leaf, cross))
	if err != nil || r.Entry != "b" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestNegativeSkew(t *testing.T) {
	f := newForge(t)
	_, err := f.run()
	must(t, err)
	v, err := certs.NewVerifier(-1, certs.Entry{Name: "a", Anchors: []*x509.Certificate{f.root}})
	must(t, err)
	leaf := create(t, f.leafTmpl, f.ca, f.leafKey.Public(), f.caKey)
	check := checkOf(t, f.leafKey.Public(), leaf, f.ca)
	check.At = f.leafTmpl.NotAfter.Add(time.Second)
	_, err = v.Verify(t.Context(), check)
	wantCode(t, err, credentials.CodeExpired)
}

// Chains that are wrong in two ways give the error of the earlier rule.
func TestOrderOfRules(t *testing.T) {
	steps := []struct {
		code  credentials.Code
		spoil func(f *forge)
	}{
		{credentials.CodeMalformed, func(f *forge) { f.uris = []string{"mimi://a b.example/d/x", userURI} }},
		{credentials.CodeCnfLeafMismatch, func(f *forge) { f.leafPub = p256(f.t).Public() }},
		{credentials.CodeChain, func(f *forge) { f.between = func(f *forge) { f.caKey = p256(f.t) } }},
		{credentials.CodeExpired, func(f *forge) { f.caTmpl.NotAfter = t0.Add(-time.Hour / 2) }},
		{credentials.CodeNameConstraint, func(f *forge) { f.caTmpl.PermittedURIDomains = []string{"globex.example"} }},
		{credentials.CodeCriticalExtension, func(f *forge) { f.leafTmpl.ExtraExtensions = []pkix.Extension{unknownCritical} }},
		{credentials.CodeKeyUsage, func(f *forge) { f.leafTmpl.UnknownExtKeyUsage = nil }},
		{credentials.CodeIdentityMissing, func(f *forge) { f.uris = []string{clientURI} }},
		{credentials.CodeIdentityUnauthorized, func(f *forge) {
			f.change = func(c *certs.Check) {
				c.Authorize = func(*certs.Result) error { return credentials.Errorf(credentials.CodeIdentityUnauthorized, "", "") }
			}
		}},
	}
	for first := range steps {
		f := newForge(t)
		for n := len(steps) - 1; n >= first; n-- {
			if steps[n].code == credentials.CodeIdentityMissing && first == 0 {
				continue // the first rule is broken by a URI
			}
			steps[n].spoil(f)
		}
		_, err := f.run()
		wantCode(t, err, steps[first].code)
	}
}

func TestReadsRawURIs(t *testing.T) {
	// net/url would hide the difference between the two.
	a, err := url.Parse("mimi://acme.example/u/a%21")
	must(t, err)
	f := newForge(t)
	f.uris = []string{clientURI, a.String()}
	r, err := f.run()
	must(t, err)
	if r.User.String() != "mimi://acme.example/u/a%21" {
		t.Errorf("user %v", r.User)
	}
}
