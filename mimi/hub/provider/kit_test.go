package provider_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
	"github.com/privyseal/privyseal/mls"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const suite = mls.P256AES128SHA256P256

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func uri(t testing.TB, s string) mimi.URI { t.Helper(); return must[mimi.URI](t)(mimi.ParseURI(s)) }

// A world is providers on a small internet, with one CA that all of them
// believe for devices and hubs.
type world struct {
	t    testing.TB
	net  *peertest.Net
	ca   *identitytest.CA
	eval *identity.Evaluator
	hubs map[string]*node
	pg   bool
	// edges, if it is set, gives a node what it has beside rooms.
	edges func(*world, *node, *provider.Config)
	mods  []func(*provider.Config) // of every node that is started
}

func newWorld(t testing.TB, pg bool, hosts ...string) *world {
	t.Helper()
	return newWorldWith(t, pg, nil, hosts...)
}

func newWorldWith(t testing.TB, pg bool, edges func(*world, *node, *provider.Config), hosts ...string) *world {
	t.Helper()
	w := knownWorld(t, pg, hosts...)
	w.edges = edges
	for _, h := range hosts {
		w.hubs[h] = w.start(h, w.source(), newHubKeys(t, w.ca, h))
	}
	return w
}

// knownWorld is a world in which credentials of the hosts are believed, and no
// provider runs.
func knownWorld(t testing.TB, pg bool, hosts ...string) *world {
	t.Helper()
	w := &world{t: t, net: peertest.New(t), hubs: make(map[string]*node), pg: pg}
	w.ca, w.eval = identitytest.NewEvaluator(t, hosts...)
	return w
}

func (w *world) source() string {
	if w.pg {
		return pgtest.Database(w.t)
	}
	return filepath.Join(w.t.TempDir(), "provider.db")
}

// hubKeys are a hub's keys in software.
type hubKeys struct {
	keys   provider.Keys
	mac    mimi.SoftwareMAC
	franks *mimi.FrankingKeys
}

func newHubKeys(t testing.TB, ca *identitytest.CA, host string) *hubKeys {
	t.Helper()
	sender, franking := identitytest.NewKey(t), identitytest.NewKey(t)
	name := "mimi://" + host
	k := &hubKeys{mac: mimi.SoftwareMAC(rand.Text() + rand.Text())[:32], franks: new(mimi.FrankingKeys)}
	k.keys = provider.Keys{
		Sender:       mls.ExternalSender{SignatureKey: publicKey(t, sender), Credential: ca.Hub(t, &sender.PublicKey, name)},
		SenderSigner: sender,
		Franking:     mimi.FrankingAgent{SignatureKey: publicKey(t, franking), Credential: ca.Hub(t, &franking.PublicKey, name)},
		FrankSigner:  franking,
	}
	k.franks.AddMAC(0, mimi.MaxTimestamp, k.mac)
	k.franks.AddSignatureKey(0, mimi.MaxTimestamp, suite, k.keys.Franking.SignatureKey)
	return k
}

func publicKey(t testing.TB, k *ecdsa.PrivateKey) []byte { return must[[]byte](t)(k.PublicKey.Bytes()) }

// A node is one process of a provider.
type node struct {
	*provider.Service
	host   string
	url    string // of the client API
	source string
	keys   *hubKeys
	db     *sqldb.DB
	peer   *peer.Client
	roots  *x509.CertPool
	stop   func()

	endpoints []peer.Endpoint // beside those of the service
	routes    func(*peer.Server)
	watch     func(http.Handler) http.Handler // stands before what serves other providers
}

