package asset_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// An assetHost is a server on loopback with the name assets.b.example.
type assetHost struct {
	host string // with its port
	hits atomic.Int32
}

func newHost(t *testing.T, n *peertest.Net, h http.HandlerFunc) *assetHost {
	t.Helper()
	a := new(assetHost)
	addr := n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.hits.Add(1)
		h(w, r)
	}), "assets.b.example", "evil.example")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	a.host = "assets.b.example:" + port
	return a
}

func (a *assetHost) port() string { return strings.TrimPrefix(a.host, "assets.b.example:") }

// newProxy returns a proxy that fetches from the host alone. All names resolve
// to what resolve says; loopback may be connected to only if allowed.
func newProxy(t *testing.T, n *peertest.Net, a *assetHost, resolve func() netip.Addr, loopbackAllowed bool) *asset.Proxy {
	t.Helper()
	cfg := safehttp.Config{Roots: n.Roots, Resolver: safehttptest.NameServer(t, resolve), Timeout: 2 * time.Second}
	if loopbackAllowed {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	p, err := asset.NewProxy(asset.ProxyConfig{
		Dir: t.TempDir(), CacheSize: 1000, MaxSize: func() int64 { return 500 },
		Hosts:  func(host string) bool { return host == a.host || host == "assets.c.example" },
		Client: safehttp.New(cfg),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at(a netip.Addr) func() netip.Addr { return func() netip.Addr { return a } }

func serve(p *asset.Proxy, target string, header http.Header) (*httptest.ResponseRecorder, error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = header
	w := httptest.NewRecorder()
	err := p.Serve(w, r, target)
	return w, err
}

func TestProxyFetchesAndKeeps(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Cookie", "Authorization", "Referer", "From", "X-Forwarded-For", "Range", "User-Agent"} {
			if v := r.Header.Values(name); len(v) > 0 && v[0] != "" {
				t.Errorf("the host sees %s: %q", name, v)
			}
		}
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "an asset")
	})
	p := newProxy(t, n, a, at(loopback), true)
	for range 3 {
		w, err := serve(p, "https://"+a.host+"/x", http.Header{"Cookie": {"s=1"}, "Authorization": {"Bearer x"}, "Referer": {"https://x/"}, "From": {"mimi@b.example"}, "X-Forwarded-For": {"1.2.3.4"}})
		if err != nil || w.Code != 200 || w.Body.String() != "an asset" || w.Header().Get("Content-Type") != "application/octet-stream" || w.Header().Get("Set-Cookie") != "" {
			t.Fatalf("%d %q %v, %v", w.Code, w.Body, w.Header(), err)
		}
	}
	w, err := serve(p, "https://"+a.host+"/x", http.Header{"Range": {"bytes=3-"}})
	if err != nil || w.Code != 206 || w.Body.String() != "asset" {
		t.Errorf("a range: %d %q, %v", w.Code, w.Body, err)
	}
	if a.hits.Load() != 1 {
		t.Errorf("the host was asked %d times, want once", a.hits.Load())
	}
}

// URLs that would make the proxy an open one, or a door to the inside.
func TestProxyRefusesURLs(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "inside") })
	p := newProxy(t, n, a, at(loopback), true)
	host, port := "assets.b.example", a.port()
	for _, target := range []string{
		"", "x", "/etc/passwd", "//" + a.host + "/x", "http://" + a.host + "/x", "HTTP://" + a.host + "/x", "ftp://" + a.host + "/x", "file:///etc/passwd", "gopher://" + a.host + "/x",
		"https:" + a.host, "https:///x", "https://?" + a.host, "javascript:alert(1)", "data:,x", "https://" + a.host + "/x#y",
		"https://evil.example:" + port + "/x", "https://" + host + "/x", "https://" + host + ":443/x", "https://" + host + ":22/x", "https://" + host + ":0" + port + "/x",
		"https://" + host + ".:" + port + "/x", "https://ASSETS.b.example:" + port + "/x", "https://x." + a.host + "/x", "https://assets.b.example.evil.example:" + port + "/x",
		"https://me@" + a.host + "/x", "https://me:pw@" + a.host + "/x", "https://" + a.host + "@evil.example:" + port + "/x", "https://evil.example:" + port + "\\@" + a.host + "/x",
		"https://evil.example:" + port + "/@" + a.host, "https://evil.example:" + port + "/?" + a.host, "https://evil.example:" + port + "%2F" + a.host + "/x",
		"https://127.0.0.1:" + port + "/x", "https://127.1:" + port + "/x", "https://2130706433:" + port + "/x", "https://0x7f.1:" + port + "/x", "https://0177.0.0.1:" + port + "/x", "https://localhost:" + port + "/x",
		"https://[::1]:" + port + "/x", "https://[::ffff:127.0.0.1]:" + port + "/x", "https://[::ffff:7f00:1]:" + port + "/x", "https://[64:ff9b::7f00:1]:" + port + "/x", "https://[fe80::1%25lo]:" + port + "/x", "https://[::]:" + port + "/x",
		"https://169.254.169.254/latest/meta-data/", "https://10.0.0.1/", "https://100.64.0.1/", "https://[fd00::1]/", "https://0.0.0.0:" + port + "/x",
		"https://" + host + "%00:" + port + "/x", "https://" + host + "\x00:" + port + "/x", "https://" + host + "\t:" + port + "/x", " https://" + a.host + "/x", "https://" + a.host + "/x\r\nHost: evil", "https://ａssets.b.example:" + port + "/x",
		"https://" + a.host + "/" + strings.Repeat("x", 3000),
	} {
		w, err := serve(p, target, nil)
		if pr := problem.Of(err); err == nil || pr.Status != 400 && pr.Status != 403 {
			t.Errorf("%.80q: %d, %v", target, w.Code, err)
		}
	}
	if a.hits.Load() != 0 {
		t.Errorf("%d requests arrived", a.hits.Load())
	}
}

