package consent_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/consent"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
	"github.com/privyseal/privyseal/mls"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func onBoth(t *testing.T, test func(t *testing.T, source func() string)) {
	t.Run("SQLite", func(t *testing.T) {
		test(t, func() string { return filepath.Join(t.TempDir(), "x.db") })
	})
	t.Run("PostgreSQL", func(t *testing.T) { test(t, func() string { return pgtest.Database(t) }) })
}

func uri(s string) mimi.URI {
	u, err := mimi.ParseURI(s)
	if err != nil {
		panic(err)
	}
	return u
}

var (
	alice   = uri("mimi://a.example/u/alice")
	anna    = uri("mimi://a.example/u/anna")
	bob     = uri("mimi://b.example/u/bob")
	nemo    = uri("mimi://b.example/u/nemo") // does not exist
	room1   = uri("mimi://a.example/r/one")
	room2   = uri("mimi://a.example/r/two")
	anyRoom = mimi.URI{}
)

func entry(op mimi.ConsentOperation, requester, target, room mimi.URI) *mimi.ConsentEntry {
	return &mimi.ConsentEntry{Operation: op, ConsentScope: mimi.ConsentScope{RequesterURI: requester, TargetURI: target, RoomID: room}}
}

// A provider is one side of a test.
type provider struct {
	*consent.Service
	client *peer.Client

	mu    sync.Mutex // guards told and fail
	told  []string
	fail  int   // the next attempts that fail
	cause error // with which they fail; nil for a lost answer
}

func name(e *mimi.ConsentEntry) string {
	if len(e.Extensions) > 0 {
		return "with extensions"
	}
	return fmt.Sprintf("%d %s>%s %s", e.Operation, e.RequesterURI.Path(), e.TargetURI.Path(), e.RoomID.Path())
}

func (p *provider) Notify(_ context.Context, user mimi.URI, e *mimi.ConsentEntry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, user.Path()+": "+name(e))
	return nil
}

func (p *provider) Send(ctx context.Context, provider string, e *mimi.ConsentEntry) error {
	p.mu.Lock()
	failing, cause := p.fail > 0, p.cause
	p.fail--
	p.mu.Unlock()
	if failing && cause != nil {
		return cause
	}
	err := consent.SendTo(ctx, p.client, provider, e)
	if failing {
		return errors.Join(errors.New("the answer was lost"), err)
	}
	return err
}

func (p *provider) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.told...)
}

// wantTold waits until the provider's users were told exactly so much.
func (p *provider) wantTold(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if len(p.seen()) >= len(want) {
			break
		}
	}
	if got := strings.Join(p.seen(), "\n"); got != strings.Join(want, "\n") {
		t.Fatalf("told\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func start(t *testing.T, n *peertest.Net, domain, source string, cfg consent.Config) *provider {
	t.Helper()
	cfg.Serves = func(d string) bool { return d == domain }
	cfg.UserExists = func(_ context.Context, u mimi.URI) (bool, error) { return u != nemo, nil }
	s, err := consent.Open(t.Context(), source, cfg, sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{Service: s, client: n.Client(t, domain)}
	dir, err := peer.NewDirectory(domain, peer.RequestConsent, peer.UpdateConsent)
	if err != nil {
		t.Fatal(err)
	}
	server := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{domain: domain}, Directories: map[string]*peer.Directory{domain: dir}, Chains: n.Chains(),
	})
	s.Routes(server)
	n.Serve(t, server, domain)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx, p) }()
	t.Cleanup(func() { cancel(); <-done; s.Close() })
	return p
}

func say(t *testing.T, p *provider, user mimi.URI, e *mimi.ConsentEntry) {
	t.Helper()
	if err := p.FromClient(t.Context(), user, e); err != nil {
		t.Fatal(err)
	}
}

func wantMay(t *testing.T, p *provider, requester, target, room mimi.URI, want consent.Verdict) {
	t.Helper()
	got, err := p.May(t.Context(), mimi.ConsentScope{RequesterURI: requester, TargetURI: target, RoomID: room})
	if err != nil || got != want {
		t.Errorf("may %s claim of %s for %q: %v, %v, want %v", requester, target, room, got, err, want)
	}
}

