package provider_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	hubohttp "github.com/privyseal/privyseal/mimi/hub/ohttp"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/policy"
)

// An assetWorld has a.example keep assets and be the gateway to them; each
// provider is a relay to that gateway.
type assetWorld struct {
	*world
	dir   string // of the files of a.example
	store *asset.Store

	mu   sync.Mutex // guards seen
	seen []seenRequest
}

// A seenRequest is one that a.example got from another provider.
type seenRequest struct {
	path   string
	header http.Header
	body   []byte
}

func newAssetWorld(t *testing.T, hosts ...string) *assetWorld {
	t.Helper()
	a := &assetWorld{dir: filepath.Join(t.TempDir(), "assets")}
	a.world = newWorldWith(t, false, a.serve, hosts...)
	return a
}

// serve gives a node its part of the assets.
func (a *assetWorld) serve(w *world, n *node, cfg *provider.Config) {
	t := w.t
	relay := hubohttp.NewRelay(n.peer, func(p string) bool { return p == "a.example" }).Handler(clientapi.PathOHTTP + "/")
	cfg.Extra = map[string]http.Handler{"GET " + clientapi.PathOHTTP + "/{gateway}": relay, "POST " + clientapi.PathOHTTP + "/{gateway}": relay}
	if n.host != "a.example" {
		return
	}
	var public http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.store.Handler("/").ServeHTTP(w, r) })
	_, port, _ := strings.Cut(w.net.Serve(t, public, "assets.a.example"), ":")
	host := "assets.a.example:" + port
	a.store = must[*asset.Store](t)(asset.OpenStore(t.Context(), filepath.Join(t.TempDir(), "assets.db"), asset.StoreConfig{Dir: a.dir, BaseURL: "https://" + host + "/"}, sqldb.Options{}))
	t.Cleanup(func() { a.store.Close() })
	proxy := must[*asset.Proxy](t)(asset.NewProxy(asset.ProxyConfig{
		Dir: t.TempDir(), MaxSize: func() int64 { return 1 << 20 }, Hosts: func(h string) bool { return h == host },
		Client: safehttp.New(safehttp.Config{
			Roots: w.net.Roots, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Resolver: safehttptest.NameServer(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") }),
		}),
	}))
	cfg.Extra["POST "+clientapi.PathAssets] = serving(func(w http.ResponseWriter, r *http.Request) error {
		return a.store.Upload(w, r, provider.CallerOf(r.Context()).User)
	})
	cfg.Extra["GET "+clientapi.PathDownload+"/{url}"] = serving(func(w http.ResponseWriter, r *http.Request) error {
		return proxy.Serve(w, r, r.PathValue("url"))
	})
	n.endpoints = []peer.Endpoint{peer.OHTTPGateway}
	n.routes = hubohttp.NewGateway(must[*ohttp.Keys](t)(ohttp.NewKeys(nil, time.Hour, nil)), proxy, 0).Routes
	n.watch = a.watch
}

func serving(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			problem.Of(err).Write(w)
		}
	})
}

// watch notes all that a.example learns of a request.
func (a *assetWorld) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			problem.Of(err).Write(w)
			return
		}
		a.mu.Lock()
		a.seen = append(a.seen, seenRequest{r.URL.String(), r.Header.Clone(), body})
		a.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func (a *assetWorld) take() []seenRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen
	a.seen = nil
	return s
}

// fileOf is where a.example keeps the asset of a message.
func (a *assetWorld) fileOf(p *person, id content.MessageID) string {
	a.t.Helper()
	m := must[*client.Message](a.t)(p.room(clubhouse).Message(a.t.Context(), id))
	url := m.Content.Body.Content.(*content.ExternalPart).URL
	return filepath.Join(a.dir, url[strings.LastIndex(url, "/")+1:])
}

func by(way policy.DownloadPrivacyType) client.FetchOptions { return client.FetchOptions{By: &way} }

