package signer_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

var signingAlgorithms = []signer.Algorithm{signer.P256, signer.P384, signer.P521, signer.Ed25519}

func TestSignMessage(t *testing.T) {
	b := newBench(t)
	message := samples(t)[signer.ShapeMLS]
	for _, a := range signingAlgorithms {
		id := signer.KeyID("leaf-" + string(a[len(a)-3:]))
		b.create(id, signer.PurposeMLSLeaf, a)
		s := b.signer(id, signer.PurposeMLSLeaf)
		sig, err := s.SignMessage(nil, message, nil)
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if !a.Scheme().Verify(s.Public(), message, sig) {
			t.Errorf("%s: the signature does not verify", a)
		}
		if sig, err = a.Scheme().Sign(rand.Reader, s, message); err != nil || !a.Scheme().Verify(s.Public(), message, sig) {
			t.Errorf("%s through credentials.Scheme: %v", a, err)
		}
		r := must[*signer.Request](t)(signer.ParseRequest(message))
		full, err := b.ring.Sign(t.Context(), id, signer.PurposeMLSLeaf, r)
		if err != nil || full.Version != 1 || full.KID != s.KID() || !a.Scheme().Verify(s.Public(), message, full.Octets) {
			t.Errorf("%s through the Keyring: %+v, %v", a, full, err)
		}
	}
}

// TestPurposeHolds asks every signing key for every shape.
func TestPurposeHolds(t *testing.T) {
	b := newBench(t)
	all := samples(t)
	for _, p := range signer.Purposes() {
		if p.Use() != signer.UseSign || p == signer.PurposeRaw {
			continue
		}
		b.create(signer.KeyID(p), p, signer.P256)
		s := b.signer(signer.KeyID(p), p)
		all[signer.ShapeCSR] = csrFor(t, s.Public())
		for shape, octets := range all {
			r := must[*signer.Request](t)(signer.ParseRequest(octets))
			_, err := s.SignMessage(nil, octets, nil)
			refused := new(signer.Refusal)
			if want := p.Permits(shape, r.Type()); (err == nil) != want || !want && !errors.As(err, &refused) {
				t.Errorf("%s signing %s: %v", p, shape, err)
			}
		}
		digest := sha256.Sum256([]byte("x"))
		if _, err := s.Sign(nil, digest[:], crypto.SHA256); !errors.As(err, new(*signer.Refusal)) {
			t.Errorf("%s signed a digest: %v", p, err)
		}
		for _, other := range signer.Purposes() {
			if other == p {
				continue
			}
			if _, err := b.ring.Signer(t.Context(), signer.KeyID(p), other); err == nil {
				t.Errorf("the %s key was given out as %s", p, other)
			}
		}
	}
}

// csrFor returns a CertificationRequestInfo for somebody's public key.
func csrFor(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	r := newRecorder(t)
	x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, &publicOf{r, pub})
	return r.message
}

// publicOf has the public key of another; what it signs is thrown away.
type publicOf struct {
	*recorder
	pub crypto.PublicKey
}

func (p *publicOf) Public() crypto.PublicKey { return p.pub }

func TestRequestMustSuitKey(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, signer.P384)
	b.create("ca", signer.PurposeX509CA, signer.P384)
	s := samples(t) // all for P-256
	for id, octets := range map[signer.KeyID][][]byte{
		"leaf": {s[signer.ShapeJWS], s[signer.ShapeCOSE], s[signer.ShapeCSR]},
		"ca":   {s[signer.ShapeCertificate], s[signer.ShapeCRL]},
	} {
		for _, o := range octets {
			key, _ := b.store.Key(t.Context(), id)
			if _, err := b.signer(id, key.Purpose).SignMessage(nil, o, nil); !errors.As(err, new(*signer.Refusal)) {
				t.Errorf("%s signed % x…: %v", id, o[:12], err)
			}
		}
	}
	if _, err := b.signer("leaf", signer.PurposeMLSLeaf).SignMessage(nil, s[signer.ShapeMLS], crypto.SHA256); !errors.Is(err, signer.ErrUsage) {
		t.Errorf("P-384 with SHA-256: %v", err)
	}
}