// Alice and Bob connect: she asks and grants unasked, he grants.
func TestConnect(t *testing.T) {
	onBoth(t, func(t *testing.T, source func() string) {
		n := peertest.New(t)
		a, b := start(t, n, "a.example", source(), consent.Config{}), start(t, n, "b.example", source(), consent.Config{TellRevocations: true})
		wantMay(t, b, alice, bob, room1, consent.None)
		say(t, a, alice, entry(mimi.ConsentRequest, alice, bob, anyRoom))
		say(t, a, alice, entry(mimi.ConsentGrant, bob, alice, anyRoom))
		b.wantTold(t, "u/bob: 1 u/alice>u/bob ", "u/bob: 2 u/bob>u/alice ")
		wantMay(t, a, bob, alice, room1, consent.Given)
		wantMay(t, b, alice, bob, room1, consent.None)
		if p, err := b.Pending(t.Context(), bob, 10); err != nil || len(p) != 1 || p[0].RequesterURI != alice {
			t.Errorf("pending %v, %v", p, err)
		}
		say(t, b, bob, entry(mimi.ConsentGrant, alice, bob, anyRoom))
		a.wantTold(t, "u/alice: 2 u/alice>u/bob ")
		wantMay(t, b, alice, bob, anyRoom, consent.Given)
		if told, err := a.Told(t.Context(), alice, 10); err != nil || len(told) != 1 || !told[0].Granted || told[0].TargetURI != bob {
			t.Errorf("told %v, %v", told, err)
		}
		say(t, b, bob, entry(mimi.ConsentRevoke, alice, bob, anyRoom))
		a.wantTold(t, "u/alice: 2 u/alice>u/bob ", "u/alice: 3 u/alice>u/bob ")
		wantMay(t, b, alice, bob, anyRoom, consent.None)
		if p, err := b.Pending(t.Context(), bob, 10); err != nil || len(p) != 0 {
			t.Errorf("pending after the answer: %v, %v", p, err)
		}
	})
}

func TestPrecedence(t *testing.T) {
	onBoth(t, func(t *testing.T, source func() string) {
		n := peertest.New(t)
		b := start(t, n, "b.example", source(), consent.Config{Default: func(s mimi.ConsentScope) bool { return s.RequesterURI == anna }})
		say(t, b, bob, entry(mimi.ConsentGrant, alice, bob, room1))
		wantMay(t, b, alice, bob, room1, consent.Given)
		wantMay(t, b, alice, bob, room2, consent.NotForThisRoom)
		wantMay(t, b, alice, bob, anyRoom, consent.NotForThisRoom)
		say(t, b, bob, entry(mimi.ConsentRevoke, alice, bob, anyRoom))
		wantMay(t, b, alice, bob, room1, consent.Given) // the room's word goes first
		wantMay(t, b, alice, bob, room2, consent.None)
		say(t, b, bob, entry(mimi.ConsentRevoke, alice, bob, room1))
		say(t, b, bob, entry(mimi.ConsentGrant, alice, bob, anyRoom))
		wantMay(t, b, alice, bob, room1, consent.None)
		wantMay(t, b, alice, bob, room2, consent.Given)
		wantMay(t, b, anna, bob, room1, consent.Given) // by default
		say(t, b, bob, entry(mimi.ConsentRevoke, anna, bob, anyRoom))
		wantMay(t, b, anna, bob, room1, consent.None)
		if w, err := b.Words(t.Context(), bob, 2); err != nil || len(w) != 2 {
			t.Errorf("words %v, %v", w, err)
		}
	})
}

func TestCancel(t *testing.T) {
	n := peertest.New(t)
	source := func() string { return filepath.Join(t.TempDir(), "x.db") }
	a, b := start(t, n, "a.example", source(), consent.Config{}), start(t, n, "b.example", source(), consent.Config{})
	say(t, a, alice, entry(mimi.ConsentCancel, alice, bob, anyRoom)) // of nothing
	say(t, a, alice, entry(mimi.ConsentRequest, alice, bob, room1))
	say(t, a, alice, entry(mimi.ConsentCancel, alice, bob, room2)) // of another scope
	say(t, a, alice, entry(mimi.ConsentCancel, alice, bob, room1))
	b.wantTold(t, "u/bob: 1 u/alice>u/bob r/one", "u/bob: 0 u/alice>u/bob r/one")
	if p, err := b.Pending(t.Context(), bob, 10); err != nil || len(p) != 0 {
		t.Errorf("pending %v, %v", p, err)
	}
	// Whoever has revoked is not asked again, and the asker is not told.
	say(t, b, bob, entry(mimi.ConsentRevoke, alice, bob, anyRoom))
	say(t, a, alice, entry(mimi.ConsentRequest, alice, bob, anyRoom))
	say(t, a, alice, entry(mimi.ConsentGrant, bob, alice, room1))
	b.wantTold(t, "u/bob: 1 u/alice>u/bob r/one", "u/bob: 0 u/alice>u/bob r/one", "u/bob: 2 u/bob>u/alice r/one")
	if len(a.seen()) != 0 {
		t.Errorf("a.example was told %v", a.seen())
	}
}

