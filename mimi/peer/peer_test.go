package peer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

const room = "mimi://a.example/r/clubhouse"

// newServer serves a.example at a.example and mimi.a.example, where its
// endpoints are.
func newServer(tb testing.TB, n *peertest.Net, admit func(context.Context, *peer.Request) error) *peer.Server {
	tb.Helper()
	dir, err := peer.NewDirectory("mimi.a.example", peer.Update, peer.Notify, peer.RequestConsent, peer.IdentifierQuery)
	if err != nil {
		tb.Fatal(err)
	}
	s := peer.NewServer(peer.ServerConfig{
		Hosts:       map[string]string{"a.example": "a.example", "mimi.a.example": "a.example"},
		Directories: map[string]*peer.Directory{"a.example": dir},
		Chains:      n.Chains(),
		Admit:       admit,
	})
	n.Serve(tb, s, "a.example", "mimi.a.example")
	return s
}

func echo(_ context.Context, r *peer.Request) ([]byte, error) {
	u, err := r.URI(mimi.KindRoom)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s %s %s %s", r.Peer.Domain, r.Provider, u, r.Body), nil
}

func TestCall(t *testing.T) {
	n := peertest.New(t)
	newServer(t, n, nil).Handle(peer.Update, echo)
	c := n.Client(t, "b.example")
	for range 3 {
		got, err := c.Do(t.Context(), "a.example", peer.Update, room, []byte("hello"))
		if err != nil || string(got) != "b.example a.example "+room+" hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n.Dials() != 2 {
		t.Errorf("%d connections, want one for the directory's host and one for the endpoint's", n.Dials())
	}
	if _, err := c.Do(t.Context(), "a.example", peer.GroupInfo, room, nil); !errors.Is(err, peer.ErrNoEndpoint) {
		t.Errorf("an endpoint that the directory lacks: %v", err)
	}
}

func wantProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != status || p.Code != code {
		t.Errorf("%v, want %d %s", err, status, code)
	}
}

func TestFromMustBeInTheCertificate(t *testing.T) {
	n := peertest.New(t)
	newServer(t, n, nil).Handle(peer.Update, echo)
	for name, c := range map[string]struct {
		domain string
		names  []string
		status int
	}{
		"its own":             {"b.example", []string{"b.example"}, 0},
		"one of several":      {"b.example", []string{"c.example", "b.example"}, 0},
		"another provider":    {"b.example", []string{"c.example"}, 403},
		"a wildcard":          {"b.example", []string{"*.example"}, 403},
		"a parent domain":     {"x.b.example", []string{"b.example"}, 403},
		"a subdomain":         {"b.example", []string{"mimi.b.example"}, 403},
		"its own upper-case":  {"b.example", []string{"B.Example"}, 0},
		"the server's domain": {"a.example", []string{"b.example"}, 403},
	} {
		cl := n.ClientAs(t, c.domain, n.Certificate(t, c.names...))
		_, err := cl.Do(t.Context(), "a.example", peer.Update, room, nil)
		if c.status == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantProblem(t, err, c.status, "from") })
	}
}

