package hub

import (
	"context"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A TrustEvaluator is an Evaluator that goes by a trust configuration. It is
// strict: what a hub lets in, every member must follow.
type TrustEvaluator struct{ Evaluator *identity.Evaluator }

// Evaluate implements Evaluator.
func (t TrustEvaluator) Evaluate(ctx context.Context, q *Question) (*Verdict, error) {
	v, err := t.Evaluator.Evaluate(ctx, identity.Question{
		Suite: q.Suite, Credential: q.Credential, SignatureKey: q.SignatureKey, Role: identity.RoleClient, Room: q.Room, Voucher: q.Voucher,
		Expect: identity.Expected{Pseudonyms: true}, // the room's own policy is asked by the Room
		Acting: !q.Member,
	})
	if err != nil {
		return nil, err
	}
	if v.Identity == nil { // of a member: its issuer is not known any more
		return nil, v.Trouble
	}
	out := &Verdict{Identity: v.Identity, MaxRole: mimi.RoleIndex(v.MaxRole), Bounded: v.Bounded}
	if v.MayPreauthorize() {
		out.Claims = v.Claims
	}
	return out, nil
}

// Sender implements Evaluator.
func (t TrustEvaluator) Sender(ctx context.Context, suite mls.CipherSuite, s mls.ExternalSender) (room.Sender, error) {
	v, err := t.Evaluator.Evaluate(ctx, identity.Question{
		Suite: suite, Credential: s.Credential, SignatureKey: s.SignatureKey, Role: identity.RoleHub, Acting: true,
	})
	if err != nil {
		return room.Sender{}, err
	}
	return room.Sender{URI: v.Hub, Credentials: v.Claims}, nil
}
