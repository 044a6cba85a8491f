package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

// The defaults of a Publisher.
const (
	DefaultBound  = time.Minute
	DefaultPoll   = 2 * time.Second
	DefaultSettle = 250 * time.Millisecond
	DefaultRetry  = 5 * time.Second
	DefaultLease  = 15 * time.Second
)

// A CA is what is published for one CA key.
type CA struct {
	Issuer *certs.Issuer
	Order  certs.CRLOrder // validity and URLs of its CRLs

	// Responder answers OCSP for the CA; nil if there is none. Of the
	// certificates that are valid, at most Presign answers are signed ahead,
	// and all of those that change.
	Responder *certs.Responder
	Presign   int
}

// A Publication reports that a place says what the book says.
type Publication struct {
	Place   string        // "ca " and the CA's key id, or the URI of a status list
	Number  int64         // of the CRL, or the version of the list
	Changes int           // that it is the first to say
	Waited  time.Duration // since the first of them; 0 if there was none
}

// A Publisher signs what verifiers fetch whenever it has changed and before it
// ends. It may run in several processes and on several nodes: one at a time
// signs for a CA or list, and the others find it done. Numbers and versions are
// the database's, so that none goes backwards or is used twice. The OCSP answers
// that are signed ahead are each process's own.
type Publisher struct {
	Store *Store
	CAs   []*CA
	Lists []*statuslist.Publisher // opened, on the Store's StatusLists

	Bound  time.Duration // from a change to its publication; beyond it Report is told
	Poll   time.Duration // how often the database is asked for changes of others
	Settle time.Duration // how long to wait for more of a burst
	Retry  time.Duration // after a failure
	Lease  time.Duration // after which another signs for who has died over it

	Published func(Publication) // nil tells nobody
	Report    func(error)       // nil tells nobody
	Now       func() time.Time

	mu    sync.Mutex           // one publication at a time; guards the fields below
	name  string               // of this one, among those that share the database
	renew map[string]time.Time // by place: when it is signed again though nothing changed
	retry map[string]time.Time // by place: no attempt before
	last  time.Time            // of the last Publish
}

// ErrLate reports that a change has waited for longer than the bound.
var ErrLate = errors.New("a revocation is not published within the bound")

// ErrNoPublisher reports that a change belongs to a CA or list that no
// Publisher of this process serves.
var ErrNoPublisher = errors.New("nothing here publishes it; add the CA or list to the configuration")

