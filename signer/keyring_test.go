package signer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// bench is a store, a device and the Keyring over them.
type bench struct {
	t      testing.TB
	path   string
	store  *signer.KeyStore
	device *signertest.Device
	ring   *signer.Keyring
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, path: storeSource(t, t.TempDir()), device: signertest.New()}
	b.open()
	return b
}

// open opens the store and a fresh Keyring, as a new process does.
func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.store, err = signer.OpenKeyStore(b.t.Context(), b.path, nil); err != nil {
		b.t.Fatal(err)
	}
	b.ring = signer.NewKeyring(b.store, b.devices())
	store, ring := b.store, b.ring
	b.t.Cleanup(func() { ring.Close(); store.Close() })
}

func (b *bench) devices() map[string]signer.Device {
	return map[string]signer.Device{"soft": b.device}
}

func (b *bench) create(id signer.KeyID, p signer.Purpose, a signer.Algorithm) *signer.Key {
	b.t.Helper()
	key, err := b.ring.Create(b.t.Context(), signer.NewKey{ID: id, Purpose: p, Algorithm: a, Device: "soft"})
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

func (b *bench) signer(id signer.KeyID, p signer.Purpose) *signer.Signer {
	b.t.Helper()
	s, err := b.ring.Signer(b.t.Context(), id, p)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// check holds the whole state to its rules.
func (b *bench) check() { checkState(b.t, b.store, b.device) }

// checkState is the checker of the whole state: every object that the device
// has belongs to a version that is not destroyed, every version that should
// have an object has one, and each key has at most one active version.
func checkState(t testing.TB, store *signer.KeyStore, device *signertest.Device) {
	t.Helper()
	keys, err := store.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	objects := make(map[string]bool)
	for _, name := range device.Names() {
		objects[name] = true
	}
	kids := make(map[string]bool)
	for _, k := range keys {
		active := 0
		for _, v := range k.Versions {
			has := objects[v.ObjectID.String()]
			delete(objects, v.ObjectID.String())
			switch v.State {
			case signer.StateActive:
				active++
				if !has || v.Destroying || v.ActivatedAt.IsZero() {
					t.Errorf("%s/%d is active: object %v, destroying %v", k.ID, v.Number, has, v.Destroying)
				}
			case signer.StateVerifyOnly:
				if !has && !v.Destroying || v.RetiredAt.IsZero() {
					t.Errorf("%s/%d is verify-only without an object", k.ID, v.Number)
				}
			case signer.StateDestroyed:
				if has || v.Destroying || v.DestroyedAt.IsZero() {
					t.Errorf("%s/%d is destroyed and the device has an object", k.ID, v.Number)
				}
			}
			if v.KID != "" && kids[v.KID] {
				t.Errorf("kid %s is there twice", v.KID)
			}
			kids[v.KID] = true
			if v.State == signer.StateActive && v.KID == "" && k.Algorithm.Use() != signer.UseMAC {
				t.Errorf("%s/%d has no kid", k.ID, v.Number)
			}
		}
		if active > 1 {
			t.Errorf("%s has %d active versions", k.ID, active)
		}
	}
	for name := range objects {
		t.Errorf("the device has object %s, which no version knows", name)
	}
}

func TestCreateRotateDestroy(t *testing.T) {
	b := newBench(t)
	for i, a := range signer.Algorithms() {
		p := map[signer.Use]signer.Purpose{signer.UseSign: signer.PurposeMLSLeaf, signer.UseAgree: signer.PurposeMLSInit, signer.UseMAC: signer.PurposeFrankMAC}[a.Use()]
		id := signer.KeyID("key-" + strings.ToLower(string(a)))
		key := b.create(id, p, a)
		v := key.Active()
		if v == nil || v.Number != 1 || v.URI == "" || key.Purpose != p || key.Algorithm != a {
			t.Fatalf("case %d: %+v", i, key)
		}
		if a.Use() != signer.UseMAC {
			pub, err := v.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if kid, err := signer.JWKThumbprint(pub); err != nil || kid != v.KID {
				t.Errorf("%s: kid %s, want %s (%v)", a, v.KID, kid, err)
			}
		}
		key, err := b.ring.Rotate(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		if key.Active().Number != 2 || key.Version(1).State != signer.StateVerifyOnly {
			t.Errorf("%s after rotation: %+v", a, key.Versions)
		}
		b.check()
		for n := 1; n <= 2; n++ {
			if err := b.ring.Destroy(t.Context(), id, n); err != nil {
				t.Fatal(err)
			}
		}
		b.check()
		if err := b.ring.Destroy(t.Context(), id, 1); !errors.Is(err, signer.ErrKeyState) {
			t.Errorf("%s destroyed twice: %v", a, err)
		}
	}
	if names := b.device.Names(); len(names) != 0 {
		t.Errorf("the device still has %v", names)
	}
}

func TestCreateRefuses(t *testing.T) {
	b := newBench(t)
	b.create("taken", signer.PurposeTLS, "")
	good := signer.NewKey{ID: "new", Purpose: signer.PurposeTLS, Device: "soft"}
	for _, c := range []struct {
		name string
		edit func(*signer.NewKey)
		want error
	}{
		{"taken id", func(n *signer.NewKey) { n.ID = "taken" }, signer.ErrKeyExists},
		{"no id", func(n *signer.NewKey) { n.ID = "" }, signer.ErrUsage},
		{"id with a slash", func(n *signer.NewKey) { n.ID = "a/b" }, signer.ErrUsage},
		{"no purpose", func(n *signer.NewKey) { n.Purpose = "" }, signer.ErrUsage},
		{"unknown purpose", func(n *signer.NewKey) { n.Purpose = "everything" }, signer.ErrUsage},
		{"unknown algorithm", func(n *signer.NewKey) { n.Algorithm = "RSA" }, signer.ErrUsage},
		{"algorithm that cannot", func(n *signer.NewKey) { n.Algorithm = signer.HMACSHA256 }, signer.ErrUsage},
		{"unknown device", func(n *signer.NewKey) { n.Device = "other" }, signer.ErrNoDevice},
		{"long label", func(n *signer.NewKey) { n.Labels = map[string]string{"a": strings.Repeat("x", 300)} }, signer.ErrUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := good
			c.edit(&n)
			if _, err := b.ring.Create(t.Context(), n); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			b.check()
		})
	}
}

// TestCreateUndoes has the device fail before and after it made the key.
func TestCreateUndoes(t *testing.T) {
	boom := errors.New("boom")
	for _, phase := range []signertest.Phase{signertest.Before, signertest.After} {
		b := newBench(t)
		b.device.Fault = func(s signertest.Step, p signertest.Phase) error {
			if s == signertest.StepGenerate && p == phase {
				return boom
			}
			return nil
		}
		_, err := b.ring.Create(t.Context(), signer.NewKey{ID: "k", Purpose: signer.PurposeTLS, Device: "soft"})
		de := new(signer.DeviceError)
		if !errors.Is(err, boom) || !errors.As(err, &de) || de.Device != "soft" {
			t.Errorf("%s: %v", phase, err)
		}
		b.check()
		if len(b.device.Names()) != 0 {
			t.Errorf("%s: the device kept the object", phase)
		}
		b.device.Fault = nil
		b.create("k", signer.PurposeTLS, "") // the id is free again
		history, err := b.store.History(t.Context(), "k")
		if err != nil || len(history) != 4 || history[1].Event != "abandoned" {
			t.Errorf("%s: history %v, %v", phase, history, err)
		}
	}
}

// TestCreateUndoFails has the device away altogether: the version stays
// pending, and Reconcile settles it when the device is back.
func TestCreateUndoFails(t *testing.T) {
	b := newBench(t)
	b.device.Fault = func(s signertest.Step, p signertest.Phase) error {
		if s == signertest.StepGenerate && p == signertest.Before {
			return nil
		}
		return errors.New("device gone")
	}
	if _, err := b.ring.Create(t.Context(), signer.NewKey{ID: "k", Purpose: signer.PurposeTLS, Device: "soft"}); err == nil || !strings.Contains(err.Error(), "stays pending") {
		t.Fatalf("got %v", err)
	}
	found, err := b.ring.Reconcile(t.Context(), time.Now(), 0)
	if err != nil || len(found) != 1 || found[0].Err == nil {
		t.Fatalf("while the device is away: %+v, %v", found, err)
	}
	b.device.Fault = nil
	if found, err = b.ring.Unsettled(t.Context(), time.Now(), time.Hour); err != nil || len(found) != 0 {
		t.Errorf("a young version is listed: %+v, %v", found, err)
	}
	found, err = b.ring.Reconcile(t.Context(), time.Now(), 0)
	if err != nil || len(found) != 1 || found[0].Err != nil || !strings.HasPrefix(found[0].Result, "adopted") {
		t.Fatalf("after it came back: %+v, %v", found, err)
	}
	b.check()
	b.signer("k", signer.PurposeTLS)
}

func TestRotatePendingOnce(t *testing.T) {
	b := newBench(t)
	b.create("k", signer.PurposeTLS, "")
	if _, err := b.store.ReserveNext(t.Context(), "k", "soft", signer.NewObjectID()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ring.Rotate(t.Context(), "k", ""); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("a second pending version: %v", err)
	}
	if _, err := b.ring.Rotate(t.Context(), "nobody", ""); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("rotation of no key: %v", err)
	}
}

// TestUniqueKID has a device answer with the same key twice.
func TestUniqueKID(t *testing.T) {
	b := newBench(t)
	twin := &twinDevice{Device: b.device}
	ring := signer.NewKeyring(b.store, map[string]signer.Device{"soft": twin})
	for i, id := range []signer.KeyID{"one", "two"} {
		_, err := ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: signer.PurposeTLS, Device: "soft"})
		if (err == nil) != (i == 0) {
			t.Errorf("key %s: %v", id, err)
		}
	}
}

// twinDevice gives its first key to everybody.
type twinDevice struct {
	*signertest.Device
	first *signer.Object
}

func (d *twinDevice) Generate(ctx context.Context, spec signer.KeySpec) (*signer.Object, error) {
	if d.first != nil {
		o := *d.first
		o.URI += "?twin"
		return &o, nil
	}
	var err error
	d.first, err = d.Device.Generate(ctx, spec)
	return d.first, err
}
