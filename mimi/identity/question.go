package identity

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A Role is the place in which a credential is presented.
type Role = trust.Role

// The roles.
const (
	RoleClient = trust.RoleClient // a leaf node: of a group, of a KeyPackage
	RoleHub    = trust.RoleHub    // external_senders, the franking agent, the signer of a GroupInfoResponse
)

// A Question is one credential in its place.
type Question struct {
	Suite        mls.CipherSuite // of the leaf or external sender
	Credential   mls.Credential
	SignatureKey []byte // of the leaf or external sender
	// AnyKey looks at a credential by itself, where there is no leaf: for
	// tools, never to believe a leaf. Suite and SignatureKey are not used, and a
	// credential with bindings cannot be judged.
	AnyKey bool

	Role Role
	// Room is whose group it is in; zero for a KeyPackage that is in none yet.
	// A hub's credential must be of the room's provider.
	Room mimi.URI
	// Voucher is the host of the provider that delivered a basic credential
	// over an authenticated connection; empty if nobody vouches.
	Voucher string
	// Expect is what is known of the leaf beforehand and what the room asks.
	Expect Expected

	// Acting is set where we act or order: fetching for an Add, adding,
	// joining, ordering a commit. Then nothing is let pass. Otherwise the group
	// has gone on already, and what only time or the network say against a
	// leaf quarantines it.
	Acting bool
	// At is the time to judge by; zero is now.
	At time.Time
}

// A Verdict is what was found. It is given with an error as well, as far as the
// rules were gone through.
type Verdict struct {
	// Identity is whom the leaf stands for; nil for a hub, and where it could
	// not be found out.
	Identity *Identity
	// Hub is the provider that a hub's credential is of.
	Hub mimi.URI
	// Claims are the credentials by which a role may be pre-authorised.
	Claims []policy.Credential

	// MaxRole is the highest role index that a participant without proof may
	// have, and whether there is such a bound.
	MaxRole uint32
	Bounded bool

	// Standing is what is known of the revocation of all parts together.
	Standing trust.Standing
	// Quarantined says that the leaf should not be written to until a later
	// verdict clears it, and Trouble says why.
	Quarantined bool
	Trouble     error
	// UsableUntil is when to ask again: the end of the evidence, or when the
	// revocation is due to be learned anew. Zero if neither has an end.
	UsableUntil time.Time
	// Unverified says that the group must be followed without the identity
	// being known: the issuer is not configured, or its keys cannot be had.
	Unverified bool

	Findings   []Finding
	Generation uint64 // of the trust configuration
}

// Recheck reports whether the verdict stands on something that is old or
// missing, so that it should be asked again soon.
func (v *Verdict) Recheck() bool {
	return v.Standing == trust.Stale || v.Standing == trust.Unavailable || v.Unverified
}

// MayPreauthorize reports whether claims of the credential may give a role.
func (v *Verdict) MayPreauthorize() bool {
	return v.Identity != nil && v.Identity.MayPreauthorize() && len(v.Claims) > 0
}

type actingKey struct{}

// Acting marks the calls under ctx as ours: a [mls.JudgeFunc] of an Evaluator
// is then strict.
func Acting(ctx context.Context) context.Context {
	return context.WithValue(ctx, actingKey{}, true)
}

func isActing(ctx context.Context) bool {
	acting, _ := ctx.Value(actingKey{}).(bool)
	return acting
}

// schemes are the signature schemes of the cipher suites (RFC 9420 section
// 17.1).
var schemes = map[mls.CipherSuite]*credentials.Scheme{
	mls.X25519AES128SHA256Ed25519:   credentials.Ed25519,
	mls.X25519ChaCha20SHA256Ed25519: credentials.Ed25519,
	mls.P256AES128SHA256P256:        credentials.ECDSAP256,
	mls.P384AES256SHA384P384:        credentials.ECDSAP384,
	mls.P521AES256SHA512P521:        credentials.ECDSAP521,
}

func schemeOf(c mls.CipherSuite) (*credentials.Scheme, error) {
	s := schemes[c]
	if s == nil {
		return nil, credentials.Errorf(credentials.CodeCnfCurve, "cipher suite", "0x%04x has no signature scheme that is supported", uint16(c))
	}
	return s, nil
}

// UseTypeNumbers has package mls use the numbers of a trust configuration for
// the credential types that have no registered one. It is called before mls is
// first used, and never afterwards.
func UseTypeNumbers(n trust.TypeNumbers) {
	mls.CredentialMulti, mls.CredentialWeakMulti = mls.CredentialType(n.Multi), mls.CredentialType(n.WeakMulti)
	mls.CredentialSDCWT, mls.CredentialSDJWT = mls.CredentialType(n.SDCWT), mls.CredentialType(n.SDJWT)
}