func (p *Publisher) setDefaults() {
	for _, d := range []struct{ field, value *time.Duration }{
		{&p.Bound, new(DefaultBound)}, {&p.Poll, new(DefaultPoll)}, {&p.Settle, new(DefaultSettle)}, {&p.Retry, new(DefaultRetry)}, {&p.Lease, new(DefaultLease)},
	} {
		if *d.field <= 0 {
			*d.field = *d.value
		}
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.renew == nil {
		p.renew, p.retry = make(map[string]time.Time), make(map[string]time.Time)
		p.name = string(NewID())
	}
}

// Run publishes what is due until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	stop := p.Store.Watch(func([]Change) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	for ctx.Err() == nil {
		if err := p.Publish(ctx); err != nil && ctx.Err() == nil && p.Report != nil {
			p.Report(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.Poll):
		case <-changed:
			pause(ctx, p.Settle)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Publish signs and stores what is due now: what changed, and what is about to
// end. A place that fails does not keep the others from being published.
func (p *Publisher) Publish(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setDefaults()
	p.watchClock()
	due, err := p.Store.due(ctx)
	if err != nil {
		return fmt.Errorf("what is to be published: %w", err)
	}
	var errs []error
	for place, publish := range p.places() {
		d := due[place]
		delete(due, place)
		errs = append(errs, p.publishDue(ctx, place, d, publish))
	}
	for _, ca := range p.CAs {
		errs = append(errs, p.answerAhead(ctx, ca))
	}
	for place, d := range due {
		errs = append(errs, p.late(place, d, ErrNoPublisher))
	}
	return errors.Join(errs...)
}

// clockSlack is by how much a clock may go back without anything to follow.
const clockSlack = time.Minute

// watchClock forgets what was planned by a clock that has gone back since.
func (p *Publisher) watchClock() {
	now := p.Now()
	if now.Add(clockSlack).Before(p.last) {
		clear(p.renew)
		clear(p.retry)
	}
	p.last = now
}

// halfway returns when what was signed is to be signed again: at once if that was by
// a clock that was ahead, so that whoever runs this is told.
func (p *Publisher) halfway(from, to time.Time) time.Time {
	if from.After(p.Now().Add(clockSlack)) {
		return time.Time{}
	}
	return halfway(from, to)
}

// A publish signs and stores what one place says, and returns its number and
// when it is to be signed again.
type publish func(ctx context.Context) (number int64, renew time.Time, err error)

func (p *Publisher) places() map[string]publish {
	all := make(map[string]publish)
	for _, ca := range p.CAs {
		all[caPlace(ca.Issuer.ID())] = func(ctx context.Context) (int64, time.Time, error) { return p.publishCA(ctx, ca) }
	}
	for _, l := range p.Lists {
		all[l.URI] = func(ctx context.Context) (int64, time.Time, error) { return p.publishList(ctx, l) }
	}
	return all
}

// publishDue publishes one place if it has to be.
func (p *Publisher) publishDue(ctx context.Context, place string, d dueChanges, publish publish) error {
	now := p.Now()
	if now.Before(p.retry[place]) || d.count == 0 && now.Before(p.renewal(ctx, place)) {
		return nil
	}
	if d.count > 0 {
		delete(p.renew, aheadPlace(place)) // what changed is answered ahead too
	}
	held, err := p.take(ctx, place, d.count > 0)
	if err != nil {
		p.retry[place] = now.Add(p.Retry)
		return p.late(place, d, err)
	}
	if !held {
		return nil // another does it
	}
	defer p.Store.release(context.WithoutCancel(ctx), place, p.name) // if that fails, the lease ends by itself
	// Another may have done it since.
	due, err := p.Store.due(ctx)
	if err != nil {
		return p.late(place, d, err)
	}
	if d = due[place]; d.count == 0 {
		if p.renew[place] = p.lastRenewal(ctx, place); p.Now().Before(p.renew[place]) {
			return nil
		}
	}
	return p.publishNow(ctx, place, d, publish)
}

// take takes the lease of a place. For a change it waits until it has the lease
// or another has published the change: who made the change may count on that.
func (p *Publisher) take(ctx context.Context, place string, wait bool) (held bool, err error) {
	const look = 50 * time.Millisecond
	for {
		if held, err = p.Store.lease(ctx, place, p.name, p.Lease); held || err != nil || !wait {
			return held, err
		}
		pause(ctx, look)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if due, err := p.Store.due(ctx); err != nil || due[place].count == 0 {
			return false, err
		}
	}
}

func (p *Publisher) publishNow(ctx context.Context, place string, d dueChanges, publish publish) error {
	number, renew, err := publish(ctx)
	if err != nil {
		p.retry[place] = p.Now().Add(p.Retry)
		return p.late(place, d, err)
	}
	p.renew[place] = renew
	if err := p.Store.step("signed " + place); err != nil {
		return err
	}
	if d.count == 0 {
		p.tell(Publication{Place: place, Number: number})
		return nil
	}
	if err := p.Store.markPublished(ctx, place, d.last); err != nil {
		return p.late(place, d, err)
	}
	p.tell(Publication{Place: place, Number: number, Changes: d.count, Waited: p.Now().Sub(d.since)})
	return nil
}

// aheadPlace names the answers of OCSP that this process has signed ahead for
// the CA of a place.
func aheadPlace(place string) string { return "ocsp " + place }

// answerAhead signs the OCSP answers of a CA ahead: after a start at once, unless
// they were kept, then after changes and before they end.
func (p *Publisher) answerAhead(ctx context.Context, ca *CA) error {
	place := aheadPlace(caPlace(ca.Issuer.ID()))
	now := p.Now()
	if ca.Responder == nil || ca.Presign <= 0 || now.Before(p.retry[place]) || now.Before(p.renew[place]) {
		return nil
	}
	if err := p.presign(ctx, ca); err != nil {
		p.retry[place] = now.Add(p.Retry)
		return fmt.Errorf("%s: answering ahead: %w", place, err)
	}
	p.renew[place] = now.Add(ca.Responder.Validity() / 2)
	return nil
}

func (p *Publisher) tell(pub Publication) {
	if p.Published != nil {
		p.Published(pub)
	}
}

// late adds to an error what waits for how long.
func (p *Publisher) late(place string, d dueChanges, err error) error {
	waited := p.Now().Sub(d.since).Round(time.Second)
	switch {
	case d.count > 0 && waited > p.Bound:
		return fmt.Errorf("%s: %w of %v: %d change(s) wait for %v: %w", place, ErrLate, p.Bound, d.count, waited, err)
	case errors.Is(err, ErrNoPublisher):
		return nil // another process may be about to
	}
	return fmt.Errorf("%s: publishing: %w", place, err)
}

// renewal returns when a place is to be signed again. After a start it is read
// from what was published last.
func (p *Publisher) renewal(ctx context.Context, place string) time.Time {
	if at, ok := p.renew[place]; ok {
		return at
	}
	p.renew[place] = p.lastRenewal(ctx, place)
	return p.renew[place]
}

// lastRenewal is renewal by what was published last, here or elsewhere.
func (p *Publisher) lastRenewal(ctx context.Context, place string) (at time.Time) {
	for _, ca := range p.CAs {
		if caPlace(ca.Issuer.ID()) == place {
			at = p.lastCRL(ctx, ca)
		}
	}
	for _, l := range p.Lists {
		if l.URI == place {
			at = p.lastList(ctx, l)
		}
	}
	return at
}

// lastCRL returns when the stored CRL is to be signed again, the zero Time
// without one.
func (p *Publisher) lastCRL(ctx context.Context, ca *CA) time.Time {
	c, err := p.Store.certs.LastCRL(ctx, ca.Issuer.ID(), false)
	if err != nil {
		return time.Time{}
	}
	return p.halfway(c.ThisUpdate, c.NextUpdate)
}

func (p *Publisher) lastList(ctx context.Context, l *statuslist.Publisher) time.Time {
	last, err := p.Store.status.Published(ctx, l.URI, time.Time{})
	if err != nil {
		return time.Time{}
	}
	return p.halfway(last.IssuedAt, last.IssuedAt.Add(l.TTL))
}

func halfway(from, to time.Time) time.Time { return from.Add(to.Sub(from) / 2) }

func (p *Publisher) publishCA(ctx context.Context, ca *CA) (int64, time.Time, error) {
	full, _, err := ca.Issuer.SignCRLs(ctx, steppedCRLs{p.Store.certs, p.Store.step}, ca.Order)
	if err != nil {
		return 0, time.Time{}, err
	}
	return full.Number.Int64(), halfway(full.ThisUpdate, full.NextUpdate), nil
}

// presign signs the OCSP answers for what the last CRL lists and then for the
// certificates that are valid, in the order in which they were prepared.
func (p *Publisher) presign(ctx context.Context, ca *CA) error {
	var serials []*big.Int
	der, err := p.Store.certs.CRL(ctx, ca.Issuer.ID(), false)
	if err != nil {
		return err
	}
	full, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	for _, e := range full.RevokedCertificateEntries {
		serials = append(serials, e.SerialNumber)
	}
	key := ca.Issuer.ID()
	page := Page{}
	for len(serials) < ca.Presign {
		records, next, err := p.Store.List(ctx, Filter{IssuerKey: &key, Type: X509, State: Valid, ValidAt: p.Now()}, page)
		if err != nil {
			return err
		}
		for _, r := range records {
			if n, ok := new(big.Int).SetString(r.Serial, 16); ok && !r.Unfinished() {
				serials = append(serials, n)
			}
		}
		if page.After = next; next == "" {
			break
		}
	}
	return ca.Responder.Presign(ctx, slices.Clip(serials[:min(len(serials), ca.Presign)])...)
}

func (p *Publisher) publishList(ctx context.Context, l *statuslist.Publisher) (int64, time.Time, error) {
	out, err := l.Publish(ctx)
	if errors.Is(err, statuslist.ErrSuperseded) { // another node has said it, and more
		out, err = p.Store.status.Published(ctx, l.URI, time.Time{})
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	return out.Version, halfway(out.IssuedAt, out.IssuedAt.Add(l.TTL)), nil
}

// Lag returns for how long the oldest change has waited to be published; 0 if
// none does.
func (p *Publisher) Lag(ctx context.Context) (time.Duration, error) {
	due, err := p.Store.due(ctx)
	var lag time.Duration
	for _, d := range due {
		lag = max(lag, time.Since(d.since))
	}
	return lag, err
}

// steppedCRLs lets tests stop between reserving, signing and storing a CRL.
type steppedCRLs struct {
	certs.CRLStore
	step func(string) error
}

func (s steppedCRLs) ReserveCRL(ctx context.Context, issuer certs.KeyID, kinds certs.CRLKinds, from, to time.Time) ([]*certs.Reservation, error) {
	r, err := s.CRLStore.ReserveCRL(ctx, issuer, kinds, from, to)
	if err == nil {
		err = s.step("reserved CRL")
	}
	return r, err
}

func (s steppedCRLs) PutCRL(ctx context.Context, issuer certs.KeyID, r *certs.Reservation, der []byte) error {
	if err := s.step("signed CRL"); err != nil {
		return err
	}
	if err := s.CRLStore.PutCRL(ctx, issuer, r, der); err != nil {
		return err
	}
	return s.step("stored CRL")
}
