package journal_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// databases runs a test on each engine, with the source of a fresh database.
func databases(t *testing.T, f func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "journal.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, pgtest.Database(t)) })
}

func open(t testing.TB, source string) *journal.Journal {
	t.Helper()
	j := must[*journal.Journal](t)(journal.Open(t.Context(), source, &journal.Options{Node: "test"}))
	t.Cleanup(func() { j.Close() })
	return j
}

func rawRequest(t testing.TB, text string) *signer.Request {
	t.Helper()
	d := sha256.Sum256([]byte(text))
	return must[*signer.Request](t)(signer.DigestRequest(crypto.SHA256, d[:]))
}

// fullRequest is rawRequest without a test.
func fullRequest(text string) *signer.Request {
	d := sha256.Sum256([]byte(text))
	r, err := signer.DigestRequest(crypto.SHA256, d[:])
	if err != nil {
		panic(err)
	}
	return r
}

func commit(t testing.TB, group string, epoch uint64, what string) *signer.Request {
	t.Helper()
	return must[*signer.Request](t)(signer.MLSRequest("FramedContentTBS", signertest.CommitTBS(group, epoch, what)))
}

func message(t testing.TB, group string, epoch uint64, text string) *signer.Request {
	t.Helper()
	return must[*signer.Request](t)(signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS(group, epoch, text)))
}

func intent(r *signer.Request) journal.Intent {
	return journal.Intent{Tenant: "acme", Caller: "app", Key: "k1", Version: 1, Purpose: signer.PurposeMLSLeaf,
		Request: r, Rule: "allow", PolicyVersion: "v1", Summary: []byte(`{"a": "<b>"}`)}
}

// sign reserves and completes, as a service does, with a made-up signature.
func sign(ctx context.Context, j *journal.Journal, in journal.Intent, signature string) error {
	r, err := j.Reserve(ctx, in)
	if err != nil {
		return err
	}
	return r.Complete(ctx, journal.Outcome{Result: journal.Signed, Signature: []byte(signature), Device: "token"})
}

func TestEntryIsFoundAndVerifies(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		for i := range 5 {
			if err := sign(ctx, j, intent(rawRequest(t, fmt.Sprint(i))), fmt.Sprint("sig", i)); err != nil {
				t.Fatal(err)
			}
		}
		e := must[*journal.Entry](t)(j.Find(ctx, []byte("sig3")))
		if e.Index != 3 || !e.Signs([]byte("sig3")) || e.Intent.Caller != "app" || e.Outcome.Device != "token" || e.Intent.Node != "test" {
			t.Errorf("found %+v", e)
		}
		again := must[*journal.Entry](t)(j.Entry(ctx, 3))
		if again.Commitment() != e.Commitment() {
			t.Error("two readings have two commitments")
		}
		if _, err := j.Find(ctx, []byte("sig9")); !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("a signature that was not made: %v", err)
		}
		seen := 0
		h := must[journal.Head](t)(j.Verify(ctx, func(*journal.Entry) error { seen++; return nil }))
		if seen != 5 || h.Entries != 5 || h.Reservations != 5 {
			t.Errorf("verified %d entries of %+v", seen, h)
		}
	})
}

