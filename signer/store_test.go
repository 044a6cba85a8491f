package signer_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
)

func TestOpenKeyStoreStrict(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	open := func(name string) error {
		s, err := signer.OpenKeyStore(ctx, filepath.Join(dir, name), nil)
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := open("keys.db"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "keys.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := open("keys.db"); err != nil {
		t.Errorf("opened again: %v", err)
	}

	if err := os.Chmod(filepath.Join(dir, "keys.db"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := open("keys.db"); err == nil {
		t.Error("a file that others may read was opened")
	}
	if err := open("none/keys.db"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("this is not a database, but it is long enough to be looked at as one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open("text"); err == nil {
		t.Error("a text file was opened")
	}
	foreign, err := sql.Open("sqlite", filepath.Join(dir, "foreign.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := foreign.Exec("CREATE TABLE x (y)"); err != nil {
		t.Fatal(err)
	}
	foreign.Close()
	os.Chmod(filepath.Join(dir, "foreign.db"), 0o600)
	if err := open("foreign.db"); !errors.Is(err, signer.ErrSchema) {
		t.Errorf("another program's database: %v", err)
	}
}

// TestNewerSchema has a newer release write the file.
func TestNewerSchema(t *testing.T) {
	b := newBench(t)
	if err := b.store.SetSchema(t.Context(), 99); err != nil {
		t.Fatal(err)
	}
	_, err := signer.OpenKeyStore(t.Context(), b.path, nil)
	if !errors.Is(err, signer.ErrSchema) {
		t.Errorf("got %v", err)
	}
}

// TestDurability looks at the settings that make a commit survive power loss.
func TestDurability(t *testing.T) {
	b := newBench(t)
	b.create("k", signer.PurposeTLS, "")
	if _, err := os.Stat(b.path + "-wal"); err != nil {
		t.Errorf("no write-ahead log: %v", err)
	}
	if info, err := os.Stat(b.path + "-wal"); err == nil && info.Mode().Perm() != 0o600 {
		t.Errorf("the write-ahead log has mode %v", info.Mode())
	}
	level, mode := must2(b.store.Settings(t.Context()))
	if level != 2 || mode != "wal" {
		t.Errorf("synchronous %d, journal %s; want 2 (FULL), wal", level, mode)
	}
}

func must2(level int, mode string, err error) (int, string) {
	if err != nil {
		panic(err)
	}
	return level, mode
}

func TestKeyRoundTrip(t *testing.T) {
	b := newBench(t)
	labels := map[string]string{"owner": "ops", "ticket": "42"}
	if _, err := b.ring.Create(t.Context(), signer.NewKey{ID: "k", Purpose: signer.PurposeTLS, Device: "soft", Labels: labels}); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	proof := &signer.Evidence{Proof: &signer.Certification{Format: "tpm2-certify-creation", FixedTPM: true, FixedParent: true,
		SensitiveDataOrigin: true, AttestationKey: "000b00", Statement: json.RawMessage(`{"a":1}`), VerifiedAt: at}}
	if err := b.store.SetEvidence(t.Context(), "k", 1, proof); err != nil {
		t.Fatal(err)
	}
	key, err := b.store.Key(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	v := key.Active()
	if key.Labels["ticket"] != "42" || v.Evidence.Kind() != signer.EvidenceProof || !v.Evidence.Proof.VerifiedAt.Equal(at) || len(v.Evidence.Weaknesses()) != 0 {
		t.Errorf("%+v, %+v", key, v.Evidence)
	}
	byKID, err := b.store.KeyByKID(t.Context(), v.KID)
	if err != nil || byKID.ID != "k" {
		t.Errorf("by kid: %v, %v", byKID, err)
	}
	if _, err := b.store.KeyByKID(t.Context(), "nothing"); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("by unknown kid: %v", err)
	}
	both := &signer.Evidence{Proof: proof.Proof, Claim: &signer.AttributeClaim{}}
	if err := b.store.SetEvidence(t.Context(), "k", 1, both); err == nil {
		t.Error("evidence that is claim and proof at once was stored")
	}
	if err := b.store.SetLabels(t.Context(), "k", nil); err != nil {
		t.Fatal(err)
	}
	if key, _ = b.store.Key(t.Context(), "k"); len(key.Labels) != 0 {
		t.Errorf("labels %v", key.Labels)
	}
}

func TestEvidence(t *testing.T) {
	strong := &signer.AttributeClaim{Sensitive: true, AlwaysSensitive: true, NeverExtractable: true, Local: true}
	for _, c := range []struct {
		e    *signer.Evidence
		kind string
		weak int
	}{
		{nil, "", 1},
		{&signer.Evidence{Claim: strong}, "claim", 0},
		{&signer.Evidence{Claim: &signer.AttributeClaim{Extractable: true}}, "claim", 5},
		{&signer.Evidence{Proof: &signer.Certification{}}, "proof", 3},
	} {
		if c.e.Kind() != c.kind || len(c.e.Weaknesses()) != c.weak {
			t.Errorf("%+v: kind %q, weaknesses %q", c.e, c.e.Kind(), c.e.Weaknesses())
		}
	}
}

// TestConcurrentRotation has many callers rotate one key: each version number
// is given once, and one version is active in the end.
func TestConcurrentRotation(t *testing.T) {
	b := newBench(t)
	b.create("k", signer.PurposeTLS, "")
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		wg.Go(func() {
			_, err := b.ring.Rotate(t.Context(), "k", "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !errors.Is(err, signer.ErrKeyState):
				t.Errorf("rotation: %v", err)
			}
		})
	}
	wg.Wait()
	key, err := b.store.Key(t.Context(), "k")
	if err != nil || len(key.Versions) != made+1 || key.Active() == nil {
		t.Errorf("%d rotations, %d versions, %v", made, len(key.Versions), err)
	}
	b.check()
}

// TestConcurrentCreate has many callers want one id.
func TestConcurrentCreate(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		wg.Go(func() {
			_, err := b.ring.Create(t.Context(), signer.NewKey{ID: "k", Purpose: signer.PurposeTLS, Device: "soft"})
			results <- err
		})
	}
	wg.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, signer.ErrKeyExists) {
			t.Error(err)
		}
	}
	if won != 1 || len(b.device.Names()) != 1 {
		t.Errorf("%d callers won, the device has %d keys", won, len(b.device.Names()))
	}
}

func TestParseKeyID(t *testing.T) {
	for _, bad := range []string{"", "A", "-a", "a b", "a/b", "ä", string(make([]byte, 65)), "a\n"} {
		if _, err := signer.ParseKeyID(bad); !errors.Is(err, signer.ErrUsage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestObjectID(t *testing.T) {
	id := signer.NewObjectID()
	if got, err := signer.ParseObjectID(id.String()); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "00", "zz", id.String() + "00"} {
		if _, err := signer.ParseObjectID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
