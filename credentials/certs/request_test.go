package certs_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

func TestRequest(t *testing.T) {
	for _, scheme := range credentials.Schemes() {
		key, nonce := mustKey(t, scheme), certs.NewNonce()
		for _, names := range []certs.Names{deviceNames(t), hubNames(t)} {
			der, err := certs.CreateRequest(rand.Reader, key, names, nonce)
			must(t, err)
			r, err := certs.ParseRequest(der)
			must(t, err)
			if r.Names() != names || !bytes.Equal(r.Nonce(), nonce) || !credentials.SamePublicKey(r.PublicKey(), key.Public()) {
				t.Errorf("%s: request %+v", scheme, r)
			}
			if spki, err := x509.MarshalPKIXPublicKey(key.Public()); err != nil || !bytes.Equal(certs.SPKI(r), spki) {
				t.Errorf("%s: the key is %x, package x509 writes %x, %v", scheme, certs.SPKI(r), spki, err)
			}
		}
	}
}

// What a device key signs for a request begins unlike everything else that it
// signs.
func TestRequestIsUnlikeOtherShapes(t *testing.T) {
	for _, scheme := range credentials.Schemes() {
		for _, nonce := range [][]byte{nil, certs.NewNonce()} {
			var signed []byte
			spy := spySigner{mustKey(t, scheme), func(m []byte) { signed = m }}
			der, err := certs.CreateRequest(rand.Reader, spy, hubNames(t), nonce)
			must(t, err)
			csr, err := x509.ParseCertificateRequest(der)
			must(t, err)
			info := csr.RawTBSCertificateRequest
			if scheme == credentials.Ed25519 && !bytes.Equal(signed, info) {
				t.Error("signed something else than the request info")
			}
			header := map[bool]int{true: 2, false: 3}[info[1] < 0x80]
			if info[1] == 0x82 {
				header = 4
			}
			if info[0] != 0x30 || !bytes.HasPrefix(info[header:], []byte{0x02, 0x01, 0x00}) || bytes.HasPrefix(info[1:], []byte("MLS")) {
				t.Errorf("%s, nonce %d: begins %x", scheme, len(nonce), info[:8])
			}
		}
	}
}

func TestCreateRequestRefuses(t *testing.T) {
	_, err := certs.CreateRequest(rand.Reader, p256(t), certs.Names{}, nil)
	wantCode(t, err, credentials.CodeIdentityMissing)
	_, err = certs.CreateRequest(rand.Reader, p256(t), deviceNames(t), make([]byte, 7))
	wantCode(t, err, credentials.CodeNonce)
	_, err = certs.CreateRequest(rand.Reader, p256(t), deviceNames(t), make([]byte, 128))
	wantCode(t, err, credentials.CodeNonce)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, err = certs.CreateRequest(rand.Reader, key, deviceNames(t), nil)
	wantCode(t, err, credentials.CodeCnfCurve)
	flip := badSigner{p256(t), func(sig []byte, err error) ([]byte, error) { sig[9] ^= 1; return sig, err }}
	if _, err = certs.CreateRequest(rand.Reader, flip, deviceNames(t), nil); !errors.Is(err, certs.ErrBadSignature) {
		t.Errorf("a bad signature was released: %v", err)
	}
}

// csr makes a request with package x509.
func csr(t testing.TB, key crypto.Signer, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	must(t, err)
	return der
}

// oneBehind signs with another key than it shows.
type oneBehind struct{ shown, real crypto.Signer }

func (o oneBehind) Public() crypto.PublicKey { return o.shown.Public() }
func (o oneBehind) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return o.real.Sign(random, digest, opts)
}

// rawCSR assembles a request with the given attributes, signed as it should be.
func rawCSR(t testing.TB, version int, attributes ...[]byte) []byte {
	t.Helper()
	key := p256(t)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	info, err := asn1.Marshal(struct {
		Version    int
		Subject    asn1.RawValue
		SPKI       asn1.RawValue
		Attributes asn1.RawValue
	}{version, asn1.RawValue{FullBytes: []byte{0x30, 0}}, asn1.RawValue{FullBytes: spki},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: bytes.Join(attributes, nil)}})
	must(t, err)
	sig, err := credentials.ECDSAP256.Sign(rand.Reader, key, info)
	must(t, err)
	der, err := asn1.Marshal(struct {
		Info asn1.RawValue
		Alg  pkix.AlgorithmIdentifier
		Sig  asn1.BitString
	}{asn1.RawValue{FullBytes: info}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	must(t, err)
	return der
}

func attribute(t testing.TB, id asn1.ObjectIdentifier, values ...asn1.RawValue) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}{id, values})
	must(t, err)
	return der
}