// rawClient sends what no Client would.
func rawClient(n *peertest.Net, cert *tls.Certificate) *http.Client {
	cfg := &tls.Config{RootCAs: n.Roots}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Transport: &http.Transport{DialContext: n.DialContext, TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
}

func TestServerRefuses(t *testing.T) {
	n := peertest.New(t)
	s := newServer(t, n, nil)
	s.Handle(peer.Update, echo)
	s.Handle(peer.IdentifierQuery, func(context.Context, *peer.Request) ([]byte, error) { return nil, nil })
	cert := n.Certificate(t, "b.example")
	expired := n.CertificateUntil(t, time.Now().Add(-time.Minute), "b.example")
	stranger := peertest.New(t).Certificate(t, "b.example")
	escaped := "/v1/update/mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse"
	for name, c := range map[string]struct {
		method, path, host, code string
		cert                     *tls.Certificate
		from                     []string
		body                     int
		status                   int // 0: the connection fails
	}{
		"good":                      {"POST", escaped, "", "", &cert, []string{"mimi@b.example"}, 1, 200},
		"no certificate":            {"POST", escaped, "", "no-certificate", nil, []string{"mimi@b.example"}, 1, 401},
		"expired certificate":       {"POST", escaped, "", "", &expired, []string{"mimi@b.example"}, 1, 0},
		"certificate of strangers":  {"POST", escaped, "", "", &stranger, []string{"mimi@b.example"}, 1, 0},
		"no From":                   {"POST", escaped, "", "from", &cert, nil, 1, 403},
		"two From":                  {"POST", escaped, "", "from", &cert, []string{"mimi@b.example", "mimi@c.example"}, 1, 403},
		"another local part":        {"POST", escaped, "", "from", &cert, []string{"admin@b.example"}, 1, 403},
		"From with a name":          {"POST", escaped, "", "from", &cert, []string{"B <mimi@b.example>"}, 1, 403},
		"From upper-case":           {"POST", escaped, "", "from", &cert, []string{"mimi@B.example"}, 1, 403},
		"From is a URI":             {"POST", escaped, "", "from", &cert, []string{"mimi@b.example/u/bob"}, 1, 403},
		"foreign Host":              {"POST", escaped, "c.example", "host", &cert, []string{"mimi@b.example"}, 1, 421},
		"Host with a port":          {"POST", escaped, "a.example:8443", "", &cert, []string{"mimi@b.example"}, 1, 200},
		"GET":                       {"GET", escaped, "", "method", &cert, []string{"mimi@b.example"}, 0, 405},
		"unknown endpoint":          {"POST", "/v1/updates/x", "", "not-found", &cert, []string{"mimi@b.example"}, 1, 404},
		"endpoint that is not ours": {"POST", "/v1/groupInfo/x", "", "not-found", &cert, []string{"mimi@b.example"}, 1, 404},
		"no variable":               {"POST", "/v1/update", "", "not-found", &cert, []string{"mimi@b.example"}, 1, 404},
		"unescaped URI":             {"POST", "/v1/update/mimi://a.example/r/clubhouse", "", "path", &cert, []string{"mimi@b.example"}, 1, 400},
		"lower-case escapes":        {"POST", strings.ToLower(escaped), "", "path", &cert, []string{"mimi@b.example"}, 1, 400},
		"needless escapes":          {"POST", strings.Replace(escaped, "clubhouse", "%63lubhouse", 1), "", "path", &cert, []string{"mimi@b.example"}, 1, 400},
		"twice escaped":             {"POST", strings.ReplaceAll(escaped, "%", "%25"), "", "path", &cert, []string{"mimi@b.example"}, 1, 400},
		"a user for a room":         {"POST", strings.Replace(escaped, "%2Fr%2F", "%2Fu%2F", 1), "", "path", &cert, []string{"mimi@b.example"}, 1, 400},
		"a dot segment":             {"POST", "/v1/x/../update/" + escaped[len("/v1/update/"):], "", "not-found", &cert, []string{"mimi@b.example"}, 1, 404},
		"too large":                 {"POST", "/v1/identifierQuery/a.example", "", "too-large", &cert, []string{"mimi@b.example"}, 300 << 10, 413},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "https://mimi.a.example"+c.path, bytes.NewReader(make([]byte, c.body)))
			if err != nil {
				t.Fatal(err)
			}
			req.Host, req.Header["From"] = c.host, c.from
			resp, err := rawClient(n, c.cert).Do(req)
			if err != nil {
				if c.status != 0 {
					t.Fatal(err)
				}
				return
			}
			defer resp.Body.Close()
			if p := problem.Read(resp, time.Now()); resp.StatusCode != c.status || c.code != "" && p.Code != c.code {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, p.Code, c.status, c.code)
			}
		})
	}
}

func TestChunkedBodyIsBounded(t *testing.T) {
	n := peertest.New(t)
	newServer(t, n, nil).Handle(peer.IdentifierQuery, func(context.Context, *peer.Request) ([]byte, error) { return nil, nil })
	cert := n.Certificate(t, "b.example")
	req, _ := http.NewRequest("POST", "https://mimi.a.example/v1/identifierQuery/a.example", io.LimitReader(zeros{}, 300<<10))
	req.Header.Set("From", "mimi@b.example")
	resp, err := rawClient(n, &cert).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("%s", resp.Status)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestStatusesOfSuccess(t *testing.T) {
	n := peertest.New(t)
	s := newServer(t, n, nil)
	s.Handle(peer.Notify, func(context.Context, *peer.Request) ([]byte, error) { return nil, nil })
	cert := n.Certificate(t, "b.example")
	req, _ := http.NewRequest("POST", "https://a.example/v1/notify/mimi%3A%2F%2Fb.example%2Fr%2Fx", nil)
	req.Header.Set("From", "mimi@b.example")
	resp, err := rawClient(n, &cert).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("notify: %s", resp.Status)
	}
}

