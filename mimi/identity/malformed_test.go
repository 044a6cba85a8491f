package identity_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
)

// A shop makes the credentials that are spoilt below. leaf is the key of the
// leaf in which they stand.
type shop struct {
	t                testing.TB
	w                *world
	leaf, device     cryptoSigner
	basic, x509      mls.Credential
	jwt, cwt         mls.Credential
	cert, tokenBound *mls.CredentialBinding // by the device, and by another key
}

func newShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{t: t, w: newWorld(t, map[string]any{"basic": map[string]any{"mode": "allow"}}), leaf: newKey(t), device: newKey(t)}
	s.basic = mls.BasicCredential([]byte(client))
	s.x509 = s.w.ca.Client(t, s.leaf.Public(), client, user)
	s.jwt, s.cwt = s.w.tokens.SDJWT(t, s.leaf, hub, client, user), s.w.tokens.SDCWT(t, s.leaf, hub, client, user)
	s.cert = s.bind(s.w.ca.Client(t, s.device.Public(), client, user), s.device)
	key := newKey(t)
	s.tokenBound = s.bind(s.w.tokens.SDJWT(t, key, hub, client, user), key)
	return s
}

func (s *shop) bind(c mls.Credential, key cryptoSigner) *mls.CredentialBinding {
	s.t.Helper()
	b, err := mls.BindCredential(s.t.Context(), suite, c, key, point(s.t, s.leaf))
	must(s.t, err)
	return b
}

// jwtText is the SD-JWT in its compact serialization.
func (s *shop) jwtText() string {
	s.t.Helper()
	text, err := mlscred.ParseSDJWT(s.jwt.Body)
	must(s.t, err)
	return text
}

func (s *shop) chain() [][]byte {
	s.t.Helper()
	chain, err := s.x509.Certificates()
	must(s.t, err)
	return chain
}

// sdcwtOf is the SD-CWT inside the KBT.
func (s *shop) sdcwtOf() dcbor.Value {
	s.t.Helper()
	kbt, err := cose.DecodeSign1(s.cwt.Body, dcbor.Limits{})
	must(s.t, err)
	return kbt.Protected.GetInt(cose.HeaderKCWT)
}

// typed is a Credential of a type with octets after it; vector wraps octets.
func typed(kind uint16, parts ...[]byte) []byte {
	var b tlsvec.Builder
	b.Uint16(kind)
	for _, p := range parts {
		b.Raw(p)
	}
	return b.Bytes()
}

func vector(parts ...[]byte) []byte {
	var b tlsvec.Builder
	b.Vector(slices.Concat(parts...))
	return b.Bytes()
}

func basicOf(name string) func(*shop) []byte {
	return func(*shop) []byte { return typed(1, vector([]byte(name))) }
}

func certificatesOf(pick func(s *shop, chain [][]byte) [][]byte) func(*shop) []byte {
	return func(s *shop) []byte {
		c := mls.X509Credential(pick(s, s.chain()))
		return identity.FormatCredential(&c)
	}
}

func cwtOf(make func(s *shop, kbt []byte) []byte) func(*shop) []byte {
	return func(s *shop) []byte { return typed(5, vector(make(s, bytes.Clone(s.cwt.Body)))) }
}

// classicOf is an sd_jwt that is not compacted.
func classicOf(make func(text string) string) func(*shop) []byte {
	return func(s *shop) []byte { return typed(6, []byte{0}, vector([]byte(make(s.jwtText())))) }
}

// bindingOf changes the binding of a certificate in a multi.
func bindingOf(change func(s *shop, b *mls.CredentialBinding)) func(*shop) []byte {
	return func(s *shop) []byte {
		b := *s.cert
		b.Signature, b.CredentialKey = bytes.Clone(b.Signature), bytes.Clone(b.CredentialKey)
		change(s, &b)
		return multiOf(&b)
	}
}