func challenge(t testing.TB, tag int, s string) []byte {
	return attribute(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, asn1.RawValue{Tag: tag, Bytes: []byte(s)})
}

// TestWishesThatAreFulfilled: what asks for no more than the profile gives is let pass,
// also where DER would leave a default out, as some tools do not.
func TestWishesThatAreFulfilled(t *testing.T) {
	for name, value := range map[string][]byte{"left out": {0x30, 0}, "said": {0x30, 3, 1, 1, 0}} {
		ext := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: value}
		if _, err := certs.ParseRequest(rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), ext))); err != nil {
			t.Errorf("cA FALSE, %s: %v", name, err)
		}
	}
}

func wish(t testing.TB, exts ...pkix.Extension) []byte {
	t.Helper()
	der, err := asn1.Marshal(exts)
	must(t, err)
	return attribute(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}, asn1.RawValue{FullBytes: der})
}

var refusedRequests = []struct {
	name string
	code credentials.Code
	make func(t testing.TB) []byte
}{
	{"empty", credentials.CodeMalformed, func(testing.TB) []byte { return nil }},
	{"PEM", credentials.CodeMalformed, func(testing.TB) []byte { return []byte("-----BEGIN CERTIFICATE REQUEST-----") }},
	{"too large", credentials.CodeMalformed, func(t testing.TB) []byte { return make([]byte, 16<<10+1) }},
	{"trailing octet", credentials.CodeMalformed, func(t testing.TB) []byte { return append(goodCSR(t), 0) }},
	{"cut short", credentials.CodeMalformed, func(t testing.TB) []byte { der := goodCSR(t); return der[:len(der)-1] }},
	{"a certificate", credentials.CodeMalformed, func(t testing.TB) []byte {
		f := newForge(t)
		return createDER(t, f.rootTmpl, f.rootTmpl, f.rootKey.Public(), f.rootKey)
	}},
	{"version 1", credentials.CodeMalformed, func(t testing.TB) []byte { return rawCSR(t, 1, wish(t, sanOf(t, clientURI, userURI))) }},
	{"two extension requests of one kind", credentials.CodeMalformed, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), sanOf(t, clientURI, userURI)))
	}},
	{"two attributes with extension requests", credentials.CodeMalformed, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), wish(t, sanOf(t, clientURI, userURI)))
	}},
	{"two values of an extension request", credentials.CodeMalformed, func(t testing.TB) []byte {
		v, err := asn1.Marshal([]pkix.Extension{sanOf(t, clientURI, userURI)})
		must(t, err)
		return rawCSR(t, 0, attribute(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}, asn1.RawValue{FullBytes: v}, asn1.RawValue{FullBytes: v}))
	}},
	{"subject is no name", credentials.CodeMalformed, func(t testing.TB) []byte {
		return bytes.Replace(csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "Alice"}}), []byte("\x13\x05Alice"), []byte("\x13\x05Al_ce"), 1)
	}},
	{"key not on its curve", credentials.CodeCnfCurve, func(t testing.TB) []byte {
		der := goodCSR(t)
		der[bytes.Index(der, []byte{3, 66, 0, 4})+67] ^= 1
		return der
	}},
	{"attribute cut short", credentials.CodeMalformed, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), []byte{0x30, 2, 6, 0})
	}},
	{"RSA key", credentials.CodeCnfCurve, func(t testing.TB) []byte {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(t, err)
		return csr(t, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}})
	}},
	{"P-224 key", credentials.CodeCnfCurve, func(t testing.TB) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		must(t, err)
		return csr(t, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}})
	}},
	{"SHA-1", credentials.CodeAlg, func(t testing.TB) []byte {
		der := rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)))
		old := []byte{0x30, 10, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2}
		i := bytes.LastIndex(der, old)
		var parts struct {
			Info asn1.RawValue
			Alg  pkix.AlgorithmIdentifier
			Sig  asn1.BitString
		}
		if _, err := asn1.Unmarshal(der, &parts); err != nil || i < 0 {
			t.Fatal(err)
		}
		parts.Alg.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
		der, err := asn1.Marshal(parts)
		must(t, err)
		return der
	}},
	{"signed by another key", credentials.CodeBindingSignature, func(t testing.TB) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}}, oneBehind{p256(t), p256(t)})
		if err != nil { // package x509 verifies too: flip the signature instead
			der = goodCSR(t)
			der[len(der)-1] ^= 1
		}
		return der
	}},
	{"names changed after signing", credentials.CodeBindingSignature, func(t testing.TB) []byte {
		return bytes.Replace(goodCSR(t), []byte("alice"), []byte("mally"), -1)
	}},
	{"nonce changed after signing", credentials.CodeBindingSignature, func(t testing.TB) []byte {
		nonce := bytes.Repeat([]byte{0xab}, 32)
		der, err := certs.CreateRequest(rand.Reader, p256(t), deviceNames(t), nonce)
		must(t, err)
		return bytes.Replace(der, []byte("abab"), []byte("abac"), 1)
	}},
	{"wants to be a CA", credentials.CodeKeyUsage, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}))
	}},
	{"garbled basicConstraints", credentials.CodeKeyUsage, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x31}}))
	}},
	{"wants to sign certificates", credentials.CodeKeyUsage, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 2, 4}}))
	}},
	{"wants to be a TLS server", credentials.CodeKeyUsage, func(t testing.TB) []byte {
		der, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})
		must(t, err)
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: der}))
	}},
	{"wants a DNS name too", credentials.CodeIdentityUnauthorized, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, san(t, true, []string{clientURI, userURI}, []string{"acme.example"})))
	}},
	{"no names", credentials.CodeIdentityMissing, func(t testing.TB) []byte { return rawCSR(t, 0) }},
	{"names in the subject", credentials.CodeIdentityMissing, func(t testing.TB) []byte {
		return csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: userURI}})
	}},
	{"no user", credentials.CodeIdentityMissing, func(t testing.TB) []byte { return rawCSR(t, 0, wish(t, sanOf(t, clientURI))) }},
	{"upper-case host", credentials.CodeIdentityMalformed, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, "mimi://ACME.example/d/x", userURI)))
	}},
	{"two clients", credentials.CodeIdentityMalformed, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, "mimi://acme.example/d/y", userURI)))
	}},
	{"two hosts", credentials.CodeIdentityHostMismatch, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, "mimi://globex.example/u/alice")))
	}},
	{"nonce not in hexadecimal", credentials.CodeNonce, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), challenge(t, asn1.TagPrintableString, "open sesame"))
	}},
	{"nonce in upper case", credentials.CodeNonce, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), challenge(t, asn1.TagPrintableString, "ABABABABABABABABABABAB"))
	}},
	{"nonce too short", credentials.CodeNonce, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), challenge(t, asn1.TagPrintableString, "abababababab"))
	}},
	{"nonce of another type", credentials.CodeNonce, func(t testing.TB) []byte {
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), challenge(t, asn1.TagOctetString, hex.EncodeToString(make([]byte, 32))))
	}},
	{"two nonces", credentials.CodeNonce, func(t testing.TB) []byte {
		one := challenge(t, asn1.TagUTF8String, hex.EncodeToString(make([]byte, 32)))
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), one, one)
	}},
	{"nonce of two values", credentials.CodeNonce, func(t testing.TB) []byte {
		v := asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte(hex.EncodeToString(make([]byte, 32)))}
		return rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), attribute(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, v, v))
	}},
}