func TestRawKey(t *testing.T) {
	b := newBench(t)
	for _, a := range signingAlgorithms {
		id := signer.KeyID("raw-" + string(a[len(a)-3:]))
		b.create(id, signer.PurposeRaw, a)
		s := b.signer(id, signer.PurposeRaw)
		message := []byte("anything")
		sig, err := s.SignMessage(rand.Reader, message, s.Scheme().Hash)
		if err != nil || !s.Scheme().Verify(s.Public(), message, sig) {
			t.Errorf("%s message: %v", a, err)
		}
		if s.Scheme().Hash == 0 {
			continue
		}
		h := s.Scheme().Hash.New()
		h.Write(message)
		sig, err = s.Sign(rand.Reader, h.Sum(nil), s.Scheme().Hash)
		if err != nil || !s.Scheme().Verify(s.Public(), message, sig) {
			t.Errorf("%s digest: %v", a, err)
		}
		for _, bad := range []crypto.SignerOpts{crypto.SHA1, crypto.SHA512_256, crypto.Hash(0), nil} {
			if _, err := s.Sign(rand.Reader, h.Sum(nil), bad); err == nil {
				t.Errorf("%s signed with options %v", a, bad)
			}
		}
	}
}

// TestStandardLibrary has crypto/x509 issue with the CA key.
func TestStandardLibrary(t *testing.T) {
	b := newBench(t)
	b.create("ca", signer.PurposeX509CA, "")
	ca := b.signer("ca", signer.PurposeX509CA)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), ca.Public(), ca))
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(der))
	if err := cert.CheckSignatureFrom(cert); err != nil {
		t.Error(err)
	}
	must[[]byte](t)(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: notBefore, NextUpdate: notAfter}, cert, ca))
	must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ca))
}

// TestSignOnly makes an OCSP response, whose library hands out digests only.
func TestSignOnly(t *testing.T) {
	b := newBench(t)
	b.create("ca", signer.PurposeX509CA, "")
	ca := b.signer("ca", signer.PurposeX509CA)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), ca.Public(), ca))
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(der))
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: big.NewInt(5), ThisUpdate: notBefore, NextUpdate: notAfter}

	// ProducedAt has whole minutes, so a second attempt is enough at the turn of one.
	var err error
	for range 2 {
		tbs := must[*ocsp.Response](t)(ocsp.ParseResponse(must[[]byte](t)(ocsp.CreateResponse(cert, cert, answer, newRecorder(t).Signer)), nil)).TBSResponseData
		only := must[crypto.Signer](t)(ca.SignOnly(tbs))
		var resp []byte
		if resp, err = ocsp.CreateResponse(cert, cert, answer, only); err == nil {
			_, err = ocsp.ParseResponse(resp, cert)
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}

	only := must[crypto.Signer](t)(ca.SignOnly(samples(t)[signer.ShapeOCSP]))
	other := sha256.Sum256([]byte("another"))
	if _, err := only.Sign(rand.Reader, other[:], crypto.SHA256); !errors.As(err, new(*signer.Refusal)) {
		t.Errorf("another digest: %v", err)
	}
}

