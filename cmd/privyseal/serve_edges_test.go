package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub/consent"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

// An edgesTest is a.example served with all of its edges, on a net with
// b.example.
type edgesTest struct {
	*providerTest
	*served
	net   *peertest.Net
	peer  *peer.Client // b.example
	alice *http.Client // a client of mimi://a.example/u/alice
}

func newEdgesTest(t *testing.T) *edgesTest {
	t.Helper()
	e := &edgesTest{providerTest: newProviderTest(t), net: peertest.New(t)}
	e.open(t)
	e.served = serveTest(t, e.wiring)
	e.net.Name("a.example", e.addr["peers"])
	e.peer = e.net.Client(t, "b.example")
	e.eventually("ready", func() bool { code, _ := e.page("/health/ready"); return code == http.StatusOK })
	config := deviceTLS(t, e.roots)
	member(t, e.ca, e.served, e.judge, config, "alice")
	e.alice = &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}, Timeout: 30 * time.Second}
	return e
}

// open configures all edges of the provider.
func (e *edgesTest) open(t *testing.T) {
	t.Helper()
	address := freeAddress(t)
	serve := e.config.Serve
	e.peerFiles(t, serve.Provider.Domain)
	_, port, _ := net.SplitHostPort(address)
	serve.Listeners["peers"] = &ListenerSection{Address: address, Certificate: "peers.pem", Key: "peers.key", ClientAuth: "asked"}
	serve.Provider.Peers, serve.Provider.PeerRoots = "peers", "roots.pem"
	serve.Provider.EdgesSection = EdgesSection{
		Assets: &AssetsSection{BaseURL: "https://localhost:" + port + assetsPath, AllowPrivate: []string{"127.0.0.0/8", "::1/128"}, CAFile: "roots.pem"},
		OHTTP:  &OHTTPSection{Gateways: []string{"a.example"}},
	}
	e.dialPeers = e.net.DialContext
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// peerFiles writes what a provider shows to other providers. Its certificate is
// one for servers, as public CAs issue them.
func (e *edgesTest) peerFiles(t *testing.T, host string) {
	t.Helper()
	cert := e.net.Certificate(t, host, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"peers.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "peers.key": {Type: "PRIVATE KEY", Bytes: key},
		"roots.pem": {Type: "CERTIFICATE", Bytes: e.net.CA.Raw},
	} {
		if err := os.WriteFile(filepath.Join(e.config.dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// ask is a request of alice.
func (e *edgesTest) ask(t *testing.T, method, path, mediaType string, body []byte) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+e.addr["clients"]+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaType)
	resp, err := e.alice.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

func parseURI(t *testing.T, text string) mimi.URI {
	t.Helper()
	u, err := mimi.ParseURI(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestServeEdges calls every endpoint of the directory over mutual TLS, and then
// uses those that are beside rooms.
func TestServeEdges(t *testing.T) {
	e := newEdgesTest(t)
	t.Run("directory", e.testDirectory)
	t.Run("consent", e.testConsent)
	t.Run("identifierQuery", e.testQuery)
	t.Run("assets", e.testAssets)
}

// testDirectory finds each endpoint there: it knows the peer and refuses an
// empty body.
func (e *edgesTest) testDirectory(t *testing.T) {
	b, _, err := e.peer.Get(t.Context(), "a.example", peer.DirectoryPath, "application/json", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	d, err := peer.ParseDirectory(b)
	if err != nil {
		t.Fatal(err)
	}
	for endpoint, about := range map[peer.Endpoint]string{
		peer.KeyMaterial: "mimi://a.example/u/alice", peer.Update: "mimi://a.example/r/x", peer.Notify: "mimi://b.example/r/x",
		peer.SubmitMessage: "mimi://a.example/r/x", peer.GroupInfo: "mimi://a.example/r/x", peer.ReportAbuse: "mimi://a.example/r/x",
		peer.RequestConsent: "a.example", peer.UpdateConsent: "a.example", peer.IdentifierQuery: "a.example",
		peer.ProxyDownload: "https://elsewhere.example/x", peer.OHTTPGateway: "", peer.OHTTPRelay: "elsewhere.example",
	} {
		if !d.Has(endpoint) {
			t.Errorf("%s is not in the directory", endpoint)
			continue
		}
		_, err := e.peer.Do(t.Context(), "a.example", endpoint, about, nil)
		var p *problems.Problem
		if !errors.As(err, &p) || p.Status == http.StatusNotFound || p.Status == http.StatusUnauthorized || p.Status >= 500 {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// A courier is that of b.example.
type courier struct {
	peer *peer.Client
	mu   sync.Mutex // guards told
	told []*mimi.ConsentEntry
}

func (c *courier) Send(ctx context.Context, provider string, e *mimi.ConsentEntry) error {
	return consent.SendTo(ctx, c.peer, provider, e)
}

func (c *courier) Notify(_ context.Context, _ mimi.URI, e *mimi.ConsentEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, e)
	return nil
}

func (c *courier) has(op mimi.ConsentOperation) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.told {
		if e.Operation == op {
			return true
		}
	}
	return false
}

// serveB serves the consents of b.example.
func (e *edgesTest) serveB(t *testing.T) *courier {
	t.Helper()
	s, err := consent.Open(t.Context(), filepath.Join(t.TempDir(), "b.db"), consent.Config{
		Serves:     func(d string) bool { return d == "b.example" },
		UserExists: func(context.Context, mimi.URI) (bool, error) { return true, nil },
		Log:        slog.New(slog.NewTextHandler(t.Output(), nil)),
	}, sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := peer.NewDirectory("b.example", peer.RequestConsent, peer.UpdateConsent)
	if err != nil {
		t.Fatal(err)
	}
	server := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{"b.example": "b.example"}, Directories: map[string]*peer.Directory{"b.example": dir}, Chains: e.net.Chains(),
	})
	s.Routes(server)
	e.net.Serve(t, server, "b.example")
	c := &courier{peer: e.peer}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx, c) })
	t.Cleanup(func() { cancel(); wg.Wait(); s.Close() })
	return c
}

// testConsent has bob of b.example ask alice, who is told by her provider and
// grants it; bob's provider is told.
func (e *edgesTest) testConsent(t *testing.T) {
	b := e.serveB(t)
	scope := mimi.ConsentScope{RequesterURI: parseURI(t, "mimi://b.example/u/bob"), TargetURI: parseURI(t, "mimi://a.example/u/alice")}
	if err := consent.SendTo(t.Context(), e.peer, "a.example", &mimi.ConsentEntry{Operation: mimi.ConsentRequest, ConsentScope: scope}); err != nil {
		t.Fatal(err)
	}
	if got := e.consentEvent(t); got.ConsentScope != scope || got.Operation != mimi.ConsentRequest {
		t.Errorf("alice was told %+v", got)
	}
	grant := &mimi.ConsentEntry{Operation: mimi.ConsentGrant, ConsentScope: scope}
	if code, body := e.ask(t, "POST", clientapi.PathConsent, clientapi.ContentType, grant.Marshal()); code != http.StatusNoContent {
		t.Fatalf("grant: %d %s", code, body)
	}
	e.eventually("b.example is told of the grant", func() bool { return b.has(mimi.ConsentGrant) })
	scope.TargetURI, scope.RequesterURI = scope.RequesterURI, parseURI(t, "mimi://a.example/u/eve")
	forged := &mimi.ConsentEntry{Operation: mimi.ConsentRequest, ConsentScope: scope}
	if code, body := e.ask(t, "POST", clientapi.PathConsent, clientapi.ContentType, forged.Marshal()); code != http.StatusForbidden {
		t.Errorf("alice asks as eve: %d %s", code, body)
	}
}

// consentEvent waits for an event of a consent.
func (e *edgesTest) consentEvent(t *testing.T) *mimi.ConsentEntry {
	t.Helper()
	q := &clientapi.EventQuery{Wait: 20 * time.Second}
	for range 20 {
		code, b := e.ask(t, "GET", clientapi.PathEvents+"?"+q.Values().Encode(), clientapi.ContentType, nil)
		if code != http.StatusOK {
			t.Fatalf("events: %d %s", code, b)
		}
		r := clientapi.NewEventReader(bytes.NewReader(b), q)
		for event, err := r.Next(); err == nil; event, err = r.Next() {
			if event == nil {
				continue
			}
			q.After = event.Seq
			if event.Kind == clientapi.EventConsent {
				entry, err := mimi.ParseConsentEntry(event.Payload)
				if err != nil {
					t.Fatal(err)
				}
				return entry
			}
		}
	}
	t.Fatal("no event of a consent")
	return nil
}

func (e *edgesTest) testQuery(t *testing.T) {
	q := &mimi.IdentifierRequest{QueryElements: []mimi.QueryElement{{SearchType: mimi.SearchHandle, SearchValue: "mimi://a.example/u/nobody"}}}
	b, err := e.peer.Do(t.Context(), "a.example", peer.IdentifierQuery, "a.example", q.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := mimi.ParseIdentifierResponse(b); err != nil || p.ResponseCode != mimi.QueryNotFound {
		t.Errorf("a peer is answered %+v, %v", p, err)
	}
	code, b := e.ask(t, "POST", clientapi.IdentifierPath("a.example"), clientapi.ContentType, q.Marshal())
	if p, err := mimi.ParseIdentifierResponse(b); code != http.StatusOK || err != nil || p.ResponseCode != mimi.QueryNotFound {
		t.Errorf("a client is answered %d %+v, %v", code, p, err)
	}
	if code, _ := e.ask(t, "POST", clientapi.IdentifierPath("nowhere.example"), clientapi.ContentType, q.Marshal()); code != http.StatusBadGateway {
		t.Errorf("a provider that is not there: %d", code)
	}
	for _, no := range []string{"127.0.0.1:22", "Nowhere", "[::1]", "a.example.:8443"} {
		if code, _ := e.ask(t, "POST", clientapi.IdentifierPath(no), clientapi.ContentType, q.Marshal()); code != http.StatusBadRequest {
			t.Errorf("%q, which is no provider: %d", no, code)
		}
	}
	e.testProfile(t)
}

// testProfile has alice be found by what she tells, by others and here, and by
// nothing else.
func (e *edgesTest) testProfile(t *testing.T) {
	find := func(kind mimi.SearchIdentifierType, value string) *mimi.IdentifierResponse {
		t.Helper()
		q := &mimi.IdentifierRequest{QueryElements: []mimi.QueryElement{{SearchType: kind, SearchValue: value}}}
		b, err := e.peer.Do(t.Context(), "a.example", peer.IdentifierQuery, "a.example", q.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		p, err := mimi.ParseIdentifierResponse(b)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const user = "mimi://a.example/u/alice"
	if p := find(mimi.SearchHandle, user); p.ResponseCode != mimi.QueryNotFound {
		t.Errorf("who has told the directory nothing is found: %+v", p)
	}
	profile := clientapi.Profile{Fields: []clientapi.ProfileField{
		{Source: clientapi.ProfileOIDC, Name: "name", Value: "Alice Liddell", Searchable: true, Disclosable: true},
		{Source: clientapi.ProfileOIDC, Name: "email", Value: "alice@wonder.example", Searchable: true},
		{Source: clientapi.ProfileVCard, Name: "NOTE", Value: "curious"},
	}}
	if code, b := e.ask(t, "PUT", clientapi.PathProfile, clientapi.ContentType, profile.Marshal()); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, b)
	}
	code, b := e.ask(t, "GET", clientapi.PathProfile, clientapi.ContentType, nil)
	if got, err := clientapi.ParseProfile(b); code != http.StatusOK || err != nil || string(got.Marshal()) != string(profile.Marshal()) {
		t.Errorf("%d %+v %v", code, got, err)
	}
	for name, c := range map[string]struct {
		kind  mimi.SearchIdentifierType
		value string
		want  mimi.IdentifierQueryCode
	}{
		"by a part of the name":         {mimi.SearchPartialName, "liddell", mimi.QuerySuccess},
		"by the address":                {mimi.SearchEmail, "alice@wonder.example", mimi.QuerySuccess},
		"by a note that is not told":    {mimi.SearchWholeProfile, "curious", mimi.QueryNotFound},
		"by the URI, which is not told": {mimi.SearchHandle, user, mimi.QueryNotFound},
	} {
		p := find(c.kind, c.value)
		if p.ResponseCode != c.want {
			t.Errorf("%s: %+v", name, p)
		}
		if c.want != mimi.QuerySuccess {
			continue
		}
		if len(p.URIs) != 1 || p.URIs[0].String() != user || len(p.FoundProfiles) != 1 || len(p.FoundProfiles[0].Fields) != 1 || string(p.FoundProfiles[0].Fields[0].Value) != "Alice Liddell" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	unknown := clientapi.Profile{Fields: []clientapi.ProfileField{{Source: 3, Name: "x", Value: "y"}}}
	for _, body := range [][]byte{unknown.Marshal(), []byte("nonsense"), {2, 0}} {
		if code, _ := e.ask(t, "PUT", clientapi.PathProfile, clientapi.ContentType, body); code != http.StatusBadRequest {
			t.Errorf("a profile %x gets %d", body, code)
		}
	}
	if code, _ := e.ask(t, "DELETE", clientapi.PathProfile, clientapi.ContentType, nil); code != http.StatusNoContent {
		t.Errorf("%d", code)
	}
	if p := find(mimi.SearchPartialName, "liddell"); p.ResponseCode != mimi.QueryNotFound {
		t.Errorf("who has taken it back is found: %+v", p)
	}
	limited := false
	for range 200 { // searching is limited by user
		if code, _ := e.ask(t, "PUT", clientapi.PathProfile, clientapi.ContentType, profile.Marshal()); code == http.StatusTooManyRequests {
			limited = true
			break
		}
	}
	if !limited {
		t.Error("the directory may be told without end")
	}
}

// testAssets uploads an asset and fetches it in each of the ways.
func (e *edgesTest) testAssets(t *testing.T) {
	content := bytes.Repeat([]byte("sealed "), 1000)
	code, b := e.ask(t, "POST", clientapi.PathAssets, clientapi.ContentType, content)
	if code != http.StatusCreated {
		t.Fatalf("upload: %d %s", code, b)
	}
	up, err := clientapi.ParseAsset(b)
	if err != nil {
		t.Fatal(err)
	}
	name := up.URL[strings.LastIndex(up.URL, "/")+1:]
	if code, b := e.ask(t, "GET", clientapi.PathAssets+"/"+name, clientapi.ContentType, nil); code != http.StatusOK || !bytes.Equal(b, content) {
		t.Errorf("own asset: %d, %d octets", code, len(b))
	}
	if code, b := e.ask(t, "GET", clientapi.DownloadPath(up.URL), clientapi.ContentType, nil); code != http.StatusOK || !bytes.Equal(b, content) {
		t.Errorf("download: %d %.200s", code, b)
	}
	if code, _ := e.ask(t, "GET", clientapi.DownloadPath("https://elsewhere.example/x"), clientapi.ContentType, nil); code != http.StatusForbidden {
		t.Errorf("download from elsewhere: %d", code)
	}
	if b, err := e.peer.Do(t.Context(), "a.example", peer.ProxyDownload, up.URL, nil); err != nil || !bytes.Equal(b, content) {
		t.Errorf("proxyDownload: %d octets, %v", len(b), err)
	}
	e.testOHTTP(t, up.URL, content)
}

func (e *edgesTest) testOHTTP(t *testing.T, asset string, content []byte) {
	code, b := e.ask(t, "GET", clientapi.OHTTPPath("a.example"), ohttp.MediaTypeKeys, nil)
	keys, err := ohttp.ParseKeys(b)
	if code != http.StatusOK || err != nil {
		t.Fatalf("keys: %d %s, %v", code, b, err)
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(asset, "https://"), "/")
	post := func(_ context.Context, sealed []byte) ([]byte, error) {
		code, b := e.ask(t, "POST", clientapi.OHTTPPath("a.example"), ohttp.MediaTypeRequest, sealed)
		if code != http.StatusOK {
			return nil, errors.New(string(b))
		}
		return b, nil
	}
	p, err := ohttp.Do(t.Context(), keys[0], post, &bhttp.Request{Method: "GET", Scheme: "https", Authority: host, Path: "/" + path})
	if err != nil || p.Status != http.StatusOK || !bytes.Equal(p.Content, content) {
		t.Errorf("by Oblivious HTTP: %+v, %v", p, err)
	}
}

// TestServeEdgesConfig holds the edges to their rules.
func TestServeEdgesConfig(t *testing.T) {
	const listeners = `"listeners":{"c":{"address":":1","certificate":"c","key":"k","client_auth":"any"},"p":{"address":":2","certificate":"c","key":"k","client_auth":"asked"}}`
	provider := func(more string) []byte {
		return []byte(`{"version":1,"devices":{},"serve":{` + listeners + `,"provider":{"domain":"a.example","clients":"c","peers":"p","peer_roots":"r","trust":"t","mac_key":"m",
			"keys":[{"suite":2,"sender_key":"s","sender_certificate":"s","frank_key":"f","frank_certificate":"f"}]` + more + `}}}`)
	}
	if _, err := ParseConfig(provider(`,"consent":{"unasked":"none"},"limits":{"endpoints":{"keyMaterial":{"per_second":1}}},"assets":{},"ohttp":{"gateways":["b.example"]}`)); err != nil {
		t.Error(err)
	}
	for more, want := range map[string]string{
		`,"consent":{"unasked":"some"}`:                            "use own, all or none",
		`,"limits":{"endpoints":{"keymaterial":{"per_second":1}}}`: "no endpoint",
		`,"limits":{"endpoints":{"keyMaterial":{"burst":1}}}`:      "per_second above 0",
		`,"limits":{"requester":{"per_second":0}}`:                 "per_second above 0",
		`,"limits":{"claims":{"all":-1}}`:                          "negative",
		`,"limits":{"assets":{"per_second":0}}`:                    "per_second above 0",
		`,"peers_allow_private":["10.0.0.0"]`:                      "peers_allow_private",
		`,"assets":{"listener":"x"}`:                               "no listener",
		`,"assets":{"base_url":"http://a.example/"}`:               "base_url",
		`,"assets":{"allow_private":["10.0.0.0"]}`:                 "allow_private",
		`,"ohttp":{}`:                          "needs assets and peers",
		`,"Assets":{}`:                         `no member "Assets"`,
		`,"assets":{"hosts":[],"folders":"x"}`: `no member "folders"`,
		`,"EdgesSection":{}`:                   `no member "EdgesSection"`,
	} {
		if _, err := ParseConfig(provider(more)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", more, err, want)
		}
	}
}