func sanOf(t testing.TB, list ...string) pkix.Extension {
	t.Helper()
	return san(t, false, list, nil)
}

func goodCSR(t testing.TB) []byte {
	t.Helper()
	der, err := certs.CreateRequest(rand.Reader, p256(t), deviceNames(t), certs.NewNonce())
	must(t, err)
	return der
}

func TestRefusedRequests(t *testing.T) {
	for _, tt := range refusedRequests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := certs.ParseRequest(tt.make(t))
			wantCode(t, err, tt.code)
			if err != nil && r != nil {
				t.Error("a request with an error")
			}
		})
	}
}

// Whatever octet is changed, what is read as a request package x509 reads as one too.
// The signature is left aside: it would hide the rest.
func TestRequestsReadByTwo(t *testing.T) {
	bothRead := 0
	for _, der := range [][]byte{
		goodCSR(t), csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "Alice"}, ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}}),
		rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 7, 0x80}}), challenge(t, asn1.TagUTF8String, "abababababababab")),
	} {
		for i := range der {
			for _, change := range []byte{0x01, 0x02, 0x04, 0x20, 0x80, 0xff} {
				changed := bytes.Clone(der)
				changed[i] ^= change
				if certs.ReadRequest(changed) != nil {
					continue
				}
				if _, err := x509.ParseCertificateRequest(changed); err != nil {
					t.Errorf("octet %d ^ %02x: package x509: %v", i, change, err)
				}
				bothRead++
			}
		}
	}
	if bothRead < 100 {
		t.Errorf("only %d were read", bothRead)
	}
}

