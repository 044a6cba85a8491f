package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
)

// found is a key that was looked up of late, open for its use. What may have
// changed in it since is its labels; the state of its version is read anew for
// each request by the Keyring.
type found struct {
	key    *signer.Key
	v      *signer.Version
	signer *signer.Signer
	agree  *signer.KeyExchanger
	mac    *signer.MAC
	until  time.Time
}

// How long a look-up is believed, and how many are kept.
const (
	foundTime = 10 * time.Second
	foundMost = 1 << 15
)

// use returns the caller's key of that name, open. A caller without a grant
// gets the same answer as for a key that there is not, before anything is
// looked up.
func (s *Service) use(ctx context.Context, c *access.Caller, name string, use access.Use, want signer.Use) (*found, error) {
	if err := access.CheckKey(name); err != nil {
		return nil, err
	}
	if !c.May(name, use) {
		return nil, s.mayNot(c, name, use)
	}
	f, err := s.open(ctx, keyID(c.Tenant, name))
	if errors.Is(err, signer.ErrNoKey) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, err
	}
	if got := f.key.Purpose.Use(); got != want {
		return nil, fmt.Errorf("%w: key %s has purpose %s and can %s, not %s", signer.ErrUsage, name, f.key.Purpose, got, want)
	}
	return f, nil
}

// mayNot says that there is no grant; of a key that the caller sees, it says
// which one is missing.
func (s *Service) mayNot(c *access.Caller, name string, use access.Use) error {
	if !c.Sees(name) {
		return notFound(name)
	}
	return &Forbidden{fmt.Sprintf("caller %s has no grant %s:%s", c.Name, name, use)}
}

// open returns a key by its id, from the cache or the store.
func (s *Service) open(ctx context.Context, id signer.KeyID) (*found, error) {
	now := s.c.Now()
	s.mu.Lock()
	f := s.found[id]
	s.mu.Unlock()
	if f != nil && now.Before(f.until) {
		return f, nil
	}
	f, err := s.lookUp(ctx, id)
	if err != nil {
		return nil, err
	}
	f.until = now.Add(foundTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) >= foundMost {
		clear(s.found)
	}
	s.found[id] = f
	return f, nil
}

// lookUp opens the active version for what the key's purpose is.
func (s *Service) lookUp(ctx context.Context, id signer.KeyID) (*found, error) {
	key, err := s.c.Keys.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	// What is opened stays open beyond this request.
	ctx = context.WithoutCancel(ctx)
	f := &found{key: key}
	switch key.Purpose.Use() {
	case signer.UseSign:
		if f.signer, err = s.c.Ring.SignerOf(ctx, key); err == nil {
			f.key, f.v = f.signer.Key(), f.signer.Key().Version(f.signer.Version())
		}
	case signer.UseAgree:
		if f.agree, err = s.c.Ring.KeyExchangerOf(ctx, key); err == nil {
			f.key, f.v = f.agree.Key(), f.agree.Key().Version(f.agree.Version())
		}
	case signer.UseMAC:
		if f.mac, err = s.c.Ring.MACOf(ctx, key); err == nil {
			f.key, f.v = f.mac.Key(), f.mac.Key().Version(f.mac.Version())
		}
	}
	return f, err
}

// forget drops a key from the cache, because it was changed or found changed.
func (s *Service) forget(id signer.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.found, id)
}
