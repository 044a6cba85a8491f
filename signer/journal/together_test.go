package journal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer/journal"
)

// counted returns how many commits there were since it was set.
func counted(j *journal.Journal) func() int {
	n := 0
	j.SetFault(func(before bool) error {
		if before {
			n++
		}
		return nil
	})
	return func() int { return n }
}

func completions(reserved []journal.Reserved) (done []journal.Completion) {
	for i, r := range reserved {
		if r.Err == nil && r.Reservation.Replay() == nil {
			done = append(done, journal.Completion{Reservation: r.Reservation,
				Outcome: journal.Outcome{Result: journal.Signed, Signature: fmt.Appendf(nil, "sig %d", i), Device: "token"}})
		}
	}
	return done
}

// TestReserveAll lets in or refuses each of many in one commit, in their order.
func TestReserveAll(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		commits := counted(j)
		once := intent(rawRequest(t, "once"))
		once.IdempotencyKey = "k"
		noKey := intent(rawRequest(t, "x"))
		noKey.Key = ""
		in := []journal.Intent{
			intent(commit(t, "g", 7, "a")), intent(commit(t, "g", 7, "b")), noKey, once, once,
			intent(message(t, "g", 6, "late")), intent(message(t, "g", 7, "hi")),
		}
		got := j.ReserveAll(ctx, in)
		var guard *journal.GuardError
		for i, want := range []func(error) bool{
			nil, func(err error) bool { return errors.As(err, &guard) && guard.Fork }, func(err error) bool { return errors.Is(err, journal.ErrUsage) },
			nil, func(err error) bool { return errors.Is(err, journal.ErrInFlight) }, func(err error) bool { return errors.As(err, &guard) && !guard.Fork }, nil,
		} {
			switch r := got[i]; {
			case want == nil && (r.Err != nil || r.Reservation.Number() == 0):
				t.Errorf("%d: %v", i, r.Err)
			case want != nil && (!want(r.Err) || r.Reservation != nil):
				t.Errorf("%d: %v, %v", i, r.Reservation, r.Err)
			}
		}
		if n := commits(); n != 1 {
			t.Errorf("%d commits for the reservations", n)
		}
		done := completions(got)
		done = append(done, done[0]) // twice
		errs := j.CompleteAll(ctx, done)
		for i, err := range errs {
			if twice := i == len(done)-1; twice != errors.Is(err, journal.ErrClosed) || !twice && err != nil {
				t.Errorf("completion %d: %v", i, err)
			}
		}
		if n := commits(); n != 2 {
			t.Errorf("%d commits in all", n)
		}
		if again := j.ReserveAll(ctx, []journal.Intent{once})[0]; again.Err != nil || string(again.Reservation.Replay().Signature) != "sig 3" {
			t.Errorf("the same again: %+v", again)
		}
		if h := must[journal.Head](t)(j.Verify(ctx, nil)); h.Entries != 3 || h.Reservations != 3 {
			t.Errorf("%+v", h)
		}
		if e := must[*journal.Entry](t)(j.Entry(ctx, 2)); !e.Signs([]byte("sig 6")) {
			t.Error("the entries are not in the order of the completions")
		}
	})
}

// TestReserveAllCanceled closes what a caller who has gone would have had.
func TestReserveAllCanceled(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		j := open(t, source)
		ctx, cancel := context.WithCancel(t.Context())
		j.SetFault(func(before bool) error {
			if !before {
				cancel()
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		})
		for i, r := range j.ReserveAll(ctx, []journal.Intent{intent(commit(t, "g", 1, "a")), intent(commit(t, "g", 1, "b")), intent(rawRequest(t, "c"))}) {
			if r.Err == nil { // settled in the same moment
				if err := r.Reservation.Complete(t.Context(), journal.Outcome{Result: journal.NotSigned, ErrorClass: "canceled"}); err != nil {
					t.Error(err)
				}
			} else if i != 1 && !errors.Is(r.Err, context.Canceled) {
				t.Errorf("%d: %v", i, r.Err)
			}
		}
		// The mark of what was not signed is taken back.
		if err := sign(t.Context(), j, intent(commit(t, "g", 1, "b")), "b"); err != nil {
			t.Errorf("another Commit: %v", err)
		}
		if u := must[[]*journal.Unfinished](t)(j.Unfinished(t.Context())); len(u) != 0 {
			t.Errorf("%d reservations stay open", len(u))
		}
		must[journal.Head](t)(j.Verify(t.Context(), nil))
	})
}

// TestCompleteAllDown releases nothing where the journal does not answer.
func TestCompleteAllDown(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		j := open(t, source)
		got := j.ReserveAll(t.Context(), []journal.Intent{intent(rawRequest(t, "a")), intent(rawRequest(t, "b"))})
		lost := errors.New("lost")
		j.SetFault(func(bool) error { return lost })
		for i, err := range j.CompleteAll(t.Context(), completions(got)) {
			if !errors.Is(err, journal.ErrDown) || !errors.Is(err, lost) {
				t.Errorf("%d: %v", i, err)
			}
		}
		for i, r := range j.ReserveAll(t.Context(), []journal.Intent{intent(rawRequest(t, "c"))}) {
			if !errors.Is(r.Err, journal.ErrDown) || r.Reservation != nil {
				t.Errorf("reserving %d: %v", i, r.Err)
			}
		}
		if n := len(must[[]*journal.Unfinished](t)(j.Unfinished(t.Context()))); n != 2 {
			t.Errorf("%d reservations are open", n)
		}
	})
}