func multiOf(list ...*mls.CredentialBinding) []byte {
	c := mls.MultiCredential(list...)
	return identity.FormatCredential(&c)
}

func weakOf(list ...*mls.CredentialBinding) []byte {
	c := mls.WeakMultiCredential(list...)
	return identity.FormatCredential(&c)
}

// bound puts a credential into a binding that is well signed.
func bound(pick func(s *shop) mls.Credential) func(*shop) []byte {
	return func(s *shop) []byte { return multiOf(s.bind(pick(s), s.device)) }
}

const (
	malformed = credentials.CodeMalformed
	noName    = credentials.CodeIdentityMalformed
	badSign   = credentials.CodeBindingSignature
)

// malformedCredentials are Credential structures, octet for octet.
var malformedCredentials = []struct {
	name string
	want credentials.Code
	make func(*shop) []byte
}{
	// The structure.
	{"nothing", malformed, func(*shop) []byte { return nil }},
	{"half a type", malformed, func(*shop) []byte { return []byte{0} }},
	{"basic alone", malformed, func(*shop) []byte { return typed(1) }},
	{"x509 alone", malformed, func(*shop) []byte { return typed(2) }},
	{"sd_cwt alone", malformed, func(*shop) []byte { return typed(5) }},
	{"sd_jwt alone", malformed, func(*shop) []byte { return typed(6) }},
	{"octet after it", malformed, func(s *shop) []byte { return append(identity.FormatCredential(&s.basic), 0) }},
	{"cut by one", malformed, func(s *shop) []byte { b := identity.FormatCredential(&s.basic); return b[:len(b)-1] }},
	{"length not the shortest", malformed, func(*shop) []byte { return typed(1, []byte{0x40, 1, 'x'}) }},
	{"length of eight octets", malformed, func(*shop) []byte { return typed(1, []byte{0xc0, 0, 0, 0, 0, 0, 0, 1, 'x'}) }},
	{"length of a gibibyte", malformed, func(*shop) []byte { return typed(1, []byte{0xbf, 0xff, 0xff, 0xff, 'x'}) }},
	{"length cut", malformed, func(*shop) []byte { return typed(1, []byte{0x80, 0, 1}) }},
	{"more than a mebibyte", malformed, func(*shop) []byte { return typed(1, vector(make([]byte, identity.MaxCredential))) }},
	{"type reserved", credentials.CodePolicy, func(*shop) []byte { return typed(0, vector([]byte(client))) }},
	{"type unassigned", credentials.CodePolicy, func(*shop) []byte { return typed(7, vector([]byte(client))) }},
	{"type of GREASE", credentials.CodePolicy, func(*shop) []byte { return typed(0x0a0a, vector([]byte(client))) }},
	{"type of private use", credentials.CodePolicy, func(*shop) []byte { return typed(0xf0a2, vector([]byte(client))) }},

	// basic
	{"basic, empty", noName, basicOf("")},
	{"basic, no URI", noName, basicOf("alice")},
	{"basic, https", noName, basicOf("https://acme.example/d/alice/phone")},
	{"basic, a user", noName, basicOf(user)},
	{"basic, a room", noName, basicOf("mimi://acme.example/r/room")},
	{"basic, a provider", noName, basicOf("mimi://acme.example")},
	{"basic, a client without its user", noName, basicOf("mimi://acme.example/d/phone")},
	{"basic, too many segments", noName, basicOf(client + "/x")},
	{"basic, capitals", noName, basicOf(strings.Replace(client, "acme", "Acme", 1))},
	{"basic, scheme in capitals", noName, basicOf("MIMI" + client[4:])},
	{"basic, port", noName, basicOf(strings.Replace(client, "example", "example:443", 1))},
	{"basic, user information", noName, basicOf(strings.Replace(client, "acme", "me@acme", 1))},
	{"basic, query", noName, basicOf(client + "?x")},
	{"basic, fragment", noName, basicOf(client + "#x")},
	{"basic, slash at the end", noName, basicOf(client + "/")},
	{"basic, needless escape", noName, basicOf(strings.Replace(client, "alice", "%61lice", 1))},
	{"basic, escape in lower case", noName, basicOf(client + "%2f")},
	{"basic, escape cut", noName, basicOf(client + "%2")},
	{"basic, space before", noName, basicOf(" " + client)},
	{"basic, line end", noName, basicOf(client + "\n")},
	{"basic, NUL", noName, basicOf(client + "\x00")},
	{"basic, not UTF-8", noName, basicOf(client + "\xff")},
	{"basic, no ASCII", noName, basicOf(client + "ü")},
	{"basic, very long", noName, basicOf(client + strings.Repeat("x", 5000))},

	// x509
	{"x509, no certificate", malformed, certificatesOf(func(*shop, [][]byte) [][]byte { return nil })},
	{"x509, empty certificate", malformed, certificatesOf(func(*shop, [][]byte) [][]byte { return [][]byte{{}} })},
	{"x509, nine", malformed, certificatesOf(func(_ *shop, c [][]byte) [][]byte { return slices.Concat(c, make([][]byte, 8)) })},
	{"x509, one twice", malformed, certificatesOf(func(_ *shop, c [][]byte) [][]byte { return [][]byte{c[0], c[0]} })},
	{"x509, octet after one", malformed, certificatesOf(func(_ *shop, c [][]byte) [][]byte { return [][]byte{append(bytes.Clone(c[0]), 0)} })},
	{"x509, one cut", malformed, certificatesOf(func(_ *shop, c [][]byte) [][]byte { return [][]byte{c[0][:len(c[0])-1]} })},
	{"x509, PEM", malformed, certificatesOf(func(*shop, [][]byte) [][]byte { return [][]byte{[]byte("-----BEGIN CERTIFICATE-----\n")} })},
	{"x509, too large", malformed, certificatesOf(func(*shop, [][]byte) [][]byte { return [][]byte{make([]byte, 16<<10+1)} })},
	{"x509, a token", malformed, certificatesOf(func(s *shop, _ [][]byte) [][]byte { return [][]byte{s.cwt.Body} })},
	{"x509, bare DER", malformed, func(s *shop) []byte { return typed(2, s.chain()[0]) }},
	{"x509, one without its vector", malformed, func(s *shop) []byte { return typed(2, vector(s.chain()[0])) }},
	{"x509, length inside beyond the chain", malformed, func(*shop) []byte { return typed(2, vector([]byte{5, 1})) }},
	{"x509, length inside not the shortest", malformed, func(*shop) []byte { return typed(2, vector([]byte{0x40, 1, 'x'})) }},
	{"x509, of another CA", credentials.CodeIssuerUnknown, func(s *shop) []byte {
		c := identitytest.NewCA(s.t, "Other", s.w.ck.now).Client(s.t, s.leaf.Public(), client, user)
		return identity.FormatCredential(&c)
	}},
	{"x509, of another key", credentials.CodeCnfLeafMismatch, func(s *shop) []byte {
		c := s.w.ca.Client(s.t, s.device.Public(), client, user)
		return identity.FormatCredential(&c)
	}},

	// sd_cwt
	{"sd_cwt, empty", malformed, cwtOf(func(*shop, []byte) []byte { return nil })},
	{"sd_cwt, no CBOR", malformed, cwtOf(func(*shop, []byte) []byte { return []byte{0xff} })},
	{"sd_cwt, a JWT", malformed, cwtOf(func(s *shop, _ []byte) []byte { return []byte(s.jwtText()) })},
	{"sd_cwt, hexadecimal", malformed, cwtOf(func(_ *shop, b []byte) []byte { return []byte(hex.EncodeToString(b)) })},
	{"sd_cwt, without its tag", malformed, cwtOf(func(_ *shop, b []byte) []byte { return b[1:] })},
	{"sd_cwt, tag 61 outside", malformed, cwtOf(func(_ *shop, b []byte) []byte { return append([]byte{0xd8, 61}, b...) })},
	{"sd_cwt, in a byte string", malformed, cwtOf(func(_ *shop, b []byte) []byte { return dcbor.WrapBytes(b) })},
	{"sd_cwt, octet after it", malformed, cwtOf(func(_ *shop, b []byte) []byte { return append(b, 0) })},
	{"sd_cwt, cut", malformed, cwtOf(func(_ *shop, b []byte) []byte { return b[:len(b)-1] })},
	{"sd_cwt, too large", malformed, cwtOf(func(*shop, []byte) []byte { return make([]byte, 64<<10+1) })},
	{"sd_cwt, indefinite length", malformed, cwtOf(func(_ *shop, b []byte) []byte { return append(append([]byte{0xd2, 0x9f}, b[2:]...), 0xff) })},
	{"sd_cwt, without key binding", credentials.CodeKCWTMissing, cwtOf(func(s *shop, _ []byte) []byte { return s.sdcwtOf().Raw() })},
	{"sd_cwt, deep", credentials.CodeDepth, cwtOf(func(*shop, []byte) []byte {
		return append(bytes.Repeat([]byte{0x81}, 100), 0)
	})},
	{"sd_cwt, vector in a vector", malformed, cwtOf(func(_ *shop, b []byte) []byte { return vector(b) })},
	{"sd_cwt, signature changed", credentials.CodeKBTSignature, cwtOf(func(_ *shop, b []byte) []byte { b[len(b)-1] ^= 1; return b })},
	{"sd_cwt, of another key", credentials.CodeCnfLeafMismatch, func(s *shop) []byte {
		c := s.w.tokens.SDCWT(s.t, s.device, hub, client, user)
		return identity.FormatCredential(&c)
	}},

	// sd_jwt
	{"sd_jwt, form 2", malformed, func(s *shop) []byte { return typed(6, []byte{2}, vector([]byte(s.jwtText()))) }},
	{"sd_jwt, form 255", malformed, func(s *shop) []byte { return typed(6, []byte{255}, vector([]byte(s.jwtText()))) }},
	{"sd_jwt, classic without its vector", malformed, func(s *shop) []byte { return typed(6, []byte{0}, []byte(s.jwtText())) }},
	{"sd_jwt, in a vector as a whole", malformed, func(s *shop) []byte { return typed(6, vector(s.jwt.Body)) }},
	{"sd_jwt, classic that says it is compacted", malformed, func(s *shop) []byte { return typed(6, []byte{1}, vector([]byte(s.jwtText()))) }},
	{"sd_jwt, compacted that says it is classic", malformed, func(s *shop) []byte { return typed(6, append([]byte{0}, s.jwt.Body[1:]...)) }},
	{"sd_jwt, compacted without key binding", credentials.CodeKBMissing, func(s *shop) []byte {
		kb := s.jwtText()[strings.LastIndexByte(s.jwtText(), '~')+1:]
		return typed(6, bytes.Replace(s.jwt.Body, vector([]byte(kb)), vector(), 1))
	}},
	{"sd_jwt, compacted with the key binding decoded", malformed, func(s *shop) []byte {
		kb := s.jwtText()[strings.LastIndexByte(s.jwtText(), '~')+1:]
		return typed(6, bytes.Replace(s.jwt.Body, vector([]byte(kb)), vector(vector([]byte(`{}`)), vector([]byte(`{}`)), vector([]byte{1})), 1))
	}},
	{"sd_jwt, compacted cut", malformed, func(s *shop) []byte { return typed(6, s.jwt.Body[:len(s.jwt.Body)/2]) }},
	{"sd_jwt, empty", malformed, classicOf(func(string) string { return "" })},
	{"sd_jwt, without key binding", credentials.CodeKBMissing, classicOf(func(s string) string { return s[:strings.LastIndexByte(s, '~')+1] })},
	{"sd_jwt, without a tilde", malformed, classicOf(func(s string) string { return s[:strings.IndexByte(s, '~')] })},
	{"sd_jwt, line end", malformed, classicOf(func(s string) string { return s + "\n" })},
	{"sd_jwt, not ASCII", malformed, classicOf(func(s string) string { return strings.Replace(s, "~", "~ü", 1) })},
	{"sd_jwt, two parts", malformed, classicOf(func(s string) string { return strings.Replace(s, ".", "", 1) })},
	{"sd_jwt, padding", malformed, classicOf(func(s string) string { return strings.Replace(s, "~", "=~", 1) })},
	{"sd_jwt, too large", malformed, classicOf(func(s string) string { return s + strings.Repeat("x", 64<<10) })},
	{"sd_jwt, a disclosure more", credentials.CodeDisclosureUnmatched, classicOf(func(s string) string {
		return strings.Replace(s, "~", "~WyJzIiwiYSIsMV0~", 1)
	})},
	{"sd_jwt, the disclosure taken away", credentials.CodeSDHash, classicOf(func(s string) string {
		first, last := strings.IndexByte(s, '~'), strings.LastIndexByte(s, '~')
		return s[:first] + s[last:]
	})},
	{"sd_jwt, of another key", credentials.CodeCnfLeafMismatch, func(s *shop) []byte {
		c := s.w.tokens.SDJWT(s.t, s.device, hub, client, user)
		return identity.FormatCredential(&c)
	}},

	// multi
	{"multi alone", malformed, func(*shop) []byte { return typed(3) }},
	{"multi, no binding", malformed, func(*shop) []byte { return multiOf() }},
	{"multi, nine bindings", malformed, func(s *shop) []byte { return multiOf(slices.Repeat([]*mls.CredentialBinding{s.cert}, 9)...) }},
	{"multi, one binding twice", malformed, func(s *shop) []byte { return multiOf(s.cert, s.cert) }},
	{"multi, one key for two credentials", malformed, func(s *shop) []byte {
		return multiOf(s.cert, s.bind(s.w.tokens.SDJWT(s.t, s.device, hub, client, user), s.device))
	}},
	{"multi, octet after the bindings", malformed, func(s *shop) []byte {
		return typed(3, vector(mlsBody(multiOf(s.cert)), []byte{0}))
	}},
	{"multi, binding cut", malformed, func(s *shop) []byte { b := mlsBody(multiOf(s.cert)); return typed(3, vector(b[:len(b)-1])) }},
	{"multi, bindings without their vector", malformed, func(s *shop) []byte { return typed(3, mlsBody(multiOf(s.cert))) }},
	{"multi, without signature", malformed, func(s *shop) []byte {
		b := mlsBody(multiOf(s.cert))
		return typed(3, vector(b[:len(b)-len(vector(s.cert.Signature))]))
	}},
	{"multi in a multi", credentials.CodeMultiNested, bound(func(s *shop) mls.Credential { return mls.MultiCredential(s.tokenBound) })},
	{"weak-multi in a multi", credentials.CodeMultiNested, bound(func(s *shop) mls.Credential { return mls.WeakMultiCredential(s.tokenBound) })},
	{"multi, empty multi in it", credentials.CodeMultiNested, bound(func(*shop) mls.Credential { return mls.MultiCredential() })},
	{"multi, suite 0", credentials.CodeMultiUnsupported, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CipherSuite = 0 })},
	{"multi, suite of Ed448", credentials.CodeMultiUnsupported, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CipherSuite = 4 })},
	{"multi, suite of GREASE", credentials.CodeMultiUnsupported, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CipherSuite = 0x0a0a })},
	{"multi, suite of another scheme", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CipherSuite = mls.X25519AES128SHA256Ed25519 })},
	{"multi, type unknown", credentials.CodeMultiUnsupported, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.Credential.Type = 0xf0a2 })},
	{"multi, key empty", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CredentialKey = nil })},
	{"multi, key cut", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CredentialKey = b.CredentialKey[:64] })},
	{"multi, key compressed", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) {
		b.CredentialKey = append([]byte{2 + b.CredentialKey[64]&1}, b.CredentialKey[1:33]...)
	})},
	{"multi, key off the curve", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CredentialKey[64] ^= 1 })},
	{"multi, key at infinity", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.CredentialKey = []byte{0} })},
	{"multi, key of the leaf", badSign, bindingOf(func(s *shop, b *mls.CredentialBinding) { b.CredentialKey = point(s.t, s.leaf) })},
	{"multi, signature empty", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.Signature = nil })},
	{"multi, signature changed", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.Signature[len(b.Signature)-1] ^= 1 })},
	{"multi, signature with an octet more", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.Signature = append(b.Signature, 0) })},
	{"multi, signature as r and s", badSign, bindingOf(func(_ *shop, b *mls.CredentialBinding) { b.Signature = bytes.Repeat([]byte{1}, 64) })},
	{"multi, signed with the leaf's key", badSign, bindingOf(func(s *shop, b *mls.CredentialBinding) {
		b.Signature = s.bind(b.Credential, s.leaf).Signature
	})},
	{"multi, signed for another leaf", badSign, func(s *shop) []byte {
		b, err := mls.BindCredential(s.t.Context(), suite, s.cert.Credential, s.device, point(s.t, newKey(s.t)))
		must(s.t, err)
		return multiOf(b)
	}},
	{"multi, signatures exchanged", badSign, func(s *shop) []byte {
		a, b := *s.cert, *s.tokenBound
		a.Signature, b.Signature = b.Signature, a.Signature
		return multiOf(&a, &b)
	}},
	{"multi, credentials exchanged", badSign, func(s *shop) []byte {
		a, b := *s.cert, *s.tokenBound
		a.Credential, b.Credential = b.Credential, a.Credential
		return multiOf(&a, &b)
	}},
	{"multi, another credential than was signed", badSign, bindingOf(func(s *shop, b *mls.CredentialBinding) { b.Credential = mls.BasicCredential([]byte(client)) })},
	{"multi, chain inside empty", malformed, bound(func(*shop) mls.Credential { return mls.X509Credential(nil) })},
	{"multi, token inside without key binding", credentials.CodeKBMissing, bound(func(s *shop) mls.Credential {
		text := s.jwtText()
		return mls.Credential{Type: mls.CredentialSDJWT, Body: append([]byte{0}, vector([]byte(text[:strings.LastIndexByte(text, '~')+1]))...)}
	})},
	{"multi, token inside of the leaf's key", credentials.CodeCnfLeafMismatch, bound(func(s *shop) mls.Credential { return s.jwt })},
	{"multi, CWT inside of the leaf's key", credentials.CodeCnfLeafMismatch, bound(func(s *shop) mls.Credential { return s.cwt })},
	{"multi, certificate inside of the leaf's key", credentials.CodeCnfLeafMismatch, bound(func(s *shop) mls.Credential { return s.x509 })},
	{"multi, name inside that is none", noName, bound(func(*shop) mls.Credential { return mls.BasicCredential([]byte("alice")) })},
	{"multi, of two clients", credentials.CodeMultiConflict, func(s *shop) []byte {
		key := newKey(s.t)
		return multiOf(s.cert, s.bind(s.w.tokens.SDCWT(s.t, key, hub, client+"2", user), key))
	}},
	{"multi, of two users", credentials.CodeMultiConflict, func(s *shop) []byte {
		key := newKey(s.t)
		return multiOf(s.cert, s.bind(s.w.tokens.SDJWT(s.t, key, hub, client, user+"2"), key))
	}},

	// weak-multi
	{"weak-multi alone", malformed, func(*shop) []byte { return typed(4) }},
	{"weak-multi, no binding", malformed, func(*shop) []byte { return weakOf() }},
	{"weak-multi, nine bindings", malformed, func(s *shop) []byte { return weakOf(slices.Repeat([]*mls.CredentialBinding{s.cert}, 9)...) }},
	{"weak-multi, one binding twice", malformed, func(s *shop) []byte { return weakOf(s.cert, s.cert) }},
	{"multi in a weak-multi", credentials.CodeMultiNested, func(s *shop) []byte {
		return weakOf(s.bind(mls.MultiCredential(s.tokenBound), s.device))
	}},
	{"weak-multi in a weak-multi", credentials.CodeMultiNested, func(s *shop) []byte {
		return weakOf(s.cert, s.bind(mls.WeakMultiCredential(s.tokenBound), newKey(s.t)))
	}},
	{"weak-multi, none supported", credentials.CodeMultiUnsupported, func(s *shop) []byte {
		a, b := *s.cert, *s.tokenBound
		a.CipherSuite, b.Credential.Type = 6, 0xf0a2
		return weakOf(&a, &b)
	}},
	{"weak-multi, one of two changed", badSign, func(s *shop) []byte {
		b := *s.tokenBound
		b.Signature = append(bytes.Clone(b.Signature), 0)
		return weakOf(s.cert, &b)
	}},
	{"weak-multi, one of two of another key", credentials.CodeCnfLeafMismatch, func(s *shop) []byte {
		return weakOf(s.cert, s.bind(s.jwt, newKey(s.t)))
	}},
	{"weak-multi, of two clients", credentials.CodeMultiConflict, func(s *shop) []byte {
		return weakOf(s.cert, s.bind(mls.BasicCredential([]byte(client+"2")), newKey(s.t)))
	}},
	{"a multi that is called weak, changed", badSign, func(s *shop) []byte {
		b := *s.cert
		b.CredentialKey = point(s.t, s.leaf)
		return weakOf(&b)
	}},
}

