package journal_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer/journal"
)

// fill signs up to n entries; entry i has the signature "sig i", and every
// hundredth none.
func fill(t *testing.T, j *journal.Journal, from, n int) {
	t.Helper()
	for from < n {
		var in []journal.Intent
		for i := from; i < min(n, from+512); i++ {
			in = append(in, intent(rawRequest(t, fmt.Sprint(i))))
		}
		var done []journal.Completion
		for i, r := range j.ReserveAll(t.Context(), in) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			out := journal.Outcome{Result: journal.Signed, Signature: fmt.Append(nil, "sig ", from+i), Device: "token"}
			if (from+i)%100 == 99 {
				out = journal.Outcome{Result: journal.Unknown, ErrorClass: "device-timeout"}
			}
			done = append(done, journal.Completion{Reservation: r.Reservation, Outcome: out})
		}
		if err := errors.Join(j.CompleteAll(t.Context(), done)...); err != nil {
			t.Fatal(err)
		}
		from += len(in)
	}
}

// sorted waits until so many runs are.
func sorted(t *testing.T, j *journal.Journal, want int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		switch n := must[int64](t)(j.Runs(t.Context())); {
		case n == want:
			return
		case n > want || time.Now().After(end):
			t.Fatalf("%d runs are sorted, want %d", n, want)
		}
	}
}

// finds looks for entries by their signatures.
func finds(t *testing.T, j *journal.Journal, entries ...int) {
	t.Helper()
	for _, i := range entries {
		if e, err := j.Find(t.Context(), fmt.Append(nil, "sig ", i)); err != nil || e.Index != uint64(i) {
			t.Errorf("entry %d: found %+v, %v", i, e, err)
		}
	}
	if _, err := j.Find(t.Context(), []byte("none")); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("a signature that was not made: %v", err)
	}
}

// TestFindInRuns finds signatures that are sorted and those behind them, sees
// what somebody changed, and finds nevertheless where a row is gone.
func TestFindInRuns(t *testing.T) {
	const n = journal.RunSize + 300
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		fill(t, j, 0, journal.RunSize-1)
		finds(t, j, 0, 17, journal.RunSize-2)
		if n := must[int64](t)(j.Runs(ctx)); n != 0 {
			t.Errorf("%d runs of what is not full", n)
		}
		fill(t, j, journal.RunSize-1, n-1)
		sorted(t, j, 1)
		if err := sign(ctx, j, intent(rawRequest(t, "again")), "sig 5"); err != nil { // the first one is found
			t.Fatal(err)
		}
		some := []int{0, 5, 17, 4096, journal.RunSize - 2, journal.RunSize, n - 2}
		finds(t, j, some...)
		if h := must[journal.Head](t)(j.Verify(ctx, nil)); h.Entries != n {
			t.Errorf("%d entries", h.Entries)
		}
		j.Close()
		j = open(t, source)
		finds(t, j, some...)
		for _, change := range []string{
			`UPDATE journal_signature SET signatures = (SELECT o.signatures FROM journal_signature o WHERE o.octet = 1 AND o.run = 0) WHERE octet = 0`,
			`DELETE FROM journal_signature WHERE octet <= 128`,
		} {
			if err := j.Exec(ctx, change); err != nil {
				t.Fatal(err)
			}
			tampered := new(journal.TamperError)
			if _, err := j.Verify(ctx, nil); !errors.As(err, &tampered) || tampered.Index != 0 {
				t.Errorf("%s: %v", change, err)
			}
		}
		finds(t, j, some...)
		if err := j.Exec(ctx, `UPDATE journal_signature SET signatures = ?`, []byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Find(ctx, []byte("none")); err != nil && !errors.As(err, new(*journal.TamperError)) && !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("rows that are not ours: %v", err)
		}
	})
}

// TestOldJournalOpens has a journal as the release before wrote it, which is
// sorted when it is opened.
func TestOldJournalOpens(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		fill(t, j, 0, journal.RunSize+10)
		sorted(t, j, 1)
		before := must[*journal.Entry](t)(j.Entry(ctx, 4000))
		for _, back := range []string{
			`ALTER TABLE journal_entry DROP COLUMN answer`,
			`DROP TABLE journal_signature`,
			`CREATE INDEX journal_entry_signature ON journal_entry (signature)`,
			`DELETE FROM schema_migration WHERE part = 'journal' AND version > 1`,
		} {
			if err := j.Exec(ctx, back); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		j = open(t, source)
		finds(t, j, 0, 4000, journal.RunSize+3)
		sorted(t, j, 1)
		finds(t, j, 0, 4000, journal.RunSize+3)
		if e := must[*journal.Entry](t)(j.Entry(ctx, 4000)); e.Commitment() != before.Commitment() {
			t.Error("an entry has other octets")
		}
		if err := j.Exec(ctx, `DROP INDEX journal_entry_signature`); err == nil {
			t.Error("the old index is still written")
		}
		must[journal.Head](t)(j.Verify(ctx, nil))
	})
}