func TestBetweenUsersOfOneProvider(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "x.db"), consent.Config{})
	say(t, a, alice, entry(mimi.ConsentRequest, alice, anna, anyRoom))
	a.wantTold(t, "u/anna: 1 u/alice>u/anna ")
	say(t, a, anna, entry(mimi.ConsentGrant, alice, anna, anyRoom))
	a.wantTold(t, "u/anna: 1 u/alice>u/anna ", "u/alice: 2 u/alice>u/anna ")
	wantMay(t, a, alice, anna, room1, consent.Given)
}

// What was said is told in its order, though attempts fail and answers are lost.
func TestOrderSurvivesFailures(t *testing.T) {
	onBoth(t, func(t *testing.T, source func() string) {
		n := peertest.New(t)
		a, b := start(t, n, "a.example", source(), consent.Config{TellRevocations: true}), start(t, n, "b.example", source(), consent.Config{})
		a.mu.Lock()
		a.fail, a.cause = 1, problem.New(http.StatusServiceUnavailable, "busy", "busy")
		a.mu.Unlock()
		for i := range 6 {
			op := mimi.ConsentGrant
			if i%2 == 1 {
				op = mimi.ConsentRevoke
			}
			say(t, a, alice, entry(op, bob, alice, room1))
		}
		deadline := time.Now().Add(30 * time.Second)
		for len(b.seen()) < 6 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		b.wantTold(t, "u/bob: 2 u/bob>u/alice r/one", "u/bob: 3 u/bob>u/alice r/one", "u/bob: 2 u/bob>u/alice r/one",
			"u/bob: 3 u/bob>u/alice r/one", "u/bob: 2 u/bob>u/alice r/one", "u/bob: 3 u/bob>u/alice r/one")
	})
}

// The outbox is as durable as the word: a service that ended before it could
// tell tells after it is opened again.
func TestOutboxSurvivesRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, source func() string) {
		n := peertest.New(t)
		b := start(t, n, "b.example", source(), consent.Config{})
		at := source()
		cfg := consent.Config{
			Serves:     func(d string) bool { return d == "a.example" },
			UserExists: func(context.Context, mimi.URI) (bool, error) { return true, nil },
		}
		s, err := consent.Open(t.Context(), at, cfg, sqldb.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.FromClient(t.Context(), alice, entry(mimi.ConsentRequest, alice, bob, anyRoom)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		start(t, n, "a.example", at, consent.Config{})
		b.wantTold(t, "u/bob: 1 u/alice>u/bob ")
	})
}

func TestFinalRefusalDoesNotBlock(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "a.db"), consent.Config{})
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{RevealUnknown: true})
	say(t, a, alice, entry(mimi.ConsentRequest, alice, nemo, anyRoom)) // 404
	say(t, a, alice, entry(mimi.ConsentRequest, alice, bob, anyRoom))
	b.wantTold(t, "u/bob: 1 u/alice>u/bob ")
}

func TestClientMaySpeakForItselfAlone(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "x.db"), consent.Config{})
	for _, e := range []*mimi.ConsentEntry{
		entry(mimi.ConsentRequest, anna, bob, anyRoom), entry(mimi.ConsentCancel, bob, alice, anyRoom),
		entry(mimi.ConsentGrant, alice, bob, anyRoom), entry(mimi.ConsentRevoke, bob, anna, anyRoom), entry(mimi.ConsentGrant, alice, alice, anyRoom),
	} {
		var p *problem.Problem
		if err := a.FromClient(t.Context(), alice, e); !errors.As(err, &p) || p.Status != 403 && p.Status != 400 {
			t.Errorf("%s: %v", name(e), err)
		}
	}
}

