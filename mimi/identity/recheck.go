package identity

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
)

// A Held is a credential that somebody relies on: a leaf of a room, a
// KeyPackage in store. Ref is the holder's own name for it.
type Held struct {
	Question Question
	Ref      any
	// Suspended says that the credential was found suspended. It stays so until
	// it is known to be good again: that nothing can be learned, or only
	// something out of date, ends no suspension.
	Suspended bool
}

// An Alert is a credential that should not be relied on as before.
type Alert struct {
	Held
	Kind    AlertKind
	Verdict *Verdict
	Err     error // why
}

// An AlertKind says what became of a credential. The first three are for good:
// a hub removes the leaf.
type AlertKind string

// The kinds.
const (
	AlertRevoked      AlertKind = "revoked"
	AlertExpired      AlertKind = "expired"
	AlertUnauthorized AlertKind = "unauthorized" // its issuer or its names are not believed any more
	AlertSuspended    AlertKind = "suspended"    // may return: its sending is held
	AlertUnavailable  AlertKind = "unavailable"  // nothing can be learned of it for too long: it is marked
)

// Remove reports whether the change is for good.
func (k AlertKind) Remove() bool {
	return k == AlertRevoked || k == AlertExpired || k == AlertUnauthorized
}

// Recheck judges credentials that are relied on, and returns those that should
// not be as before, with the time at which to look again at the latest (zero if
// nothing will change by itself). It fetches what is due; a failure to fetch is
// no change until what is known is too old. The error is only that of ctx.
func (e *Evaluator) Recheck(ctx context.Context, held []Held) (changes []Alert, next time.Time, err error) {
	for _, h := range held {
		q := h.Question
		q.Acting, q.Expect = false, Expected{Pseudonyms: true}
		v, verdict := e.Evaluate(ctx, q)
		if err := ctx.Err(); err != nil {
			return changes, next, err
		}
		if v.UsableUntil.After(e.opts.Now()) {
			next = earlier(next, v.UsableUntil)
		}
		if kind, why := h.alert(v, verdict); kind != "" {
			changes = append(changes, Alert{Held: h, Kind: kind, Verdict: v, Err: why})
		}
	}
	return changes, next, nil
}

// ForGood reports whether what speaks against a credential that was believed once
// will not end: it is revoked, expired, or not believed any more. Then a hub
// removes the leaf, and a member that may does so if the hub does not.
func (v *Verdict) ForGood() bool {
	kind, _ := alertOf(v, nil)
	return kind.Remove()
}

// alert is alertOf with what was found before.
func (h *Held) alert(v *Verdict, err error) (AlertKind, error) {
	kind, why := alertOf(v, err)
	if h.Suspended && (kind == "" || kind == AlertUnavailable) && v.Recheck() {
		return AlertSuspended, credentials.Errorf(credentials.CodeSuspended, "status", "it was suspended, and nothing newer is known")
	}
	return kind, why
}

// alertOf sorts a verdict on a credential that was believed once.
func alertOf(v *Verdict, err error) (AlertKind, error) {
	if err != nil {
		return AlertUnauthorized, err
	}
	switch {
	case v.Standing == trust.Revoked:
		return AlertRevoked, v.Trouble
	case !v.Quarantined:
		return "", nil
	case v.Standing == trust.Suspended || v.Standing == trust.Invalid:
		return AlertSuspended, v.Trouble
	case credentials.CodeOf(v.Trouble) == credentials.CodeExpired:
		return AlertExpired, v.Trouble
	case credentials.CodeOf(v.Trouble) == credentials.CodeIssuerUnknown:
		return AlertUnauthorized, v.Trouble
	}
	return AlertUnavailable, v.Trouble
}

// recheckAtMost is how long Follow waits between two looks, and recheckAtLeast
// the rest that it takes after one.
const (
	recheckAtMost  = 5 * time.Minute
	recheckAtLeast = 100 * time.Millisecond
)

// Follow rechecks what held returns until ctx ends: at once, whenever the trust
// configuration, the keys or the known revocations change, when a credential is
// due, and every five minutes. report is given the changes of each look, or none:
// it is told of each again and again until held returns it no more, and of a
// suspension no more once that has ended.
//
// With List.Run beside it, a revocation is reported within the time that its
// issuer states for its list (ttl, or four fifths of a CRL's interval), and after
// List.Refresh at once.
func (e *Evaluator) Follow(ctx context.Context, held func(context.Context) ([]Held, error), report func(context.Context, []Alert) error) error {
	changed, stop := e.list.Watch()
	defer stop()
	for {
		all, err := held(ctx)
		if err != nil {
			return err
		}
		changes, next, err := e.Recheck(ctx, all)
		if err != nil {
			return err
		}
		if err := report(ctx, changes); err != nil {
			return err
		}
		if err := pause(ctx, e.wait(next), changed); err != nil {
			return err
		}
	}
}

func (e *Evaluator) wait(next time.Time) time.Duration {
	if next.IsZero() {
		return recheckAtMost
	}
	return min(max(next.Sub(e.opts.Now()), recheckAtLeast), recheckAtMost)
}

// pause waits for a time or a change.
func pause(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// Refresh fetches at once all that an issuer, by the name of its entry, says of
// its keys and revocations. Those who Follow look again.
func (e *Evaluator) Refresh(ctx context.Context, issuer string) error {
	return e.list.Refresh(ctx, issuer)
}
