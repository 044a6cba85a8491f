package access

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Authenticate returns the caller whose certificate this is, or ErrUnknown.
// TLS has verified the chain up to the Pool; this asks whether the certificate
// is one that was given out, is still good, and whose it is.
func (s *Store) Authenticate(ctx context.Context, cert *x509.Certificate) (*Caller, error) {
	now := s.db.Now()
	if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return nil, fmt.Errorf("%w: the certificate is good from %s to %s; enroll again", ErrUnknown,
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	serial := cert.SerialNumber.Text(16)
	c, err := s.callerOf(ctx, serial, now)
	if err != nil {
		return nil, err
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != callerURI(c.Tenant, c.Name).String() {
		return nil, fmt.Errorf("%w: the certificate names another than its serial number", ErrUnknown)
	}
	return c, nil
}

func (s *Store) callerOf(ctx context.Context, serial string, now time.Time) (*Caller, error) {
	if c := s.known.get(serial, now); c != nil {
		return c, nil
	}
	before := s.known.age()
	var c *Caller
	err := s.db.Read(ctx, func(tx *sqldb.Tx) (err error) {
		c, err = scanCaller(tx.QueryRow(ctx, `SELECT `+callerColumns+` FROM access_certificate x
			JOIN access_caller c ON c.tenant = x.tenant AND c.name = x.name
			WHERE x.serial = ? AND x.revoked = 0 AND c.state = 'active'`, serial))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: the certificate was revoked or never issued", ErrUnknown)
	}
	if err != nil {
		return nil, storeError(err)
	}
	s.known.put(serial, c, now, before)
	return c, nil
}

// How long a look-up is believed, and how many are kept.
const (
	cacheTime = 2 * time.Second
	cacheSize = 4096
)

// cache keeps who the serial numbers of late stand for.
type cache struct {
	mu      sync.Mutex // guards the rest
	entries map[string]cached
	cleared int // how often, so that a look-up from before a clearing is not kept
}

type cached struct {
	caller *Caller
	until  time.Time
}

func (k *cache) get(serial string, now time.Time) *Caller {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e, ok := k.entries[serial]; ok && now.Before(e.until) {
		return e.caller
	}
	return nil
}

func (k *cache) age() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cleared
}

func (k *cache) put(serial string, c *Caller, now time.Time, age int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cleared != age {
		return
	}
	if k.entries == nil || len(k.entries) >= cacheSize {
		k.entries = make(map[string]cached)
	}
	k.entries[serial] = cached{c, now.Add(cacheTime)}
}

func (k *cache) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries = nil
	k.cleared++
}
