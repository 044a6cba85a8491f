package tpmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/tpm"
)

// Places in the TPM that the contract uses and leaves as it found them, but
// for the value of the PCR.
const (
	contractHandle = 0x8100f0f0
	contractPCR    = 23
)

// TestDevice is the contract of a TPM device. It makes keys, one of them
// persistent under 0x8100f0f0, which must be free, and resets and extends PCR
// 23. Any TPM with P-256 and P-384 must pass.
func TestDevice(t *testing.T, d *tpm.Device) {
	tests := []struct {
		name string
		test func(*testing.T, *tpm.Device)
	}{
		{"sign", testSign},
		{"sign refuses", testSignRefuses},
		{"agree", testAgree},
		{"hpke", testHPKE},
		{"mac", testMAC},
		{"uses are kept apart", testUses},
		{"key file", testKeyFile},
		{"wrong authorization", testWrongAuth},
		{"persistent", testPersistent},
		{"pcr policy", testPCRPolicy},
		{"more keys than slots", testManyKeys},
		{"context", testContext},
		{"evidence", testEvidence},
		{"info", testInfo},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, d) })
	}
}

func generate(t *testing.T, d *tpm.Device, spec tpm.KeySpec) *tpm.Key {
	t.Helper()
	k, err := d.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// checkSigns signs a message and verifies the signature in software.
func checkSigns(t *testing.T, k *tpm.Key) {
	t.Helper()
	msg := []byte(rand.Text())
	sig, err := k.SignMessageContext(t.Context(), msg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !verifies(k, msg, sig) {
		t.Fatalf("%v: the signature does not verify", k)
	}
}

func verifies(k *tpm.Key, msg, sig []byte) bool {
	hash := crypto.SHA256
	if k.Kind() == tpm.SignP384 {
		hash = crypto.SHA384
	}
	h := hash.New()
	h.Write(msg)
	return ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), h.Sum(nil), sig)
}

// wantClass checks the type of an error, its class and its cause.
func wantClass(t *testing.T, err error, class tpm.Class, cause error) {
	t.Helper()
	var e *tpm.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *tpm.Error", err)
	}
	if e.Class != class || !errors.Is(err, cause) {
		t.Errorf("error %v: class %v, want %v because %v", err, e.Class, class, cause)
	}
}

func testSign(t *testing.T, d *tpm.Device) {
	for _, kind := range []tpm.Kind{tpm.SignP256, tpm.SignP384} {
		k := generate(t, d, tpm.KeySpec{Kind: kind})
		want := tpm.Attributes{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Sign: true}
		if k.Attributes() != want {
			t.Errorf("%v: attributes %+v", kind, k.Attributes())
		}
		for range 20 {
			checkSigns(t, k)
		}
	}
}

func testSignRefuses(t *testing.T, d *tpm.Device) {
	k := generate(t, d, tpm.KeySpec{})
	for _, n := range []int{0, 20, 31, 33, 48, 64} {
		_, err := k.Sign(nil, make([]byte, n), nil)
		wantClass(t, err, tpm.ClassInput, tpm.ErrDigestSize)
	}
	_, err := k.Sign(nil, make([]byte, 32), crypto.SHA384)
	wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	_, err = k.SignMessage(nil, []byte("m"), crypto.SHA512)
	wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	checkSigns(t, k)
}

