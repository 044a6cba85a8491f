package journal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
)

// warm has a write succeed, so that the journal is known to be writable.
func warm(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Record(t.Context(), journal.Intent{Operation: journal.OpRefuse, Key: "warm"}, "test"); err != nil {
		t.Fatal(err)
	}
}

func signedAs(signature string) journal.Outcome {
	return journal.Outcome{Result: journal.Signed, Signature: []byte(signature), Device: "token"}
}

// keyed is an intent with an idempotency key.
func keyed(r *signer.Request, key string) journal.Intent {
	in := intent(r)
	in.IdempotencyKey = key
	return in
}

// TestOneStep counts the commits of a signature.
func TestOneStep(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		for _, all := range []bool{false, true} {
			opt := &journal.Options{}
			if all {
				opt.Intents = journal.IntentsAll
			}
			j := must[*journal.Journal](t)(journal.Open(t.Context(), source, opt))
			warm(t, j)
			group := fmt.Sprint("group ", all)
			count := 0
			j.SetFault(func(before bool) error {
				if before {
					count++
				}
				return nil
			})
			mac := intent(nil)
			mac.Operation, mac.Input = journal.OpMAC, []byte("x")
			for _, c := range []struct {
				name   string
				in     journal.Intent
				before int // commits, without IntentsAll
			}{
				{"digest", intent(rawRequest(t, "a")), 0},
				{"digest, with a key", keyed(rawRequest(t, "b"), group), 0},
				{"MAC", mac, 0},
				{"first message of an epoch", intent(message(t, group, 7, "a")), 1},
				{"second message", keyed(message(t, group, 7, "b"), group+"2"), 0},
				{"Commit", intent(commit(t, group, 7, "a")), 1},
				{"message of the next epoch", intent(message(t, group, 8, "a")), 1},
				{"another one", intent(message(t, group, 8, "b")), 0},
				{"GroupInfo of the epoch after that", intent(must[*signer.Request](t)(signer.MLSRequest("GroupInfoTBS", signertest.GroupInfoTBS(group, 9)))), 0},
				{"status list", intent(statusJWT(t, group, 1, "a")), 1},
				{"checkpoint", intent(checkpoint(t, "log."+group, 1, "a")), 1},
			} {
				want := c.before
				if all {
					want = 1
				}
				count = 0
				r := must[*journal.Reservation](t)(j.Reserve(t.Context(), c.in))
				if count != want || (r.Number() != 0) != (want == 1) {
					t.Errorf("%s: %d commits before the device works, want %d; number %d", c.name, count, want, r.Number())
				}
				if err := r.Complete(t.Context(), signedAs(group+c.name)); err != nil {
					t.Fatal(err)
				}
				if count != want+1 || r.Number() == 0 {
					t.Errorf("%s: %d commits in all, want %d; number %d", c.name, count, want+1, r.Number())
				}
				if err := r.Complete(t.Context(), signedAs(group+c.name)); !errors.Is(err, journal.ErrClosed) {
					t.Errorf("%s, a second time: %v", c.name, err)
				}
				if e := must[*journal.Entry](t)(j.Find(t.Context(), []byte(group+c.name))); e.Reservation != r.Number() || e.Outcome.Result != journal.Signed {
					t.Errorf("%s: %+v", c.name, e)
				}
			}
			var guard *journal.GuardError
			if _, err := j.Reserve(t.Context(), intent(message(t, group, 7, "late"))); !errors.As(err, &guard) {
				t.Errorf("a message of an earlier epoch: %v", err)
			}
			must[journal.Head](t)(j.Verify(t.Context(), nil))
			j.Close()
		}
	})
}