// Alice attaches pictures at her provider, and bob of another fetches them by
// Oblivious HTTP: hers learns that a client of his asks, and not which, and his
// not what for. What was changed or is too long is refused.
func TestAssetsByObliviousHTTP(t *testing.T) {
	a := newAssetWorld(t, "a.example", "b.example")
	alice := a.person("alice/phone@a.example")
	bob := a.person("bob/tablet@b.example", func(c *client.Config) { c.FetchJitter = time.Millisecond })
	r := alice.create(clubhouse, bob)
	picture := func(i byte) client.Attachment {
		return client.Attachment{Octets: bytes.Repeat([]byte{i}, 3000), ContentType: "image/png", Filename: "cat.png"}
	}
	var ids []content.MessageID
	for i := range 5 {
		ids = append(ids, must[*client.Sent](t)(r.Attach(t.Context(), picture(byte(i)))).ID)
	}
	if b := must[[]byte](t)(os.ReadFile(a.fileOf(alice, ids[0]))); bytes.Contains(b, picture(0).Octets[:32]) {
		t.Error("the provider keeps the picture in the clear")
	}
	theirs := func() *client.Room { return bob.room(clubhouse) }
	bob.until("the pictures are announced", func() bool {
		return len(must[[]*client.Message](t)(theirs().Messages(t.Context(), noTime))) == len(ids)
	})
	a.take()
	got := must[*client.Attachment](t)(theirs().Fetch(t.Context(), ids[0], by(policy.DownloadOHTTP)))
	if !bytes.Equal(got.Octets, picture(0).Octets) || got.Filename != "cat.png" {
		t.Errorf("bob got %d octets of %q", len(got.Octets), got.Filename)
	}
	a.learnsLittle(a.take(), filepath.Base(a.fileOf(alice, ids[0])))

	spoil := func(id content.MessageID, change func([]byte) []byte) {
		t.Helper()
		path := a.fileOf(alice, id)
		ok(t, os.WriteFile(path, change(must[[]byte](t)(os.ReadFile(path))), 0o600))
	}
	spoil(ids[1], func(b []byte) []byte { b[100] ^= 1; return b })
	spoil(ids[2], func(b []byte) []byte { return append(b, make([]byte, 100)...) })
	spoil(ids[3], func(b []byte) []byte { return append(b, make([]byte, 100_000)...) })
	for i, want := range []error{content.ErrAssetHash, client.ErrAssetTooLarge, client.ErrAssetTooLarge} {
		if _, err := theirs().Fetch(t.Context(), ids[i+1], by(policy.DownloadOHTTP)); !errors.Is(err, want) {
			t.Errorf("picture %d that was changed: %v, want %v", i+1, err, want)
		}
	}
	ok(t, os.Remove(a.fileOf(alice, ids[4])))
	var p *problem.Problem
	if _, err := theirs().Fetch(t.Context(), ids[4], by(policy.DownloadOHTTP)); !errors.As(err, &p) || p.Status != http.StatusNotFound {
		t.Errorf("a picture that is gone: %v", err)
	}

	// Unasked, what was taken back is not fetched.
	unasked := by(policy.DownloadOHTTP)
	unasked.Unasked = true
	must[*client.Attachment](t)(theirs().Fetch(t.Context(), ids[0], unasked))
	must[*client.Sent](t)(r.Delete(t.Context(), ids[0]))
	bob.until("the picture is taken back", func() bool {
		e := must[*content.Timeline](t)(theirs().Timeline(t.Context())).Entry(ids[0])
		return e != nil && e.Deleted()
	})
	if _, err := theirs().Fetch(t.Context(), ids[0], unasked); !errors.Is(err, client.ErrNotFetched) {
		t.Errorf("a picture that was taken back: %v", err)
	}
}

// learnsLittle looks for the fetching client in what the hub's provider got, and
// for what is fetched in what is not sealed to it.
func (a *assetWorld) learnsLittle(seen []seenRequest, name string) {
	a.t.Helper()
	gateway := 0
	for _, s := range seen {
		if s.header.Get("Content-Type") == ohttp.MediaTypeRequest {
			gateway++
		}
		var text strings.Builder
		text.WriteString(s.path)
		s.header.Write(&text)
		text.Write(s.body)
		for _, word := range []string{"bob", "tablet", "127.0.0.1", name} {
			if strings.Contains(text.String(), word) {
				a.t.Errorf("the hub's provider got a request with %q: %q", word, text.String())
			}
		}
	}
	if gateway != 1 {
		a.t.Errorf("the gateway got %d requests, want 1", gateway)
	}
}

// The room's policy says how assets are fetched: a way that it forbids is not
// taken, whoever asks.
func TestAssetsByThePolicy(t *testing.T) {
	a := newAssetWorld(t, "a.example")
	alice := a.person("alice/phone@a.example")
	p := policy.AssetPolicy{MaxImage: 100, DownloadPrivacy: policy.DownloadPrivacy{
		Forbidden: []policy.DownloadPrivacyType{policy.DownloadHubProxy}, Default: policy.DownloadOHTTP,
	}}
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{
		Components: map[policy.ComponentID][]byte{policy.ComponentAssets: p.Marshal()},
	}))
	sent := must[*client.Sent](t)(r.Attach(t.Context(), client.Attachment{Octets: []byte("a picture"), ContentType: "image/png"}))
	a.take()
	must[*client.Attachment](t)(r.Fetch(t.Context(), sent.ID, client.FetchOptions{}))
	if n := len(a.take()); n == 0 {
		t.Error("it was not fetched by Oblivious HTTP")
	}
	if _, err := r.Fetch(t.Context(), sent.ID, by(policy.DownloadHubProxy)); !errors.Is(err, client.ErrAssetPolicy) {
		t.Errorf("by a way that is forbidden: %v", err)
	}
	if _, err := r.Fetch(t.Context(), alice.say(clubhouse, "no picture").ID, client.FetchOptions{}); !errors.Is(err, client.ErrNoAsset) {
		t.Errorf("of a text: %v", err)
	}
}
