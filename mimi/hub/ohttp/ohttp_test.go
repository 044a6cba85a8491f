package ohttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	hubohttp "github.com/privyseal/privyseal/mimi/hub/ohttp"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

// A scene is a client at b.example, whose provider is the relay; the hub
// h.example, which is the gateway; and a host of assets.
type scene struct {
	net   *peertest.Net
	relay *httptest.Server
	host  string
	hits  atomic.Int32
	now   atomic.Int64
	seen  atomic.Pointer[http.Request] // the last at the gateway
}

func (s *scene) clock() time.Time { return time.Unix(1_800_000_000+s.now.Load(), 0) }

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{net: peertest.New(t)}
	addr := s.net.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		if len(r.Header["Cookie"])+len(r.Header["X-Secret"])+len(r.Header["Authorization"]) > 0 {
			t.Errorf("the host sees %v", r.Header)
		}
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, strings.Repeat("asset ", 1000))
	}), "assets.h.example")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	s.host = "assets.h.example:" + port
	s.startGateway(t)
	relay := hubohttp.NewRelay(s.net.Client(t, "b.example"), func(p string) bool { return p == "h.example" || p == "gone.example" })
	s.relay = httptest.NewServer(relay.Handler("/client/v1/ohttp/"))
	t.Cleanup(s.relay.Close)
	return s
}

