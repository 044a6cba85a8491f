package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

// The uses of keys: signing, agreement, authentication.

func testInfo(t *testing.T, c contract) {
	mod := c.openModule(t)
	info, err := mod.Info(t.Context())
	if err != nil || string(info.Kind) != c.m.Name || info.Description == "" {
		t.Errorf("Module.Info = %+v, %v; want kind %s", info, err, c.m.Name)
	}
	tokens, err := mod.Tokens(t.Context())
	if err != nil || !slices.ContainsFunc(tokens, func(i hsm.TokenInfo) bool { return i.Label == c.m.Label && i.Initialized }) {
		t.Errorf("Module.Tokens = %+v, %v; want %q among them", tokens, err, c.m.Label)
	}
	tok := c.m.OpenTokenOf(t, mod)
	got, err := tok.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Label != c.m.Label || !got.LoginRequired || !got.UserPINSet || got.UserPINLocked {
		t.Errorf("Token.Info = %+v", got)
	}
	if !slices.Equal(got.KeyTypes, c.m.Deviations.claimed()) {
		t.Errorf("the token makes %v, Deviations say %v", got.KeyTypes, c.m.Deviations.claimed())
	}
	health, err := tok.Health(t.Context())
	if err != nil || !health.LoggedIn || health.Sessions < 1 {
		t.Errorf("Health = %+v, %v", health, err)
	}
}

func testSigns(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.signingTypes() {
		t.Run(string(k), func(t *testing.T) {
			info := generate(t, tok, k, hsm.UseSign)
			key := signer(t, tok, info)
			for i := range 20 {
				signs(t, key, fmt.Appendf(nil, "message %d", i))
			}
			again := signer(t, tok, info)
			if !samePublic(key.Public(), again.Public()) {
				t.Error("the same URI gives another public key")
			}
		})
	}
}

// samePublic compares keys of the standard library, which all have Equal.
func samePublic(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// tokens sign what they are given: the driver must look.
func testDigestLength(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.signingTypes() {
		if k == hsm.Ed25519 {
			continue
		}
		key := signer(t, tok, generate(t, tok, k, hsm.UseSign))
		for _, n := range []int{0, 1, 20, 28, 31, 33, 47, 63, 65, 512} {
			_, err := key.Sign(rand.Reader, make([]byte, n), nil)
			wantError(t, fmt.Sprintf("%s over %d octets", k, n), err, hsm.ErrDigestLength)
		}
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA384} {
			_, err := key.Sign(rand.Reader, make([]byte, 32), h)
			wantError(t, fmt.Sprintf("%s over 32 octets as %s", k, h), err, hsm.ErrDigestLength)
		}
		digest, _ := Digest(k, []byte("message"))
		sig, err := key.Sign(nil, digest, nil) // COSE libraries pass no options
		if err != nil || !Verifies(key.Public(), k, []byte("message"), sig) {
			t.Errorf("%s without options: %v", k, err)
		}
		return // the check is not the token's; one type is enough
	}
}

func testSignMessage(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.signingTypes() {
		key := signer(t, tok, generate(t, tok, k, hsm.UseSign))
		_, hash := Digest(k, nil)
		for _, n := range []int{0, 1, 32, 1000, 100_000} {
			msg := bytes.Repeat([]byte{byte(n)}, n)
			sig, err := key.SignMessage(rand.Reader, msg, hash)
			if err != nil || !Verifies(key.Public(), k, msg, sig) {
				t.Errorf("%s over %d octets: %v", k, n, err)
			}
		}
	}
}

func testAgreement(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.agreementTypes() {
		t.Run(string(k), func(t *testing.T) {
			key, err := tok.Agreement(t.Context(), tok.KeyURI(generate(t, tok, k, hsm.UseAgree)))
			if err != nil {
				t.Fatal(err)
			}
			agreesWithSoftware(t, key)
			refusesOtherCurves(t, key)
			opensHPKE(t, key)
		})
	}
}

// agreesWithSoftware meets secrets with a leading zero octet too, one in 256.
func agreesWithSoftware(t *testing.T, key *hsm.AgreementKey) {
	for range 40 {
		other := peer(t, key.Curve())
		want, err := other.ECDH(key.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		got, err := key.ECDH(other.PublicKey())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the token and the peer do not agree (%v)", err)
		}
	}
}

