package statuslist_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/pgtest"
)

// A clock that a test moves.
type clock struct {
	mu sync.Mutex // guards t
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

func TestMain(m *testing.M) { pgtest.Main(m) }

// onBoth runs a test on both engines; source knows by the test's name.
func onBoth(t *testing.T, test func(t *testing.T)) {
	t.Run("SQLite", test)
	t.Run("PostgreSQL", test)
}

// source returns an empty database for the test.
func source(t testing.TB) string {
	if strings.Contains(t.Name(), "/PostgreSQL") {
		return pgtest.Database(t)
	}
	return filepath.Join(t.TempDir(), "status.db")
}

func newStore(t testing.TB) *statuslist.SQLStore {
	t.Helper()
	s, err := statuslist.OpenSQLStore(context.Background(), source(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newPublisher(t testing.TB, change func(*statuslist.Publisher)) (*statuslist.Publisher, *clock) {
	t.Helper()
	c := &clock{t: exampleNow}
	p := &statuslist.Publisher{Store: newStore(t), URI: exampleURI, Key: statusKey, KeyID: []byte("12"), Size: 1024, Now: c.now, Issuer: "https://example.com"}
	if change != nil {
		change(p)
	}
	if err := p.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	return p, c
}

// fetcher gets lists from handlers, as an HTTP client would.
type fetcher struct {
	handler http.Handler
	fetched int
	last    string
	err     error
}

func (f *fetcher) Fetch(_ context.Context, uri string, accept []string, _ int64) ([]byte, string, error) {
	f.fetched++
	f.last = uri
	if f.err != nil {
		return nil, "", f.err
	}
	r := httptest.NewRequest(http.MethodGet, uri, nil)
	r.Header.Set("Accept", strings.Join(accept, ", "))
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return nil, "", fmt.Errorf("status %d", w.Code)
	}
	return w.Body.Bytes(), w.Header().Get("Content-Type"), nil
}

func newChecker(p http.Handler, now func() time.Time) (*statuslist.Checker, *fetcher) {
	f := &fetcher{handler: p}
	return &statuslist.Checker{
		Rules:   statuslist.Rules{Keys: statuslist.StaticKeys{statusKey.Public()}, Now: now},
		Fetcher: f, Prefixes: []string{"https://example.com/statuslists/"},
	}, f
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t testing.TB, err error, want credentials.Code) {
	t.Helper()
	if got := credentials.CodeOf(err); got != want || err != nil && got == "" {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestLifeOfACredential(t *testing.T) { onBoth(t, testLifeOfACredential) }

func testLifeOfACredential(t *testing.T) {
	ctx := context.Background()
	for _, formats := range [][]statuslist.Format{nil, {statuslist.JWT}, {statuslist.CWT}, {statuslist.CWT, statuslist.JWT}} {
		p, now := newPublisher(t, nil)
		ref := must[statuslist.Reference](t)(p.Allocate(ctx))
		must[*statuslist.Publication](t)(p.Publish(ctx))
		c, f := newChecker(p, now.now)
		c.Formats = formats
		wantCode(t, c.Check(ctx, ref), "")
		step := func(s statuslist.Status, want credentials.Code) {
			t.Helper()
			if err := p.Set(ctx, ref.Index, s); err != nil {
				t.Fatal(err)
			}
			now.add(time.Second)
			must[*statuslist.Publication](t)(p.Publish(ctx))
			now.add(statuslist.DefaultTTL)
			wantCode(t, c.Check(ctx, ref), want)
		}
		step(statuslist.Suspended, credentials.CodeSuspended)
		step(statuslist.Valid, "")
		step(statuslist.Invalid, credentials.CodeRevoked)
		if err := p.Set(ctx, ref.Index, statuslist.Valid); !errors.Is(err, statuslist.ErrFinal) {
			t.Errorf("a revoked entry was changed: %v", err)
		}
		if f.fetched != 4 {
			t.Errorf("fetched %d times", f.fetched)
		}
	}
}

func TestCheckerKeepsLists(t *testing.T) {
	ctx := context.Background()
	p, now := newPublisher(t, func(p *statuslist.Publisher) { p.TTL, p.Lifetime = time.Minute, time.Hour })
	ref := must[statuslist.Reference](t)(p.Allocate(ctx))
	must[*statuslist.Publication](t)(p.Publish(ctx))
	c, f := newChecker(p, now.now)
	c.MaxStale = 5 * time.Minute
	check := func(want credentials.Code, fetched int) {
		t.Helper()
		wantCode(t, c.Check(ctx, ref), want)
		if f.fetched != fetched {
			t.Errorf("fetched %d times, want %d", f.fetched, fetched)
		}
	}
	check("", 1)
	now.add(59 * time.Second)
	check("", 1)
	now.add(time.Second)
	check("", 2)
	f.err = errors.New("unreachable")
	now.add(time.Minute)
	check("", 3)
	now.add(5 * time.Minute)
	check(credentials.CodeStatusUnavailable, 4)
	c.MaxStale = 10 * time.Hour
	check("", 5)
	now.add(time.Hour) // past exp
	check(credentials.CodeStatusUnavailable, 6)
}

func TestCheckerRefusesAnOlderList(t *testing.T) {
	ctx := context.Background()
	p, now := newPublisher(t, nil)
	ref := must[statuslist.Reference](t)(p.Allocate(ctx))
	old := must[*statuslist.Publication](t)(p.Publish(ctx))
	now.add(2 * time.Hour)
	must[*statuslist.Publication](t)(p.Publish(ctx))
	c, f := newChecker(p, now.now)
	wantCode(t, c.Check(ctx, ref), "")
	now.add(2 * time.Hour)
	f.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", statuslist.MediaTypeJWT)
		w.Write(old.JWT)
	})
	wantCode(t, c.Check(ctx, ref), credentials.CodeStatusUnavailable)
}

func TestWhatIsFetched(t *testing.T) {
	p, now := newPublisher(t, nil)
	c, f := newChecker(p, now.now)
	c.Prefixes = []string{"https://example.com/statuslists/", "https://one.example/list"}
	for _, uri := range []string{"https://example.com/other/1", "https://example.com.evil.example/statuslists/1", "https://example.com/statuslists/../secret",
		"https://example.com/statuslists/%2e%2e/secret", "https://one.example/list/2", "https://one.example/list?x", "https://EXAMPLE.com/statuslists/1", "https://example.com/statuslists"} {
		wantCode(t, c.Check(context.Background(), statuslist.Reference{URI: uri}), credentials.CodeStatusURI)
	}
	wantCode(t, c.Check(context.Background(), statuslist.Reference{URI: "http://example.com/statuslists/1"}), credentials.CodeStatusInvalid)
	if f.fetched != 0 {
		t.Errorf("fetched %d times", f.fetched)
	}
	wantCode(t, c.Check(context.Background(), statuslist.Reference{URI: "https://one.example/list"}), credentials.CodeStatusUnavailable)
	if f.fetched != 1 {
		t.Errorf("fetched %d times", f.fetched)
	}
}

func TestHistory(t *testing.T) { onBoth(t, testHistory) }

func testHistory(t *testing.T) {
	ctx := context.Background()
	p, now := newPublisher(t, func(p *statuslist.Publisher) { p.History, p.Lifetime = true, 2*time.Hour })
	ref := must[statuslist.Reference](t)(p.Allocate(ctx))
	must[*statuslist.Publication](t)(p.Publish(ctx))
	if err := p.Set(ctx, ref.Index, statuslist.Invalid); err != nil {
		t.Fatal(err)
	}
	now.add(time.Hour)
	must[*statuslist.Publication](t)(p.Publish(ctx))
	c, _ := newChecker(p, now.now)
	wantCode(t, c.CheckAt(ctx, ref, exampleNow.Add(30*time.Minute)), "")
	wantCode(t, c.CheckAt(ctx, ref, exampleNow.Add(time.Hour)), credentials.CodeRevoked)
	wantCode(t, c.CheckAt(ctx, ref, exampleNow.Add(-time.Hour)), credentials.CodeStatusUnavailable)
	// A server that ignores the question is found out.
	current := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = ""
		p.ServeHTTP(w, r)
	})
	c, _ = newChecker(current, now.now)
	wantCode(t, c.CheckAt(ctx, ref, exampleNow.Add(30*time.Minute)), credentials.CodeStatusUnavailable)
}

func TestPublicationNeverGoesBack(t *testing.T) { onBoth(t, testPublicationNeverGoesBack) }

func testPublicationNeverGoesBack(t *testing.T) {
	ctx := context.Background()
	p, now := newPublisher(t, nil)
	ref := must[statuslist.Reference](t)(p.Allocate(ctx))
	first := must[*statuslist.Publication](t)(p.Publish(ctx))
	if err := p.Set(ctx, ref.Index, statuslist.Invalid); err != nil {
		t.Fatal(err)
	}
	must[*statuslist.Publication](t)(p.Publish(ctx))
	if err := p.Store.Publish(ctx, p.URI, first, false); !errors.Is(err, statuslist.ErrSuperseded) {
		t.Errorf("an earlier state was published: %v", err)
	}
	// Another node's clock is behind, and it has seen more: that is not said yet.
	more := *must[*statuslist.Publication](t)(p.Store.Published(ctx, p.URI, time.Time{}))
	more.Version, more.IssuedAt = more.Version+1, more.IssuedAt.Add(-time.Second)
	if err := p.Store.Publish(ctx, p.URI, &more, false); !errors.Is(err, statuslist.ErrClock) {
		t.Errorf("more was published, and earlier: %v", err)
	}
	now.add(-time.Minute)
	if _, err := p.Publish(ctx); !errors.Is(err, statuslist.ErrClock) {
		t.Errorf("published with a clock that went back: %v", err)
	}
}

func TestIndicesAreUniqueAndUnpredictable(t *testing.T) {
	onBoth(t, testIndicesAreUniqueAndUnpredictable)
}

func testIndicesAreUniqueAndUnpredictable(t *testing.T) {
	ctx := context.Background()
	path := source(t)
	var stores []*statuslist.SQLStore
	for range 2 { // as two processes would
		s := must[*statuslist.SQLStore](t)(statuslist.OpenSQLStore(ctx, path))
		t.Cleanup(func() { s.Close() })
		if err := s.Create(ctx, exampleURI, 1, 600); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	var mu sync.Mutex // guards seen and ascending
	seen, ascending, last := map[int64]bool{}, 0, int64(0)
	var group sync.WaitGroup
	for w := range 6 {
		group.Go(func() {
			for range 20 {
				indices, err := stores[w%2].Allocate(ctx, exampleURI, 5)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, i := range indices {
					if seen[i] || i < 0 || i >= 600 {
						t.Errorf("index %d again", i)
					}
					if i > last {
						ascending++
					}
					seen[i], last = true, i
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(seen) != 600 {
		t.Errorf("%d indices of 600", len(seen))
	}
	if ascending < 200 || ascending > 400 { // half of them, unless the order says something
		t.Errorf("%d of 600 ascend", ascending)
	}
	if _, err := stores[0].Allocate(ctx, exampleURI, 1); !errors.Is(err, statuslist.ErrListFull) {
		t.Errorf("got %v", err)
	}
}

func TestStoreRefuses(t *testing.T) { onBoth(t, testStoreRefuses) }

func testStoreRefuses(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	if err := s.Create(ctx, exampleURI, 2, 100); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[error]error{
		statuslist.ErrMismatch: s.Create(ctx, exampleURI, 1, 100),
		statuslist.ErrNoList:   s.SetStatus(ctx, "https://x.example", 1, 1),
		statuslist.ErrNotInUse: s.SetStatus(ctx, exampleURI, 1, 1),
		statuslist.ErrBits:     s.Create(ctx, "https://x.example/3", 3, 100),
	} {
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	i := must[[]int64](t)(s.Allocate(ctx, exampleURI, 1))[0]
	if err := s.SetStatus(ctx, exampleURI, i, 4); err == nil {
		t.Error("status 4 fits 2 bits")
	}
	if _, err := s.Published(ctx, exampleURI, time.Time{}); !errors.Is(err, statuslist.ErrNoHistory) {
		t.Errorf("got %v", err)
	}
}

func TestReopenedStoreKnowsItsIndices(t *testing.T) { onBoth(t, testReopenedStoreKnowsItsIndices) }

func testReopenedStoreKnowsItsIndices(t *testing.T) {
	ctx := context.Background()
	path := source(t)
	seen := map[int64]bool{}
	for range 4 {
		s := must[*statuslist.SQLStore](t)(statuslist.OpenSQLStore(ctx, path))
		if err := s.Create(ctx, exampleURI, 1, 64); err != nil {
			t.Fatal(err)
		}
		for _, i := range must[[]int64](t)(s.Allocate(ctx, exampleURI, 16)) {
			if seen[i] {
				t.Errorf("index %d again", i)
			}
			seen[i] = true
		}
		s.Close()
	}
}

func TestListAgainstAModel(t *testing.T) {
	for _, bits := range []int{1, 2, 4, 8} {
		list := must[*statuslist.List](t)(statuslist.NewList(bits, 200))
		model := make([]statuslist.Status, list.Len())
		for range 2000 {
			i, s := rand.IntN(200), statuslist.Status(rand.IntN(1<<bits))
			if err := list.Set(int64(i), s); err != nil {
				t.Fatal(err)
			}
			model[i] = s
		}
		wantList(t, list, model)
		if err := list.Set(0, statuslist.Status(1<<bits)); bits < 8 && err == nil {
			t.Error("a status too wide was set")
		}
		if err := list.Set(int64(list.Len()), 0); err == nil {
			t.Error("an entry beyond the end was set")
		}
	}
}

func TestServe(t *testing.T) {
	ctx := context.Background()
	p, now := newPublisher(t, func(p *statuslist.Publisher) { p.TTL, p.Lifetime = time.Hour, 90*time.Minute })
	get := func(method, target string, header ...string) *http.Response {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w.Result()
	}
	if r := get("GET", exampleURI); r.StatusCode != http.StatusNotFound {
		t.Errorf("before the first publication: %d", r.StatusCode)
	}
	pub := must[*statuslist.Publication](t)(p.Publish(ctx))
	for _, c := range []struct {
		accept, mediaType string
		status            int
	}{
		{"", statuslist.MediaTypeJWT, 200}, {"*/*", statuslist.MediaTypeJWT, 200}, {"application/*;q=0.5", statuslist.MediaTypeJWT, 200},
		{statuslist.MediaTypeJWT, statuslist.MediaTypeJWT, 200}, {statuslist.MediaTypeCWT, statuslist.MediaTypeCWT, 200},
		{"application/statuslist+jwt;q=0.3, application/statuslist+cwt;q=0.9", statuslist.MediaTypeCWT, 200},
		{"Application/StatusList+CWT", statuslist.MediaTypeCWT, 200},
		{"application/statuslist+jwt;q=0, */*", statuslist.MediaTypeCWT, 200},
		{"text/html", "", 406}, {"application/statuslist+jwt;q=0", "", 406}, {"*/*;q=x", "", 406},
	} {
		header := []string{}
		if c.accept != "" {
			header = append(header, "Accept", c.accept)
		}
		r := get("GET", exampleURI, header...)
		if r.StatusCode != c.status || c.status == 200 && r.Header.Get("Content-Type") != c.mediaType {
			t.Errorf("Accept %q: %d %s", c.accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
	plain := get("GET", exampleURI)
	body := must[[]byte](t)(io.ReadAll(plain.Body))
	if string(body) != string(pub.JWT) || plain.Header.Get("Cache-Control") != "public, max-age=3600" || !strings.Contains(plain.Header.Get("Vary"), "Accept-Encoding") {
		t.Errorf("got %v", plain.Header)
	}
	zipped := get("GET", exampleURI, "Accept-Encoding", "br, gzip")
	if zipped.Header.Get("Content-Encoding") != "gzip" || zipped.Header.Get("ETag") == plain.Header.Get("ETag") {
		t.Errorf("got %v", zipped.Header)
	}
	inflated := must[*gzip.Reader](t)(gzip.NewReader(zipped.Body))
	if got := must[[]byte](t)(io.ReadAll(inflated)); string(got) != string(pub.JWT) {
		t.Error("the gzip form is another token")
	}
	if r := get("GET", exampleURI, "If-None-Match", plain.Header.Get("ETag")); r.StatusCode != http.StatusNotModified || r.Header.Get("Cache-Control") == "" {
		t.Errorf("got %d", r.StatusCode)
	}
	if r := get("GET", exampleURI, "Accept", statuslist.MediaTypeCWT, "If-None-Match", plain.Header.Get("ETag")); r.StatusCode != 200 {
		t.Errorf("got %d", r.StatusCode)
	}
	if r := get("HEAD", exampleURI); r.StatusCode != 200 || r.Header.Get("Content-Length") != fmt.Sprint(len(pub.JWT)) || len(must[[]byte](t)(io.ReadAll(r.Body))) != 0 {
		t.Errorf("HEAD: %v", r.Header)
	}
	if r := get("POST", exampleURI); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}
	if r := get("GET", exampleURI+"?time=1700000000"); r.StatusCode != http.StatusNotImplemented {
		t.Errorf("history that is not kept: %d", r.StatusCode)
	}
	p.History = true
	for target, want := range map[string]int{"?time=1700000001": 200, "?time=1600000000": 404, "?time=x": 400, "?time=-5": 400, "?time=1&time=2": 400} {
		if r := get("GET", exampleURI+target); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", target, r.StatusCode, want)
		}
	}
	now.add(time.Hour)
	if r := get("GET", exampleURI); r.Header.Get("Cache-Control") != "public, max-age=1800" {
		t.Errorf("near exp: %v", r.Header)
	}
	now.add(time.Hour)
	if r := get("GET", exampleURI); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("past exp: %d", r.StatusCode)
	}
}

func TestAggregation(t *testing.T) {
	p, _ := newPublisher(t, nil)
	if err := p.Store.Create(context.Background(), exampleURI+"2", 1, 8); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	(&statuslist.Aggregation{Store: p.Store, MaxAge: time.Hour}).ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/all", nil))
	uris, err := statuslist.ParseAggregation(w.Body.Bytes())
	if err != nil || fmt.Sprint(uris) != "["+exampleURI+" "+exampleURI+"2]" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %v, %v", uris, err)
	}
	for _, bad := range []string{"", "[]", `{"status_lists":[1]}`, `{"status_lists":["http://x.example"]}`} {
		if uris, err := statuslist.ParseAggregation([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, uris)
		}
	}
}

func TestRunPublishesAChange(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	p, _ := newPublisher(t, func(p *statuslist.Publisher) { p.MinInterval, p.Now = time.Millisecond, time.Now })
	ref := must[statuslist.Reference](t)(p.Allocate(ctx))
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx, func(err error) { t.Error(err) }) }()
	if err := p.Set(ctx, ref.Index, statuslist.Invalid); err != nil {
		t.Fatal(err)
	}
	for {
		if pub, err := p.Store.Published(ctx, p.URI, time.Time{}); err == nil && pub.Version == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
}