func TestUnfinishedIsVisibleAndClosed(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		r := must[*journal.Reservation](t)(j.Reserve(ctx, intent(commit(t, "g", 7, "a"))))
		j.Close() // as a crash would
		j = open(t, source)
		u := must[[]*journal.Unfinished](t)(j.Unfinished(ctx))
		if len(u) != 1 || u[0].Number != r.Number() || u[0].Intent.Type != "FramedContentTBS" {
			t.Fatalf("unfinished: %+v", u)
		}
		if err := r.Complete(ctx, journal.Outcome{Result: journal.Signed, Signature: []byte("x")}); !errors.Is(err, journal.ErrDown) {
			t.Errorf("completed in a closed journal: %v", err)
		}
		var guard *journal.GuardError
		if _, err := j.Reserve(ctx, intent(commit(t, "g", 7, "b"))); !errors.As(err, &guard) || !guard.Fork {
			t.Errorf("a second Commit beside an unfinished one: %v", err)
		}
		if n := must[int](t)(j.Reconcile(ctx, time.Now().Add(-time.Hour))); n != 0 {
			t.Errorf("closed %d that are not old", n)
		}
		if n := must[int](t)(j.Reconcile(ctx, time.Now().Add(time.Hour))); n != 1 {
			t.Errorf("closed %d, want 1", n)
		}
		if u := must[[]*journal.Unfinished](t)(j.Unfinished(ctx)); len(u) != 0 {
			t.Errorf("still unfinished: %+v", u)
		}
		if _, err := j.Reserve(ctx, intent(commit(t, "g", 7, "b"))); !errors.As(err, &guard) {
			t.Errorf("a second Commit after an unknown one: %v", err)
		}
		e := must[*journal.Entry](t)(j.Entry(ctx, 0))
		if e.Outcome.Result != journal.Unknown || e.Outcome.ErrorClass != "interrupted" {
			t.Errorf("outcome %+v", e.Outcome)
		}
	})
}

func TestReservationIsSpentOnce(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		r := must[*journal.Reservation](t)(j.Reserve(ctx, intent(rawRequest(t, "a"))))
		done := journal.Outcome{Result: journal.Signed, Signature: []byte("s")}
		if err := r.Complete(ctx, done); err != nil {
			t.Fatal(err)
		}
		if err := r.Complete(ctx, done); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("a second time: %v", err)
		}
		late := must[*journal.Reservation](t)(j.Reserve(ctx, intent(commit(t, "g", 1, "b"))))
		must[int](t)(j.Reconcile(ctx, time.Now().Add(time.Hour)))
		if err := late.Complete(ctx, done); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("after it was reconciled: %v", err)
		}
		if h := must[journal.Head](t)(j.Verify(ctx, nil)); h.Entries != 2 {
			t.Errorf("%d entries, want 2", h.Entries)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		in := intent(rawRequest(t, "a"))
		in.IdempotencyKey = "once"
		first := must[*journal.Reservation](t)(j.Reserve(ctx, in))
		if _, err := j.Reserve(ctx, in); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("while the first is under way: %v", err)
		}
		if err := first.Complete(ctx, journal.Outcome{Result: journal.NotSigned, ErrorClass: "device-absent"}); err != nil {
			t.Fatal(err)
		}
		second := must[*journal.Reservation](t)(j.Reserve(ctx, in))
		if second.Replay() != nil {
			t.Error("a failed attempt is repeated as if it had succeeded")
		}
		if err := second.Complete(ctx, journal.Outcome{Result: journal.Signed, Signature: []byte("sig"), Device: "d"}); err != nil {
			t.Fatal(err)
		}
		j.Close()
		j = open(t, source)
		third := must[*journal.Reservation](t)(j.Reserve(ctx, in))
		if out := third.Replay(); out == nil || string(out.Signature) != "sig" || out.Device != "d" {
			t.Errorf("the recorded outcome is %+v", out)
		}
		var damaged *journal.TamperError
		for _, change := range []string{`UPDATE journal_entry SET answer = outcome WHERE answer IS NOT NULL`, `UPDATE journal_entry SET answer = NULL`} {
			if err := j.Exec(ctx, change); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Reserve(ctx, in); !errors.As(err, &damaged) {
				t.Errorf("after %s: %v", change, err)
			}
		}
		// As older releases kept it.
		if err := j.Exec(ctx, `UPDATE journal_idempotency SET result = 'signed', signature = ?, device = 'old'`, []byte("sig")); err != nil {
			t.Fatal(err)
		}
		fourth := must[*journal.Reservation](t)(j.Reserve(ctx, in))
		if out := fourth.Replay(); out == nil || string(out.Signature) != "sig" || out.Device != "old" {
			t.Errorf("the outcome that an older release recorded is %+v", out)
		}
		other := intent(rawRequest(t, "b"))
		other.IdempotencyKey = "once"
		if _, err := j.Reserve(ctx, other); !errors.Is(err, journal.ErrIdempotency) {
			t.Errorf("another request: %v", err)
		}
		other.Caller = "somebody else"
		if _, err := j.Reserve(ctx, other); err != nil {
			t.Errorf("another caller's key of the same name: %v", err)
		}
	})
}