func testAgree(t *testing.T, d *tpm.Device) {
	for kind, curve := range map[tpm.Kind]ecdh.Curve{tpm.ECDHP256: ecdh.P256(), tpm.ECDHP384: ecdh.P384()} {
		k := generate(t, d, tpm.KeySpec{Kind: kind})
		for range 20 {
			peer, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			want, err := peer.ECDH(k.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.ECDHContext(t.Context(), peer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%v: the secrets differ", kind)
			}
		}
	}
}

func testHPKE(t *testing.T, d *tpm.Device) {
	k := generate(t, d, tpm.KeySpec{Kind: tpm.ECDHP256})
	private, err := hpke.NewDHKEMPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	info, secret := []byte("info"), []byte("the secret")
	sealed, err := hpke.Seal(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES128GCM(), info, secret)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES128GCM(), info, sealed)
	if err != nil || !bytes.Equal(opened, secret) {
		t.Fatalf("opened %q, %v", opened, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES128GCM(), info, sealed); err == nil {
		t.Error("an altered ciphertext was opened")
	}
}

func testMAC(t *testing.T, d *tpm.Device) {
	k := generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256})
	seen := make(map[string]int)
	for _, n := range []int{0, 1, 32, 1023, 1024, 1025, 2048, 2049, 5000} {
		data := bytes.Repeat([]byte{7}, n)
		mac, err := k.MAC(t.Context(), data)
		if err != nil {
			t.Fatalf("%d octets: %v", n, err)
		}
		again, err := k.MAC(t.Context(), data)
		if err != nil || !bytes.Equal(mac, again) || len(mac) != sha256.Size {
			t.Fatalf("%d octets: %x, then %x, %v", n, mac, again, err)
		}
		if m, ok := seen[string(mac)]; ok {
			t.Errorf("%d and %d octets have the same MAC", m, n)
		}
		seen[string(mac)] = n
	}
}

func testUses(t *testing.T, d *tpm.Device) {
	sign := generate(t, d, tpm.KeySpec{})
	agree := generate(t, d, tpm.KeySpec{Kind: tpm.ECDHP256})
	mac := generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256})
	attest := generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
	_, err := sign.ECDH(agree.PublicKey())
	wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	_, err = sign.MAC(t.Context(), []byte("m"))
	wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	for _, k := range []*tpm.Key{agree, mac, attest} {
		_, err := k.Sign(nil, make([]byte, 32), nil)
		wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
		_, err = k.SignMessage(nil, []byte("m"), nil)
		wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	}
	_, err = agree.ECDH(generate(t, d, tpm.KeySpec{Kind: tpm.ECDHP384}).PublicKey())
	wantClass(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	if mac.Public() != nil || mac.PublicKey() != nil || mac.Curve() != nil {
		t.Error("a MAC key has a public key")
	}
}

func testKeyFile(t *testing.T, d *tpm.Device) {
	for _, spec := range []tpm.KeySpec{{}, {Kind: tpm.SignP384}, {NoAuth: true}} {
		k := generate(t, d, spec)
		path := filepath.Join(t.TempDir(), "key 1.pem")
		if err := tpm.SaveKeyFile(path, k, "a test"); err != nil {
			t.Fatal(err)
		}
		if err := tpm.SaveKeyFile(path, k, "a test"); !errors.Is(err, os.ErrExist) {
			t.Errorf("saved twice: %v", err)
		}
		opened, err := d.OpenKey(t.Context(), tpm.KeyURI{File: path}.String())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(opened.Name(), k.Name()) || opened.Kind() != k.Kind() {
			t.Errorf("opened %v, saved %v", opened, k)
		}
		checkSigns(t, opened)
	}
}

func testWrongAuth(t *testing.T, d *tpm.Device) {
	k := generate(t, d, tpm.KeySpec{})
	f, err := k.File("")
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := d.LoadKey(t.Context(), f, tpm.RandomAuth())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // never counts towards lockout: the keys are noDA
		_, err = wrong.SignMessage(nil, []byte("m"), nil)
		wantClass(t, err, tpm.ClassAuth, tpm.ErrAuth)
	}
	_, err = d.LoadKey(t.Context(), f, tpm.Auth{})
	wantClass(t, err, tpm.ClassInput, tpm.ErrAuth)
	f.Private[len(f.Private)-1] ^= 1
	_, err = d.LoadKey(t.Context(), f, k.Auth())
	wantClass(t, err, tpm.ClassOperator, tpm.ErrWrongKey)
	checkSigns(t, k)
}

