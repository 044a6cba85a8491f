package provider_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// leave writes what a node leaves that is killed while it delivers: a lease that
// does not end by itself within the test.
func (n *node) leave(t *testing.T, holder string) {
	t.Helper()
	ok(t, n.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE follower SET lease = ?, holder = ?, due = 0`, time.Now().Add(time.Hour).UnixMilli(), holder)
		return err
	}))
}

// A node that was killed while it delivered goes on at once when it is back.
func TestOwnLeases(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		w.mods = append(w.mods, func(c *provider.Config) { c.NodeID = "one of " + c.Domain })
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		a := w.hubs["a.example"]
		away := w.hubs["b.example"]
		w.net.Name("b.example", "") // nobody reaches it
		alice.say(clubhouse, "one")
		a.stop()
		db := must[*sqldb.DB](t)(provider.OpenDB(t.Context(), a.source))
		(&node{db: db}).leave(t, "one of a.example")
		ok(t, db.Close())
		w.servePeers(away)
		w.hubs["a.example"] = w.start("a.example", a.source, a.keys)
		bob.hears(clubhouse, "one")
	})
}

// Another node takes over from one whose beat has stopped, and a worker that was
// taken for dead notes nothing afterwards.
func TestLeasesOfTheDead(t *testing.T) {
	w := newWorld(t, true, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	alice.create(clubhouse, bob)
	a := w.hubs["a.example"]
	a.stop()
	w.mods = append(w.mods, func(c *provider.Config) { c.Beat = 20 * time.Millisecond })
	db := must[*sqldb.DB](t)(provider.OpenDB(t.Context(), a.source))
	ok(t, db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO node (id, beat) VALUES ('dead', 7)`)
		return err
	}))
	(&node{db: db}).leave(t, "dead")
	ok(t, db.Close())
	n := w.start("a.example", a.source, a.keys)
	w.hubs["a.example"] = n
	alice.cfg.Provider, alice.cfg.TLS.RootCAs = n.url, n.roots
	alice.reopen()
	alice.say(clubhouse, "one")
	bob.hears(clubhouse, "one")
	ok(t, n.db.Read(t.Context(), func(tx *sqldb.Tx) error {
		var left int64
		err := tx.QueryRow(t.Context(), `SELECT count(*) FROM node WHERE id = 'dead'`).Scan(&left)
		if err == nil && left != 0 {
			t.Error("the dead node is still on the list")
		}
		return err
	}))
}

func TestStopped(t *testing.T) {
	type beats = map[string]int64
	const after = 10 * time.Second
	at := func(d time.Duration, b beats) map[time.Duration]beats { return map[time.Duration]beats{d: b} }
	for name, c := range map[string]struct {
		looks []map[time.Duration]beats
		dead  []string
	}{
		"one look says nothing": {[]map[time.Duration]beats{at(time.Hour, beats{"x": 1})}, nil},
		"a beat goes on":        {[]map[time.Duration]beats{at(0, beats{"x": 1}), at(9*time.Second, beats{"x": 2}), at(18*time.Second, beats{"x": 2})}, nil},
		"a beat stops":          {[]map[time.Duration]beats{at(0, beats{"x": 1, "y": 1}), at(9*time.Second, beats{"x": 1, "y": 2}), at(10*time.Second, beats{"x": 1, "y": 2})}, []string{"x"}},
		"a count goes back":     {[]map[time.Duration]beats{at(0, beats{"x": 9}), at(11*time.Second, beats{"x": 1})}, nil},
		"it was gone meanwhile": {[]map[time.Duration]beats{at(0, beats{"x": 1}), at(time.Second, beats{}), at(11*time.Second, beats{"x": 1})}, nil},
	} {
		if got := provider.Stopped(after, c.looks...); !slices.Equal(got, c.dead) {
			t.Errorf("%s: %v are dead, want %v", name, got, c.dead)
		}
	}
}

// lines counts log lines by what they say.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestTroubleIsLoggedWhenItChanges(t *testing.T) {
	var l lines
	away := errors.New("away")
	provider.Note(slog.New(slog.NewTextHandler(&l, nil)), nil, away, away, away, nil, nil, away)
	if l.count("level=ERROR") != 2 || l.count("level=INFO") != 1 || l.count("failed=3") != 1 {
		t.Errorf("logged:\n%s", l.b.String())
	}
}

// While the database is away, the workers say so once, however often they look.
func TestDatabaseAway(t *testing.T) {
	var l lines
	w := newWorld(t, false, "b.example")
	w.mods = append(w.mods, func(c *provider.Config) {
		c.Log, c.Poll = slog.New(slog.NewTextHandler(&l, nil)), time.Millisecond
	})
	n := w.start("b.example", w.source(), w.hubs["b.example"].keys)
	ok(t, n.db.Close())
	for end := time.Now().Add(time.Minute); l.count("delivery to other providers") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is logged while the database is away")
		}
	}
	time.Sleep(50 * time.Millisecond) // many more looks
	if got := l.count("delivery to other providers"); got != 1 {
		t.Errorf("it is logged %d times:\n%s", got, l.b.String())
	}
}
