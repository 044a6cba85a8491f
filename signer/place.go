package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"sync"
	"sync/atomic"
	"time"
)

// A place is a device object that holds the key of an open version.
type place struct {
	device string
	uri    string
	route  *route // of the device, shared by all that is in it

	latency atomic.Int64            // nanoseconds, moving average of what succeeded
	used    atomic.Int64            // when that was measured last, Unix nanoseconds
	broken  atomic.Pointer[absence] // the object is not there, while its device may be

	// use is held for reading while the device works with key, and for
	// writing to open and close it.
	use    sync.RWMutex
	key    DeviceKey // nil until opened
	closed bool
}

// A route is what the Keyring has learned about a device by using it.
type route struct {
	inFlight atomic.Int64
	away     atomic.Pointer[absence] // nil while it answers
}

// An absence is why something is left out.
type absence struct {
	since time.Time
	err   error
}

func (k *Keyring) newPlace(device, uri string) *place {
	return &place{device: device, uri: uri, route: k.routeOf(device)}
}

// routeOf returns what is known of a device.
func (k *Keyring) routeOf(device string) *route {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.routes[device]
	if r == nil {
		r = new(route)
		k.routes[device] = r
	}
	return r
}

func (p *place) close() error {
	p.use.Lock()
	defer p.use.Unlock()
	p.closed = true
	if p.key == nil {
		return nil
	}
	err := p.key.Close()
	p.key = nil
	return err
}

func (p *place) opened() bool {
	p.use.RLock()
	defer p.use.RUnlock()
	return p.key != nil
}

// set keeps an opened key. Two callers may open at the same time; the second
// closes its own again.
func (p *place) set(key DeviceKey) error {
	p.use.Lock()
	defer p.use.Unlock()
	switch {
	case p.closed:
		key.Close()
		return errClosed
	case p.key != nil:
		return key.Close()
	}
	p.key = key
	return nil
}

func (p *place) sign(ctx context.Context, digest []byte, hash crypto.Hash) ([]byte, error) {
	p.use.RLock()
	defer p.use.RUnlock()
	key, ok := p.key.(SigningKey)
	if !ok {
		return nil, errClosed
	}
	return key.SignContext(ctx, digest, hash)
}

func (p *place) agree(ctx context.Context, remote *ecdh.PublicKey) ([]byte, error) {
	p.use.RLock()
	defer p.use.RUnlock()
	key, ok := p.key.(AgreementKey)
	if !ok {
		return nil, errClosed
	}
	return key.ECDHContext(ctx, remote)
}

func (p *place) mac(ctx context.Context, message []byte) ([]byte, error) {
	p.use.RLock()
	defer p.use.RUnlock()
	key, ok := p.key.(MACKey)
	if !ok {
		return nil, errClosed
	}
	return key.MACContext(ctx, message)
}

// took folds a measurement into the average: an eighth of the new value.
func (p *place) took(d time.Duration) {
	p.used.Store(time.Now().UnixNano())
	old := p.latency.Load()
	if old == 0 {
		p.latency.Store(max(int64(d), 1))
		return
	}
	p.latency.Store(max(old+(int64(d)-old)/8, 1))
}

// forgets is how long it takes until half of a measurement is forgotten: a
// device that was slow once is tried again.
const forgets = 200 * time.Millisecond

// expected is what a request alone is expected to take here; 0 of a place that
// was never used, so that it is tried.
func (p *place) expected() int64 {
	idle := time.Now().UnixNano() - p.used.Load()
	return p.latency.Load() >> min(max(idle/int64(forgets), 0), 62)
}

// cost is what a request is expected to take here: the work that is ahead of it
// and its own.
func (p *place) cost() int64 { return p.expected() * (p.route.inFlight.Load() + 1) }

// left reports whether the place is left out for now.
func (p *place) left() bool { return p.route.away.Load() != nil || p.broken.Load() != nil }