// TestBitFlips flips each octet of the signature in turn: none leaves, and the
// device is marked.
func TestBitFlips(t *testing.T) {
	for _, a := range signingAlgorithms {
		b := newBench(t)
		b.create("leaf", signer.PurposeMLSLeaf, a)
		s := b.signer("leaf", signer.PurposeMLSLeaf)
		message := samples(t)[signer.ShapeMLS]
		for i := range 64 {
			b.device.Garble = func(sig []byte) []byte {
				bad := bytes.Clone(sig)
				bad[i%len(bad)] ^= 1 << (i % 8)
				return bad
			}
			sig, err := s.SignMessage(nil, message, nil)
			de := new(signer.DeviceError)
			if sig != nil || !errors.Is(err, signer.ErrBadSignature) || !errors.As(err, &de) || de.Remedy != signer.RemedyOperator {
				t.Fatalf("%s octet %d: %x, %v", a, i, sig, err)
			}
			b.device.Garble = nil
			if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrDeviceSuspect) {
				t.Fatalf("%s: a suspect device signed: %v", a, err)
			}
			if err := b.store.ClearSuspect(t.Context(), "soft", "looked into it"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.SignMessage(nil, message, nil); err != nil {
			t.Errorf("%s after clearing: %v", a, err)
		}
		if err := b.store.ClearSuspect(t.Context(), "soft", ""); !errors.Is(err, signer.ErrNoDevice) {
			t.Errorf("cleared twice: %v", err)
		}
	}
}

// TestSuspectSurvives reopens the store after a wrong signature.
func TestSuspectSurvives(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	b.device.Garble = func([]byte) []byte { return []byte("garbage") }
	b.signer("leaf", signer.PurposeMLSLeaf).SignMessage(nil, samples(t)[signer.ShapeMLS], nil)
	b.open()
	suspects, err := b.store.Suspects(t.Context())
	if err != nil || len(suspects) != 1 || suspects[0].Device != "soft" || suspects[0].Key != "leaf" {
		t.Errorf("%+v, %v", suspects, err)
	}
}

// TestUnverified releases without looking, as the operator chose, and the
// choice is in the history.
func TestUnverified(t *testing.T) {
	b := newBench(t)
	if _, err := b.ring.Create(t.Context(), signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Device: "soft", Unverified: true}); err != nil {
		t.Fatal(err)
	}
	b.device.Garble = func([]byte) []byte { return []byte("garbage") }
	s := b.signer("leaf", signer.PurposeMLSLeaf)
	if sig, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); err != nil || string(sig) != "garbage" {
		t.Errorf("%q, %v", sig, err)
	}
	if sig, verified, err := s.SignVerified(t.Context(), samples(t)[signer.ShapeMLS], nil); err != nil || verified {
		t.Errorf("%q is said to be verified: %t, %v", sig, verified, err)
	}
	if err := b.store.SetUnverified(t.Context(), "leaf", false, "audit"); err != nil {
		t.Fatal(err)
	}
	garble := b.device.Garble
	b.device.Garble = nil
	if _, verified, err := s.SignVerified(t.Context(), samples(t)[signer.ShapeMLS], nil); err != nil || !verified {
		t.Errorf("after turning it on, a good signature is said to be verified: %t, %v", verified, err)
	}
	b.device.Garble = garble
	if _, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); !errors.Is(err, signer.ErrBadSignature) {
		t.Errorf("after turning it on: %v", err)
	}
	var events []string
	history := must[[]signer.Event](t)(b.store.History(t.Context(), "leaf"))
	for _, e := range history {
		events = append(events, e.Event)
	}
	want := []string{"verify-before-release off", "pending", "active", "verify-before-release on", "device suspect"}
	if !equal(events, want) {
		t.Errorf("history %q, want %q", events, want)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestMarkingFails has the store fail when the device is to be marked: the
// signature must not leave all the same.
func TestMarkingFails(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	boom := errors.New("disk full")
	ring := signer.NewKeyringWithSteps(&faultyStore{KeyStore: b.store, fault: func(step string, after bool) error {
		if step == "suspect" {
			return boom
		}
		return nil
	}}, b.devices())
	b.device.Garble = func(sig []byte) []byte { sig[9] ^= 1; return sig }
	s, err := ring.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil)
	if sig != nil || !errors.Is(err, boom) || !errors.Is(err, signer.ErrBadSignature) {
		t.Errorf("%x, %v", sig, err)
	}
}