// raw posts an entry as b.example to a.example.
func raw(t *testing.T, n *peertest.Net, path string, body []byte) *problem.Problem {
	t.Helper()
	cert := n.Certificate(t, "b.example")
	c := &http.Client{Transport: &http.Transport{DialContext: n.DialContext,
		TLSClientConfig: &tls.Config{RootCAs: n.Roots, Certificates: []tls.Certificate{cert}}}}
	req, err := http.NewRequest("POST", "https://a.example/v1/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("From", "mimi@b.example")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return problem.Read(resp, time.Now())
}

func TestPeersAreChecked(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "x.db"), consent.Config{})
	carol := uri("mimi://c.example/u/carol")
	for what, c := range map[string]struct {
		path   string
		e      *mimi.ConsentEntry
		status int
	}{
		"request":                    {"requestConsent/a.example", entry(mimi.ConsentRequest, bob, alice, anyRoom), 201},
		"grant":                      {"updateConsent/a.example", entry(mimi.ConsentGrant, alice, bob, anyRoom), 201},
		"user in the path":           {"requestConsent/" + alice.PathSegment(), entry(mimi.ConsentRequest, bob, alice, room1), 201},
		"cancel of nothing":          {"requestConsent/a.example", entry(mimi.ConsentCancel, bob, alice, room2), 201},
		"grant as a request":         {"requestConsent/a.example", entry(mimi.ConsentGrant, bob, alice, anyRoom), 400},
		"request as an update":       {"updateConsent/a.example", entry(mimi.ConsentRequest, alice, bob, anyRoom), 400},
		"for another's user":         {"requestConsent/a.example", entry(mimi.ConsentRequest, carol, alice, anyRoom), 403},
		"grant of another's user":    {"updateConsent/a.example", entry(mimi.ConsentGrant, alice, carol, anyRoom), 403},
		"about somebody elsewhere":   {"requestConsent/a.example", entry(mimi.ConsentRequest, bob, carol, anyRoom), 403},
		"another domain in the path": {"requestConsent/c.example", entry(mimi.ConsentRequest, bob, alice, anyRoom), 400},
		"another user in the path":   {"requestConsent/" + anna.PathSegment(), entry(mimi.ConsentRequest, bob, alice, anyRoom), 400},
	} {
		if p := raw(t, n, c.path, c.e.Marshal()); p.Status != c.status {
			t.Errorf("%s: %v, want %d", what, p, c.status)
		}
	}
	if p := raw(t, n, "requestConsent/a.example", []byte{1, 2}); p.Status != 400 || p.Code != "malformed" {
		t.Errorf("malformed: %v", p)
	}
	if p, err := a.Pending(t.Context(), alice, 10); err != nil || len(p) != 2 {
		t.Errorf("pending %v, %v", p, err)
	}
}

// A user who does not exist is answered for like one who does.
func TestUnknownUsersAreMasked(t *testing.T) {
	n := peertest.New(t)
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{})
	c := n.Client(t, "a.example")
	for _, target := range []mimi.URI{bob, nemo} {
		if err := consent.SendTo(t.Context(), c, "b.example", entry(mimi.ConsentRequest, alice, target, anyRoom)); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	if p, err := b.Pending(t.Context(), nemo, 10); err != nil || len(p) != 0 {
		t.Errorf("pending of nobody: %v, %v", p, err)
	}
	b.wantTold(t, "u/bob: 1 u/alice>u/bob ")
}

// A flood from one provider ends at its share, and leaves others room.
func TestFloodOfRequests(t *testing.T) {
	n := peertest.New(t)
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{})
	a, c := n.Client(t, "a.example"), n.Client(t, "c.example")
	var wg sync.WaitGroup
	for i := range 110 {
		wg.Go(func() {
			e := entry(mimi.ConsentRequest, uri(fmt.Sprintf("mimi://a.example/u/sock%d", i)), bob, anyRoom)
			if err := consent.SendTo(t.Context(), a, "b.example", e); err != nil {
				t.Error(err) // the sender must not learn of it
			}
		})
	}
	wg.Wait()
	if err := consent.SendTo(t.Context(), c, "b.example", entry(mimi.ConsentRequest, uri("mimi://c.example/u/carol"), bob, anyRoom)); err != nil {
		t.Fatal(err)
	}
	p, err := b.Pending(t.Context(), bob, 1000)
	if err != nil || len(p) != 101 {
		t.Errorf("%d requests are pending, %v; want 100 of a.example and 1 of c.example", len(p), err)
	}
}

