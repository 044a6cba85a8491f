package limit_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/limit"
	"github.com/privyseal/privyseal/mimi/peer"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_800_000_000, 0).Add(time.Duration(c.at.Load())) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func TestBucketAtItsLimit(t *testing.T) {
	var c clock
	b := limit.NewBuckets(limit.Rate{PerSecond: 2, Burst: 3}, c.now)
	for i := range 3 {
		if _, ok := b.Take("a"); !ok {
			t.Fatalf("call %d of a burst of 3 is refused", i+1)
		}
	}
	wait, ok := b.Take("a")
	if ok || wait != 500*time.Millisecond {
		t.Fatalf("the fourth: %v, %v", wait, ok)
	}
	if _, ok := b.Take("b"); !ok {
		t.Error("another key is refused")
	}
	c.advance(wait - time.Nanosecond)
	if _, ok := b.Take("a"); ok {
		t.Error("a call before the time that was told passes")
	}
	c.advance(time.Nanosecond)
	if _, ok := b.Take("a"); !ok {
		t.Error("a call after the time that was told is refused")
	}
	c.advance(-time.Hour) // a clock that goes back gives nothing
	if _, ok := b.Take("a"); ok {
		t.Error("a clock that went back filled the bucket")
	}
	c.advance(3 * time.Hour)
	for i := range 4 {
		if _, ok := b.Take("a"); ok != (i < 3) {
			t.Errorf("call %d after a long time: %v", i+1, ok)
		}
	}
}

// An attacker with many names does not make its own spent bucket forgotten, and
// the many are slowed down together.
func TestManyKeysAreBounded(t *testing.T) {
	var c clock
	b := limit.NewBuckets(limit.Rate{PerSecond: 0.001, Burst: 1}, c.now)
	b.Take("victim")
	passed := 0
	for i := range 1<<16 + 10_000 {
		if _, ok := b.Take(fmt.Sprint("sock", i)); ok {
			passed++
		}
	}
	if most := 1<<16 + 1<<8; passed > most {
		t.Errorf("%d new names passed, want at most %d", passed, most)
	}
	if _, ok := b.Take("victim"); ok {
		t.Error("a spent bucket was forgotten")
	}
	c.advance(time.Hour) // all are full again and make room
	for i := range 1000 {
		if _, ok := b.Take(fmt.Sprint("later", i)); !ok {
			t.Fatalf("name %d is refused though buckets are full", i)
		}
	}
}

func uri(s string) mimi.URI {
	u, err := mimi.ParseURI(s)
	if err != nil {
		panic(err)
	}
	return u
}

func wantWait(t *testing.T, err error, want time.Duration) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != 429 || p.RetryAfter != want {
		t.Errorf("%v, want 429 with %v", err, want)
	}
}

func TestGuard(t *testing.T) {
	var c clock
	g := limit.NewGuard(limit.Rates{
		Peer:      map[peer.Endpoint]limit.Rate{peer.IdentifierQuery: {PerSecond: 1, Burst: 2}},
		Requester: limit.Rate{PerSecond: 1, Burst: 3}, Target: limit.Rate{PerSecond: 0.1, Burst: 4},
	}, c.now)
	call := func(e peer.Endpoint, domain string) error {
		return g.Admit(t.Context(), &peer.Request{Endpoint: e, Peer: peer.Peer{Domain: domain}})
	}
	for range 2 {
		if err := call(peer.IdentifierQuery, "b.example"); err != nil {
			t.Fatal(err)
		}
	}
	wantWait(t, call(peer.IdentifierQuery, "b.example"), time.Second)
	for _, err := range []error{call(peer.IdentifierQuery, "c.example"), call(peer.Notify, "b.example")} {
		if err != nil {
			t.Error(err)
		}
	}
	alice, bob, carol := uri("mimi://a.example/u/alice"), uri("mimi://b.example/u/bob"), uri("mimi://c.example/u/carol")
	for range 3 {
		if err := g.Ask(bob, alice); err != nil {
			t.Fatal(err)
		}
	}
	wantWait(t, g.Ask(bob, carol), time.Second)
	if err := g.Ask(carol, alice); err != nil {
		t.Fatal(err)
	}
	wantWait(t, g.Ask(carol, alice), 10*time.Second)
}

func onBoth(t *testing.T, test func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "x.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, pgtest.Database(t)) })
}

func TestClaims(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		var c clock
		open := func() *limit.Claims {
			cl, err := limit.OpenClaims(t.Context(), source, limit.Quotas{Window: time.Hour, Scope: 2, Peer: 5, Target: 8}, sqldb.Options{Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		cl := open()
		take := func(domain, requester, room string) error {
			return cl.Take(t.Context(), domain, mimi.ConsentScope{
				RequesterURI: uri("mimi://" + domain + "/u/" + requester), TargetURI: uri("mimi://a.example/u/alice"), RoomID: uri("mimi://h.example/r/" + room),
			})
		}
		pass := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		pass(take("b.example", "bob", "one"))
		pass(take("b.example", "bob", "one"))
		c.advance(10 * time.Minute)
		wantWait(t, take("b.example", "bob", "one"), 50*time.Minute) // the scope's
		if err := cl.Close(); err != nil {
			t.Fatal(err)
		}
		cl = open() // a restart refills nothing
		defer func() { cl.Close() }()
		wantWait(t, take("b.example", "bob", "one"), 50*time.Minute)
		pass(take("b.example", "bob", "two"))
		pass(take("b.example", "ben", "one"))
		pass(take("b.example", "ben", "two"))
		wantWait(t, take("b.example", "bo", "one"), 50*time.Minute) // the peer's
		pass(take("c.example", "carol", "one"))
		pass(take("c.example", "carol", "two"))
		pass(take("d.example", "dan", "one"))
		wantWait(t, take("e.example", "eve", "one"), 50*time.Minute) // the target's
		c.advance(50*time.Minute + time.Microsecond)
		pass(take("b.example", "bob", "one"))
		c.advance(3 * time.Hour)
		pass(cl.Sweep(t.Context()))
		pass(take("b.example", "bob", "one"))
	})
}

// Nodes that claim at the same time do not pass a quota together.
func TestClaimsOfSeveralNodes(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		var passed atomic.Int32
		var wg sync.WaitGroup
		for range 3 {
			cl, err := limit.OpenClaims(t.Context(), source, limit.Quotas{Scope: 10, Peer: 100, Target: 100}, sqldb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			for range 8 {
				wg.Go(func() {
					err := cl.Take(t.Context(), "b.example", mimi.ConsentScope{RequesterURI: uri("mimi://b.example/u/bob"), TargetURI: uri("mimi://a.example/u/alice")})
					if err == nil {
						passed.Add(1)
					} else if problem.Of(err).Status != 429 {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if passed.Load() != 10 {
			t.Errorf("%d claims passed a quota of 10", passed.Load())
		}
	})
}

// One client's assets are limited, and another's are not for it.
func TestGuardAsset(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := limit.NewGuard(limit.Rates{Assets: limit.Rate{PerSecond: 1, Burst: 2}}, func() time.Time { return now })
	phone, watch := uri("mimi://a.example/d/alice/phone"), uri("mimi://a.example/d/alice/watch")
	for i, want := range []bool{true, true, false} {
		if err := g.Asset(phone); (err == nil) != want {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if err := g.Asset(watch); err != nil {
		t.Errorf("another client: %v", err)
	}
	now = now.Add(time.Second)
	if err := g.Asset(phone); err != nil {
		t.Errorf("after a second: %v", err)
	}
}
