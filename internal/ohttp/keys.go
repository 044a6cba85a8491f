package ohttp

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// Keys are the rotating keys of a gateway, X25519 with HKDF-SHA256 and
// AES-128-GCM or ChaCha20-Poly1305.
//
// The key of each interval is derived from one secret, so that all nodes of a
// gateway agree and none keeps a file of keys. The key of the interval before
// is accepted too, for clients that have just fetched it. Whoever learns the
// secret can open what was recorded; replace it as one would a key.
type Keys struct {
	secret   []byte
	interval time.Duration
	now      func() time.Time

	mu      sync.Mutex // guards derived
	derived map[int64]*PrivateKey
}

// NewKeys returns the keys of a secret of 32 octets; nil makes a fresh one, for
// a gateway of one node. now is nil for time.Now.
func NewKeys(secret []byte, interval time.Duration, now func() time.Time) (*Keys, error) {
	if secret == nil {
		secret = make([]byte, 32)
		rand.Read(secret)
	}
	if len(secret) != 32 || interval < time.Minute {
		return nil, fmt.Errorf("ohttp: secret of %d octets and interval of %v, want 32 and at least a minute", len(secret), interval)
	}
	if now == nil {
		now = time.Now
	}
	return &Keys{secret: secret, interval: interval, now: now, derived: make(map[int64]*PrivateKey)}, nil
}

func (k *Keys) epoch() int64 { return k.now().UnixNano() / int64(k.interval) }

// Left returns for how long the current key remains the current one.
func (k *Keys) Left() time.Duration {
	return k.interval - time.Duration(k.now().UnixNano()%int64(k.interval))
}

func (k *Keys) of(epoch int64) (*PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.derived[epoch]; ok {
		return key, nil
	}
	clear(k.derived) // at most two are in use, and cheap to derive anew
	ikm, err := hkdf.Key(sha256.New, k.secret, nil, "privyseal ohttp gateway key "+string(binary.BigEndian.AppendUint64(nil, uint64(epoch))), 32)
	if err != nil {
		return nil, err
	}
	kem := hpke.DHKEM(ecdh.X25519())
	private, err := kem.DeriveKeyPair(ikm)
	if err != nil {
		return nil, err
	}
	key := &PrivateKey{Key: private, Config: &KeyConfig{
		ID: uint8(epoch), KEM: kem.ID(), Key: private.PublicKey(), Suites: []Suite{{1, 1}, {1, 3}},
	}}
	k.derived[epoch] = key
	return key, nil
}

// Current returns the key that clients should use.
func (k *Keys) Current() (*PrivateKey, error) { return k.of(k.epoch()) }

// Find returns the current key or the one before it, if it has the identifier.
func (k *Keys) Find(id uint8) *PrivateKey {
	now := k.epoch()
	for _, epoch := range []int64{now, now - 1} {
		if uint8(epoch) != id {
			continue
		}
		if key, err := k.of(epoch); err == nil {
			return key
		}
	}
	return nil
}