// mlsBody is what stands in the vector of a multi.
func mlsBody(octets []byte) []byte {
	c, err := identity.ParseCredential(octets)
	if err != nil {
		panic(err)
	}
	return c.Body
}

// judge reads a Credential and judges it as that of the leaf.
func (s *shop) judge(octets []byte) error {
	c, err := identity.ParseCredential(octets)
	if err != nil {
		return err
	}
	q := question(s.t, s.leaf, c)
	q.Room = uri(s.t, roomName)
	_, err = s.w.eval.Evaluate(s.t.Context(), q)
	return err
}

func TestMalformedCredentials(t *testing.T) {
	if n := len(malformedCredentials); n < 100 {
		t.Fatalf("only %d cases", n)
	}
	s := newShop(t)
	seen := map[string]string{}
	for _, c := range malformedCredentials {
		t.Run(c.name, func(t *testing.T) {
			octets := c.make(s)
			if other, twice := seen[string(octets)]; twice {
				t.Errorf("the same octets as %q", other)
			}
			seen[string(octets)] = c.name
			wantCode(t, c.name, s.judge(octets), c.want)
		})
	}
	// What they were made of is right, and may look odd.
	part := *s.tokenBound
	part.CipherSuite = 4 // not supported, so not looked at
	for name, octets := range map[string][]byte{
		"basic": identity.FormatCredential(&s.basic), "x509": identity.FormatCredential(&s.x509),
		"sd_jwt": identity.FormatCredential(&s.jwt), "sd_cwt": identity.FormatCredential(&s.cwt), "sd_jwt, classic": classicOf(func(s string) string { return s })(s),
		"multi of one": multiOf(s.cert), "multi of two": multiOf(s.cert, s.tokenBound), "weak-multi": weakOf(s.cert, s.tokenBound), "weak-multi of which one is not supported": weakOf(s.cert, &part),
	} {
		if err := s.judge(octets); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