func TestAdmitIsAskedBeforeTheBody(t *testing.T) {
	n := peertest.New(t)
	s := newServer(t, n, func(_ context.Context, r *peer.Request) error {
		if r.Body != nil || r.Endpoint != peer.Update || r.Peer.Domain != "b.example" {
			return errors.New("the body was read")
		}
		return problem.New(http.StatusTooManyRequests, "rate-limited", "slower").After(7 * time.Second)
	})
	s.Handle(peer.Update, echo)
	_, err := n.Client(t, "b.example").Do(t.Context(), "a.example", peer.Update, room, []byte("x"))
	wantProblem(t, err, 429, "rate-limited")
	if after, again := peer.Retry(err); !again || after != 7*time.Second {
		t.Errorf("Retry = %v, %v", after, again)
	}
}

func TestSpeaksFor(t *testing.T) {
	uri := func(s string) mimi.URI {
		u, err := mimi.ParseURI(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	p := peer.Peer{Domain: "b.example"}
	if err := p.SpeaksFor(uri("mimi://b.example/u/bob")); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"mimi://a.example/u/alice", "mimi://x.b.example/u/bob"} {
		wantProblem(t, p.SpeaksFor(uri("mimi://b.example/u/bob"), uri(s)), 403, "foreign-user")
	}
	wantProblem(t, p.SpeaksFor(mimi.URI{}), 403, "foreign-user")
}

// stranger serves whatever a test wants at a.example.
func stranger(t *testing.T, n *peertest.Net, directory string, h http.HandlerFunc, names ...string) {
	n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == peer.DirectoryPath {
			io.WriteString(w, directory)
			return
		}
		h(w, r)
	}), names...)
}

func TestClientBelievesOnlyTheProvider(t *testing.T) {
	n := peertest.New(t)
	dir := `{"update":"https://host.example/update/{roomId}"}`
	h := func(w http.ResponseWriter, r *http.Request) { t.Error("the call was made"); w.WriteHeader(200) }
	stranger(t, n, dir, h, "a.example")
	stranger(t, n, dir, h, "host.example") // does not name a.example
	_, err := n.Client(t, "b.example").Do(t.Context(), "a.example", peer.Update, room, nil)
	var u *peer.UnreachableError
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "does not name the provider a.example") {
		t.Errorf("%v", err)
	}
	n.Name("c.example", n.Serve(t, http.NotFoundHandler(), "other.example"))
	if _, err := n.Client(t, "b.example").Do(t.Context(), "c.example", peer.Update, room, nil); !errors.As(err, &u) {
		t.Errorf("a server with another name: %v", err)
	}
}

// Two providers at one host: what one has proved, the other has not.
func TestConnectionsAreOfOneProvider(t *testing.T) {
	n := peertest.New(t)
	dir := `{"update":"https://host.example/{roomId}"}`
	ok := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.EscapedPath()) }
	stranger(t, n, dir, ok, "a.example", "host.example")
	stranger(t, n, dir, ok, "c.example")
	cl := n.Client(t, "b.example")
	if _, err := cl.Do(t.Context(), "a.example", peer.Update, room, nil); err != nil {
		t.Fatal(err)
	}
	var u *peer.UnreachableError
	if _, err := cl.Do(t.Context(), "c.example", peer.Update, room, nil); !errors.As(err, &u) {
		t.Errorf("c.example at a host that names only a.example: %v", err)
	}
}

func TestClientBounds(t *testing.T) {
	n := peertest.New(t)
	var hits atomic.Int32
	stranger(t, n, `{"requestConsent":"https://a.example/c/{targetUser}","notify":"https://a.example/n/{roomId}","submitMessage":"https://a.example/r/{roomId}"}`,
		func(w http.ResponseWriter, r *http.Request) {
			hits.Add(1)
			switch {
			case strings.HasPrefix(r.URL.Path, "/r/"):
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			case strings.HasPrefix(r.URL.Path, "/n/"):
				w.WriteHeader(http.StatusOK)
			default:
				io.Copy(w, io.LimitReader(zeros{}, 300<<10))
			}
		}, "a.example")
	cl := n.Client(t, "b.example")
	if _, err := cl.Do(t.Context(), "a.example", peer.RequestConsent, "mimi://a.example/u/a", nil); !errors.Is(err, peer.ErrTooLarge) {
		t.Errorf("a large answer: %v", err)
	}
	_, err := cl.Do(t.Context(), "a.example", peer.Notify, room, nil)
	wantProblem(t, err, 200, "not-accepted")
	if _, again := peer.Retry(err); !again {
		t.Error("a fan-out that was not taken is not sent again")
	}
	_, err = cl.Do(t.Context(), "a.example", peer.SubmitMessage, room, nil)
	wantProblem(t, err, 307, "http-status")
	if hits.Load() != 3 {
		t.Errorf("%d calls arrived, want 3", hits.Load())
	}
	if _, err := cl.Do(t.Context(), "a.example", peer.SubmitMessage, room, make([]byte, 2<<20)); err == nil || hits.Load() != 3 {
		t.Errorf("a large request: %v, %d calls", err, hits.Load())
	}
}

