package client

import (
	"context"
	"fmt"

	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/room"
)

// A TrustJudge is a Judge that goes by a trust configuration, as hubs and the
// command line do.
type TrustJudge struct{ Evaluator *identity.Evaluator }

// Leaf implements Judge.
func (j TrustJudge) Leaf(ctx context.Context, q *Question) (*Verdict, error) {
	v, err := j.Evaluator.Evaluate(ctx, identity.Question{
		Suite: q.Suite, Credential: q.Credential, SignatureKey: q.SignatureKey, Role: identity.RoleClient, Room: q.Room,
		Expect: identity.Expected{Pseudonyms: true}, // what the room admits, policy and hub say
		Acting: q.Acting,
	})
	if err != nil {
		return nil, err
	}
	if v.Identity == nil {
		return nil, fmt.Errorf("client: nobody vouches for the credential of a leaf: %w", v.Trouble)
	}
	out := &Verdict{Identity: v.Identity, Until: v.UsableUntil}
	if v.MayPreauthorize() {
		out.Claims = v.Claims
	}
	if v.Quarantined || v.Unverified {
		out.Quarantine, out.ForGood = "it could not be verified", v.ForGood()
		if v.Trouble != nil {
			out.Quarantine = v.Trouble.Error()
		}
	}
	return out, nil
}

// Hub implements Judge.
func (j TrustJudge) Hub(ctx context.Context, q *Question) (room.Sender, error) {
	v, err := j.Evaluator.Evaluate(ctx, identity.Question{
		Suite: q.Suite, Credential: q.Credential, SignatureKey: q.SignatureKey, Role: identity.RoleHub, Room: q.Room, Acting: q.Acting,
	})
	if err != nil {
		return room.Sender{}, err
	}
	return room.Sender{URI: v.Hub, Credentials: v.Claims}, nil
}
