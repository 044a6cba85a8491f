package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/sqldb"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrations(texts ...string) fstest.MapFS {
	files := fstest.MapFS{}
	for i, text := range texts {
		files[fmt.Sprintf("migrations/%04d_x.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

const counters = `CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL, mark BLOB) STRICT;
	CREATE TABLE line (id AUTOKEY, what TEXT NOT NULL) STRICT;`

// onBoth runs a test on both engines.
func onBoth(t *testing.T, test func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "x.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, pgtest.Database(t)) })
}

func open(t *testing.T, source string, texts ...string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), source, sqldb.Options{Name: "test", Migrations: migrations(texts...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func count(t *testing.T, db *sqldb.DB, name string) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *sqldb.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT n FROM counter WHERE name = ?`, name).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func increment(ctx context.Context, tx *sqldb.Tx, name string) error {
	var n int
	if err := tx.QueryRow(ctx, `SELECT n FROM counter WHERE name = ?`+tx.ForUpdate(), name).Scan(&n); err != nil {
		return err
	}
	return tx.ExecOne(ctx, errors.New("gone"), `UPDATE counter SET n = ? WHERE name = ?`, n+1, name)
}

func seed(t *testing.T, db *sqldb.DB, names ...string) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, name := range names {
			if _, err := tx.Exec(t.Context(), `INSERT INTO counter (name, n, mark) VALUES (?, 0, ?)`, name, []byte{1}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConcurrentWritesLoseNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		a, b := open(t, source, counters), open(t, source, counters) // as two nodes
		seed(t, a, "x", "y")
		var wg sync.WaitGroup
		for i := range 60 {
			// Opposite orders, so that PostgreSQL meets deadlocks.
			db, first, second, do := a, "x", "y", a.Batch
			if i%2 == 1 {
				db, first, second = b, "y", "x"
				do = db.Write
			}
			wg.Go(func() {
				err := do(t.Context(), func(tx *sqldb.Tx) error {
					return errors.Join(increment(t.Context(), tx, first), increment(t.Context(), tx, second))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if x, y := count(t, a, "x"), count(t, b, "y"); x != 60 || y != 60 {
			t.Errorf("counted %d and %d, want 60 and 60", x, y)
		}
	})
}

func TestAFailedWriteOfABatchTakesBackOnlyItself(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "x")
		mine := errors.New("mine")
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				err := db.Batch(t.Context(), func(tx *sqldb.Tx) error {
					if err := increment(t.Context(), tx, "x"); err != nil {
						return err
					}
					switch i % 3 {
					case 1:
						return mine
					case 2:
						_, err := tx.Exec(t.Context(), `INSERT INTO counter (name, n) VALUES (?, 0)`, "x")
						return err
					}
					return nil
				})
				switch i % 3 {
				case 0:
					if err != nil {
						t.Error(err)
					}
				case 1:
					if !errors.Is(err, mine) {
						t.Errorf("got %v, want its own error", err)
					}
				case 2:
					if !sqldb.IsUnique(err) {
						t.Errorf("got %v, want a violated key", err)
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, db, "x"); n != 20 {
			t.Errorf("counted %d, want 20", n)
		}
	})
}

func TestWriteTakesBackWhatFailed(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "x")
		mine := errors.New("mine")
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			return errors.Join(increment(t.Context(), tx, "x"), mine)
		})
		if !errors.Is(err, mine) || count(t, db, "x") != 0 {
			t.Errorf("error %v, count %d", err, count(t, db, "x"))
		}
		err = db.Write(t.Context(), func(tx *sqldb.Tx) error {
			return tx.ExecOne(t.Context(), mine, `UPDATE counter SET n = 1 WHERE name = 'nobody'`)
		})
		if !errors.Is(err, mine) {
			t.Errorf("ExecOne: %v", err)
		}
	})
}

func TestReadWaitsForNoWriter(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "x")
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			if err := increment(t.Context(), tx, "x"); err != nil {
				return err
			}
			if n := count(t, db, "x"); n != 0 {
				t.Errorf("a reader sees %d before the commit", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, db, "x"); n != 1 {
			t.Errorf("counted %d after the commit", n)
		}
	})
}

func TestMigrations(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		open(t, source, counters).Close()
		db := open(t, source, counters, `ALTER TABLE counter ADD COLUMN extra TEXT;`)
		seed(t, db, "x")
		db.Close()
		_, err := sqldb.Open(t.Context(), source, sqldb.Options{Name: "test", Migrations: migrations(counters)})
		if !errors.Is(err, sqldb.ErrSchema) {
			t.Errorf("an older release opened it: %v", err)
		}
		gap := fstest.MapFS{"migrations/0002_x.sql": &fstest.MapFile{Data: []byte(counters)}}
		if _, err := sqldb.Open(t.Context(), source, sqldb.Options{Name: "other", Migrations: gap}); err == nil {
			t.Error("a gap was accepted")
		}
		if _, err := sqldb.Open(t.Context(), source, sqldb.Options{Name: "Other!", Migrations: migrations(counters)}); err == nil {
			t.Error("a bad name was accepted")
		}
	})
}

func TestClosed(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		db.Close()
		nothing := func(*sqldb.Tx) error { return nil }
		for name, do := range map[string]func(context.Context, func(*sqldb.Tx) error) error{"Batch": db.Batch, "Write": db.Write, "Read": db.Read} {
			if err := do(t.Context(), nothing); !errors.Is(err, sqldb.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestRefusedSources(t *testing.T) {
	readable := filepath.Join(t.TempDir(), "readable.db")
	if err := os.WriteFile(readable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]string{
		"password":   "postgres://u:sesame@localhost/x",
		"password2":  "postgres://u@localhost/x?password=sesame",
		"not a URL":  "postgres://u:sesame@local host/%zz",
		"readable":   readable,
		"no folder":  filepath.Join(t.TempDir(), "no", "x.db"),
		"not a file": t.TempDir(),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sqldb.Open(t.Context(), source, sqldb.Options{Name: "test", Migrations: migrations(counters)})
			if err == nil || strings.Contains(err.Error(), "sesame") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestServerThatIsKilled(t *testing.T) {
	server, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	source, err := server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, source, counters)
	seed(t, db, "x")
	acknowledged := 0
	for range 3 {
		if err := db.Batch(t.Context(), func(tx *sqldb.Tx) error { return increment(t.Context(), tx, "x") }); err != nil {
			t.Fatal(err)
		}
		acknowledged++
		server.Kill()
		if err := db.Batch(t.Context(), func(tx *sqldb.Tx) error { return increment(t.Context(), tx, "x") }); err == nil {
			t.Fatal("written without a server")
		}
		if err := server.Run(); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // the pool may hold connections that it does not know to be dead
		if err = db.Batch(t.Context(), func(tx *sqldb.Tx) error { return increment(t.Context(), tx, "x") }); err == nil {
			acknowledged++
			break
		}
	}
	if n := count(t, db, "x"); err != nil || n != acknowledged {
		t.Errorf("counted %d, acknowledged %d, error %v", n, acknowledged, err)
	}
}

// Who gives a write up has what it shares with it for itself from then on: the
// write has ended, or is not begun any more.
func TestAWriteIsOverWhenBatchReturns(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "x")
		ctx, cancel := context.WithCancel(t.Context())
		begun, goOn := make(chan struct{}), make(chan struct{})
		go func() {
			<-begun
			cancel()
			time.Sleep(20 * time.Millisecond) // the better to be seen where Batch does not wait
			close(goOn)
		}()
		ended := false
		err := db.Batch(ctx, func(tx *sqldb.Tx) error {
			close(begun)
			<-goOn
			ended = true
			return increment(t.Context(), tx, "x")
		})
		if !errors.Is(err, context.Canceled) || !ended {
			t.Errorf("it returned with %v, ended %v", err, ended)
		}
	})
}

// TestASwallowedErrorLosesNothing: PostgreSQL takes a transaction back at COMMIT,
// without an error, if a statement of it failed. A write that does not say so is
// told, alone and among others, and those are kept.
func TestASwallowedErrorLosesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := open(t, source, counters)
		seed(t, db, "x")
		ctx := t.Context()
		swallow := func(tx *sqldb.Tx) error {
			err := increment(ctx, tx, "x")
			tx.Exec(ctx, `INSERT INTO counter (name, n) VALUES (?, 0)`, "x")
			return err
		}
		var done atomic.Int64
		if db.Batch(ctx, swallow) == nil {
			done.Add(1)
		}
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				f := swallow
				if i%3 > 0 {
					f = func(tx *sqldb.Tx) error { return increment(ctx, tx, "x") }
				}
				err := db.Batch(ctx, f)
				if err == nil {
					done.Add(1)
				} else if i%3 > 0 {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := count(t, db, "x"); int64(n) != done.Load() {
			t.Errorf("counted %d of %d that were acknowledged", n, done.Load())
		}
	})
}
