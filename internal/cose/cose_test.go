package cose_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	gocose "github.com/veraison/go-cose"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

func keys(t testing.TB) map[*credentials.Scheme]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[*credentials.Scheme]crypto.Signer{credentials.Ed25519: ed}
	for s, curve := range map[*credentials.Scheme]elliptic.Curve{credentials.ECDSAP256: elliptic.P256(), credentials.ECDSAP384: elliptic.P384(), credentials.ECDSAP521: elliptic.P521()} {
		if out[s], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func sign(t testing.TB, key crypto.Signer, protected ...dcbor.Value) []byte {
	t.Helper()
	b, err := cose.Sign(context.Background(), key, dcbor.NewMap(protected...), dcbor.NewMap(dcbor.NewInt(4), dcbor.NewBytes([]byte("11"))), []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignAndVerify(t *testing.T) {
	all := keys(t)
	for s, key := range all {
		msg, err := cose.DecodeSign1(sign(t, key), dcbor.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if alg, err := msg.Alg(); err != nil || alg != s.COSE {
			t.Errorf("%s: alg %d, %v", s, alg, err)
		}
		for other, k := range all {
			if got := msg.Verify(k.Public()); got != (other == s) {
				t.Errorf("signature of %s under a key of %s: %v", s, other, got)
			}
		}
		msg.Payload = []byte("another")
		if msg.Verify(key.Public()) {
			t.Errorf("%s: another payload verifies", s)
		}
	}
}

// What another COSE library signs we verify, and the other way round, with the
// algorithm numbers that it knows.
func TestPeer(t *testing.T) {
	for s, alg := range map[*credentials.Scheme]gocose.Algorithm{credentials.ECDSAP256: gocose.AlgorithmES256, credentials.ECDSAP384: gocose.AlgorithmES384, credentials.ECDSAP521: gocose.AlgorithmES512, credentials.Ed25519: gocose.AlgorithmEdDSA} {
		key := keys(t)[s]
		signer, err := gocose.NewSigner(alg, key)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := gocose.Sign1(rand.Reader, signer, gocose.Headers{Protected: gocose.ProtectedHeader{gocose.HeaderLabelAlgorithm: alg}}, []byte("payload"), nil)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := cose.DecodeSign1(theirs, dcbor.Limits{})
		if err != nil || !msg.Verify(key.Public()) {
			t.Errorf("%s: theirs does not verify: %v", s, err)
		}
		var parsed gocose.Sign1Message
		if err := parsed.UnmarshalCBOR(sign(t, key)); err != nil {
			t.Errorf("%s: ours does not parse: %v", s, err)
		}
		if string(parsed.Payload) != "payload" {
			t.Errorf("%s: payload %q", s, parsed.Payload)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, v := range map[string]dcbor.Value{
		"no tag":             dcbor.NewArray(dcbor.NewBytes(nil), dcbor.NewMap(), dcbor.NewBytes(nil), dcbor.NewBytes(nil)),
		"another tag":        dcbor.NewTag(17, dcbor.NewArray(dcbor.NewBytes(nil), dcbor.NewMap(), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
		"three members":      dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes(nil), dcbor.NewMap(), dcbor.NewBytes(nil))),
		"detached payload":   dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes(nil), dcbor.NewMap(), dcbor.NewNull(), dcbor.NewBytes(nil))),
		"header no map":      dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes(nil), dcbor.NewArray(), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
		"protected no map":   dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes([]byte{0x80}), dcbor.NewMap(), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
		"protected cut":      dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes([]byte{0xa1}), dcbor.NewMap(), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
		"label in both":      dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes([]byte{0xa1, 4, 0x40}), dcbor.NewMap(dcbor.NewInt(4), dcbor.NewBytes(nil)), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
		"label in both, 2nd": dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes([]byte{0xa1, 0x18, 4, 0x40}), dcbor.NewMap(dcbor.NewInt(4), dcbor.NewBytes(nil)), dcbor.NewBytes(nil), dcbor.NewBytes(nil))),
	} {
		if _, err := cose.DecodeSign1(dcbor.Encode(v), dcbor.Limits{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAlgAndCrit(t *testing.T) {
	header := func(pairs ...dcbor.Value) *cose.Sign1 {
		v := dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes(dcbor.Encode(dcbor.NewMap(pairs...))), dcbor.NewMap(), dcbor.NewBytes(nil), dcbor.NewBytes(nil)))
		s, err := cose.DecodeSign1(dcbor.Encode(v), dcbor.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	n := dcbor.NewInt
	for _, alg := range []dcbor.Value{n(0), n(-37), n(5), dcbor.NewText("ES256"), dcbor.NewNull(), n(-53)} {
		if _, err := header(n(1), alg).Alg(); !errors.Is(err, cose.ErrAlg) {
			t.Errorf("alg %v: %v", alg, err)
		}
	}
	for _, alg := range []int64{-7, -8, -9, -19, -35, -36, -51, -52} {
		if got, err := header(n(1), n(alg)).Alg(); err != nil || got != alg {
			t.Errorf("alg %d: %d, %v", alg, got, err)
		}
	}
	for _, crit := range []dcbor.Value{dcbor.NewArray(), dcbor.NewNull(), n(1), dcbor.NewArray(n(99)), dcbor.NewArray(n(16)), dcbor.NewArray(dcbor.NewText("x")), dcbor.NewArray(n(1), n(1000))} {
		if err := header(n(1), n(-9), n(2), crit).Crit(1, 16); !errors.Is(err, cose.ErrCrit) {
			t.Errorf("crit %v: %v", crit, err)
		}
	}
	if err := header(n(1), n(-9), n(2), dcbor.NewArray(n(1))).Crit(1, 16); err != nil {
		t.Error(err)
	}
}

func TestWithUnprotected(t *testing.T) {
	key := keys(t)[credentials.ECDSAP256]
	in := sign(t, key, dcbor.NewInt(16), dcbor.NewInt(293))
	msg, err := cose.DecodeSign1(in, dcbor.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := msg.WithUnprotected(msg.Unprotected); !bytes.Equal(got, in) {
		t.Errorf("the same header gives %x", got)
	}
	out := msg.WithUnprotected(dcbor.NewMap(dcbor.NewInt(17), dcbor.NewArray(dcbor.NewBytes(bytes.Repeat([]byte{1}, 300)))))
	changed, err := cose.DecodeSign1(out, dcbor.Limits{})
	if err != nil || !changed.Verify(key.Public()) || !changed.Unprotected.GetInt(17).Exists() {
		t.Errorf("got %v, %v", changed, err)
	}
}

// slowKey is a key in a device: it obeys the context.
type slowKey struct{ crypto.Signer }

func (k slowKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if ctx.Value(slowKey{}) == nil {
		return nil, errors.New("no context came")
	}
	return k.Signer.Sign(rand.Reader, digest, opts)
}

func (k slowKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("asked without a context")
}

func TestContextReachesTheDevice(t *testing.T) {
	key := slowKey{keys(t)[credentials.ECDSAP256]}
	ctx := context.WithValue(context.Background(), slowKey{}, true)
	if _, err := cose.Sign(ctx, key, dcbor.NewMap(), dcbor.NewMap(), nil); err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := cose.Sign(over, key, dcbor.NewMap(), dcbor.NewMap(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseSign1(f *testing.F) {
	f.Add(sign(f, keys(f)[credentials.ECDSAP256]))
	f.Add(sign(f, keys(f)[credentials.Ed25519], dcbor.NewInt(16), dcbor.NewInt(293), dcbor.NewInt(33), dcbor.NewBytes([]byte{1})))
	pub := keys(f)[credentials.ECDSAP256].Public()
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := cose.DecodeSign1(data, dcbor.Limits{})
		if err != nil {
			return
		}
		if s.Verify(pub) {
			t.Fatal("a signature by a key that signed nothing")
		}
		s.Crit(1)
		s.X5Chain()
		s.KeyID()
		same := s.WithUnprotected(dcbor.Verbatim(s.Unprotected.Raw()))
		if !bytes.Equal(same, data) {
			t.Fatalf("%x came back as %x", data, same)
		}
	})
}