func TestBackoffAndPause(t *testing.T) {
	n := peertest.New(t)
	cl := n.Client(t, "b.example")
	_, err := cl.Do(t.Context(), "a.example", peer.Update, room, nil)
	var u *peer.UnreachableError
	if !errors.As(err, &u) {
		t.Fatalf("no server: %v", err)
	}
	dials := n.Dials()
	_, err = cl.Do(t.Context(), "a.example", peer.Update, room, nil)
	var b *peer.BackoffError
	if !errors.As(err, &b) || n.Dials() != dials || b.Wait <= 0 {
		t.Fatalf("soon after: %v", err)
	}
	if after, again := peer.Retry(err); !again || after != b.Wait {
		t.Errorf("Retry = %v, %v", after, again)
	}
	var calls atomic.Int32
	stranger(t, n, `{"update":"https://a.example/{roomId}"}`, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			problem.New(503, "busy", "busy").After(time.Second).Write(w)
		}
	}, "a.example")
	start := time.Now()
	if _, err := cl.DoRetry(t.Context(), "a.example", peer.Update, room, nil); err != nil {
		t.Fatal(err)
	}
	if calls.Load() != 2 || time.Since(start) < time.Second {
		t.Errorf("%d calls in %v", calls.Load(), time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	n.Name("a.example", "")
	cl.Close()
	if _, err := cl.DoRetry(ctx, "d.example", peer.Update, room, nil); err == nil {
		t.Error("DoRetry outlived its context")
	}
}

func TestBackoffGrows(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: 500 * time.Millisecond, 1: 500 * time.Millisecond, 2: time.Second, 9: 128 * time.Second, 10: 5 * time.Minute, 1000: 5 * time.Minute} {
		for range 100 {
			if d := peer.Backoff(failures); d > most || d < most/2 {
				t.Fatalf("Backoff(%d) = %v", failures, d)
			}
		}
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	n := peertest.New(t)
	var open, most atomic.Int32
	release := make(chan struct{})
	stranger(t, n, `{"update":"https://a.example/{roomId}"}`, func(w http.ResponseWriter, r *http.Request) {
		now := open.Add(1)
		defer open.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		<-release
	}, "a.example")
	cl := n.Client(t, "b.example")
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := cl.Do(t.Context(), "a.example", peer.Update, room, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for open.Load() < 16 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := cl.Do(ctx, "a.example", peer.Update, room, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call over the bound: %v", err)
	}
	close(release)
	wg.Wait()
	if most.Load() != 16 {
		t.Errorf("%d calls at once, want 16", most.Load())
	}
}

func TestDirectoryIsFetchedOnce(t *testing.T) {
	n := peertest.New(t)
	var fetches atomic.Int32
	n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == peer.DirectoryPath {
			fetches.Add(1)
			io.WriteString(w, `{"update":"https://a.example/{roomId}"}`)
			return
		}
		w.WriteHeader(http.StatusNotFound) // does not make a fresh directory stale
	}), "a.example")
	cl := n.Client(t, "b.example")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { cl.Do(t.Context(), "a.example", peer.Update, room, nil) })
	}
	wg.Wait()
	if fetches.Load() != 1 {
		t.Errorf("%d fetches", fetches.Load())
	}
}

