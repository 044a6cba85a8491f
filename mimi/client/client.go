package client

import (
	"context"
	"crypto/hpke"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Config says who a client is. State, Custody, Judge, Provider and TLS are
// needed; the zero value of everything else works.
type Config struct {
	State   string // path of the SQLite file
	Custody Custody
	Judge   Judge

	Provider string      // URL of the client's own provider, https://host[:port]
	TLS      *tls.Config // with one client certificate; its key is the client's at the provider

	CipherSuite mls.CipherSuite // P256AES128SHA256P256 if zero
	// KeyPackages is how many the provider should hold, 20 if zero; beside
	// them there is one of last resort, unless NoLastResort is set.
	KeyPackages  int
	NoLastResort bool
	Assets       Assets // nil: at and through the client's own provider
	// FetchJitter is the longest that a fetch waits which nobody asked for, 30
	// seconds if zero.
	FetchJitter time.Duration

	// ExpelAfter is for how long a client waits for the hub to remove a member
	// whose credential is void for good before it does so itself, where its
	// role may; 5 minutes if zero.
	ExpelAfter time.Duration
	// CommitAfter is the longest that a client which follows its events waits
	// before it commits what others have proposed; 2 s if zero. One of a room, and
	// another in each epoch, commits at once.
	CommitAfter time.Duration

	Log *slog.Logger     // nil logs nothing
	Now func() time.Time // time.Now if nil
	// Wrap, if set, stands between the client and its connections.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// A Client is one device of a user. Its methods may be called at the same
// time.
type Client struct {
	cfg      Config
	store    *store
	keys     *keys
	verdicts *verdicts
	provider *provider
	tlsKey   [32]byte
	log      *slog.Logger
	now      func() time.Time

	maxRefused int // events that are refused and kept

	duty   duty
	doubts doubts
	events sync.Mutex // is held while an event is taken in, before any room's lock

	mu    sync.Mutex // guards what follows
	mls   *mls.Client
	self  *Verdict
	rooms map[mimi.URI]*Room
	low   bool // the provider wants KeyPackages
}

// pastEpochs is for how many epochs late messages are read. Events of another
// provider's room can arrive after the answer to a commit that the hub ordered
// behind them.
const pastEpochs = 8

const fetchJitter = 30 * time.Second

// Open opens the state of a client, or makes it. It asks the device for the
// key of the state and the provider for nothing.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.CipherSuite == 0 {
		cfg.CipherSuite = mls.P256AES128SHA256P256
	}
	if cfg.KeyPackages == 0 {
		cfg.KeyPackages = 20
	}
	if cfg.FetchJitter <= 0 {
		cfg.FetchJitter = fetchJitter
	}
	if cfg.CommitAfter <= 0 {
		cfg.CommitAfter = commitAfter
	}
	if cfg.ExpelAfter <= 0 {
		cfg.ExpelAfter = expelAfter
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	tlsKey, err := tlsKeyHash(cfg.TLS)
	if err != nil {
		return nil, err
	}
	s, err := openStore(ctx, cfg.State, cfg.Now)
	if err != nil {
		return nil, err
	}
	c := &Client{
		duty: duty{wake: make(chan struct{}, 1)},
		cfg:  cfg, store: s, verdicts: newVerdicts(cfg.Judge, cfg.CipherSuite, cfg.Now), tlsKey: tlsKey,
		provider: newProvider(cfg.Provider, cfg.TLS, cfg.Wrap, cfg.Now), log: cfg.Log, now: cfg.Now, maxRefused: maxRefused, rooms: make(map[mimi.URI]*Room),
	}
	if c.cfg.Assets == nil {
		c.cfg.Assets = providerAssets{c.provider}
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return c, nil
}

func (c *Client) open(ctx context.Context) (err error) {
	if err := c.store.openSeal(ctx, c.cfg.State+".key", c.cfg.Custody.Seal); err != nil {
		return err
	}
	if c.keys, err = newKeys(c.cfg.Custody, c.cfg.CipherSuite, c.store, c.now); err != nil {
		return err
	}
	if err := c.newMLS(ctx); err != nil {
		return err
	}
	if err := c.recordSelf(ctx); err != nil {
		return err
	}
	return c.keys.sweep(ctx)
}

func tlsKeyHash(t *tls.Config) (hash [32]byte, err error) {
	if t == nil || len(t.Certificates) != 1 || len(t.Certificates[0].Certificate) == 0 {
		return hash, errors.New("client: Config.TLS needs exactly one client certificate")
	}
	cert, err := x509.ParseCertificate(t.Certificates[0].Certificate[0])
	if err != nil {
		return hash, fmt.Errorf("client: the TLS certificate: %w", err)
	}
	return clientapi.TLSKeyHash(cert), nil
}

// newMLS makes the MLS client of the present leaf key and learns who it is.
func (c *Client) newMLS(ctx context.Context) error {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return err
	}
	m, err := mls.NewClient(mls.Config{
		CipherSuite: c.cfg.CipherSuite, Signer: l.signer, Credential: l.credential,
		Capabilities: room.Capabilities(), Components: room.Components(), SafeAADItems: room.SafeAADItems(), MediaTypes: room.MediaTypes(), WireFormats: room.WireFormats(),
		Judge: c.verdicts.judgeMLS, Storage: c.store, PrivateKey: c.keys.private, SignerFor: c.keys.signer, Now: c.now,
		Limits: mls.Limits{PastEpochs: pastEpochs},
	})
	if err != nil {
		return err
	}
	self, err := c.verdicts.in(mimi.URI{}).of(ctx, &mls.LeafNode{SignatureKey: m.SignatureKey(), Credential: l.credential})
	if err != nil {
		return fmt.Errorf("client: its own credential: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mls, c.self = m, self
	return nil
}

// recordSelf ties the state to one client.
func (c *Client) recordSelf(ctx context.Context) error {
	var client, user string
	var suite int64
	err := c.store.one(ctx, `SELECT client_uri, user_uri, suite FROM client`, nil, &client, &user, &suite)
	switch {
	case errors.Is(err, mls.ErrNotFound):
		return c.store.write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO client (one, client_uri, user_uri, suite) VALUES (1, ?, ?, ?)`,
				c.URI().String(), c.User().String(), int64(c.cfg.CipherSuite))
			return err
		})
	case err != nil:
		return err
	case client != c.URI().String() || user != c.User().String() || suite != int64(c.cfg.CipherSuite):
		return fmt.Errorf("client: the state is that of %s with cipher suite 0x%04x; the credential names %s and the suite is 0x%04x",
			client, suite, c.URI(), uint16(c.cfg.CipherSuite))
	}
	return nil
}

// Close closes the state. What is under way fails.
func (c *Client) Close() error {
	c.provider.http.CloseIdleConnections()
	return c.store.close()
}

// URI names the client, as its credential does.
func (c *Client) URI() mimi.URI { return c.who().Identity.Client }

// User is the client's user.
func (c *Client) User() mimi.URI { return c.who().User }

// CipherSuite is that of the client's key, its KeyPackages and the rooms that it
// makes.
func (c *Client) CipherSuite() mls.CipherSuite { return c.cfg.CipherSuite }

// Self is who the client is to others, as far as its own Judge goes.
func (c *Client) Self() *Verdict { return c.who() }

func (c *Client) who() *Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.self
}

func (c *Client) engine() *mls.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mls
}

// SealedBy says what keeps the key of the client's state.
func (c *Client) SealedBy() SealPlace { return c.store.seal.place }

// Register makes the client known at its provider, or makes a new credential,
// signature key or TLS key known there, and brings the KeyPackages up to
// number. An invitation is needed where the credential proves nothing. Rooms
// get a new credential by Sync.
func (c *Client) Register(ctx context.Context, invitation []byte) (*clientapi.Registration, error) {
	before, err := c.told(ctx)
	if err != nil {
		return nil, err
	}
	again := before.registered && !before.is(&c.cfg.Custody.Credential)
	if again && c.keys.Mode == Bound {
		if err := c.newLeafKey(ctx); err != nil {
			return nil, err
		}
	}
	reg, err := c.register(ctx, invitation)
	if err != nil {
		return nil, err
	}
	err = c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE client SET cursor = CASE registered WHEN 0 THEN ? ELSE cursor END, registered = 1`, int64(reg.Cursor))
		return err
	})
	if err != nil {
		return nil, err
	}
	if reg.KeyPackages, err = c.topUp(ctx, reg.KeyPackages, again); err != nil {
		return nil, err
	}
	return reg, c.tell(ctx, before.moving || again)
}

func (c *Client) register(ctx context.Context, invitation []byte) (*clientapi.Registration, error) {
	l, err := c.keys.leaf(ctx)
	if err != nil {
		return nil, err
	}
	home, err := mimi.ParseURI("mimi://" + c.URI().Host())
	if err != nil {
		return nil, err
	}
	q := &clientapi.RegisterRequest{
		Provider: home, Time: uint64(c.now().UnixMilli()), TLSKeyHash: c.tlsKey, Invitation: invitation,
		CipherSuite: c.cfg.CipherSuite, SignatureKey: c.engine().SignatureKey(), Credential: l.credential,
	}
	if err := q.Sign(ctx, l.signer); err != nil {
		return nil, err
	}
	reg, err := ask(ctx, c.provider, http.MethodPost, clientapi.PathDevice, q.Marshal(), clientapi.ParseRegistration)
	if err == nil && (reg.Client != c.URI() || reg.User != c.User()) {
		return nil, fmt.Errorf("client: the provider registered %s of %s, not %s", reg.Client, reg.User, c.URI())
	}
	return reg, err
}

// Unregister has the provider forget the client, and the user's profile if this
// is its last client. Its rooms are to be left before. The state stays, to be
// read; Register makes the client known again.
func (c *Client) Unregister(ctx context.Context) error {
	if _, err := c.provider.call(ctx, http.MethodDelete, clientapi.PathDevice, nil); err != nil {
		return err
	}
	return c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE client SET registered = 0`)
		return err
	})
}

// hpkeKey makes a key for one answer of a hub.
func (c *Client) hpkeKey() (hpke.PrivateKey, error) {
	kem, err := kemOf(c.cfg.CipherSuite)
	if err != nil {
		return nil, err
	}
	return kem.GenerateKey()
}

func kemOf(suite mls.CipherSuite) (hpke.KEM, error) {
	ids := map[mls.CipherSuite]uint16{
		mls.X25519AES128SHA256Ed25519: 0x0020, mls.P256AES128SHA256P256: 0x0010, mls.X25519ChaCha20SHA256Ed25519: 0x0020,
		mls.P521AES256SHA512P521: 0x0012, mls.P384AES256SHA384P384: 0x0011,
	}
	id, ok := ids[suite]
	if !ok {
		return nil, fmt.Errorf("client: cipher suite 0x%04x is unknown here", uint16(suite))
	}
	return hpke.NewKEM(id)
}
