package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Judge says who stands behind a credential, as the trust configuration has
// it. Its answers may change with time; a client asks again on Recheck.
type Judge interface {
	// Leaf judges a credential with the signature key of its leaf. An error
	// means that the credential is not one: every member comes to that end.
	Leaf(ctx context.Context, q *Question) (*Verdict, error)
	// Hub judges the credential of a hub for a provider of the room's host, or
	// of a follower in external_senders, and returns the provider.
	Hub(ctx context.Context, q *Question) (mimi.URI, error)
}

// A Question is about one credential.
type Question struct {
	Suite        mls.CipherSuite
	Credential   mls.Credential
	SignatureKey []byte
	// Acting is set when this client acts on the answer: it adds, joins or
	// proposes. Then whatever is in doubt is refused. Otherwise the hub has
	// ordered the change already, and doubt is quarantine.
	Acting bool
}

// A Verdict is who a leaf is.
type Verdict struct {
	*identity.Identity
	Claims []policy.Credential // that preauthorisation may look at
	// Quarantine says why the credential is in doubt now; empty if it is not.
	Quarantine string
	// Until is when to ask again; zero if the answer does not change.
	Until time.Time
}

// verdicts remembers what the Judge said of leaves, so that a room is loaded
// without asking for each again.
type verdicts struct {
	judge Judge
	suite mls.CipherSuite
	now   func() time.Time

	mu    sync.Mutex // guards known
	known map[[sha256.Size]byte]*Verdict
}

// maxKnown bounds the verdicts that are remembered.
const maxKnown = 100_000

func newVerdicts(j Judge, suite mls.CipherSuite, now func() time.Time) *verdicts {
	return &verdicts{judge: j, suite: suite, now: now, known: make(map[[sha256.Size]byte]*Verdict)}
}

func verdictKey(leaf *mls.LeafNode) (key [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%d,%d,%d,", leaf.Credential.Type, len(leaf.Credential.Body), len(leaf.SignatureKey))
	h.Write(leaf.Credential.Body)
	h.Write(leaf.SignatureKey)
	h.Sum(key[:0])
	return key
}

// of returns the verdict on a leaf.
func (v *verdicts) of(ctx context.Context, leaf *mls.LeafNode) (*Verdict, error) {
	key := verdictKey(leaf)
	v.mu.Lock()
	known := v.known[key]
	v.mu.Unlock()
	if known != nil && (known.Until.IsZero() || v.now().Before(known.Until)) {
		return known, nil
	}
	return v.ask(ctx, leaf, false)
}

// ask asks the Judge and remembers.
func (v *verdicts) ask(ctx context.Context, leaf *mls.LeafNode, acting bool) (*Verdict, error) {
	q := &Question{Suite: v.suite, Credential: leaf.Credential, SignatureKey: leaf.SignatureKey, Acting: acting}
	verdict, err := v.judge.Leaf(ctx, q)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxKnown {
		clear(v.known)
	}
	v.known[verdictKey(leaf)] = verdict
	return verdict, nil
}

// Recheck has every credential judged anew when it is next looked at, as after
// a change of the trust configuration or of what is known of revocations.
func (c *Client) Recheck() {
	v := c.verdicts
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.known)
}

type actingKey struct{}

// acting marks what is done in this context as this client's own act.
func acting(ctx context.Context) context.Context { return context.WithValue(ctx, actingKey{}, true) }

// judgeMLS is the callback of package mls. A leaf that takes the place of
// another must be of the same client.
func (v *verdicts) judgeMLS(ctx context.Context, j *mls.Judgement) error {
	strict, _ := ctx.Value(actingKey{}).(bool)
	next, err := v.ask(ctx, j.Leaf, strict && !j.Joining)
	if err != nil || j.Old == nil {
		return err
	}
	old, err := v.of(ctx, j.Old)
	if err != nil {
		return err
	}
	return identity.CheckSuccessor(old.Identity, next.Identity)
}

// Leaf implements room.Identities.
func (v *verdicts) Leaf(ctx context.Context, leaf *mls.LeafNode) (room.Identity, error) {
	verdict, err := v.of(ctx, leaf)
	if err != nil {
		return room.Identity{}, err
	}
	id := room.Identity{Client: policy.Client{User: verdict.User, URI: verdict.Identity.Client}}
	if verdict.MayPreauthorize() {
		id.Credentials = verdict.Claims
	}
	return id, nil
}

// ExternalSender implements room.Identities.
func (v *verdicts) ExternalSender(ctx context.Context, s mls.ExternalSender) (mimi.URI, error) {
	return v.judge.Hub(ctx, &Question{Suite: v.suite, Credential: s.Credential, SignatureKey: s.SignatureKey})
}
