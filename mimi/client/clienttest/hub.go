// Package clienttest has a provider for tests of clients: the decisions are
// those of package hub, and everything is kept in memory. [Faults] stands
// between a client and it, and loses, delays and repeats what passes.
package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A Hub is the hub of all rooms of one provider, and serves the clients of
// every host that it was made for.
type Hub struct {
	CA        *identitytest.CA
	Evaluator *identity.Evaluator
	URL       string
	Host      string

	server   *httptest.Server
	config   hub.Config
	agent    mimi.FrankingAgent       // of new rooms
	frankers map[string]*mimi.Franker // by the agent's key
	keys     *mimi.FrankingKeys

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	seq     uint64
	oldest  uint64 // cursor below which events are not kept
	devices map[[32]byte]*device
	rooms   map[mimi.URI]*hosted
	answers map[[32]byte][]byte // to requests that were accepted
	assets  map[string][]byte
}

// A device is one registered client.
type device struct {
	client, user mimi.URI
	key          []byte
	packages     []*mls.KeyPackage
	last         *mls.KeyPackage
	events       []*clientapi.Event
}

// A hosted room is one of the hub's, with what joiners were told.
type hosted struct {
	room  *hub.Room
	told  map[mimi.URI]*hub.Joining
	codes map[string]policy.JoinCode
}

// NewHub starts a provider named by the first host. It believes in one CA for
// clients and hubs of all hosts. It serves HTTPS with mutual TLS on loopback
// and ends with the test.
func NewHub(tb testing.TB, hosts ...string) *Hub {
	tb.Helper()
	ca, evaluator := identitytest.NewEvaluator(tb, hosts...)
	return NewHubOf(tb, hosts[0], ca, evaluator)
}

// NewHubOf starts a provider of a host whose own keys are certified by a CA,
// and which believes what an Evaluator believes.
func NewHubOf(tb testing.TB, host string, ca *identitytest.CA, evaluator *identity.Evaluator) *Hub {
	tb.Helper()
	h := &Hub{
		CA: ca, Evaluator: evaluator, Host: host, changed: make(chan struct{}), keys: new(mimi.FrankingKeys),
		devices: make(map[[32]byte]*device), rooms: make(map[mimi.URI]*hosted), answers: make(map[[32]byte][]byte), assets: make(map[string][]byte),
	}
	h.configure(tb)
	h.server = httptest.NewUnstartedServer(h.routes())
	h.server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	h.server.EnableHTTP2 = true
	h.server.StartTLS()
	h.URL = h.server.URL
	tb.Cleanup(h.server.Close)
	return h
}

const suite = mls.P256AES128SHA256P256

func (h *Hub) configure(tb testing.TB) {
	sender := identitytest.NewKey(tb)
	name := "mimi://" + h.Host
	uri, err := mimi.ParseURI(name)
	if err != nil {
		tb.Fatal(err)
	}
	external := mls.ExternalSender{SignatureKey: publicKey(tb, sender), Credential: h.CA.Hub(tb, &sender.PublicKey, name)}
	h.keys.AddMAC(0, mimi.MaxTimestamp, mac)
	h.frankers = make(map[string]*mimi.Franker)
	h.newFranking(tb)
	h.config = hub.Config{
		Provider: uri, Evaluator: hub.TrustEvaluator{Evaluator: h.Evaluator}, Now: time.Now,
		SenderKey: func(s mls.CipherSuite) *hub.SenderKey {
			if s != suite {
				return nil
			}
			return &hub.SenderKey{Sender: external, Signer: sender}
		},
		FrankingAgent: func(mls.CipherSuite) *mimi.FrankingAgent { return &h.agent },
	}
}

var mac = mimi.SoftwareMAC("0123456789abcdef0123456789abcdef")

// newFranking makes the key that new rooms are franked with.
func (h *Hub) newFranking(tb testing.TB) {
	franking := identitytest.NewKey(tb)
	h.agent = mimi.FrankingAgent{SignatureKey: publicKey(tb, franking), Credential: h.CA.Hub(tb, &franking.PublicKey, "mimi://"+h.Host)}
	h.frankers[string(h.agent.SignatureKey)] = &mimi.Franker{CipherSuite: suite, MAC: mac, Signer: franking}
	h.keys.AddSignatureKey(0, mimi.MaxTimestamp, suite, h.agent.SignatureKey)
}

// RotateFranking has the hub propose another franking key for a room.
func (h *Hub) RotateFranking(tb testing.TB, room mimi.URI) {
	tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newFranking(tb)
	r := h.rooms[room]
	out, err := r.room.ProposeFranking(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	h.fanOut(r.room, out.Events, members(r.room))
}

func publicKey(tb testing.TB, k *ecdsa.PrivateKey) []byte {
	b, err := k.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// ClientTLS is the TLS configuration of a client: it trusts the hub's server
// and has a fresh key with a certificate of its own.
func (h *Hub) ClientTLS(tb testing.TB) *tls.Config {
	tb.Helper()
	return &tls.Config{
		RootCAs: h.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{selfSigned(tb)},
	}
}

// ServerCertificate is the certificate of the hub's server in DER.
func (h *Hub) ServerCertificate() []byte { return h.server.Certificate().Raw }

// WrapEvaluator has the hub believe what f makes of its Evaluator. No room may
// be there yet.
func (h *Hub) WrapEvaluator(f func(hub.Evaluator) hub.Evaluator) {
	h.config.Evaluator = f(h.config.Evaluator)
}

// Room gives a test the hub's view of a room. No request may be under way.
func (h *Hub) Room(uri mimi.URI) *hub.Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[uri]; r != nil {
		return r.room
	}
	return nil
}

// DropEvents drops all events, as a provider does with those that are too old.
func (h *Hub) DropEvents() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oldest = h.seq
	for _, d := range h.devices {
		d.events = nil
	}
}

// RemoveClient has the hub propose the removal of a client's leaf, as it does
// when a credential was revoked.
func (h *Hub) RemoveClient(ctx context.Context, room, client mimi.URI) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[room]
	before := members(r.room)
	out, err := r.room.ProposeRemoval(ctx, func(m hub.Member) bool { return m.Client == client })
	if err == nil {
		h.fanOut(r.room, out.Events, before)
	}
	return err
}
