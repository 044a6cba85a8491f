package identity

import (
	"context"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// JudgeOptions say how an Evaluator answers for an MLS engine.
type JudgeOptions struct {
	// Suite is that of the client or group.
	Suite mls.CipherSuite
	// Room returns the room of a group; nil, or the zero URI, is none.
	Room func(groupID []byte) mimi.URI
	// Expect returns what is expected of a leaf; nil expects nothing.
	Expect func(context.Context, *mls.Judgement) Expected
	// Voucher returns the host that delivered a basic credential; nil is none.
	Voucher func(context.Context, *mls.Judgement) string
	// Acting makes every judgement strict, as a hub's must be. Otherwise those
	// under a context of [Acting] are.
	Acting bool
	// Verdict is told of every leaf that is let pass, before the engine goes
	// on; its error refuses the leaf. It may be nil.
	Verdict func(context.Context, *mls.Judgement, *Verdict) error
}

// Judge returns the callback of package mls by which a group's credentials are
// believed (RFC 9420 section 5.3.1).
func (e *Evaluator) Judge(o JudgeOptions) mls.JudgeFunc {
	return func(ctx context.Context, j *mls.Judgement) error {
		q := o.question(ctx, j)
		v, err := e.Evaluate(ctx, q)
		if err != nil {
			return err
		}
		if err := e.successor(ctx, q, j, v); err != nil {
			return err
		}
		if o.Verdict != nil {
			return o.Verdict(ctx, j, v)
		}
		return nil
	}
}

func (o *JudgeOptions) question(ctx context.Context, j *mls.Judgement) Question {
	q := Question{Suite: o.Suite, Credential: j.Leaf.Credential, SignatureKey: j.Leaf.SignatureKey, Acting: o.Acting || isActing(ctx)}
	if o.Room != nil {
		q.Room = o.Room(j.GroupID)
	}
	if o.Expect != nil {
		q.Expect = o.Expect(ctx, j)
	}
	if o.Voucher != nil {
		q.Voucher = o.Voucher(ctx, j)
	}
	return q
}

// successor judges a leaf that takes the place of another. The old credential
// may have ended and its issuer may be gone; then only the new one counts,
// since nothing is known of the old.
func (e *Evaluator) successor(ctx context.Context, q Question, j *mls.Judgement, v *Verdict) error {
	if j.Old == nil || j.Old.Credential.Equal(&j.Leaf.Credential) && string(j.Old.SignatureKey) == string(j.Leaf.SignatureKey) {
		return nil
	}
	q.Credential, q.SignatureKey, q.Acting, q.Expect = j.Old.Credential, j.Old.SignatureKey, false, Expected{Pseudonyms: true}
	old, err := e.Evaluate(ctx, q)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || old.Identity == nil || v.Identity == nil {
		return nil
	}
	return CheckSuccessor(old.Identity, v.Identity)
}
