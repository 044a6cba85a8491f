package hub

import (
	"context"
	"crypto"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Question asks who stands behind a leaf, and whether that is believed now.
type Question struct {
	Suite        mls.CipherSuite
	Credential   mls.Credential
	SignatureKey []byte
	Bindings     []mls.CredentialBinding // of a multi-credential
	Room         mimi.URI
	// Voucher is the provider that brought the credential over an authenticated
	// connection; a basic credential of another host is not believed.
	Voucher string
	// Member is set for a leaf that the room has already. Then only what every
	// member finds alike refuses it: whether it is still valid, and not revoked,
	// is for whoever expels it.
	Member bool
}

// A Verdict is what an Evaluator believes.
type Verdict struct {
	Identity *identity.Identity
	// MaxRole is the highest role that the user may have, if Bounded: no issuer
	// has proven who it is (the trust configuration's basic_max_role).
	MaxRole mimi.RoleIndex
	Bounded bool
	// Claims are the credentials that preauthorisation may look at.
	Claims []policy.Credential
}

// An Evaluator judges credentials by the provider's trust configuration. An
// error means that the credential is not believed, or that it could not be
// found out; both refuse.
type Evaluator interface {
	Evaluate(ctx context.Context, q *Question) (*Verdict, error)
	// Sender returns the provider that may speak for an entry of
	// external_senders which is not the hub's own.
	Sender(ctx context.Context, suite mls.CipherSuite, s mls.ExternalSender) (room.Sender, error)
}

// A SenderKey is the hub's key for external proposals and for
// GroupInfoResponses in one cipher suite.
type SenderKey struct {
	Sender mls.ExternalSender
	Signer crypto.Signer
}

// A Config is what all rooms of a hub have in common.
type Config struct {
	Provider  mimi.URI // mimi://a.example
	Evaluator Evaluator
	// SenderKey returns the hub's key that fits a cipher suite, or nil.
	SenderKey func(mls.CipherSuite) *SenderKey
	// ReceiverKey finds the hub's key for SemiPrivateMessages; nil if it reads
	// none.
	ReceiverKey mls.ReceiverKeyFunc
	// FrankingAgent returns the franking agent of new rooms of a cipher suite,
	// which others get in the place of theirs, or nil.
	FrankingAgent func(mls.CipherSuite) *mimi.FrankingAgent
	// Parent returns the participants of a room of ours, or nil.
	Parent func(mimi.URI) policy.Parent
	// Envelope refuses component values that the provider does not accept.
	Envelope func(policy.ComponentID, []byte) error
	// AdmitBasic admits basic credentials in rooms whose operational policy
	// does not list them.
	AdmitBasic bool
	MaxMembers int // of a room; the default of mls.Limits if 0
	Now        func() time.Time
}

func (c *Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