func (s *scene) startGateway(t *testing.T) {
	t.Helper()
	proxy, err := asset.NewProxy(asset.ProxyConfig{
		Dir: t.TempDir(), MaxSize: func() int64 { return 1 << 20 }, Hosts: func(h string) bool { return h == s.host },
		Client: safehttp.New(safehttp.Config{
			Roots: s.net.Roots, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Resolver: safehttptest.NameServer(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") }),
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ohttp.NewKeys(bytes.Repeat([]byte{7}, 32), time.Hour, s.clock)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := peer.NewDirectory("h.example", peer.OHTTPGateway)
	if err != nil {
		t.Fatal(err)
	}
	server := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{"h.example": "h.example"}, Directories: map[string]*peer.Directory{"h.example": dir}, Chains: s.net.Chains(),
		Admit: func(_ context.Context, r *peer.Request) error { s.seen.Store(r.HTTP); return nil },
	})
	hubohttp.NewGateway(keys, proxy, 0).Routes(server)
	s.net.Serve(t, server, "h.example")
}

func (s *scene) url(gateway string) string { return s.relay.URL + "/client/v1/ohttp/" + gateway }

func (s *scene) keys(t *testing.T) *ohttp.KeyConfig {
	t.Helper()
	resp, err := http.Get(s.url("h.example"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != ohttp.MediaTypeKeys {
		t.Fatalf("%s %s %v", resp.Status, b, err)
	}
	configs, err := ohttp.ParseKeys(b)
	if err != nil {
		t.Fatal(err)
	}
	return configs[0]
}

// post is what a client's HTTP does.
func (s *scene) post(gateway string) ohttp.Post {
	return func(ctx context.Context, sealed []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, "POST", s.url(gateway), bytes.NewReader(sealed))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", ohttp.MediaTypeRequest)
		req.Header.Set("Cookie", "who=bob")
		req.Header.Set("X-Forwarded-For", "192.0.2.7")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return nil, problem.Read(resp, time.Now())
		}
		return io.ReadAll(resp.Body)
	}
}

func (s *scene) get(path string) *bhttp.Request {
	return &bhttp.Request{Method: "GET", Scheme: "https", Authority: s.host, Path: path}
}

func TestAssetByRelay(t *testing.T) {
	s := newScene(t)
	key := s.keys(t)
	q := s.get("/x")
	q.Header = []bhttp.Field{{Name: "cookie", Value: "a=b"}, {Name: "x-secret", Value: "1"}, {Name: "authorization", Value: "x"}}
	p, err := ohttp.Do(t.Context(), key, s.post("h.example"), q)
	if err != nil || p.Status != 200 || len(p.Content) != 6000 {
		t.Fatalf("%+v, %v", p, err)
	}
	seen := s.seen.Load()
	for name := range seen.Header {
		switch name {
		case "From", "Content-Type", "Content-Length", "Accept-Encoding":
		default:
			t.Errorf("the gateway sees %s: %q", name, seen.Header[name])
		}
	}
	if seen.Header.Get("From") != "mimi@b.example" {
		t.Errorf("From %q", seen.Header.Get("From"))
	}
}

func TestWhatIsRefusedInside(t *testing.T) {
	s := newScene(t)
	key := s.keys(t)
	for name, c := range map[string]struct {
		q      *bhttp.Request
		status int
	}{
		"missing":         {s.get("/missing"), 404},
		"another host":    {&bhttp.Request{Method: "GET", Scheme: "https", Authority: "evil.example", Path: "/"}, 403},
		"an address":      {&bhttp.Request{Method: "GET", Scheme: "https", Authority: "127.0.0.1", Path: "/"}, 403},
		"http":            {&bhttp.Request{Method: "GET", Scheme: "http", Authority: s.host, Path: "/"}, 400},
		"no authority":    {&bhttp.Request{Method: "GET", Scheme: "https", Path: "/"}, 400},
		"moved authority": {&bhttp.Request{Method: "GET", Scheme: "https", Authority: s.host, Path: "@evil.example/"}, 403},
		"POST":            {&bhttp.Request{Method: "POST", Scheme: "https", Authority: s.host, Path: "/x"}, 405},
		"with content":    {&bhttp.Request{Method: "GET", Scheme: "https", Authority: s.host, Path: "/x", Content: []byte("x")}, 405},
	} {
		p, err := ohttp.Do(t.Context(), key, s.post("h.example"), c.q)
		if err != nil || p.Status != c.status && !(name == "moved authority" && p.Status == 400) || p.Get("content-type") != problem.MediaType {
			t.Errorf("%s: %+v, %v; want %d", name, p, err, c.status)
		}
	}
	if s.hits.Load() != 1 {
		t.Errorf("%d fetches, want that of /missing alone", s.hits.Load())
	}
}

func wantProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != status || p.Code != code {
		t.Errorf("%v, want %d %s", err, status, code)
	}
}

func TestRelayIsNoOpenProxy(t *testing.T) {
	s := newScene(t)
	key := s.keys(t)
	for _, gateway := range []string{"evil.example", "", "127.0.0.1", "h.example.evil.example", "H.example", "h.example/", "h.example:443"} {
		_, err := ohttp.Do(t.Context(), key, s.post(gateway), s.get("/x"))
		wantProblem(t, err, 403, "gateway")
	}
	_, err := ohttp.Do(t.Context(), key, s.post("gone.example"), s.get("/x"))
	wantProblem(t, err, 502, "upstream")
	if text := fmt.Sprint(err); strings.Contains(text, "gone.example") || strings.Contains(text, "dial") || strings.Contains(text, "127.") {
		t.Errorf("the client learns how the gateway could not be reached: %s", text)
	}
	resp, err := http.Post(s.url("h.example"), "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("another media type: %s", resp.Status)
	}
	resp, err = http.Post(s.url("h.example"), ohttp.MediaTypeRequest, strings.NewReader(strings.Repeat("x", 70_000)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge request: %s", resp.Status)
	}
	for _, sealed := range [][]byte{nil, {1, 2, 3}} {
		_, err := s.post("h.example")(t.Context(), sealed)
		wantProblem(t, err, 400, "malformed")
	}
}

// A client whose key has gone is told so, and goes on with the new one.
func TestKeyRotation(t *testing.T) {
	s := newScene(t)
	old := s.keys(t)
	s.now.Add(3600)
	if p, err := ohttp.Do(t.Context(), old, s.post("h.example"), s.get("/x")); err != nil || p.Status != 200 {
		t.Errorf("the key before: %+v, %v", p, err)
	}
	s.now.Add(3600)
	_, err := ohttp.Do(t.Context(), old, s.post("h.example"), s.get("/x"))
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != 400 || p.Type != ohttp.ProblemKey {
		t.Errorf("an old key: %+v", err)
	}
}

// The keys are for anybody, the gateway is for providers.
func TestGatewayWithoutCertificate(t *testing.T) {
	s := newScene(t)
	n := s.net
	c := &http.Client{Transport: &http.Transport{DialContext: n.DialContext, TLSClientConfig: &tls.Config{RootCAs: n.Roots}}}
	resp, err := c.Get("https://h.example" + hubohttp.KeysPath)
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Cache-Control"), "max-age=") {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	for path, want := range map[string]int{hubohttp.KeysPath: 405, "/v1/ohttpGateway": 401} {
		resp, err := c.Post("https://h.example"+path, ohttp.MediaTypeRequest, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
