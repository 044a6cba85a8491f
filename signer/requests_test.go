package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/url"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// recorder is a crypto.MessageSigner that keeps what it was asked to sign.
type recorder struct {
	crypto.Signer
	message []byte
}

func (r *recorder) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	r.message = bytes.Clone(message)
	return crypto.SignMessage(r.Signer, rand, message, opts)
}

func newRecorder(t testing.TB) *recorder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{Signer: key}
}

var (
	notBefore = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = notBefore.AddDate(0, 3, 0)
)

// caTemplate is a self-signed CA.
func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(0x1234567890), Subject: pkix.Name{CommonName: "Example CA"},
		NotBefore: notBefore, NotAfter: notAfter, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3, 4},
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// samples returns to-be-signed octets of every shape, as their usual producers
// make them.
func samples(t testing.TB) map[signer.Shape][]byte {
	t.Helper()
	ca := newRecorder(t)
	certDER := must[[]byte](t)(x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), ca.Public(), ca))
	tbsCert := ca.message
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(certDER))

	must[[]byte](t)(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(7), ThisUpdate: notBefore, NextUpdate: notAfter,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: notBefore, ReasonCode: 1}},
	}, cert, ca))
	tbsCRL := ca.message

	u := must[*url.URL](t)(url.Parse("mimi://example.com/d/abc"))
	must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{u}}, ca))
	csr := ca.message

	return map[signer.Shape][]byte{
		signer.ShapeCertificate: tbsCert,
		signer.ShapeCRL:         tbsCRL,
		signer.ShapeCSR:         csr,
		signer.ShapeOCSP:        ocspTBS(t, cert, ca),
		signer.ShapeMLS:         request(t)(signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))),
		signer.ShapeJWS:         request(t)(signer.JWSRequest([]byte(`{"alg":"ES256","typ":"kb+jwt"}`), []byte(`{"nonce":"n","iat":1}`))),
		signer.ShapeCOSE:        request(t)(signer.COSERequest([]byte{0xa2, 0x01, 0x28, 0x10, 0x19, 0x01, 0x26}, nil, []byte{0xa0})),
		signer.ShapeTLS13:       tlsContent(),
		signer.ShapeCheckpoint:  []byte("log.example.com/privyseal\n42\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"),
	}
}

func request(t testing.TB) func(*signer.Request, error) []byte {
	return func(r *signer.Request, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r.Octets()
	}
}

func tlsContent() []byte {
	b := bytes.Repeat([]byte{0x20}, 64)
	b = append(b, "TLS 1.3, server CertificateVerify\x00"...)
	return append(b, make([]byte, 32)...)
}

// ocspTBS makes an OCSP response and takes the ResponseData out of it.
func ocspTBS(t testing.TB, cert *x509.Certificate, ca *recorder) []byte {
	t.Helper()
	der := must[[]byte](t)(ocsp.CreateResponse(cert, cert, ocsp.Response{
		Status: ocsp.Good, SerialNumber: big.NewInt(5), ThisUpdate: notBefore, NextUpdate: notAfter,
	}, ca.Signer))
	return must[*ocsp.Response](t)(ocsp.ParseResponse(der, nil)).TBSResponseData
}

func TestParseRequestShapes(t *testing.T) {
	types := map[signer.Shape]string{
		signer.ShapeMLS: "LeafNodeTBS", signer.ShapeJWS: "kb+jwt", signer.ShapeCOSE: "kb+cwt",
		signer.ShapeTLS13: "server", signer.ShapeCheckpoint: "log.example.com/privyseal",
	}
	for shape, octets := range samples(t) {
		r, err := signer.ParseRequest(octets)
		if err != nil {
			t.Errorf("%s: %v", shape, err)
			continue
		}
		if r.Shape() != shape || r.Type() != types[shape] || !bytes.Equal(r.Octets(), octets) || r.Parsed() == nil {
			t.Errorf("%s: parsed as %s of type %q", shape, r.Shape(), r.Type())
		}
	}
}