// TestNegativeSignatures feeds the check before release what must not pass.
func TestNegativeSignatures(t *testing.T) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	digest := sha256.Sum256([]byte("message"))
	good := must[[]byte](t)(ecdsa.SignASN1(rand.Reader, key, digest[:]))
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(good, &rs); err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	der := func(r, s *big.Int) []byte {
		return must[[]byte](t)(asn1.Marshal(struct{ R, S *big.Int }{r, s}))
	}
	plus := func(x *big.Int) *big.Int { return new(big.Int).Add(x, n) }
	for name, sig := range map[string][]byte{
		"empty": nil, "zero and zero": der(new(big.Int), new(big.Int)), "r zero": der(new(big.Int), rs.S), "s zero": der(rs.R, new(big.Int)),
		"r plus n": der(plus(rs.R), rs.S), "s plus n": der(rs.R, plus(rs.S)), "r and s swapped": der(rs.S, rs.R),
		"r negative": der(new(big.Int).Neg(rs.R), rs.S), "r is n": der(n, rs.S), "raw r and s": append(rs.R.Bytes(), rs.S.Bytes()...),
		"an octet more": append(bytes.Clone(good), 0), "cut": good[:len(good)-1],
		"BER length": append([]byte{0x30, 0x81, good[1]}, good[2:]...),
	} {
		if signer.Verify(&key.PublicKey, digest[:], sig) {
			t.Errorf("%s passes", name)
		}
	}
	if !signer.Verify(&key.PublicKey, digest[:], good) {
		t.Error("the good one does not pass")
	}

	pub, ed, _ := ed25519.GenerateKey(rand.Reader)
	message := []byte("message")
	sig := ed25519.Sign(ed, message)
	l, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	s := new(big.Int).SetBytes(reversed(sig[32:]))
	high := reversed(s.Add(s, l).FillBytes(make([]byte, 32))) // RFC 8032 section 5.1.7: S < L
	for name, bad := range map[string][]byte{
		"S plus L": append(bytes.Clone(sig[:32]), high...), "empty": nil, "cut": sig[:63], "halves swapped": append(bytes.Clone(sig[32:]), sig[:32]...), "zeros": make([]byte, 64),
	} {
		if signer.Verify(pub, message, bad) {
			t.Errorf("Ed25519 %s passes", name)
		}
	}
	if signer.Verify(nil, message, sig) || !signer.Verify(pub, message, sig) {
		t.Error("Ed25519: no key passes, or the good signature does not")
	}
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

// TestRotationStopsSigner rotates in another Keyring over the same file, as
// another process does.
func TestRotationStopsSigner(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	s := b.signer("leaf", signer.PurposeMLSLeaf)
	old := b.ring
	b.open()
	if _, err := b.ring.Rotate(t.Context(), "leaf", ""); err != nil {
		t.Fatal(err)
	}
	message := samples(t)[signer.ShapeMLS]
	if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("the old version signed: %v", err)
	}
	s, err := old.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf)
	if err != nil || s.Version() != 2 {
		t.Fatalf("looked up again: %v", err)
	}
	if _, err := s.SignMessage(nil, message, nil); err != nil {
		t.Error(err)
	}
	if err := b.ring.Destroy(t.Context(), "leaf", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("a destroyed version signed: %v", err)
	}
	if _, err := old.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("a key without active version: %v", err)
	}
}

// TestReplacedObject has the device hold another key at the URI.
func TestReplacedObject(t *testing.T) {
	b := newBench(t)
	b.create("a", signer.PurposeMLSLeaf, "")
	b.create("i", signer.PurposeMLSInit, "")
	swapped := signer.NewKeyring(b.store, map[string]signer.Device{"soft": &swapDevice{Device: b.device}})
	if _, err := swapped.Signer(t.Context(), "a", signer.PurposeMLSLeaf); !errors.As(err, new(*signer.DeviceError)) {
		t.Errorf("signing key: %v", err)
	}
	if _, err := swapped.KeyExchanger(t.Context(), "i", signer.PurposeMLSInit); !errors.As(err, new(*signer.DeviceError)) {
		t.Errorf("agreement key: %v", err)
	}
}

type swapDevice struct{ *signertest.Device }

func (d *swapDevice) Open(ctx context.Context, _ string, a signer.Algorithm) (signer.DeviceKey, error) {
	o, err := d.Generate(ctx, signer.KeySpec{ID: signer.NewObjectID(), Algorithm: a})
	if err != nil {
		return nil, err
	}
	return d.Device.Open(ctx, o.URI, a)
}

