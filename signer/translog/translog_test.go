package translog_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
	"github.com/privyseal/privyseal/signer/translog"
	"github.com/privyseal/privyseal/signer/translog/witness"
)

const origin = "log.example/signer"

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A house is a journal with its log, the log's key in a device.
type house struct {
	t       testing.TB
	source  string
	dir     string
	journal *journal.Journal
	key     *signer.Signer
	keys    *translog.Keys
	options translog.Options
	log     *translog.Log
}

func newHouse(t testing.TB, a signer.Algorithm, source string) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{t: t, source: source, dir: filepath.Join(t.TempDir(), "log")}
	store := must[*signer.KeyStore](t)(signer.OpenKeyStore(ctx, filepath.Join(t.TempDir(), "keys.db"), nil))
	t.Cleanup(func() { store.Close() })
	ring := signer.NewKeyring(store, map[string]signer.Device{"dev": signertest.New()})
	t.Cleanup(func() { ring.Close() })
	must[*signer.Key](t)(ring.Create(ctx, signer.NewKey{ID: "log", Purpose: signer.PurposeLogCheckpoint, Algorithm: a, Device: "dev"}))
	h.key = must[*signer.Signer](t)(ring.Signer(ctx, "log", signer.PurposeLogCheckpoint))
	h.keys = must[*translog.Keys](t)(translog.ParseKeys("# the log\n" + must[string](t)(translog.VerifierKey(origin, h.key.Public())) + "\n"))
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	ctx := h.t.Context()
	h.journal = must[*journal.Journal](h.t)(journal.Open(ctx, h.source, nil))
	h.options.Dir, h.options.Interval = h.dir, 100*time.Millisecond
	h.options.Signer = must[note.Signer](h.t)(translog.NewJournalSigner(context.WithoutCancel(ctx), h.journal, h.key, origin))
	h.log = must[*translog.Log](h.t)(translog.Open(ctx, h.journal, h.options))
	l, j := h.log, h.journal
	h.t.Cleanup(func() { l.Close(context.Background()); j.Close() })
}

func (h *house) reopen() {
	h.t.Helper()
	h.log.Close(h.t.Context())
	h.journal.Close()
	h.open()
}

// sign makes n entries and returns their signatures.
func (h *house) sign(name string, n int) (sigs [][]byte) {
	h.t.Helper()
	for i := range n {
		text := fmt.Sprint(name, " ", i)
		d := sha256.Sum256([]byte(text))
		r := must[*signer.Request](h.t)(signer.DigestRequest(crypto.SHA256, d[:]))
		res := must[*journal.Reservation](h.t)(h.journal.Reserve(h.t.Context(), journal.Intent{Caller: "app", Key: "k", Request: r}))
		sigs = append(sigs, []byte("signature of "+text))
		if err := res.Complete(h.t.Context(), journal.Outcome{Result: journal.Signed, Signature: sigs[i]}); err != nil {
			h.t.Fatal(err)
		}
	}
	return sigs
}

// publish feeds the log until the tree has all entries but checkpoints', and
// waits for a checkpoint over it.
func (h *house) publish() *translog.Checkpoint {
	h.t.Helper()
	ctx := context.WithoutCancel(h.t.Context())
	for must[int](h.t)(h.log.Feed(ctx)) > 0 {
	}
	size := must[uint64](h.t)(h.log.Size(ctx))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := h.src().Checkpoint(ctx, h.keys)
		if err == nil && c.Size >= size {
			return c
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no checkpoint of %d entries: %v", size, err)
		}
	}
}

func (h *house) src() *translog.Source {
	return must[*translog.Source](h.t)(translog.NewSource(h.dir, nil))
}

func databases(t *testing.T, f func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "journal.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, pgtest.Database(t)) })
}

func TestSignatureIsProved(t *testing.T) {
	for _, a := range []signer.Algorithm{signer.P256, signer.Ed25519} {
		t.Run(string(a), func(t *testing.T) {
			databases(t, func(t *testing.T, source string) {
				h := newHouse(t, a, source)
				sigs := h.sign("first", 300) // more than one bundle
				h.publish()
				e := must[*journal.Entry](t)(h.journal.Find(t.Context(), sigs[270]))
				text := must[[]byte](t)(translog.Prove(t.Context(), h.src(), h.keys, e))
				p := must[*translog.Proof](t)(translog.VerifyProof(text, h.keys))
				if !p.Entry.Signs(sigs[270]) || p.Entry.Intent.Caller != "app" || p.Entry.Index != e.Index {
					t.Errorf("proved %+v", p.Entry)
				}
				r := must[*translog.Report](t)(translog.Audit(t.Context(), h.journal, h.src(), h.keys))
				if r.Checkpoint.Size < 300 || r.Head.Entries != r.Checkpoint.Size+r.Unlogged {
					t.Errorf("report %+v", r)
				}
				for i := range text {
					if i%37 != 0 {
						continue
					}
					bad := append([]byte{}, text...)
					bad[i] ^= 1
					if _, err := translog.VerifyProof(bad, h.keys); err == nil {
						t.Fatalf("a proof with octet %d changed verifies", i)
					}
				}
			})
		})
	}
}