// A name on the list that leads inside is not followed, also when it led
// elsewhere a moment ago.
func TestProxyJudgesAddresses(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "x")
	})
	for _, addr := range []string{"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"} {
		p := newProxy(t, n, a, at(netip.MustParseAddr(addr)), false)
		_, err := serve(p, "https://"+a.host+"/x", nil)
		if wantProblem(t, err, 403, "asset-host"); err != nil && strings.Contains(err.Error(), addr) {
			t.Errorf("the answer tells the address: %v", err)
		}
	}
	var inside atomic.Bool
	rebinding := newProxy(t, n, a, func() netip.Addr {
		if inside.Load() {
			return netip.MustParseAddr("10.0.0.1")
		}
		return loopback
	}, true)
	if _, err := serve(rebinding, "https://"+a.host+"/1", nil); err != nil {
		t.Fatal(err)
	}
	inside.Store(true)
	// The connection that is open may be used; a new one may not be made.
	hits := a.hits.Load()
	for i := range 3 {
		_, err := serve(rebinding, "https://assets.c.example/"+fmt.Sprint(i), nil)
		wantProblem(t, err, 403, "asset-host")
	}
	if a.hits.Load() != hits {
		t.Error("a request arrived")
	}
}

func TestProxyRedirects(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/good" {
			io.WriteString(w, "good")
			return
		}
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	p := newProxy(t, n, a, at(loopback), true)
	to := func(target string) string { return "https://" + a.host + "/r?to=" + url.QueryEscape(target) }
	if w, err := serve(p, to("/good"), nil); err != nil || w.Body.String() != "good" {
		t.Errorf("on the host: %q, %v", w.Body, err)
	}
	for _, target := range []string{
		"https://evil.example:" + a.port() + "/good", "https://127.0.0.1:" + a.port() + "/good", "http://" + a.host + "/good", "https://assets.c.example/good",
		"https://me@" + a.host + "/good", "file:///etc/passwd", "//evil.example:" + a.port() + "/good", "https://assets.b.example/good", "",
		to(to(to(to("/good")))),
	} {
		_, err := serve(p, to(target), nil)
		if pr := problem.Of(err); err == nil || pr.Status != 502 {
			t.Errorf("to %.60q: %v", target, err)
		}
	}
}

func TestProxyBoundsAnswers(t *testing.T) {
	n := peertest.New(t)
	release := make(chan struct{})
	defer close(release)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/announced":
			w.Header().Set("Content-Length", "501")
			w.Write(make([]byte, 501))
		case "/huge":
			for range 1000 {
				w.Write(make([]byte, 1000))
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte{0x1f, 0x8b})
		case "/cut":
			w.Header().Set("Content-Length", "400")
			w.Write(make([]byte, 100))
			panic(http.ErrAbortHandler)
		case "/slow":
			w.Write([]byte("a"))
			http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/secret":
			http.Error(w, "stack trace", http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	})
	p := newProxy(t, n, a, at(loopback), true)
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/announced": {502, "asset-size"}, "/huge": {502, "asset-size"}, "/bomb": {502, "upstream"}, "/cut": {502, "upstream"}, "/slow": {504, "upstream"},
		"/gone": {410, "not-found"}, "/missing": {404, "not-found"}, "/secret": {502, "upstream"},
	} {
		_, err := serve(p, "https://"+a.host+path, nil)
		t.Run(path, func(t *testing.T) { wantProblem(t, err, want.status, want.code) })
		if err != nil && strings.Contains(err.Error(), "stack") {
			t.Errorf("%s: the answer tells what the host said", path)
		}
	}
}