func testPersistent(t *testing.T, d *tpm.Device) {
	ctx := t.Context()
	k := generate(t, d, tpm.KeySpec{})
	p, err := d.Persist(ctx, k, contractHandle)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, p)
	_, err = d.Persist(ctx, generate(t, d, tpm.KeySpec{}), contractHandle)
	wantClass(t, err, tpm.ClassInput, err)
	authFile := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(authFile, k.Auth().Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := d.OpenKey(ctx, tpm.KeyURI{Handle: contractHandle, Auth: authFile}.String())
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, opened)
	if err := d.RemovePersistent(ctx, contractHandle); err != nil {
		t.Fatal(err)
	}
	_, err = d.OpenPersistent(ctx, contractHandle, tpm.Auth{})
	wantClass(t, err, tpm.ClassInput, tpm.ErrNotFound)
	wantClass(t, d.RemovePersistent(ctx, contractHandle), tpm.ClassInput, tpm.ErrNotFound)
	wantClass(t, d.RemovePersistent(ctx, 0x81800000), tpm.ClassInput, tpm.ErrKeyURI)
}

func testPCRPolicy(t *testing.T, d *tpm.Device) {
	ctx := t.Context()
	for _, noAuth := range []bool{false, true} {
		if err := d.ResetPCR(ctx, contractPCR); err != nil {
			t.Fatal(err)
		}
		k := generate(t, d, tpm.KeySpec{PCRs: []int{contractPCR, 0, 7}, NoAuth: noAuth})
		for range 3 {
			checkSigns(t, k)
		}
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := tpm.SaveKeyFile(path, k, ""); err != nil {
			t.Fatal(err)
		}
		opened, err := d.OpenKey(ctx, tpm.KeyURI{File: path}.String())
		if err != nil {
			t.Fatal(err)
		}
		checkSigns(t, opened)
		if err := d.ExtendPCR(ctx, contractPCR, sha256.Sum256([]byte("other software"))); err != nil {
			t.Fatal(err)
		}
		_, err = k.SignMessage(nil, []byte("m"), nil)
		wantClass(t, err, tpm.ClassAuth, tpm.ErrPolicy)
		if err := d.ResetPCR(ctx, contractPCR); err != nil {
			t.Fatal(err)
		}
		checkSigns(t, k)
	}
	_, err := d.GenerateKey(ctx, tpm.KeySpec{PCRs: []int{24}})
	wantClass(t, err, tpm.ClassInput, err)
}

// testManyKeys lets many goroutines use many more keys of all kinds than the
// TPM has slots.
func testManyKeys(t *testing.T, d *tpm.Device) {
	const keys, callers, calls = 12, 16, 8
	kinds := []tpm.Kind{tpm.SignP256, tpm.ECDHP256, tpm.MACSHA256, tpm.SignP384}
	all := make([]*tpm.Key, keys)
	for i := range all {
		all[i] = generate(t, d, tpm.KeySpec{Kind: kinds[i%len(kinds)]})
	}
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for i := range calls {
				if err := useOnce(t.Context(), all[(c*5+i*7)%keys]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func useOnce(ctx context.Context, k *tpm.Key) error {
	switch k.Kind() {
	case tpm.ECDHP256:
		peer, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		want, _ := peer.ECDH(k.PublicKey())
		got, err := k.ECDHContext(ctx, peer.PublicKey())
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%v: the secrets differ", k)
		}
		return err
	case tpm.MACSHA256:
		_, err := k.MAC(ctx, make([]byte, 1500))
		return err
	}
	msg := []byte(rand.Text())
	sig, err := k.SignMessageContext(ctx, msg, nil)
	if err == nil && !verifies(k, msg, sig) {
		err = fmt.Errorf("%v: the signature does not verify", k)
	}
	return err
}

func testContext(t *testing.T, d *tpm.Device) {
	k := generate(t, d, tpm.KeySpec{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := k.SignMessageContext(ctx, []byte("m"), nil)
	wantClass(t, err, tpm.ClassRetry, context.Canceled)
	checkSigns(t, k)
}