// TestParseRequestPrefixes cuts every sample at every octet, and adds one.
func TestParseRequestPrefixes(t *testing.T) {
	for shape, octets := range samples(t) {
		for n := range octets {
			_, err := signer.ParseRequest(octets[:n])
			if refused := new(signer.Refusal); !errors.As(err, &refused) {
				// A JWS payload may be cut where base64url and JSON both end,
				// which an object never does.
				t.Errorf("%s cut to %d of %d octets: %v", shape, n, len(octets), err)
			}
		}
		if _, err := signer.ParseRequest(append(bytes.Clone(octets), 0)); err == nil {
			t.Errorf("%s with an octet more was accepted", shape)
		}
	}
}

// TestParseRequestKeepsOctets changes the input afterwards.
func TestParseRequestKeepsOctets(t *testing.T) {
	octets := samples(t)[signer.ShapeMLS]
	want := bytes.Clone(octets)
	r := must[*signer.Request](t)(signer.ParseRequest(octets))
	clear(octets)
	if !bytes.Equal(r.Octets(), want) || !bytes.HasSuffix(want, r.Parsed().(*signer.MLSContent).Content) {
		t.Error("the request follows the caller's buffer")
	}
}

func TestParseRequestRefuses(t *testing.T) {
	b64 := func(header, payload string) []byte {
		return jwsOctets(header, payload)
	}
	digest := sha256.Sum256([]byte("x"))
	s := samples(t)
	for _, c := range []struct {
		name   string
		octets []byte
		shape  signer.Shape
	}{
		{"nothing", nil, signer.ShapeUnknown},
		{"a bare digest", digest[:], signer.ShapeUnknown},
		{"text", []byte("Hello"), signer.ShapeUnknown},
		{"SSH signature", []byte("SSHSIG\x00\x00"), signer.ShapeUnknown},
		{"TPM quote", []byte("\xffTCG\x80\x18"), signer.ShapeUnknown},
		{"MLS without label", []byte("\x08MLS 1.0 \x00"), signer.ShapeMLS},
		{"MLS label length too long a form", append([]byte("\x40\x13MLS 1.0 LeafNodeTBS"), 0), signer.ShapeMLS},
		{"MLS content longer than what is left", []byte("\x13MLS 1.0 LeafNodeTBS\x80\xff\xff\xff"), signer.ShapeMLS},
		{"JWS alg missing", b64(`{"typ":"kb+jwt"}`, `{}`), signer.ShapeJWS},
		{"JWS alg no string", b64(`{"alg":7}`, `{}`), signer.ShapeJWS},
		{"JWS member twice", b64(`{"alg":"ES256","alg":"none"}`, `{}`), signer.ShapeJWS},
		{"JWS payload member twice", b64(`{"alg":"ES256"}`, `{"a":{"b":1,"b":2}}`), signer.ShapeJWS},
		{"JWS payload not JSON", b64(`{"alg":"ES256"}`, `hello`), signer.ShapeJWS},
		{"JWS unencoded payload", b64(`{"alg":"ES256","b64":false,"crit":["b64"]}`, `{}`), signer.ShapeJWS},
		{"JWS crit", b64(`{"alg":"ES256","crit":["x"],"x":1}`, `{}`), signer.ShapeJWS},
		{"JWS deep", b64(`{"alg":"ES256"}`, `{"a":`+string(bytes.Repeat([]byte("["), 100))+string(bytes.Repeat([]byte("]"), 100))+`}`), signer.ShapeJWS},
		{"JWS padding", append(b64(`{"alg":"ES256"}`, `{}`), '='), signer.ShapeJWS},
		{"COSE with indefinite length", []byte("\x84\x6aSignature1\x5f\x43\xa1\x01\x26\xff\x40\x40"), signer.ShapeCOSE},
		{"COSE without alg", []byte("\x84\x6aSignature1\x40\x40\x40"), signer.ShapeCOSE},
		{"COSE alg text", []byte("\x84\x6aSignature1\x44\xa1\x01\x61a\x40\x40"), signer.ShapeCOSE},
		{"COSE alg twice", []byte("\x84\x6aSignature1\x46\xa2\x01\x28\x01\x28\x40\x40"), signer.ShapeCOSE},
		{"COSE unknown content format", []byte("\x84\x6aSignature1\x47\xa2\x01\x28\x10\x19\xff\xff\x40\x40"), signer.ShapeCOSE},
		{"COSE length not shortest", []byte("\x84\x6aSignature1\x58\x03\xa1\x01\x28\x40\x40"), signer.ShapeCOSE},
		{"DER of something else", []byte{0x30, 0x03, 0x04, 0x01, 0x00}, signer.ShapeUnknown},
		{"complete certificate", signedCertificate(t), signer.ShapeUnknown},
		{"DER twice", append(bytes.Clone(s[signer.ShapeCSR]), s[signer.ShapeCSR]...), signer.ShapeUnknown},
		{"TLS 1.2 parameters", append(bytes.Repeat([]byte{0x20}, 64), 3, 0, 23), signer.ShapeTLS13},
		{"TLS exporter label", append(bytes.Repeat([]byte{0x20}, 64), "TLS 1.3, sealed\x00"...), signer.ShapeTLS13},
		{"checkpoint size with a plus", []byte("log\n+4\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), signer.ShapeCheckpoint},
		{"checkpoint with short hash", []byte("log\n4\nAAAA\n"), signer.ShapeCheckpoint},
		{"checkpoint with signature", []byte("log\n4\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n-- x\n"), signer.ShapeCheckpoint},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := signer.ParseRequest(c.octets)
			refused := new(signer.Refusal)
			if !errors.As(err, &refused) || r != nil {
				t.Fatalf("got %v, want a Refusal", err)
			}
			if refused.Shape != c.shape || refused.Reason == "" {
				t.Errorf("refused as %q (%s), want %q", refused.Shape, refused.Reason, c.shape)
			}
		})
	}
}