// TestNothingBeforeItCanBeWritten: while the last write failed, or is not of
// late, or the disk is nearly full, an intent is durable before the device works.
func TestNothingBeforeItCanBeWritten(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		j := open(t, source)
		next := 0
		reserve := func() (*journal.Reservation, error) {
			next++
			return j.Reserve(t.Context(), intent(rawRequest(t, fmt.Sprint(next))))
		}
		durable := func(when string, want bool) *journal.Reservation {
			t.Helper()
			r := must[*journal.Reservation](t)(reserve())
			if (r.Number() != 0) != want {
				t.Errorf("%s: number %d", when, r.Number())
			}
			return r
		}
		complete := func(r *journal.Reservation) error { return r.Complete(t.Context(), signedAs(fmt.Sprint("sig ", next))) }
		if err := complete(durable("at the start", true)); err != nil {
			t.Fatal(err)
		}
		last := durable("after a write", false)
		fault := errors.New("disk full")
		for _, lost := range []bool{false, true} { // and whether the write took effect
			j.SetFault(func(before bool) error {
				if before != lost {
					return fault
				}
				return nil
			})
			if err := complete(last); !errors.Is(err, journal.ErrDown) {
				t.Errorf("completed without a write: %v", err)
			}
			for range 3 {
				if _, err := reserve(); !errors.Is(err, journal.ErrDown) {
					t.Errorf("let in while writes fail: %v", err)
				}
			}
			j.SetFault(func(bool) error { return nil })
			if err := complete(durable("after a failure", true)); err != nil {
				t.Fatal(err)
			}
			last = durable("after a write", false)
		}
		j.Age(9 * time.Second)
		durable("9 s after a write", false)
		j.Age(2 * time.Second)
		durable("11 s after a write", true)
		durable("after a write", false)
		j.SetFree(10 << 20)
		durable("with the disk nearly full", true)
		j.SetFree(1 << 30)
		durable("with room", false)
		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := j.Reserve(ended, keyed(rawRequest(t, "ended"), "k")); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		if err := sign(t.Context(), j, keyed(rawRequest(t, "ended"), "k"), "k"); err != nil {
			t.Errorf("its key was held: %v", err)
		}
		j.Close()
		if _, err := reserve(); !errors.Is(err, journal.ErrDown) {
			t.Errorf("closed: %v", err)
		}
	})
}

// twoNodes are two journals of one database. Those of SQLite are for the test
// only.
func twoNodes(t *testing.T, f func(t *testing.T, a, b *journal.Journal)) {
	databases(t, func(t *testing.T, source string) {
		a, b := open(t, source), open(t, source)
		warm(t, a)
		warm(t, b)
		f(t, a, b)
		must[journal.Head](t)(a.Verify(t.Context(), nil))
	})
}

// dropped returns the newest entry, which must say that the signature was made
// and not released.
func dropped(t *testing.T, j *journal.Journal, signature string) {
	t.Helper()
	e := must[*journal.Entry](t)(j.Find(t.Context(), []byte(signature)))
	if e.Outcome.Result != journal.Unknown || e.Outcome.ErrorClass != "dropped" {
		t.Errorf("%s: %+v", signature, e.Outcome)
	}
}

// TestIdempotencyKeyInOneStep races for a key on two nodes.
func TestIdempotencyKeyInOneStep(t *testing.T) {
	twoNodes(t, func(t *testing.T, a, b *journal.Journal) {
		ctx := t.Context()
		same := keyed(rawRequest(t, "same"), "same")
		first, second := must[*journal.Reservation](t)(a.Reserve(ctx, same)), must[*journal.Reservation](t)(b.Reserve(ctx, same))
		if first.Number() != 0 || second.Number() != 0 {
			t.Fatal("two steps")
		}
		if _, err := a.Reserve(ctx, same); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("in the same process: %v", err)
		}
		if err := second.Complete(ctx, signedAs("winner")); err != nil {
			t.Fatal(err)
		}
		var again *journal.RepeatedError
		if err := first.Complete(ctx, signedAs("loser")); !errors.As(err, &again) || string(again.Outcome.Signature) != "winner" {
			t.Errorf("the second to complete: %v", err)
		}
		dropped(t, a, "loser")
		for _, j := range []*journal.Journal{a, b} {
			r := must[*journal.Reservation](t)(j.Reserve(ctx, same))
			if r.Replay() == nil || string(r.Replay().Signature) != "winner" {
				t.Errorf("once more: %+v", r.Replay())
			}
		}

		// Another request with the key.
		first = must[*journal.Reservation](t)(a.Reserve(ctx, keyed(rawRequest(t, "x"), "other")))
		if err := sign(ctx, b, keyed(rawRequest(t, "y"), "other"), "of y"); err != nil {
			t.Fatal(err)
		}
		if err := first.Complete(ctx, signedAs("of x")); !errors.Is(err, journal.ErrIdempotency) {
			t.Errorf("the key was used for another request meanwhile: %v", err)
		}
		dropped(t, b, "of x")
		if _, err := a.Reserve(ctx, keyed(rawRequest(t, "x"), "other")); !errors.Is(err, journal.ErrIdempotency) {
			t.Errorf("the key was used for another request: %v", err)
		}

		// The other node has a durable reservation.
		slow := keyed(rawRequest(t, "slow"), "slow")
		first = must[*journal.Reservation](t)(a.Reserve(ctx, slow))
		b.Age(time.Minute)
		second = must[*journal.Reservation](t)(b.Reserve(ctx, slow))
		if second.Number() == 0 {
			t.Fatal("one step")
		}
		if err := first.Complete(ctx, signedAs("fast")); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("beside a durable reservation: %v", err)
		}
		dropped(t, a, "fast")
		if _, err := a.Reserve(ctx, slow); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("while it is under way: %v", err)
		}
		if err := second.Complete(ctx, signedAs("slow")); err != nil {
			t.Fatal(err)
		}
		if r := must[*journal.Reservation](t)(a.Reserve(ctx, slow)); r.Replay() == nil || string(r.Replay().Signature) != "slow" {
			t.Errorf("then: %+v", r.Replay())
		}
	})
}