func TestContext(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	ctx, cancel := context.WithCancel(t.Context())
	s := b.signer("leaf", signer.PurposeMLSLeaf).WithContext(ctx)
	cancel()
	_, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestHPKE opens what was sealed to device-held init keys.
func TestHPKE(t *testing.T) {
	b := newBench(t)
	for id, c := range map[signer.KeyID]struct {
		a   signer.Algorithm
		kem hpke.KEM
	}{"p256": {signer.ECDHP256, hpke.DHKEM(ecdh.P256())}, "x25519": {signer.X25519, hpke.DHKEM(ecdh.X25519())}} {
		b.create(id, signer.PurposeMLSInit, c.a)
		x, err := b.ring.KeyExchanger(t.Context(), id, signer.PurposeMLSInit)
		if err != nil {
			t.Fatal(err)
		}
		private := must[hpke.PrivateKey](t)(hpke.NewDHKEMPrivateKey(x))
		sealed := must[[]byte](t)(hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"), []byte("secret")))
		if opened, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"), sealed); err != nil || string(opened) != "secret" {
			t.Errorf("%s: %q, %v", id, opened, err)
		}
		other := must[*ecdh.PrivateKey](t)(ecdh.P384().GenerateKey(rand.Reader))
		if _, err := x.ECDH(other.PublicKey()); !errors.Is(err, signer.ErrUsage) {
			t.Errorf("%s with a P-384 peer: %v", id, err)
		}
		if _, err := b.ring.Signer(t.Context(), id, signer.PurposeMLSInit); !errors.Is(err, signer.ErrUsage) {
			t.Errorf("%s as a Signer: %v", id, err)
		}
	}
}

func TestMAC(t *testing.T) {
	b := newBench(t)
	b.create("frank", signer.PurposeFrankMAC, "")
	m, err := b.ring.MAC(t.Context(), "frank", signer.PurposeFrankMAC)
	if err != nil {
		t.Fatal(err)
	}
	one := must[[]byte](t)(m.MAC(t.Context(), []byte("context")))
	two := must[[]byte](t)(m.MAC(t.Context(), []byte("context")))
	other := must[[]byte](t)(m.MAC(t.Context(), []byte("other")))
	if len(one) != 32 || !bytes.Equal(one, two) || bytes.Equal(one, other) {
		t.Errorf("%x, %x, %x", one, two, other)
	}
	if _, err := m.MAC(t.Context(), make([]byte, signer.MaxRequest+1)); !errors.Is(err, signer.ErrUsage) {
		t.Errorf("too long: %v", err)
	}
	if _, err := b.ring.MAC(t.Context(), "frank", signer.PurposeFrankSign); err == nil {
		t.Error("given out for another purpose")
	}
}

// TestDigestIsCopied has a device change the digest that it was given, and
// sign that instead.
func TestDigestIsCopied(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	ring := signer.NewKeyring(b.store, map[string]signer.Device{"soft": &scribbleDevice{b.device}})
	s, err := ring.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); sig != nil || !errors.Is(err, signer.ErrBadSignature) {
		t.Errorf("%x, %v", sig, err)
	}
}

type scribbleDevice struct{ *signertest.Device }

func (d *scribbleDevice) Open(ctx context.Context, uri string, a signer.Algorithm) (signer.DeviceKey, error) {
	k, err := d.Device.Open(ctx, uri, a)
	if err != nil {
		return nil, err
	}
	return scribbleKey{k.(signer.SigningKey)}, nil
}

type scribbleKey struct{ signer.SigningKey }

func (k scribbleKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest[0] ^= 1
	return k.SigningKey.SignContext(ctx, digest, opts)
}

// notParsed claims to be octets that were parsed.
type notParsed struct{}

func (notParsed) Octets() []byte { return []byte("fe") }
func (notParsed) Parsed() any    { return nil }

// What was read before is signed, verified and refused like what is read when it is
// signed, and nothing else passes for it.
func TestSignRead(t *testing.T) {
	b := newBench(t)
	if _, err := b.ring.Create(t.Context(), signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Device: "soft"}); err != nil {
		t.Fatal(err)
	}
	s, all := b.signer("leaf", signer.PurposeMLSLeaf), samples(t)
	read, err := s.Read(all[signer.ShapeMLS])
	if err != nil {
		t.Fatal(err)
	}
	sig, verified, err := s.SignRead(t.Context(), read)
	if err != nil || !verified || !s.Scheme().Verify(s.Public(), all[signer.ShapeMLS], sig) {
		t.Errorf("%x, verified: %t, %v", sig, verified, err)
	}
	if read, err = s.Read(all[signer.ShapeCRL]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.SignRead(t.Context(), read); !errors.As(err, new(*signer.Refusal)) {
		t.Errorf("a CRL by the key of a leaf: %v", err)
	}
	if _, _, err := s.SignRead(t.Context(), notParsed{}); !errors.Is(err, signer.ErrUsage) {
		t.Errorf("what was never parsed: %v", err)
	}
}