func refusesOtherCurves(t *testing.T, key *hsm.AgreementKey) {
	for _, c := range []ecdh.Curve{ecdh.P256(), ecdh.P384(), ecdh.P521(), ecdh.X25519()} {
		if c == key.Curve() {
			continue
		}
		_, err := key.ECDH(peer(t, c).PublicKey())
		wantError(t, fmt.Sprint("a peer on ", c), err, hsm.ErrBadPoint)
	}
	_, err := key.ECDH(nil)
	wantError(t, "no peer", err, hsm.ErrBadPoint)
}

// opensHPKE opens what was sealed to the token's key, which never leaves it.
func opensHPKE(t *testing.T, key *hsm.AgreementKey) {
	private, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"), sealed)
	if err != nil || string(opened) != "secret" {
		t.Errorf("HPKE open: %q, %v", opened, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"), sealed); err == nil {
		t.Error("an altered ciphertext opens")
	}
	if _, err := private.Bytes(); err == nil {
		t.Error("the private key has bytes")
	}
}

// testMAC compares with the standard library under a secret that both know.
func testMAC(t *testing.T, c contract) {
	if !slices.Contains(c.m.Deviations.keyTypes(), hsm.HMACSHA256) {
		return
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	importSecret(t, c.m, "known", secret)
	tok := c.open(t, func(config *hsm.Config) {
		config.AdmitWeak = append(slices.Clone(config.AdmitWeak), "CKA_NEVER_EXTRACTABLE", "CKA_ALWAYS_SENSITIVE", "CKA_LOCAL")
	})
	key, err := tok.MAC(t.Context(), hsm.URI{Object: "known"})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 63, 64, 65, 1000, 50_000} {
		msg := bytes.Repeat([]byte{byte(n)}, n)
		got, err := key.MAC(t.Context(), msg)
		if err != nil || !bytes.Equal(got, softwareMAC(secret, msg)) {
			t.Errorf("MAC over %d octets: %x, %v", n, got, err)
		}
	}
	if ok, err := key.Verify(t.Context(), []byte("a"), softwareMAC(secret, []byte("a"))); !ok || err != nil {
		t.Errorf("Verify of the right MAC: %v, %v", ok, err)
	}
	if ok, err := key.Verify(t.Context(), []byte("b"), softwareMAC(secret, []byte("a"))); ok || err != nil {
		t.Errorf("Verify of another message: %v, %v", ok, err)
	}
	made := generate(t, tok, hsm.HMACSHA256, hsm.UseMAC)
	if err := macUser(t, tok, made)(); err != nil {
		t.Error(err)
	}
	if _, err := tok.MAC(t.Context(), hsm.URI{Object: made.Label, ID: []byte("other")}); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Errorf("a key of another id: %v", err)
	}
}

func softwareMAC(secret, msg []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(msg)
	return h.Sum(nil)
}

// importSecret puts a known secret into the token before the driver opens it.
func importSecret(t *testing.T, m *Module, label string, secret []byte) {
	t.Helper()
	r := m.Load(t)
	defer r.Stop()
	if _, err := r.ImportSecret(label, secret); err != nil {
		t.Fatalf("import: %v", err)
	}
}

// macUser returns a function that computes a MAC and compares it with the
// first.
func macUser(t testing.TB, tok *hsm.Token, info hsm.KeyInfo) func() error {
	t.Helper()
	key, err := tok.MAC(t.Context(), tok.KeyURI(info))
	if err != nil {
		t.Fatal(err)
	}
	first, err := key.MAC(t.Context(), []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		mac, err := key.MAC(t.Context(), []byte("message"))
		if err == nil && !bytes.Equal(mac, first) {
			return errWrongSignature
		}
		return err
	}
}

func testUnsupported(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range hsm.KeyTypes {
		for _, use := range k.Uses() {
			can := slices.Contains(c.m.Deviations.keyTypes(), k) && (use != hsm.UseAgree || !c.m.Deviations.NoAgreement)
			if can {
				continue
			}
			want := hsm.ErrUnsupported
			if slices.Contains(c.m.Deviations.Broken, k) && use == hsm.UseSign {
				want = hsm.ErrBadOutput
			}
			label := newLabel()
			_, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: use, Label: label})
			wantError(t, fmt.Sprintf("%s for %s", k, use), err, want)
			if _, err := tok.Find(t.Context(), hsm.URI{Object: label}); !errors.Is(err, hsm.ErrKeyNotFound) {
				t.Errorf("%s for %s was refused and is there: %v", k, use, err)
			}
		}
	}
}