func TestEntryWithoutCheckpoint(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	h.publish()
	sigs := h.sign("late", 1)
	e := must[*journal.Entry](t)(h.journal.Find(t.Context(), sigs[0]))
	if _, err := translog.Prove(t.Context(), h.src(), h.keys, e); !errors.Is(err, translog.ErrNotYet) {
		t.Errorf("got %v", err)
	}
}

// TestCheckpointsComeToRest sees that signing a checkpoint is not the reason
// for the next one.
func TestCheckpointsComeToRest(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	h.sign("a", 3)
	h.publish()
	before := must[journal.Head](t)(h.journal.Head(t.Context()))
	for range 10 {
		if n := must[int](t)(h.log.Feed(t.Context())); n != 0 {
			t.Fatalf("fed %d entries that are checkpoints only", n)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if after := must[journal.Head](t)(h.journal.Head(t.Context())); after.Entries != before.Entries {
		t.Errorf("%d entries became %d at rest", before.Entries, after.Entries)
	}
}

func TestLogGoesOnWhereItEnded(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		h := newHouse(t, signer.P256, source)
		m := &translog.Monitor{Source: h.src(), Keys: h.keys, State: filepath.Join(t.TempDir(), "state")}
		for round := range 4 {
			h.sign(fmt.Sprint("round", round), 70)
			h.publish()
			st := must[*translog.Status](t)(m.Check(t.Context()))
			if st.First != (round == 0) {
				t.Errorf("round %d: %+v", round, st)
			}
			h.sign(fmt.Sprint("cut", round), 5)
			h.reopen()
		}
		h.publish()
		must[*translog.Status](t)(m.Check(t.Context()))
		must[*translog.Report](t)(translog.Audit(t.Context(), h.journal, h.src(), h.keys))
	})
}

func TestOneFeeder(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	if _, err := translog.Open(t.Context(), h.journal, h.options); !errors.Is(err, translog.ErrBusy) {
		t.Errorf("a second feeder: %v", err)
	}
}

// TestLogOfAnotherJournal opens a log with a journal that it is not of.
func TestLogOfAnotherJournal(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	h.sign("a", 5)
	h.publish()
	h.log.Close(t.Context())
	h.journal.Close()
	h.source = filepath.Join(t.TempDir(), "other.db")
	h.journal = must[*journal.Journal](t)(journal.Open(t.Context(), h.source, nil))
	if _, err := translog.Open(t.Context(), h.journal, h.options); !errors.Is(err, translog.ErrDiverged) {
		t.Errorf("behind: %v", err)
	}
	h.sign("b", 20)
	if _, err := translog.Open(t.Context(), h.journal, h.options); !errors.Is(err, translog.ErrDiverged) {
		t.Errorf("other entries: %v", err)
	}
	h.journal.Close()
}

// TestLostLogIsMadeAgain deletes the directory: the same tree grows from the
// journal, and nothing is signed until it is as large as it was.
func TestLostLogIsMadeAgain(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	h.sign("a", 40)
	before := h.publish()
	h.log.Close(t.Context())
	h.journal.Close()
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}
	h.journal = must[*journal.Journal](t)(journal.Open(t.Context(), h.source, nil))
	h.options.Signer = must[note.Signer](t)(translog.NewJournalSigner(t.Context(), h.journal, h.key, origin))
	var guard *journal.GuardError
	_, err := translog.Open(t.Context(), h.journal, h.options)
	if err == nil || !strings.Contains(err.Error(), "behind") {
		t.Fatalf("a log of nothing was signed: %v (%v)", err, guard)
	}
	h.open() // the first attempt left an empty tree, which needs no signature again
	c := h.publish()
	if c.Size < before.Size {
		t.Errorf("%d entries, had %d", c.Size, before.Size)
	}
	m := &translog.Monitor{Source: h.src(), Keys: h.keys, State: filepath.Join(t.TempDir(), "state")}
	if err := os.WriteFile(m.State, before.Note, 0o600); err != nil {
		t.Fatal(err)
	}
	must[*translog.Status](t)(m.Check(t.Context()))
}