// One fetch serves all who ask meanwhile, and the cache stays in its bound.
func TestProxyCache(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private" {
			w.Header().Set("Cache-Control", "no-store")
		}
		time.Sleep(20 * time.Millisecond)
		w.Write(bytes.Repeat([]byte{1}, 400))
	})
	p := newProxy(t, n, a, at(loopback), true)
	var wg sync.WaitGroup
	fetch := func(path string) {
		w, err := serve(p, "https://"+a.host+path, nil)
		if err != nil || w.Body.Len() != 400 {
			t.Errorf("%s: %d octets, %v", path, w.Body.Len(), err)
		}
	}
	for range 20 {
		wg.Go(func() { fetch("/1") })
	}
	wg.Wait()
	if a.hits.Load() != 1 {
		t.Errorf("%d fetches for 20 who asked at once", a.hits.Load())
	}
	fetch("/2")
	fetch("/1")
	fetch("/3") // drops /2, which was used the longest ago
	hits := a.hits.Load()
	fetch("/1")
	fetch("/3")
	if a.hits.Load() != hits {
		t.Errorf("what was used last is gone")
	}
	fetch("/2")
	if a.hits.Load() != hits+1 {
		t.Errorf("the cache is over its bound")
	}
	hits = a.hits.Load()
	fetch("/private")
	fetch("/private")
	if a.hits.Load() != hits+2 {
		t.Errorf("what may not be kept was kept")
	}
}

func TestProxyDownloadOverTheWire(t *testing.T) {
	n := peertest.New(t)
	a := newHost(t, n, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RequestURI()) })
	p := newProxy(t, n, a, at(loopback), true)
	dir, err := peer.NewDirectory("h.example", peer.ProxyDownload)
	if err != nil {
		t.Fatal(err)
	}
	s := peer.NewServer(peer.ServerConfig{Hosts: map[string]string{"h.example": "h.example"}, Directories: map[string]*peer.Directory{"h.example": dir}, Chains: n.Chains()})
	p.Routes(s)
	n.Serve(t, s, "h.example")
	c := n.Client(t, "b.example")
	got, err := c.Do(t.Context(), "h.example", peer.ProxyDownload, "https://"+a.host+"/x%2Fy?a=b%26c", nil)
	if err != nil || string(got) != "/x%2Fy?a=b%26c" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = c.Do(context.Background(), "h.example", peer.ProxyDownload, "https://evil.example/", nil)
	wantProblem(t, err, 403, "asset-host")
}

// Requests that are given up leave their fetches behind. Those are bounded, and
// open no files while they wait.
func TestProxyBoundsWhatIsLeftBehind(t *testing.T) {
	n, release := peertest.New(t), make(chan struct{})
	host := newHost(t, n, func(http.ResponseWriter, *http.Request) { <-release })
	dir := t.TempDir()
	p, err := asset.NewProxy(asset.ProxyConfig{
		Dir: dir, Hosts: func(h string) bool { return h == host.host }, MaxSize: func() int64 { return 1000 },
		Client: safehttp.New(safehttp.Config{
			Roots: n.Roots, Resolver: safehttptest.NameServer(t, at(loopback)), Allow: []netip.Prefix{netip.PrefixFrom(loopback, 32)},
			Timeout: time.Minute,
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	busy := 0
	for i := range 400 {
		r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(gone)
		err := p.Serve(httptest.NewRecorder(), r, fmt.Sprintf("https://%s/a?%d", host.host, i))
		if problem.Of(err).Code == "busy" {
			busy++
		}
	}
	if busy != 400-8*32 {
		t.Errorf("%d of 400 fetches are refused, want those beyond 256", busy)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 32 {
		t.Errorf("%d files are open at once, %v", len(entries), err)
	}
	close(release)
	for range 6000 { // until what was left behind is there for the next who asks
		if entries, err = os.ReadDir(dir); err != nil || len(entries) == 8*32 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(entries) != 8*32 || err != nil {
		t.Errorf("%d assets are kept, want 256, %v", len(entries), err)
	}
}

// Many small assets do not fill the cache's folder, though their octets are few.
func TestProxyKeepsFewFiles(t *testing.T) {
	n := peertest.New(t)
	host := newHost(t, n, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) })
	dir := t.TempDir()
	p, err := asset.NewProxy(asset.ProxyConfig{
		Dir: dir, Hosts: func(h string) bool { return h == host.host }, MaxSize: func() int64 { return 1000 }, CacheCount: 5,
		Client: safehttp.New(safehttp.Config{
			Roots: n.Roots, Resolver: safehttptest.NameServer(t, at(loopback)), Allow: []netip.Prefix{netip.PrefixFrom(loopback, 32)},
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if w, err := serve(p, fmt.Sprintf("https://%s/a?%d", host.host, i), nil); err != nil || w.Body.String() != "x" {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("%d files are kept, %v", len(entries), err)
	}
}