func TestIntentLimits(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	for name, spoil := range map[string]func(*journal.Intent){
		"no request":        func(in *journal.Intent) { in.Request = nil },
		"no key":            func(in *journal.Intent) { in.Key = "" },
		"long caller":       func(in *journal.Intent) { in.Caller = strings.Repeat("x", journal.MaxName+1) },
		"octet 0":           func(in *journal.Intent) { in.Tenant = "a\x00b" },
		"no UTF-8":          func(in *journal.Intent) { in.Rule = "\xff" },
		"summary no JSON":   func(in *journal.Intent) { in.Summary = []byte("{") },
		"long summary":      func(in *journal.Intent) { in.Summary = []byte(`"` + strings.Repeat("x", journal.MaxSummary) + `"`) },
		"long idempotency":  func(in *journal.Intent) { in.IdempotencyKey = strings.Repeat("k", journal.MaxIdempotencyKey+1) },
		"event":             func(in *journal.Intent) { in.Operation = journal.OpRefuse },
		"agreement repeats": func(in *journal.Intent) { in.Operation = journal.OpAgree; in.IdempotencyKey = "k" },
	} {
		in := intent(rawRequest(t, "a"))
		spoil(&in)
		if _, err := j.Reserve(t.Context(), in); !errors.Is(err, journal.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h := must[journal.Head](t)(j.Head(t.Context())); h.Reservations != 0 {
		t.Errorf("%d reservations were written", h.Reservations)
	}
}

func TestRecordRefusal(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		in := intent(commit(t, "g", 3, "a"))
		in.Operation = journal.OpRefuse
		if err := j.Record(ctx, in, "policy"); err != nil {
			t.Fatal(err)
		}
		e := must[*journal.Entry](t)(j.Entry(ctx, 0))
		if e.Intent.Operation != journal.OpRefuse || e.Outcome.Result != journal.Recorded || e.Outcome.ErrorClass != "policy" {
			t.Errorf("recorded %+v", e)
		}
		if _, err := j.Reserve(ctx, intent(commit(t, "g", 3, "b"))); err != nil {
			t.Errorf("what was refused moved the guard: %v", err)
		}
	})
}

// TestCallersTogether has many callers on two nodes; SQLite has one.
func TestCallersTogether(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		nodes := []*journal.Journal{open(t, source)}
		if strings.HasPrefix(source, "postgres") {
			nodes = append(nodes, open(t, source))
		}
		const callers, each = 16, 10
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := range each {
					r := rawRequest(t, fmt.Sprint(c, i))
					if err := sign(t.Context(), nodes[c%len(nodes)], intent(r), fmt.Sprint(c, "/", i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		h := must[journal.Head](t)(nodes[0].Verify(t.Context(), nil))
		if h.Entries != callers*each || h.Reservations != callers*each {
			t.Errorf("%+v, want %d of each", h, callers*each)
		}
	})
}

// TestCanceledReserve closes what nobody will use.
func TestCanceledReserve(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		j := open(t, source)
		for i := range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
			r, err := j.Reserve(ctx, intent(rawRequest(t, fmt.Sprint(i))))
			cancel()
			if err == nil {
				err = r.Complete(t.Context(), journal.Outcome{Result: journal.Signed, Signature: []byte{byte(i)}})
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if err := sign(t.Context(), j, intent(rawRequest(t, "last")), "last"); err != nil {
			t.Fatal(err)
		}
		if u := must[[]*journal.Unfinished](t)(j.Unfinished(t.Context())); len(u) != 0 {
			t.Errorf("%d reservations stay open", len(u))
		}
	})
}