// What waits of one user is bounded, wherever it is to go, and others go on.
func TestWhatWaitsOfOneUserIsBounded(t *testing.T) {
	s, err := consent.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), consent.Config{
		Serves:     func(d string) bool { return d == "a.example" },
		UserExists: func(context.Context, mimi.URI) (bool, error) { return true, nil },
	}, sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	packages := megabyte(t)
	grant := func(user mimi.URI, i int) error {
		e := entry(mimi.ConsentGrant, uri(fmt.Sprintf("mimi://p%d.example/u/x", i)), user, anyRoom)
		e.ClientKeyPackages = packages
		return s.FromClient(t.Context(), user, e)
	}
	for i := range 14 {
		if err := grant(alice, i); err != nil {
			t.Fatal(err)
		}
	}
	var p *problem.Problem
	if err := grant(alice, 14); !errors.As(err, &p) || p.Status != 429 || p.RetryAfter == 0 {
		t.Errorf("beyond 16 MiB: %v", err)
	}
	if err := grant(anna, 0); err != nil {
		t.Errorf("another user: %v", err)
	}
}

// megabyte is so much of KeyPackages.
func megabyte(t *testing.T) (list []*mls.KeyPackage) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	able := mls.ExtendedCapabilities()
	able.Extensions = append(able.Extensions, 0xF123)
	c, err := mls.NewClient(mls.Config{
		CipherSuite: mls.P256AES128SHA256P256, Signer: key, Credential: mls.BasicCredential([]byte("mimi://a.example/d/alice/1")), Capabilities: able,
	})
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < 1<<20; {
		e, err := c.NewKeyPackage(t.Context(), mls.KeyPackageOptions{Extensions: mls.Extensions{{Type: 0xF123, Data: make([]byte, 100<<10)}}})
		if err != nil {
			t.Fatal(err)
		}
		list, size = append(list, e.KeyPackage), size+len(e.KeyPackage.Bytes())
	}
	return list
}

// Extensions of a consent are of nobody's: they are neither sent nor kept, and
// what comes with them counts all the same.
func TestExtensionsAreIgnored(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "a.db"), consent.Config{})
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{})
	e := entry(mimi.ConsentRequest, alice, bob, anyRoom)
	e.Extensions = mls.AppDataDictionary{{ID: 0xF000, Data: []byte("x")}}
	say(t, a, alice, e)
	b.wantTold(t, "u/bob: 1 u/alice>u/bob ")
	e = entry(mimi.ConsentGrant, bob, alice, anyRoom)
	e.Extensions = mls.AppDataDictionary{{ID: 0xF000, Data: []byte("x")}}
	if err := consent.SendTo(t.Context(), n.Client(t, "a.example"), "b.example", e); err != nil {
		t.Fatal(err)
	}
	b.wantTold(t, "u/bob: 1 u/alice>u/bob ", "u/bob: 2 u/bob>u/alice ")
}

// Who has revoked for any room is not asked for one, unless it was granted.
func TestRevokedForAnyRoomIsNotAsked(t *testing.T) {
	n := peertest.New(t)
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{})
	c := n.Client(t, "a.example")
	say(t, b, bob, entry(mimi.ConsentRevoke, alice, bob, anyRoom))
	say(t, b, bob, entry(mimi.ConsentGrant, alice, bob, room2))
	for _, room := range []mimi.URI{anyRoom, room1, room2} {
		if err := consent.SendTo(t.Context(), c, "b.example", entry(mimi.ConsentRequest, alice, bob, room)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := b.Pending(t.Context(), bob, 10)
	if err != nil || len(p) != 1 || p[0].RoomID != room2 {
		t.Errorf("pending: %v, %v; want the room that was granted alone", p, err)
	}
}

// A provider that does not believe our certificate is told when it does again.
func TestUnauthorizedIsTriedAgain(t *testing.T) {
	n := peertest.New(t)
	a := start(t, n, "a.example", filepath.Join(t.TempDir(), "a.db"), consent.Config{})
	b := start(t, n, "b.example", filepath.Join(t.TempDir(), "b.db"), consent.Config{})
	a.mu.Lock()
	a.fail, a.cause = 1, problem.New(401, "certificate", "it has ended")
	a.mu.Unlock()
	say(t, a, alice, entry(mimi.ConsentRequest, alice, bob, anyRoom))
	b.wantTold(t, "u/bob: 1 u/alice>u/bob ")
}
