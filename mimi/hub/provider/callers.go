package provider

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mls"
)

// maxCallers bounds the callers that are remembered.
const maxCallers = 4096

// callers remembers who was found behind a TLS key, so that a client that sends
// message after message is looked up once in Config.Poll: that is how long it
// may take until this node sees what another one has changed. What this node
// changes it sees at once.
type callers struct {
	mu      sync.Mutex // guards what follows
	known   map[[32]byte]knownCaller
	changes uint64
}

type knownCaller struct {
	*Caller
	until time.Time
}

// find returns a caller that is remembered, or nil, and the number of changes
// that keep must be given.
func (c *callers) find(key [32]byte) (*Caller, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.known[key]; ok && time.Now().Before(k.until) {
		return k.Caller, c.changes
	}
	return nil, c.changes
}

// keep remembers a caller, unless something has changed since it was looked up.
func (c *callers) keep(key [32]byte, found *Caller, changes uint64, most time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != changes {
		return
	}
	if c.known == nil || len(c.known) >= maxCallers {
		c.known = make(map[[32]byte]knownCaller)
	}
	c.known[key] = knownCaller{found, time.Now().Add(most)}
}

// forget is called after every change.
func (c *callers) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = nil
	c.changes++
}

// Caller returns the client that is registered with a TLS key. It must not be
// changed.
func (s *Service) Caller(ctx context.Context, tlsKey [32]byte) (*Caller, error) {
	c, changes := s.callers.find(tlsKey)
	if c != nil {
		return c, nil
	}
	c, err := s.registered(ctx, tlsKey)
	if err == nil {
		s.callers.keep(tlsKey, c, changes, s.cfg.Poll)
	}
	return c, err
}

func (s *Service) registered(ctx context.Context, tlsKey [32]byte) (*Caller, error) {
	c := new(Caller)
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var client, user string
		var suite, kind int64
		err := tx.QueryRow(ctx, `SELECT client, user_uri, suite, signature_key, credential_type, credential FROM device WHERE tls_key = ?`, tlsKey[:]).
			Scan(&client, &user, &suite, &c.Key, &kind, &c.Credential.Body)
		if errors.Is(err, sql.ErrNoRows) {
			return clientapi.Problemf(clientapi.CodeNotRegistered, "the TLS key is of no client; register first")
		}
		if err != nil {
			return err
		}
		c.Suite, c.Credential.Type = mls.CipherSuite(suite), mls.CredentialType(kind)
		if c.Client, err = mimi.ParseURI(client); err != nil {
			return err
		}
		c.User, err = mimi.ParseURI(user)
		return err
	})
	return c, err
}