func TestServedOverHTTP(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	sigs := h.sign("a", 300)
	h.publish()
	srv := httptest.NewServer(http.StripPrefix("/log/", translog.Handler(h.dir)))
	defer srv.Close()
	src := must[*translog.Source](t)(translog.NewSource(srv.URL+"/log", srv.Client()))
	must[*translog.Report](t)(translog.Audit(t.Context(), h.journal, src, h.keys))
	e := must[*journal.Entry](t)(h.journal.Find(t.Context(), sigs[1]))
	must[[]byte](t)(translog.Prove(t.Context(), src, h.keys, e))
	for path, want := range map[string]int{
		"checkpoint": 200, "tile/0/000": 200, "tile/entries/000": 200,
		".state/treeState": 404, ".feeder.lock": 404, "tile/0/../../.state/version": 404,
		"tile/0/00": 404, "tile/64/000": 404, "tile/0/000.p/300": 404, "tile/0": 404, "": 404,
	} {
		resp := must[*http.Response](t)(srv.Client().Get(srv.URL + "/log/" + path))
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", path, resp.StatusCode, want)
		}
	}
	resp := must[*http.Response](t)(srv.Client().Post(srv.URL+"/log/checkpoint", "text/plain", nil))
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

// TestMonitorFindsFaults serves histories that contradict one another, each
// properly signed.
func TestMonitorFindsFaults(t *testing.T) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	sign := must[note.Signer](t)(translog.NewSigner(origin, key.Public(), func(text []byte) ([]byte, error) {
		d := sha256.Sum256(text)
		return ecdsa.SignASN1(rand.Reader, key, d[:])
	}))
	keys := must[*translog.Keys](t)(translog.ParseKeys(must[string](t)(translog.VerifierKey(origin, key.Public()))))
	history := func(parts ...string) *translog.Source {
		j := must[*journal.Journal](t)(journal.Open(t.Context(), filepath.Join(t.TempDir(), "j.db"), nil))
		h := &house{t: t, dir: t.TempDir(), journal: j, keys: keys}
		h.log = must[*translog.Log](t)(translog.Open(t.Context(), j, translog.Options{Dir: h.dir, Signer: sign, Interval: 100 * time.Millisecond}))
		for _, p := range parts {
			h.sign(p, 10)
		}
		h.publish()
		h.log.Close(t.Context())
		j.Close()
		return h.src()
	}
	m := &translog.Monitor{Keys: keys, State: filepath.Join(t.TempDir(), "state"), Source: history("a", "b")}
	must[*translog.Status](t)(m.Check(t.Context()))
	for _, c := range []struct {
		fault  translog.Fault
		source *translog.Source
	}{
		{translog.FaultTruncated, history("a")},
		{translog.FaultForked, history("a", "x")},
		{translog.FaultRewritten, history("a", "x", "c")},
	} {
		m.Source = c.source
		var fault *translog.FaultError
		if _, err := m.Check(t.Context()); !errors.As(err, &fault) || fault.Fault != c.fault || fault.Old == nil || fault.New == nil {
			t.Errorf("%s: %v", c.fault, err)
		}
	}
	m.Source = history("a", "b")
	m.State = filepath.Join(t.TempDir(), "state")
	m.MaxAge, m.Now = time.Minute, func() time.Time { return time.Now().Add(time.Hour) }
	var fault *translog.FaultError
	if _, err := m.Check(t.Context()); !errors.As(err, &fault) || fault.Fault != translog.FaultStale {
		t.Errorf("stale: %v", err)
	}
	other := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	m.Keys = must[*translog.Keys](t)(translog.ParseKeys(must[string](t)(translog.VerifierKey(origin, other.Public()))))
	if _, err := m.Check(t.Context()); !errors.As(err, &fault) || fault.Fault != translog.FaultUnsigned {
		t.Errorf("unsigned: %v", err)
	}
}

// TestWitnessCosigns has a witness of our own behind the log.
func TestWitnessCosigns(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	cosigner := must[*fnote.Signer](t)(fnote.NewSignerForCosignatureV1(skey))
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	w := must[*witness.Witness](t)(witness.New(t.TempDir(), cosigner, h.keys))
	srv := httptest.NewServer(w)
	defer srv.Close()
	vkey = must[string](t)(fnote.VKeyToCosignatureV1(vkey))
	policy := fmt.Appendf(nil, "witness w1 %s %s\nquorum w1\n", vkey, srv.URL)

	if _, err := must[*translog.Keys](t)(h.keys.WithWitnesses(policy)).Open(h.publish().Note); err == nil {
		t.Error("a checkpoint without cosignature is accepted")
	}
	h.options.Witnesses = policy
	h.reopen()
	h.keys = must[*translog.Keys](t)(h.keys.WithWitnesses(policy))
	for round := range 3 {
		h.sign(fmt.Sprint("r", round), 5)
		if c := h.publish(); time.Since(c.Cosigned) > time.Minute {
			t.Errorf("cosigned at %v", c.Cosigned)
		}
	}
	m := &translog.Monitor{Source: h.src(), Keys: h.keys, State: filepath.Join(t.TempDir(), "state"), MaxAge: time.Minute}
	must[*translog.Status](t)(m.Check(t.Context()))
}
