package signer_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// storeSource returns where a test keeps its keys: in a file of dir, or below
// TestPostgreSQL in a database of its own.
func storeSource(t testing.TB, dir string) string {
	if strings.HasPrefix(t.Name(), "TestPostgreSQL/") {
		return pgtest.Database(t)
	}
	return filepath.Join(dir, "keys.db")
}

// stride is how many fault points a test goes on by. On PostgreSQL, where each
// takes a database of its own, only some are struck.
func stride(t testing.TB) int {
	if strings.HasPrefix(t.Name(), "TestPostgreSQL/") {
		return 7
	}
	return 1
}

// TestPostgreSQL runs the suite of the store, which the other tests run on
// SQLite, on PostgreSQL.
func TestPostgreSQL(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"NewerSchema": TestNewerSchema, "KeyRoundTrip": TestKeyRoundTrip, "ConcurrentRotation": TestConcurrentRotation,
		"ConcurrentCreate": TestConcurrentCreate, "FaultsEverywhere": TestFaultsEverywhere, "KilledEverywhere": TestKilledEverywhere,
		"TwoNodes": TestTwoNodes, "KeysPage": TestKeysPage, "Replicas": TestReplicas, "ReplicaOfOtherKey": TestReplicaOfOtherKey, "DestroyWithReplicas": TestDestroyWithReplicas,
		"SuspectReturns": TestSuspectReturns, "Failover": TestFailover, "LookTogether": TestLookTogether,
	} {
		t.Run(name, f)
	}
}

// TestTwoNodes has two processes share a store: what one does, the other sees
// at its next signature.
func TestTwoNodes(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, "")
	other := &bench{t: t, path: b.path, device: b.device}
	other.open()
	message := samples(t)[signer.ShapeMLS]
	s := other.signer("leaf", signer.PurposeMLSLeaf)
	if _, err := s.SignMessage(nil, message, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ring.Rotate(t.Context(), "leaf", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SignMessage(nil, message, nil); err == nil {
		t.Error("signed with a version that another node has retired")
	}
	if s = other.signer("leaf", signer.PurposeMLSLeaf); s.Version() != 2 {
		t.Errorf("version %d", s.Version())
	}
	if err := b.store.MarkSuspect(t.Context(), "soft", "leaf", 2, "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SignMessage(nil, message, nil); err == nil {
		t.Error("signed with a device that another node has marked suspect")
	}
}

// TestFirstRelease opens a file that the first release wrote, with keys in
// files of the test device.
func TestFirstRelease(t *testing.T) {
	dir := t.TempDir()
	copyTree(t, filepath.Join("testdata", "first-release"), dir)
	b := &bench{t: t, path: filepath.Join(dir, "keys.db"), device: signertest.NewDir(filepath.Join(dir, "device"))}
	for range 2 { // the second finds what the first has made of it
		b.open()
		keys, err := b.store.Keys(t.Context())
		if err != nil || len(keys) != 3 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		s := b.signer("leaf", signer.PurposeMLSLeaf)
		if s.Version() != 2 || s.Key().Labels["owner"] != "ops" || s.Key().Version(1).State != signer.StateDestroyed {
			t.Errorf("%+v", s.Key())
		}
		message := samples(t)[signer.ShapeMLS]
		if sig, err := s.SignMessage(nil, message, nil); err != nil || !s.Scheme().Verify(s.Public(), message, sig) {
			t.Errorf("signature: %v", err)
		}
		if _, err := b.ring.MAC(t.Context(), "mac", signer.PurposeFrankMAC); err != nil {
			t.Error(err)
		}
		if history, err := b.store.History(t.Context(), "leaf"); err != nil || len(history) < 9 {
			t.Errorf("%d events, %v", len(history), err)
		}
		if suspects, err := b.store.Suspects(t.Context()); err != nil || len(suspects) != 1 || suspects[0].Device != "other" {
			t.Errorf("suspects %+v, %v", suspects, err)
		}
	}
	if _, err := b.ring.Rotate(t.Context(), "leaf", ""); err != nil {
		t.Error(err)
	}
}

// copyTree copies files with the modes that a state folder has.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil || d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(filepath.Join(to, name), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = io.Copy(out, in)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
