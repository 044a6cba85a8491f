package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Options are what a service says of its database.
type Options struct {
	// Name is the service's name for its part of the database, such as
	// "journal": 1 to 32 of a-z and '_'. Several parts may share a database;
	// each has its own migrations.
	Name string

	// Migrations holds NAME/0001_what.sql, 0002_… in order, NAME being a
	// folder of any name. A released file never changes. They are written in
	// SQLite's STRICT types; see the word AUTOKEY in this package. A file that
	// ends in .sqlite.sql or .postgres.sql is for that engine only, and then
	// stands twice.
	Migrations fs.FS

	// MaxConns bounds the connections; 8 if zero.
	MaxConns int

	// Lanes is how many batches may be under way at once on PostgreSQL; 2 if
	// zero. SQLite has one writer.
	Lanes int

	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// A DB is an open database. Its methods may be called at the same time.
type DB struct {
	sql     *sql.DB
	dialect Dialect
	where   string // for errors; no password in it
	now     func() time.Time
	bound   sync.Map // statement with ? -> statement of the engine
	rows    sync.Map // query -> *sql.Stmt of QueryRow, on SQLite
	readers chan *reader
	looks   looks

	queue chan *write
	quit  chan struct{}
	lanes sync.WaitGroup
	once  sync.Once
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the database is closed")

// Open opens a database and brings its schema up to date. source is the path
// of a SQLite file, which is made with mode 0600 and must not be readable by
// others, or a URL postgres://… without a password: that comes from the file
// that passfile= names, or from the socket's owner.
func Open(ctx context.Context, source string, opt Options) (*DB, error) {
	db, err := open(source, opt)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", db.where, err)
	}
	if err := db.migrate(ctx, opt); err != nil {
		db.sql.Close()
		return nil, fmt.Errorf("database %s: %w", db.where, err)
	}
	if err := db.startLanes(ctx, opt.Lanes); err != nil {
		db.sql.Close()
		return nil, fmt.Errorf("database %s: %w", db.where, err)
	}
	return db, nil
}

func open(source string, opt Options) (*DB, error) {
	db := &DB{now: opt.Now, where: source, queue: make(chan *write), quit: make(chan struct{}), readers: make(chan *reader, maxReaders)}
	if db.now == nil {
		db.now = time.Now
	}
	conns := opt.MaxConns
	if conns <= 0 {
		conns = 8
	}
	if strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://") {
		return db, db.openPostgres(source, conns)
	}
	return db, db.openSQLite(source, conns)
}

func (db *DB) openPostgres(source string, conns int) error {
	db.dialect, db.where = PostgreSQL, "PostgreSQL"
	u, err := url.Parse(source)
	if err != nil {
		return errors.New("not a postgres:// URL") // the parser's words may repeat a password
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return errors.New("the URL has a password in it; put it into a file of mode 0600 and name that with passfile=")
	}
	db.where = u.Redacted()
	config, err := pgx.ParseConfig(source)
	if err != nil {
		return err
	}
	if _, set := config.RuntimeParams["application_name"]; !set {
		config.RuntimeParams["application_name"] = "privyseal"
	}
	db.sql = stdlib.OpenDB(*config)
	db.limit(conns)
	return nil
}

func (db *DB) openSQLite(path string, conns int) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := secureFile(abs); err != nil {
		return err
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)",
	}}
	db.sql, err = sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err == nil {
		db.limit(conns)
	}
	return err
}

// limit bounds the connections and keeps them: opening one costs more than
// most statements.
func (db *DB) limit(conns int) {
	db.sql.SetMaxOpenConns(conns + maxLanes)
	db.sql.SetMaxIdleConns(conns + maxLanes)
}

// secureFile makes the file if it is not there. SQLite gives the files beside
// it the same mode.
func secureFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode is %04o and others may use it; run: chmod 600 %s", info.Mode().Perm(), path)
	}
	return nil
}

// Dialect returns the engine.
func (db *DB) Dialect() Dialect { return db.dialect }

// Now returns the time by the database's clock option, in UTC and cut to
// microseconds, which is what both engines keep.
func (db *DB) Now() time.Time { return db.now().UTC().Truncate(time.Microsecond) }

// Ping asks whether the database answers.
func (db *DB) Ping(ctx context.Context) error { return db.sql.PingContext(ctx) }

// Close ends when the batches that have begun are committed.
func (db *DB) Close() error {
	db.once.Do(func() { close(db.quit) })
	db.lanes.Wait()
	db.closeReaders()
	return db.sql.Close()
}

// Read runs f in one transaction that sees one state of the database.
func (db *DB) Read(ctx context.Context, f func(*Tx) error) error {
	if db.dialect == SQLite {
		return db.readSQLite(ctx, f)
	}
	return db.transact(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}, f)
}

// attempts is how often a transaction is run that the engine ended, and pause
// the longest wait before the first repetition. Waits double and are drawn at
// random, so that those who met once do not meet again.
const (
	attempts = 12
	pause    = 4 * time.Millisecond
)

// Write runs f in one transaction and commits it, unless f fails.
func (db *DB) Write(ctx context.Context, f func(*Tx) error) error {
	return db.transact(ctx, nil, f)
}

func (db *DB) transact(ctx context.Context, opt *sql.TxOptions, f func(*Tx) error) (err error) {
	for i := range attempts {
		if err = db.once1(ctx, opt, f); !again(err) {
			return err
		}
		select {
		case <-time.After(rand.N(pause << min(i, 7))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (db *DB) once1(ctx context.Context, opt *sql.TxOptions, f func(*Tx) error) error {
	tx, err := db.sql.BeginTx(ctx, opt)
	if err != nil {
		return db.closed(err)
	}
	defer tx.Rollback()
	if err := f(&Tx{db: db, on: tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// closed says ErrClosed where database/sql says it in its own words.
func (db *DB) closed(err error) error {
	select {
	case <-db.quit:
		return ErrClosed
	default:
		return err
	}
}

// rebind returns the statement for the engine.
func (db *DB) rebind(query string) string {
	if db.dialect == SQLite {
		return query
	}
	if s, ok := db.bound.Load(query); ok {
		return s.(string)
	}
	s := db.dialect.rebind(query)
	db.bound.Store(query, s)
	return s
}