// One peer cannot hold all of a server, and does not hold others up.
func TestServerBoundsOnePeer(t *testing.T) {
	n := peertest.New(t)
	dir, err := peer.NewDirectory("a.example", peer.Update)
	if err != nil {
		t.Fatal(err)
	}
	s := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{"a.example": "a.example"}, Directories: map[string]*peer.Directory{"a.example": dir}, Chains: n.Chains(), Concurrency: 2,
	})
	entered, release := make(chan bool, 8), make(chan bool)
	s.Handle(peer.Update, func(ctx context.Context, r *peer.Request) ([]byte, error) {
		entered <- true
		<-release
		return nil, nil
	})
	n.Serve(t, s, "a.example")
	var wg sync.WaitGroup
	call := func(c *peer.Client) { wg.Go(func() { c.Do(t.Context(), "a.example", peer.Update, room, nil) }) }
	b, c := n.Client(t, "b.example"), n.Client(t, "c.example")
	call(b)
	call(b)
	<-entered
	<-entered
	_, err = b.Do(t.Context(), "a.example", peer.Update, room, nil)
	wantProblem(t, err, 429, "too-many")
	call(c)
	<-entered
	close(release)
	wg.Wait()
	if _, err := b.Do(t.Context(), "a.example", peer.Update, room, nil); err != nil {
		t.Errorf("after the others have ended: %v", err)
	}
}

// A directory that leads to an address leads nowhere: no certificate proves the
// host, and the provider's name alone is not enough.
func TestDirectoryToAnAddress(t *testing.T) {
	n := peertest.New(t)
	hits := 0
	stranger(t, n, `{"update":"https://127.0.0.1/x/{roomId}"}`, func(http.ResponseWriter, *http.Request) { hits++ }, "a.example", "127.0.0.1")
	_, err := n.Client(t, "b.example").Do(t.Context(), "a.example", peer.Update, room, nil)
	if u := new(peer.UnreachableError); !errors.As(err, &u) || hits > 0 {
		t.Errorf("%v, %d calls", err, hits)
	}
}

// Host is compared in any case (RFC 9110 section 4.2.3).
func TestHostInAnyCase(t *testing.T) {
	n := peertest.New(t)
	newServer(t, n, nil).Handle(peer.Update, echo)
	cert := n.Certificate(t, "b.example")
	req, err := http.NewRequest("POST", "https://mimi.a.example/v1/update/mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "MIMI.A.Example"
	req.Header.Set("From", "mimi@b.example")
	resp, err := rawClient(n, &cert).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// The octets of one peer's bodies that are in memory are bounded, and not those
// of another by it.
func TestBodiesOfOnePeerAreBounded(t *testing.T) {
	n := peertest.New(t)
	s := newServer(t, n, nil)
	entered, release := make(chan bool, 8), make(chan bool)
	s.Handle(peer.Notify, func(context.Context, *peer.Request) ([]byte, error) { return nil, nil })
	s.Handle(peer.Update, func(context.Context, *peer.Request) ([]byte, error) {
		entered <- true
		<-release
		return nil, nil
	})
	b, c := n.Certificate(t, "b.example"), n.Certificate(t, "c.example")
	post := func(cert *tls.Certificate, domain, endpoint string, body io.Reader, length int64) (int, error) {
		req, err := http.NewRequest("POST", "https://mimi.a.example/v1/"+endpoint+"/mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse", body)
		if err != nil {
			return 0, err
		}
		req.ContentLength = length
		req.Header.Set("From", "mimi@"+domain)
		resp, err := rawClient(n, cert).Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	var wg sync.WaitGroup
	for range 2 { // of unknown length, and so of the most that they may be
		wg.Go(func() { post(&b, "b.example", "update", io.MultiReader(strings.NewReader("x")), -1) })
		<-entered
	}
	slow, begin := io.Pipe()
	wg.Go(func() { post(&b, "b.example", "notify", slow, 64<<20) })
	begin.Write(make([]byte, 4<<20)) // more than fits on the way: it is being read
	if status, err := post(&b, "b.example", "notify", io.LimitReader(zeros{}, 64<<20), 64<<20); err != nil || status != 429 {
		t.Errorf("beyond the bound: status %d, %v", status, err)
	}
	if status, err := post(&c, "c.example", "notify", strings.NewReader("x"), 1); err != nil || status != 201 {
		t.Errorf("another peer: %d, %v", status, err)
	}
	begin.CloseWithError(io.ErrUnexpectedEOF)
	close(release)
	wg.Wait()
	if status, err := post(&b, "b.example", "notify", strings.NewReader("x"), 1); err != nil || status != 201 {
		t.Errorf("after the others have ended: %d, %v", status, err)
	}
}

// An answer that ends when our time is over is not whole, however well it ends.
func TestEndAfterOurTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := peer.Body(ctx, io.NopCloser(strings.NewReader("half")))
	if got, err := io.ReadAll(peer.Body(t.Context(), io.NopCloser(strings.NewReader("whole")))); err != nil || string(got) != "whole" {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	if _, err := io.ReadAll(b); !errors.Is(err, context.Canceled) {
		t.Errorf("read to a good end: %v", err)
	}
}
