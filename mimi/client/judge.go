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
	// Hub judges the credential of a provider: of the hub of the question's room,
	// or, without a room, of any that external_senders may list.
	Hub(ctx context.Context, q *Question) (room.Sender, error)
}

// A Question is about one credential.
type Question struct {
	Suite        mls.CipherSuite
	Credential   mls.Credential
	SignatureKey []byte
	// Room is the room that the question is about, whose names key bindings may
	// be made for and whose provider a hub must be; zero if there is none.
	Room mimi.URI
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
	// ForGood says that the doubt will not end by itself, as when the
	// credential is revoked: the leaf should be removed.
	ForGood bool
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

func verdictKey(uri mimi.URI, leaf *mls.LeafNode) (key [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%s,%d,%d,%d,", uri, leaf.Credential.Type, len(leaf.Credential.Body), len(leaf.SignatureKey))
	h.Write(leaf.Credential.Body)
	h.Write(leaf.SignatureKey)
	h.Sum(key[:0])
	return key
}

// in are the verdicts in a room; those of the zero URI are about leaves that are
// in none yet.
func (v *verdicts) in(uri mimi.URI) roomVerdicts { return roomVerdicts{v, uri} }

// roomVerdicts are verdicts with the room that they are about.
type roomVerdicts struct {
	*verdicts
	room mimi.URI
}

// of returns the verdict on a leaf.
func (v roomVerdicts) of(ctx context.Context, leaf *mls.LeafNode) (*Verdict, error) {
	key := verdictKey(v.room, leaf)
	v.mu.Lock()
	known := v.known[key]
	v.mu.Unlock()
	if known != nil && (known.Until.IsZero() || v.now().Before(known.Until)) {
		return known, nil
	}
	return v.ask(ctx, leaf, false)
}

// ask asks the Judge and remembers.
func (v roomVerdicts) ask(ctx context.Context, leaf *mls.LeafNode, acting bool) (*Verdict, error) {
	q := &Question{Suite: v.suite, Credential: leaf.Credential, SignatureKey: leaf.SignatureKey, Room: v.room, Acting: acting}
	verdict, err := v.verdicts.judge.Leaf(ctx, q)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= maxKnown {
		clear(v.known)
	}
	v.known[verdictKey(v.room, leaf)] = verdict
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

type roomKey struct{}

// inRoom marks what is done in this context as done in a room.
func inRoom(ctx context.Context, uri mimi.URI) context.Context {
	return context.WithValue(ctx, roomKey{}, uri)
}

// judgeMLS is the callback of package mls. A leaf that takes the place of
// another must be of the same client.
func (v *verdicts) judgeMLS(ctx context.Context, j *mls.Judgement) error {
	uri, _ := ctx.Value(roomKey{}).(mimi.URI)
	return v.in(uri).judge(ctx, j)
}

func (v roomVerdicts) judge(ctx context.Context, j *mls.Judgement) error {
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
func (v roomVerdicts) Leaf(ctx context.Context, leaf *mls.LeafNode) (room.Identity, error) {
	verdict, err := v.of(ctx, leaf)
	if err != nil {
		return room.Identity{}, err
	}
	return room.Identity{Client: policy.Client{User: verdict.User, URI: verdict.Identity.Client}, Credentials: verdict.preauthorizes()}, nil
}

// Credentials implements room.Identities.
func (v roomVerdicts) Credentials(ctx context.Context, leaf *mls.LeafNode) ([]policy.Credential, error) {
	verdict, err := v.of(ctx, leaf)
	if err != nil {
		return nil, err
	}
	return verdict.preauthorizes(), nil
}

// preauthorizes are the claims that may give a role. A credential that is in
// doubt now has them nonetheless: all members must find the same.
func (v *Verdict) preauthorizes() []policy.Credential {
	if v.MayPreauthorize() {
		return v.Claims
	}
	return nil
}

// ExternalSender implements room.Identities. Followers may be listed beside the
// hub, so that the room does not say which provider it is.
func (v roomVerdicts) ExternalSender(ctx context.Context, s mls.ExternalSender) (room.Sender, error) {
	return v.verdicts.judge.Hub(ctx, &Question{Suite: v.suite, Credential: s.Credential, SignatureKey: s.SignatureKey})
}

// hub judges a credential that must be that of the room's hub.
func (v roomVerdicts) hub(ctx context.Context, s mls.ExternalSender) (mimi.URI, error) {
	sender, err := v.verdicts.judge.Hub(ctx, &Question{Suite: v.suite, Credential: s.Credential, SignatureKey: s.SignatureKey, Room: v.room})
	return sender.URI, err
}