// start runs a provider on a database, which may have been used before.
func (w *world) start(host, source string, keys *hubKeys) *node {
	w.t.Helper()
	n := &node{host: host, source: source, keys: keys, db: must[*sqldb.DB](w.t)(provider.OpenDB(context.Background(), source)), peer: w.net.Client(w.t, host)}
	cfg := provider.Config{
		Domain: host, DB: n.db, Evaluator: hub.TrustEvaluator{Evaluator: w.eval}, MAC: keys.mac, Franks: keys.franks, Peers: n.peer,
		Keys: func(s mls.CipherSuite) *provider.Keys {
			if s != suite {
				return nil
			}
			return &keys.keys
		},
		Poll: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(logTo{w.t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, m := range w.mods {
		m(&cfg)
	}
	if w.edges != nil {
		w.edges(w, n, &cfg)
	}
	n.Service = must[*provider.Service](w.t)(provider.New(cfg))
	w.servePeers(n)
	clients := httptest.NewUnstartedServer(n.ClientHandler())
	clients.EnableHTTP2 = true
	clients.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	clients.StartTLS()
	n.url, n.roots = clients.URL, clients.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		clients.CloseClientConnections()
		clients.Close()
		<-done
		n.db.Close()
	}
	w.t.Cleanup(n.stop)
	return n
}

type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (w *world) servePeers(n *node) {
	directory := must[*peer.Directory](w.t)(peer.NewDirectory(n.host, append(provider.Endpoints(), n.endpoints...)...))
	s := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{n.host: n.host}, Directories: map[string]*peer.Directory{n.host: directory}, Chains: w.net.Chains(),
		Log: slog.New(slog.DiscardHandler),
	})
	n.ServePeers(s)
	if n.routes != nil {
		n.routes(s)
	}
	var h http.Handler = s
	if n.watch != nil {
		h = n.watch(s)
	}
	w.net.Serve(w.t, h, n.host)
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key := identitytest.NewKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"}, NotAfter: time.Now().Add(time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A person is a client with what it takes to open it again.
type person struct {
	*client.Client
	t    testing.TB
	cfg  client.Config
	name string
}

// person opens and registers a client named like alice/phone@a.example.
func (w *world) person(name string, mods ...func(*client.Config)) *person {
	w.t.Helper()
	local, host, _ := strings.Cut(name, "@")
	user, _, _ := strings.Cut(local, "/")
	key := identitytest.NewKey(w.t)
	n := w.hubs[host]
	p := &person{t: w.t, name: name, cfg: client.Config{
		State: filepath.Join(w.t.TempDir(), "state.db"),
		Custody: client.Custody{
			Mode: client.Device, Key: key,
			Credential: w.ca.Client(w.t, &key.PublicKey, fmt.Sprintf("mimi://%s/d/%s", host, local), fmt.Sprintf("mimi://%s/u/%s", host, user)),
		},
		Judge: client.TrustJudge{Evaluator: w.eval}, Provider: n.url, KeyPackages: 3,
		TLS: &tls.Config{RootCAs: n.roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{selfSigned(w.t)}},
	}}
	for _, m := range mods {
		m(&p.cfg)
	}
	p.Client = must[*client.Client](w.t)(client.Open(context.Background(), p.cfg))
	c := p.Client
	w.t.Cleanup(func() { c.Close() })
	must[any](w.t)(p.Register(w.t.Context(), nil))
	return p
}

// reopen closes the client and opens it again, as its configuration is now.
func (p *person) reopen() {
	p.t.Helper()
	ok(p.t, p.Client.Close())
	p.Client = must[*client.Client](p.t)(client.Open(context.Background(), p.cfg))
	c := p.Client
	p.t.Cleanup(func() { c.Close() })
}

func (p *person) room(s string) *client.Room {
	p.t.Helper()
	return must[*client.Room](p.t)(p.Room(p.t.Context(), uri(p.t, s)))
}

// create makes a room with others in it.
func (p *person) create(s string, others ...*person) *client.Room {
	p.t.Helper()
	r := must[*client.Room](p.t)(p.CreateRoom(p.t.Context(), uri(p.t, s), client.RoomOptions{Metadata: mimi.RoomMetaData{RoomName: "Clubhouse"}}))
	for _, o := range others {
		must[*client.Committed](p.t)(r.Add(p.t.Context(), o.User(), client.AddOptions{}))
		o.until("it is in the room", func() bool { return o.status(s) == client.RoomMember })
	}
	return r
}

func (p *person) status(s string) client.RoomStatus {
	r, err := p.Room(p.t.Context(), uri(p.t, s))
	if err != nil {
		return ""
	}
	status, _ := r.Status()
	return status
}

// until takes in events until something is so.
func (p *person) until(what string, so func() bool) {
	p.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ok(p.t, p.Sync(p.t.Context()))
		if so() {
			return
		}
		if time.Now().After(end) {
			p.nothingRefused()
			var rooms []string
			for _, r := range must[[]*client.Room](p.t)(p.Rooms(p.t.Context())) {
				status, detail := r.Status()
				i, err := r.Info(p.t.Context())
				if err == nil {
					detail += fmt.Sprintf(" epoch %d", i.Epoch)
				}
				rooms = append(rooms, fmt.Sprintf("%s: %s %s", r.URI(), status, detail))
			}
			p.t.Fatalf("%s: %s did not come true; %s", p.name, what, strings.Join(rooms, "; "))
		}
	}
}

func (p *person) epoch(s string) uint64 {
	p.t.Helper()
	return must[*client.Info](p.t)(p.room(s).Info(p.t.Context())).Epoch
}

func (p *person) say(room, text string) *client.Sent {
	p.t.Helper()
	s := must[*client.Sent](p.t)(p.room(room).Text(p.t.Context(), text))
	if s.NotFranked != "" {
		p.t.Fatalf("%s: own message is not franked: %s", p.name, s.NotFranked)
	}
	return s
}

// texts are the texts of a room's messages, which must all be franked.
func (p *person) texts(room string) string {
	p.t.Helper()
	var list []string
	for _, m := range must[[]*client.Message](p.t)(p.room(room).Messages(p.t.Context(), time.Time{})) {
		if m.NotFranked != "" {
			p.t.Errorf("%s: a message is not franked: %s", p.name, m.NotFranked)
		}
		list = append(list, textOf(m.Content))
	}
	return strings.Join(list, " ")
}

func (p *person) hears(room, want string) {
	p.t.Helper()
	p.until(fmt.Sprintf("it has %q (and has %q)", want, p.texts(room)), func() bool { return p.texts(room) == want })
}

func (p *person) nothingRefused() {
	p.t.Helper()
	for _, f := range must[[]client.Refused](p.t)(p.Refused(p.t.Context())) {
		p.t.Errorf("%s refused: %s", p.name, f.Reason)
	}
}

// onBoth runs a story on both engines.
func onBoth(t *testing.T, story func(t *testing.T, pg bool)) {
	t.Run("SQLite", func(t *testing.T) { story(t, false) })
	t.Run("PostgreSQL", func(t *testing.T) { story(t, true) })
}