// Wishes that the profile fulfils anyway do no harm.
func TestHarmlessWishes(t *testing.T) {
	eku, err := asn1.Marshal([]asn1.ObjectIdentifier{certs.OIDIMURI})
	must(t, err)
	for name, der := range map[string][]byte{
		"profile": rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: eku},
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 7, 0x80}}, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}})),
		"UTF8String nonce": rawCSR(t, 0, wish(t, sanOf(t, clientURI, userURI)), challenge(t, asn1.TagUTF8String, hex.EncodeToString(make([]byte, 32)))),
		"SHA-512":          csr(t, p256(t), x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA512, ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}}),
		"a subject":        csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "Alice"}, ExtraExtensions: []pkix.Extension{sanOf(t, clientURI, userURI)}}),
	} {
		if _, err := certs.ParseRequest(der); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// seeded returns an Ed25519 key that is the same in every process, as fuzzing
// wants.
func seeded(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func FuzzParseRequest(f *testing.F) {
	good, err := certs.CreateRequest(nil, seeded(1), deviceNames(f), make([]byte, 32))
	must(f, err)
	f.Add(good)
	for _, tt := range refusedRequests {
		if tt.name != "too large" {
			f.Add(tt.make(f))
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := certs.ParseRequest(der)
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		std, err := x509.ParseCertificateRequest(der)
		if err != nil || std.CheckSignature() != nil || !credentials.SamePublicKey(std.PublicKey, r.PublicKey()) || !bytes.Equal(std.Raw, der) {
			t.Fatalf("package x509 disagrees: %v", err)
		}
		if len(r.Names().URIs()) == 0 {
			t.Fatal("a request without names")
		}
	})
}

func FuzzVerify(f *testing.F) {
	forged := newForge(f)
	forged.rootKey, forged.caKey, forged.leafKey = seeded(1), seeded(2), seeded(3)
	if _, err := forged.run(); err != nil {
		f.Fatal(err)
	}
	leaf := createDER(f, forged.leafTmpl, forged.ca, forged.leafKey.Public(), forged.caKey)
	f.Add(leaf, forged.ca.Raw, forged.root.Raw)
	f.Add(leaf, forged.root.Raw, forged.ca.Raw)
	f.Add(forged.ca.Raw, forged.root.Raw, leaf)
	f.Add([]byte{0x30, 0x80}, []byte{}, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	v, err := certs.NewVerifier(0, certs.Entry{Name: "forge", Anchors: []*x509.Certificate{forged.root}, Intermediates: []*x509.Certificate{forged.ca}, Mode: certs.Compat})
	must(f, err)
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		for _, chain := range [][][]byte{{a}, {a, b}, {a, b, c}} {
			r, err := v.Verify(t.Context(), certs.Check{Certificates: chain, AnyKey: true, At: t0})
			if err != nil && credentials.CodeOf(err) == "" {
				t.Fatalf("error without a code: %v", err)
			}
			if err == nil {
				if !bytes.Equal(a, leaf) {
					t.Fatalf("accepted a leaf that nobody signed: %x", a)
				}
				goVerifies(t, r)
			}
		}
	})
}