func jwsOctets(header, payload string) []byte {
	return []byte(b64(header) + "." + b64(payload))
}

// signedCertificate is complete, with its signature: not a to-be-signed shape.
func signedCertificate(t testing.TB) []byte {
	ca := newRecorder(t)
	return must[[]byte](t)(x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), ca.Public(), ca))
}

func TestParseRequestTooLong(t *testing.T) {
	if _, err := signer.ParseRequest(make([]byte, signer.MaxRequest+1)); err == nil {
		t.Error("no bound")
	}
}

func TestDigestRequest(t *testing.T) {
	digest := sha256.Sum256(nil)
	if _, err := signer.DigestRequest(crypto.SHA256, digest[:31]); err == nil {
		t.Error("a short digest was accepted")
	}
	r, err := signer.DigestRequest(crypto.SHA256, digest[:])
	if err != nil || r.Shape() != signer.ShapeDigest {
		t.Errorf("%v, %v", r, err)
	}
}

// TestX509Variants parses to-be-signed octets with every algorithm.
func TestX509Variants(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.Signer{ed}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		keys = append(keys, must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(c, rand.Reader)))
	}
	for _, k := range keys {
		r := &recorder{Signer: k}
		must[[]byte](t)(x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), k.Public(), r))
		if _, err := signer.ParseRequest(r.message); err != nil {
			t.Errorf("%T: %v", k, err)
		}
	}
}

// TestOCSPVersion refuses a ResponseData that spells out a version.
func TestOCSPVersion(t *testing.T) {
	inner := samples(t)[signer.ShapeOCSP]
	var raw asn1.RawValue
	if _, err := asn1.Unmarshal(inner, &raw); err != nil {
		t.Fatal(err)
	}
	body := append([]byte{0xa0, 3, 2, 1, 0}, raw.Bytes...)
	der := must[[]byte](t)(asn1.Marshal(asn1.RawValue{Class: 0, Tag: 16, IsCompound: true, Bytes: body}))
	if _, err := signer.ParseRequest(der); err == nil {
		t.Error("accepted")
	}
}
