package identity

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
)

// EvaluatorOptions are what an Evaluator works with beside the trust
// configuration. The zero value works.
type EvaluatorOptions struct {
	// Provider is our own provider, a name under which tokens may be
	// addressed to us.
	Provider mimi.URI
	// Audiences are further names of ours.
	Audiences []string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// CacheSize bounds the evidence that is kept; 4096 if 0.
	CacheSize int
}

// An Evaluator judges the credentials of leaves and hubs by one trust
// configuration. It is the same for a hub that orders, for a client that
// follows, and for the command line. It may be used concurrently.
//
// What does not depend on the clock or the network is found once for each
// credential and generation of the configuration; time and revocation are
// judged at every call.
type Evaluator struct {
	list  *trust.List
	opts  EvaluatorOptions
	cache evidenceCache
	since firstSeen
}

// NewEvaluator returns an Evaluator.
func NewEvaluator(list *trust.List, opts EvaluatorOptions) *Evaluator {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.CacheSize <= 0 {
		opts.CacheSize = 4096
	}
	return &Evaluator{list: list, opts: opts, cache: evidenceCache{most: opts.CacheSize}}
}

// Evaluate judges one credential. The error is a *credentials.Error of the
// first rule that refuses it, unless ctx ended or we have a bug; the verdict is
// never nil and has its findings either way.
//
// An Acting question is refused by whatever speaks against the credential.
// Otherwise only what every member finds alike refuses it; expiry, revocation
// and missing keys give a verdict without error that is Quarantined or
// Unverified.
func (e *Evaluator) Evaluate(ctx context.Context, q Question) (*Verdict, error) {
	if q.At.IsZero() {
		q.At = e.opts.Now()
	}
	s := e.list.Snapshot()
	v := &Verdict{Generation: s.Generation}
	t := &trace{verdict: v, anyKey: q.AnyKey}
	p, err := e.evidence(ctx, s, &q, t)
	if err == nil {
		err = e.weigh(ctx, s, &q, p, v, t)
	} else if !q.Acting && follows(s, err) {
		v.Unverified, v.Quarantined, v.Trouble, v.Standing = true, true, err, trust.Unavailable
		err = nil
	}
	t.end(err)
	return v, err
}

// follows reports whether a group is followed although the credential could not
// be verified: the keys of its issuer cannot be had, or it is of an issuer that
// others may know.
func follows(s *trust.Snapshot, err error) bool {
	switch credentials.CodeOf(err) {
	case credentials.CodeIssuerKey:
		return true
	case credentials.CodeIssuerUnknown:
		return s.QuarantinesUnknown()
	}
	return false
}

// weigh judges what was proven: what is expected, time, and revocation.
func (e *Evaluator) weigh(ctx context.Context, s *trust.Snapshot, q *Question, p *proof, v *Verdict, t *trace) error {
	v.Hub, v.Claims = p.hub, p.claims
	if p.identity != nil {
		id := *p.identity // the proof is shared
		v.Identity = &id
		if v.Bounded = !id.Proven(); v.Bounded {
			v.MaxRole = s.Config.Basic.MaxRole
		}
	}
	if err := p.expected(s, q); err != nil {
		return err
	}
	t.pass(ruleExpected)
	if err := e.time(s, q, p, v); err != nil {
		return err
	}
	t.pass(ruleTime)
	if err := e.standing(ctx, s, q, p, v); err != nil {
		return err
	}
	t.pass(ruleRevocation)
	return nil
}

// expected compares the identity with what is known and asked.
func (p *proof) expected(s *trust.Snapshot, q *Question) error {
	if p.identity == nil {
		return nil
	}
	return q.Expect.Check(p.identity)
}

// time judges the interval of the evidence: strictly if we act, else with the
// grace of a member, after which it quarantines.
func (e *Evaluator) time(s *trust.Snapshot, q *Question, p *proof, v *Verdict) error {
	v.UsableUntil = p.notAfter
	err := inTime(p, q.At, s.Skew())
	if err == nil || q.Acting {
		return err
	}
	if inTime(p, q.At, s.Skew()+s.Grace()) != nil {
		v.Quarantined, v.Trouble = true, err
	}
	return nil
}

func inTime(p *proof, at time.Time, skew time.Duration) error {
	const layout = time.RFC3339
	switch {
	case !p.notBefore.IsZero() && at.Add(skew).Before(p.notBefore):
		return credentials.Errorf(credentials.CodeNotYetValid, "credential", "it begins %s", p.notBefore.UTC().Format(layout))
	case !p.notAfter.IsZero() && !at.Add(-skew).Before(p.notAfter):
		return credentials.Errorf(credentials.CodeExpired, "credential", "it ended %s", p.notAfter.UTC().Format(layout))
	}
	return nil
}

// standing judges the revocation of every part.
func (e *Evaluator) standing(ctx context.Context, s *trust.Snapshot, q *Question, p *proof, v *Verdict) error {
	for _, ev := range p.evidence {
		st := s.Status(ctx, ev, q.At)
		if err := ctx.Err(); err != nil {
			return err
		}
		v.UsableUntil = earlier(v.UsableUntil, st.Until)
		v.Standing = max(v.Standing, st.Standing)
		if err := e.react(s, q, ev, st, v); err != nil {
			return err
		}
	}
	return nil
}

// react does what the standing of one part calls for.
func (e *Evaluator) react(s *trust.Snapshot, q *Question, ev *trust.Evidence, st trust.Status, v *Verdict) error {
	hard := ev.Issuer.Mode == trust.ModeHard
	if st.Standing != trust.Unavailable {
		e.since.forget(ev.ID())
	}
	switch {
	case st.Standing == trust.Good:
		return nil
	case st.Standing >= trust.Invalid && q.Acting, q.Acting && hard:
		return st.Err
	case st.Standing >= trust.Invalid:
		v.Quarantined, v.Trouble = true, st.Err
	case st.Standing == trust.Unavailable && hard && e.since.longer(ev.ID(), q.At, s.Grace()):
		v.Quarantined, v.Trouble = true, st.Err
	}
	return nil
}
