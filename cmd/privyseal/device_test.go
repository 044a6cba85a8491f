package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// A testDevice is a real device behind its adapter.
type testDevice struct {
	name       string
	algorithms []signer.Algorithm
	evidence   string
	wiring     *wiring
}

// wireTest makes a state folder, the configuration that init writes, and joins
// the parts. SoftHSM is hosted in a worker: a process has only one of its
// configurations.
func wireTest(t testing.TB, o initOptions) *wiring {
	t.Helper()
	config, err := initState(t.Context(), filepath.Join(t.TempDir(), "home", configName), o)
	if err != nil {
		t.Fatal(err)
	}
	if d := config.Devices["softhsm"]; d != nil {
		d.Workers = 1
	}
	w, err := newWiring(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func eachDevice(t *testing.T, f func(*testing.T, *testDevice)) {
	t.Run("softhsm", func(t *testing.T) {
		f(t, &testDevice{"softhsm", signer.Algorithms(), signer.EvidenceClaim, wireTest(t, initOptions{softHSM: true})})
	})
	t.Run("tpm", func(t *testing.T) {
		s := tpmtest.Start(t, swtpm.Config{})
		some := []signer.Algorithm{signer.P256, signer.P384, signer.ECDHP256, signer.HMACSHA256}
		f(t, &testDevice{"tpm", some, signer.EvidenceProof, wireTest(t, initOptions{tpm: s.Address()})})
	})
}

// TestDeviceContract holds the adapters to what signer.Device promises.
func TestDeviceContract(t *testing.T) {
	eachDevice(t, func(t *testing.T, d *testDevice) {
		device := d.wiring.devices[d.name]
		info, err := device.Info(t.Context())
		if err != nil || info.Name != d.name || info.Kind == "" {
			t.Errorf("info %+v, %v", info, err)
		}
		for _, a := range signer.Algorithms() {
			spec := signer.KeySpec{ID: signer.NewObjectID(), Label: "test/1", Algorithm: a}
			if _, err := device.Find(t.Context(), spec); !errors.Is(err, signer.ErrNoObject) {
				t.Errorf("%s: found before it was made: %v", a, err)
			}
			if !slices.Contains(d.algorithms, a) {
				if _, err := device.Generate(t.Context(), spec); !errors.Is(err, signer.ErrUsage) {
					t.Errorf("%s: made, or another error than usage: %v", a, err)
				}
				continue
			}
			testObject(t, device, spec, d.evidence)
		}
	})
}

func testObject(t *testing.T, device openDevice, spec signer.KeySpec, evidence string) {
	t.Helper()
	ctx, a := t.Context(), spec.Algorithm
	made, err := device.Generate(ctx, spec)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if made.Evidence.Kind() != evidence || len(made.Evidence.Weaknesses()) != 0 {
		t.Errorf("%s: %s with weaknesses %q", a, made.Evidence.Kind(), made.Evidence.Weaknesses())
	}
	found, err := device.Find(ctx, spec)
	if err != nil || found.URI != made.URI {
		t.Errorf("%s: found %+v, %v; made %s", a, found, err, made.URI)
	}
	k, err := device.Open(ctx, made.URI, a)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	useKey(t, k, a)
	if err := errors.Join(k.Close(), device.Destroy(ctx, made.URI, a)); err != nil {
		t.Errorf("%s: %v", a, err)
	}
	if err := device.Destroy(ctx, made.URI, a); !errors.Is(err, signer.ErrNoObject) {
		t.Errorf("%s destroyed twice: %v", a, err)
	}
	if _, err := device.Find(ctx, spec); !errors.Is(err, signer.ErrNoObject) {
		t.Errorf("%s: found after it was destroyed: %v", a, err)
	}
	if _, err := device.Open(ctx, made.URI, a); !errors.Is(err, signer.ErrNoObject) {
		t.Errorf("%s: opened after it was destroyed: %v", a, err)
	}
}

// useKey compares what the device computes with the standard library.
func useKey(t *testing.T, k signer.DeviceKey, a signer.Algorithm) {
	t.Helper()
	message := []byte("message")
	switch a.Use() {
	case signer.UseSign:
		key := k.(signer.SigningKey)
		digest, hash := message, a.Scheme().Hash
		if hash != 0 {
			h := hash.New()
			h.Write(message)
			digest = h.Sum(nil)
		}
		sig, err := key.SignContext(t.Context(), digest, hash)
		if err != nil || !a.Scheme().Verify(key.Public(), message, sig) {
			t.Errorf("%s: signature %x, %v", a, sig, err)
		}
	case signer.UseAgree:
		key := k.(signer.AgreementKey)
		peer, err := key.PublicKey().Curve().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := key.ECDHContext(t.Context(), peer.PublicKey())
		want, wantErr := peer.ECDH(key.PublicKey())
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %v", a, err, wantErr)
		}
		other, _ := ecdh.P384().GenerateKey(rand.Reader)
		if _, err := key.ECDHContext(t.Context(), other.PublicKey()); err == nil {
			t.Errorf("%s with a P-384 key", a)
		}
	case signer.UseMAC:
		one, err := k.(signer.MACKey).MACContext(t.Context(), message)
		two, err2 := k.(signer.MACKey).MACContext(t.Context(), message)
		if err != nil || err2 != nil || len(one) != sha256.Size || !bytes.Equal(one, two) {
			t.Errorf("%s: %x, %x, %v, %v", a, one, two, err, err2)
		}
	}
}

// TestAdopt has the process die after the device made a key: the next one
// finds the object by the id chosen beforehand, and takes it into use.
func TestAdopt(t *testing.T) {
	eachDevice(t, func(t *testing.T, d *testDevice) {
		ctx, id := t.Context(), signer.NewObjectID()
		key := &signer.Key{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Algorithm: signer.P256}
		if err := d.wiring.store.Reserve(ctx, key, d.name, id); err != nil {
			t.Fatal(err)
		}
		if _, err := d.wiring.devices[d.name].Generate(ctx, signer.KeySpec{ID: id, Label: "leaf/1", Algorithm: signer.P256, Purpose: key.Purpose}); err != nil {
			t.Fatal(err)
		}
		found, err := d.wiring.ring.Reconcile(ctx, time.Now(), 0)
		if err != nil || len(found) != 1 || found[0].Err != nil {
			t.Fatalf("%+v, %v", found, err)
		}
		s, err := d.wiring.ring.Signer(ctx, "leaf", signer.PurposeMLSLeaf)
		if err != nil {
			t.Fatal(err)
		}
		r, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))
		if err != nil {
			t.Fatal(err)
		}
		if sig, err := s.SignRequest(ctx, r); err != nil || !s.Scheme().Verify(s.Public(), r.Octets(), sig) {
			t.Errorf("%x, %v", sig, err)
		}
	})
}

// TestHalfMadeTPMKey has the process die between the authorization value and
// the key file, and between the removal of the two.
func TestHalfMadeTPMKey(t *testing.T) {
	w := wireTest(t, initOptions{tpm: tpmtest.Start(t, swtpm.Config{}).Address()})
	device := w.devices["tpm"].(*tpmDevice)
	spec := signer.KeySpec{ID: signer.NewObjectID(), Label: "half/1", Algorithm: signer.P256}
	auth := device.path(spec.ID) + ".auth"
	if err := os.MkdirAll(device.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(auth, []byte("left over\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Find(t.Context(), spec); !errors.Is(err, signer.ErrNoObject) {
		t.Errorf("found: %v", err)
	}
	if _, err := os.Stat(auth); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the authorization value is still there: %v", err)
	}
	o, err := device.Generate(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(device.path(spec.ID)); err != nil {
		t.Fatal(err)
	}
	if err := device.Destroy(t.Context(), o.URI, signer.P256); !errors.Is(err, signer.ErrNoObject) {
		t.Errorf("destroyed: %v", err)
	}
	if _, err := os.Stat(auth); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the authorization value is still there: %v", err)
	}
}
