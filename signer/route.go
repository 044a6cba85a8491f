package signer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxTries bounds the devices that one request is tried on.
const maxTries = 3

// try has one of the devices of an open version do f. It chooses the one that
// is well and least busy. Where that one fails, f runs again on the next: a
// signature is verified before it is released and a MAC or shared secret is the
// same everywhere, so to the caller nothing shows but the time. What no other
// device would do better, and the end of the caller's context, end it.
//
// It returns the name of the device that did it, or that failed last.
func (k *Keyring) try(ctx context.Context, op string, key *Key, v *Version, open *openVersion, now *standing, f func(context.Context, *place) error) (string, error) {
	places, err := k.candidates(ctx, key, v, open, now)
	if err != nil {
		return v.Device, err
	}
	if len(places) == 1 {
		return places[0].device, k.tryTwice(ctx, op, key, v, places[0], f)
	}
	for i, p := range places {
		more := i+1 < len(places)
		if err = k.attempt(ctx, op, key, v, p, more, f); err == nil {
			return p.device, nil
		}
		if !more || ctx.Err() != nil || errors.Is(err, ErrUsage) {
			return p.device, err
		}
		k.hooks.failover(key.ID, p.device, places[i+1].device, err)
	}
	return v.Device, err
}

// tryTwice is for a key in one device: what the device says may succeed now, as
// when one of its processes was lost, is done again.
func (k *Keyring) tryTwice(ctx context.Context, op string, key *Key, v *Version, p *place, f func(context.Context, *place) error) error {
	err := k.attempt(ctx, op, key, v, p, false, f)
	if err == nil || ctx.Err() != nil || remedyOf(err) != RemedyRetry {
		return err
	}
	return k.attempt(ctx, op, key, v, p, false, f)
}

// candidates returns the places to try, the best first.
func (k *Keyring) candidates(ctx context.Context, key *Key, v *Version, open *openVersion, now *standing) ([]*place, error) {
	all, err := k.placesOf(ctx, key, v, open, now.revision)
	if err != nil {
		return nil, err
	}
	if len(all) == 1 && !now.suspect(all[0].device) {
		return all, nil
	}
	well := slices.DeleteFunc(slices.Clone(all), func(p *place) bool { return now.suspect(p.device) })
	if len(well) == 0 {
		return nil, &DeviceError{Device: v.Device, Op: "sign", Remedy: RemedyOperator,
			Err: fmt.Errorf("%w: it returned a wrong signature and an operator must look into it", ErrDeviceSuspect)}
	}
	slices.SortStableFunc(well, comparePlaces)
	return well[:min(len(well), maxTries)], nil
}

// comparePlaces puts what is left out last, and what costs least first. Those
// that are left out are tried when all others have failed.
func comparePlaces(a, b *place) int {
	switch la, lb := a.left(), b.left(); {
	case la && !lb:
		return 1
	case lb && !la:
		return -1
	}
	switch ca, cb := a.cost(), b.cost(); {
	case ca < cb:
		return -1
	case ca > cb:
		return 1
	}
	return 0
}

// Where another device stands by, one that takes much longer than it used to is
// not waited for.
const (
	patience    = 8 // times what is expected
	minPatience = 500 * time.Millisecond
	maxPatience = 10 * time.Second
)

func (p *place) patience() time.Duration {
	return min(max(time.Duration(p.latency.Load()*(p.route.inFlight.Load()+1))*patience, minPatience), maxPatience)
}

// errSlow says that a device was not waited for any longer.
var errSlow = errors.New("the device takes much longer than it used to")

// attempt runs f on one device and learns from how that went.
func (k *Keyring) attempt(ctx context.Context, op string, key *Key, v *Version, p *place, more bool, f func(context.Context, *place) error) (err error) {
	own, end := k.hooks.call(ctx, DeviceCall{Key: key.ID, Algorithm: key.Algorithm, Device: p.device, Op: op})
	defer func() { end(err) }()
	p.route.inFlight.Add(1)
	defer p.route.inFlight.Add(-1)
	if more {
		limited, cancel := context.WithTimeoutCause(own, p.patience(), errSlow)
		defer cancel()
		own = limited
	}
	start := time.Now()
	if err = k.openPlace(own, key, v, p); err == nil {
		err = f(own, p)
	}
	if err != nil {
		return k.failed(ctx, own, op, p, err)
	}
	p.took(time.Since(start))
	k.answers(p)
	return nil
}

// failed says which device failed, and leaves it out if that is its own doing.
func (k *Keyring) failed(ctx, own context.Context, op string, p *place, err error) error {
	if ctx.Err() == nil && own.Err() != nil { // ours ended, the caller's did not
		err = &DeviceError{Device: p.device, Op: op, Remedy: RemedyRetry, Err: fmt.Errorf("%w: %w", errSlow, err)}
	}
	err = deviceError(p.device, op, err)
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrUsage), errors.Is(err, errClosed), errors.Is(err, ErrBadSignature):
		return err
	case errors.Is(err, ErrNoObject), remedyOf(err) == RemedyOperator: // of this object, as far as we know
		p.broken.CompareAndSwap(nil, &absence{time.Now(), err})
	default:
		if p.route.away.CompareAndSwap(nil, &absence{time.Now(), err}) {
			k.hooks.away(p.device, err)
		}
	}
	return err
}

// remedyOf returns the remedy of a device's error.
func remedyOf(err error) Remedy {
	if d, ok := errors.AsType[*DeviceError](err); ok {
		return d.Remedy
	}
	return ""
}

// answers takes a device back that was left out.
func (k *Keyring) answers(p *place) {
	if p.broken.Load() != nil {
		p.broken.Store(nil)
		p.latency.Store(0)
	}
	if was := p.route.away.Load(); was != nil && p.route.away.CompareAndSwap(was, nil) {
		p.latency.Store(0) // what it was says nothing about what it is
		k.hooks.back(p.device, time.Since(was.since))
	}
}

// A DeviceHealth is what the Keyring knows of a device.
type DeviceHealth struct {
	Device   string
	Away     error     // why it is left out, or nil
	Since    time.Time // since when it is
	InFlight int64     // requests that it works on now
}

// Health returns what the Keyring has learned of the configured devices.
func (k *Keyring) Health() map[string]DeviceHealth {
	all := make(map[string]DeviceHealth, len(k.devices))
	for name := range k.devices {
		r := k.routeOf(name)
		h := DeviceHealth{Device: name, InFlight: r.inFlight.Load()}
		if a := r.away.Load(); a != nil {
			h.Away, h.Since = a.err, a.since
		}
		all[name] = h
	}
	return all
}