// TestFailedAttemptInOneStep leaves the key to the same request, and to no other.
func TestFailedAttemptInOneStep(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		warm(t, j)
		in := keyed(rawRequest(t, "a"), "k")
		for _, result := range []journal.Result{journal.NotSigned, journal.Unknown} {
			r := must[*journal.Reservation](t)(j.Reserve(ctx, in))
			if err := r.Complete(ctx, journal.Outcome{Result: result, ErrorClass: "device"}); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Reserve(ctx, keyed(rawRequest(t, "b"), "k")); !errors.Is(err, journal.ErrIdempotency) {
				t.Errorf("after %s, another request: %v", result, err)
			}
		}
		given := must[*journal.Reservation](t)(j.Reserve(ctx, in)) // and never completed
		if _, err := j.Reserve(ctx, in); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("while it is held: %v", err)
		}
		must[int](t)(j.Reconcile(ctx, time.Now().Add(time.Hour)))
		if err := sign(ctx, j, in, "sig"); err != nil {
			t.Errorf("after it was given up: %v", err)
		}
		var again *journal.RepeatedError
		if err := given.Complete(ctx, signedAs("late")); !errors.As(err, &again) || string(again.Outcome.Signature) != "sig" {
			t.Errorf("completed late: %v", err)
		}
		must[journal.Head](t)(j.Verify(ctx, nil))
	})
}

// TestGuardInOneStep: a message that was signed while another node went on to the
// next epoch does not leave.
func TestGuardInOneStep(t *testing.T) {
	twoNodes(t, func(t *testing.T, a, b *journal.Journal) {
		ctx := t.Context()
		if err := sign(ctx, a, intent(message(t, "g", 5, "a")), "a"); err != nil {
			t.Fatal(err)
		}
		r := must[*journal.Reservation](t)(a.Reserve(ctx, intent(message(t, "g", 5, "b"))))
		failed := must[*journal.Reservation](t)(a.Reserve(ctx, intent(message(t, "g", 5, "c"))))
		if r.Number() != 0 || failed.Number() != 0 {
			t.Fatal("two steps")
		}
		if err := sign(ctx, b, intent(message(t, "g", 6, "d")), "d"); err != nil {
			t.Fatal(err)
		}
		var guard *journal.GuardError
		if err := r.Complete(ctx, signedAs("b")); !errors.As(err, &guard) || guard.Number != journal.Uint(6) {
			t.Errorf("of an epoch that is over: %v", err)
		}
		dropped(t, b, "b")
		if err := failed.Complete(ctx, journal.Outcome{Result: journal.Unknown, ErrorClass: "device"}); err != nil {
			t.Errorf("what failed anyway: %v", err)
		}
		if _, err := a.Reserve(ctx, intent(message(t, "g", 5, "e"))); err != nil {
			if !errors.As(err, &guard) {
				t.Error(err)
			}
		} else if err := sign(ctx, a, intent(message(t, "g", 5, "e")), "e"); !errors.As(err, &guard) {
			t.Errorf("the epoch is over: %v", err)
		}
		for _, m := range must[[]journal.Mark](t)(b.Marks(ctx)) {
			if m.Kind == journal.KindEpoch && m.Number != journal.Uint(6) {
				t.Errorf("the mark is at %s", m.Number)
			}
		}
	})
}

// TestMarkThatIsTakenBack: the first message of an epoch, of which it is certain
// that it was not signed, lets no second one go in one step.
func TestMarkThatIsTakenBack(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		warm(t, j)
		first := must[*journal.Reservation](t)(j.Reserve(ctx, intent(message(t, "g", 5, "a"))))
		if err := first.Complete(ctx, journal.Outcome{Result: journal.NotSigned, ErrorClass: "device"}); err != nil {
			t.Fatal(err)
		}
		second := must[*journal.Reservation](t)(j.Reserve(ctx, intent(message(t, "g", 5, "b"))))
		if second.Number() == 0 {
			t.Error("in one step, and the guard has no mark")
		}
		var guard *journal.GuardError
		if _, err := j.Reserve(ctx, intent(message(t, "g", 4, "c"))); !errors.As(err, &guard) {
			t.Errorf("an earlier epoch beside one that may be signed: %v", err)
		}
	})
}
