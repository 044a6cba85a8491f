package statuslist

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The defaults of a Publisher.
const (
	DefaultSize     = 1 << 20
	DefaultTTL      = time.Hour
	DefaultLifetime = 24 * time.Hour
)

// A Publisher is the issuer's side of one list. It may be used concurrently.
//
// A status is durable when Set returns, and published at the next Publish: Run
// publishes within MinInterval of a change, so a verifier learns of it no later
// than MinInterval plus the ttl.
type Publisher struct {
	Store          Store
	URI            string
	Issuer         string // iss of the JWT, left out if ""
	AggregationURI string // left out if ""
	Key            crypto.Signer
	KeyID          []byte
	Bits           int // 2 if suspension is used, else 1; 2 if 0
	Size           int // 2^20 if 0; fixed for good, so that it tells nothing
	TTL            time.Duration
	Lifetime       time.Duration // until exp
	MinInterval    time.Duration // between two publications by Run; 1 s if 0
	History        bool          // keep what was published, for the query by time
	Now            func() time.Time

	mu      sync.Mutex    // one publication at a time
	changed chan struct{} // set by Open; wakes Run
	zips    zipCache
}

// ErrClock reports that the clock is behind the last publication.
var ErrClock = errors.New("statuslist: the clock is behind the last publication; a list does not go back in time")

// Open prepares the list in its store.
func (p *Publisher) Open(ctx context.Context) error {
	setDefault(&p.Bits, 2)
	setDefault(&p.Size, DefaultSize)
	setDefault(&p.TTL, DefaultTTL)
	setDefault(&p.Lifetime, DefaultLifetime)
	setDefault(&p.MinInterval, time.Second)
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.TTL > p.Lifetime {
		return fmt.Errorf("statuslist: ttl %s is longer than the lifetime %s", p.TTL, p.Lifetime)
	}
	p.changed = make(chan struct{}, 1)
	return p.Store.Create(ctx, p.URI, p.Bits, p.Size)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Allocate hands out the status of one new credential. Every credential gets
// its own.
func (p *Publisher) Allocate(ctx context.Context) (Reference, error) {
	refs, err := p.AllocateBatch(ctx, 1)
	if err != nil {
		return Reference{}, err
	}
	return refs[0], nil
}

// AllocateBatch hands out the statuses of n new credentials at once.
func (p *Publisher) AllocateBatch(ctx context.Context, n int) ([]Reference, error) {
	indices, err := p.Store.Allocate(ctx, p.URI, n)
	if err != nil {
		return nil, err
	}
	refs := make([]Reference, n)
	for i, index := range indices {
		refs[i] = Reference{p.URI, index}
	}
	return refs, nil
}

// Set changes a status. It is durable when Set returns.
func (p *Publisher) Set(ctx context.Context, index int64, s Status) error {
	if err := p.Store.SetStatus(ctx, p.URI, index, s); err != nil {
		return err
	}
	select {
	case p.changed <- struct{}{}:
	default: // Run knows already
	}
	return nil
}

// Publish signs the list as it is now, in both formats, and keeps it for
// serving. Neither its time of issue nor its content ever goes back.
func (p *Publisher) Publish(ctx context.Context) (*Publication, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now().Truncate(time.Second)
	last, err := p.Store.Published(ctx, p.URI, time.Time{})
	if err != nil && !errors.Is(err, ErrNoHistory) {
		return nil, err
	}
	if last != nil && now.Before(last.IssuedAt) {
		return nil, ErrClock
	}
	snapshot, err := p.Store.Load(ctx, p.URI)
	if err != nil {
		return nil, err
	}
	out, err := p.sign(ctx, snapshot, now)
	if err != nil {
		return nil, err
	}
	if err := p.Store.Publish(ctx, p.URI, out, p.History); err != nil {
		return nil, err
	}
	return out, nil
}

func (p *Publisher) sign(ctx context.Context, s *Snapshot, now time.Time) (*Publication, error) {
	compressed, err := s.List.Compress()
	if err != nil {
		return nil, err
	}
	t := &Token{
		Subject: p.URI, Issuer: p.Issuer, IssuedAt: now, Expires: now.Add(p.Lifetime), TTL: p.TTL,
		AggregationURI: p.AggregationURI, Bits: s.List.Bits(), Compressed: compressed,
	}
	out := &Publication{Version: s.Version, IssuedAt: t.IssuedAt, Expires: t.Expires}
	if out.JWT, err = t.Sign(ctx, JWT, p.Key, p.KeyID); err != nil {
		return nil, err
	}
	out.CWT, err = t.Sign(ctx, CWT, p.Key, p.KeyID)
	return out, err
}

// Run publishes now, after every change, and at half of every ttl, until ctx is
// done. report, which may be nil, is told what went wrong; Run goes on.
func (p *Publisher) Run(ctx context.Context, report func(error)) {
	for {
		if _, err := p.Publish(ctx); err != nil && ctx.Err() == nil && report != nil {
			report(err)
		}
		if !pause(ctx, p.MinInterval) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		case <-time.After(p.TTL / 2):
		}
	}
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
