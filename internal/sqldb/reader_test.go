package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// A reading transaction sees one state and the next one the newest, whatever
// ended the one before on the same connection: an error, a context, a panic, a
// statement that is wrong, or more statements than are kept.
func TestReadsAfterReadsThatEndBadly(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "a", "b", "c")
		fault := errors.New("fault")
		read := func(f func(*sqldb.Tx) error) error { return db.Read(t.Context(), f) }
		bad := map[string]func() error{
			"an error": func() error { return read(func(*sqldb.Tx) error { return fault }) },
			"a context": func() error {
				ctx, cancel := context.WithCancel(t.Context())
				return db.Read(ctx, func(tx *sqldb.Tx) error {
					rows, err := tx.Query(ctx, `SELECT name FROM counter`)
					if err != nil {
						return err
					}
					defer rows.Close()
					cancel()
					for rows.Next() {
					}
					return errors.Join(rows.Err(), ctx.Err())
				})
			},
			"a panic": func() (err error) {
				defer func() { err = fmt.Errorf("%v", recover()) }()
				return read(func(*sqldb.Tx) error { panic("on purpose") })
			},
			"a wrong statement": func() error {
				return read(func(tx *sqldb.Tx) error {
					var n int
					return tx.QueryRow(t.Context(), `SELECT nothing FROM nowhere`).Scan(&n)
				})
			},
			"a write": func() error {
				return read(func(tx *sqldb.Tx) error {
					_, err := tx.Exec(t.Context(), `DELETE FROM counter`)
					return errors.Join(err, fault) // an engine may let it pass; it is taken back
				})
			},
		}
		for what, f := range bad {
			for i := range 5 {
				if err := f(); err == nil {
					t.Errorf("%s: no error", what)
				}
				err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return increment(t.Context(), tx, "a") })
				if err != nil {
					t.Fatal(err)
				}
				if n := count(t, db, "a"); n == 0 || i > 0 && n < i {
					t.Errorf("after %s: %d", what, n)
				}
			}
		}
		if n := count(t, db, "a"); n != 5*len(bad) {
			t.Errorf("%d, want %d", n, 5*len(bad))
		}
		if err := read(func(tx *sqldb.Tx) error {
			for i := range 600 {
				var n int
				if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM counter WHERE name IN ('a'`+strings.Repeat(", 'b'", i)+`)`).Scan(&n); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// More transactions than connections are kept, one within another, until the
// database is closed under them.
func TestReadsAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "a")
		started := make(chan struct{}, 1)
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				for {
					err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
						var n int
						return tx.QueryRow(t.Context(), `SELECT n FROM counter WHERE name = 'a'`).Scan(&n)
					})
					if err != nil {
						return // it was closed; a wrong answer fails below
					}
					select {
					case started <- struct{}{}:
					default:
					}
				}
			})
		}
		<-started
		if n := count(t, db, "a"); n != 0 {
			t.Error(n)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := db.Read(t.Context(), func(*sqldb.Tx) error { return nil }); !errors.Is(err, sqldb.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
