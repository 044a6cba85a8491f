package sqldb_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// A look-up sees what was written before it was asked for, whoever does it, and each
// has its own error.
func TestLookUpsAreFresh(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		const callers, times = 8, 15
		names := make([]string, callers)
		for i := range names {
			names[i] = string(rune('a' + i))
		}
		seed(t, db, names...)
		fault := errors.New("fault")
		var wg sync.WaitGroup
		for _, name := range names {
			wg.Go(func() {
				for i := range times {
					if err := db.Batch(t.Context(), func(tx *sqldb.Tx) error {
						_, err := tx.Exec(t.Context(), `UPDATE counter SET n = n + 1 WHERE name = ?`, name)
						return err
					}); err != nil {
						t.Error(err)
						return
					}
					for range 3 {
						var n int
						err := db.Look(t.Context(), func(ctx context.Context, r sqldb.Rower) error {
							err := r.QueryRow(ctx, `SELECT n FROM counter WHERE name = ?`, name).Scan(&n)
							if name == "c" {
								err = errors.Join(err, fault)
							}
							return err
						})
						if n != i+1 || errors.Is(err, fault) != (name == "c") || err != nil && name != "c" {
							t.Errorf("%s is %d, want %d: %v", name, n, i+1, err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

// One that panics leaves nobody waiting, and those after it look for themselves. A
// context that has ended is told, and one that ends later does not matter.
func TestLookUpsThatEndBadly(t *testing.T) {
	db := open(t, t.TempDir()+"/x.db", counters)
	seed(t, db, "a")
	look := func(ctx context.Context) error {
		var n int
		return db.Look(ctx, func(ctx context.Context, r sqldb.Rower) error {
			return r.QueryRow(ctx, `SELECT n FROM counter WHERE name = 'a'`).Scan(&n)
		})
	}
	for range 20 {
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				defer func() { recover() }() // whose goroutine it is on is chance
				if i%4 == 0 {
					db.Look(t.Context(), func(context.Context, sqldb.Rower) error { panic("on purpose") })
				}
				look(t.Context())
			})
		}
		wg.Wait()
		if err := look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Look(ctx, func(ctx context.Context, r sqldb.Rower) error { cancel(); return ctx.Err() }); err != nil {
		t.Error(err)
	}
	if err := look(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}
