package provider

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// Peers calls the endpoints of other providers; a *peer.Client does.
type Peers interface {
	Do(ctx context.Context, provider string, e peer.Endpoint, variable string, body []byte) ([]byte, error)
}

// Consent answers whether a requester may have the KeyPackages of a target, for
// one room or (with a zero room) for any.
type Consent interface {
	Allowed(ctx context.Context, requester, target, room mimi.URI) (bool, error)
}

// Limiter bounds how often the KeyPackages of a user may be asked for, by way of
// a provider, ours among them. It returns nil, or an error of which the caller
// is told (a *problem.Problem with a time to wait).
type Limiter interface {
	KeyMaterial(ctx context.Context, provider string, scope mimi.ConsentScope) error
}

// Keys are the hub's keys of one signature scheme.
type Keys struct {
	Sender        mls.ExternalSender // public key and credential of the hub
	SenderSigner  crypto.Signer      // purpose hub-sender
	Franking      mimi.FrankingAgent // public key and credential
	FrankSigner   crypto.Signer      // purpose frank-sign
	FrankingSince uint64             // milliseconds; the key is in force from then on
	// Receiver is the hub's entry in external_receivers, whose key ReceiverKey
	// finds; nil if rooms of the suite have no SemiPrivateMessages.
	Receiver *mls.ExternalReceiver
	// Before are the franking keys that rooms may still have. The provider
	// proposes to replace them, and franks with them until that is committed.
	Before []FrankKey
}

// A FrankKey is a franking key that is being replaced.
type FrankKey struct {
	Public []byte // as an MLS SignaturePublicKey
	Signer crypto.Signer
}

// frankSigner returns the signer whose franks a room verifies with a key, or nil.
func (k *Keys) frankSigner(public []byte) crypto.Signer {
	if bytes.Equal(k.Franking.SignatureKey, public) {
		return k.FrankSigner
	}
	for _, old := range k.Before {
		if bytes.Equal(old.Public, public) {
			return old.Signer
		}
	}
	return nil
}

// A Config says what a provider is.
type Config struct {
	Domain    string
	DB        *sqldb.DB // opened with Migrations
	Evaluator hub.Evaluator
	// Keys returns the keys for a cipher suite, or nil if the provider takes no
	// rooms of it.
	Keys func(mls.CipherSuite) *Keys
	// MAC is the franking MAC key in force (purpose frank-mac).
	MAC mimi.MAC
	// Franks are all keys that made franks which may still be reported. Rekey
	// replaces Keys, MAC and Franks.
	Franks *mimi.FrankingKeys
	// ReceiverKey opens SemiPrivateMessages; nil if the provider reads none.
	ReceiverKey mls.ReceiverKeyFunc
	Peers       Peers   // nil: the provider is alone
	Consent     Consent // nil: everybody may
	Limiter     Limiter // nil: no limits
	Envelope    func(policy.ComponentID, []byte) error

	AdmitBasic bool // see hub.Config
	// OpenRegistration lets clients with basic credentials register without an
	// invitation, for tests and for closed networks.
	OpenRegistration bool

	MaxMessage int           // octets of a message; clientapi.MaxMessage if 0
	MaxMembers int           // clients in a room
	MaxRooms   int           // rooms kept in memory; 1,000 if 0
	Workers    int           // deliveries at once; 32 if 0
	Poll       time.Duration // how often work of other nodes is looked for; 1 s if 0
	Retention  time.Duration // of events; clientapi.Retention if 0

	// NodeID names this node among those that share the database, and stays with
	// it over restarts: what it was delivering when it ended, it goes on with at
	// once. A node that is given none has a new one each time.
	NodeID string
	// Beat is how often a node shows the others that it lives; 2 s if 0. One that
	// has missed five beats has died, and others take over its deliveries.
	Beat time.Duration

	// Departing, if it is set, is called before the last client of a user is
	// forgotten, to forget what else is known of the user. If it fails the client
	// stays, and may ask again; it may be called more than once.
	Departing func(ctx context.Context, user mimi.URI) error

	// Extra are further handlers of the client API, by pattern of http.ServeMux,
	// for assets, consent and the directory. They find the caller with CallerOf.
	Extra map[string]http.Handler

	Log *slog.Logger
	Now func() time.Time
}

func (c *Config) withDefaults() Config {
	d := *c
	def(&d.MaxMessage, 256<<10)
	def(&d.MaxRooms, 1000)
	def(&d.Workers, 32)
	def(&d.Poll, time.Second)
	def(&d.Beat, 2*time.Second)
	def(&d.NodeID, rand.Text())
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
