package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A From says who brought a request: a provider over mutual TLS, and for a
// client of our own also which.
type From struct {
	Provider string   // host
	Client   mimi.URI // zero if another provider brought it
}

// speaksFor reports whether the sender may bring what a client signed.
func (f From) speaksFor(client mimi.URI) bool {
	return client.Host() == f.Provider && (f.Client.IsZero() || f.Client == client)
}

// An EventKind is what kind of thing happened in a room.
type EventKind uint8

// The kinds. Their numbers are stored.
const (
	EventMessage  EventKind = 1 // an application message
	EventProposal EventKind = 2 // a bundle of proposals
	EventCommit   EventKind = 3
	EventWelcome  EventKind = 4 // for the owners of KeyPackages only
)

// An Event is something that the room accepted, as it is stored and fanned
// out.
type Event struct {
	Kind      EventKind
	Timestamp uint64 // accepted_timestamp
	Epoch     uint64 // of the group when it was accepted
	// Fanout is one mimi.FanoutMessage. That of a Welcome says that the tree is
	// with the hub; mimi.CompleteWelcome adds it, which is Room.Tree of the epoch
	// that the commit began.
	Fanout []byte
	// Partial is the PartialGroupInfo that came with a commit, to rebuild the
	// room from its events.
	Partial []byte
	// To are the clients that a Welcome is for.
	To []Addressee
}

// An Addressee is a client that a Welcome lets in.
type Addressee struct {
	Ref    []byte // KeyPackageRef
	Client mimi.URI
}

// An Outcome is the decision about an update. Without Events nothing happened.
type Outcome struct {
	Response *mimi.UpdateRoomResponse
	Events   []Event
	Came     []Member        // leaves that a commit added or replaced
	Leaves   []*mls.LeafNode // of Came, in its order
	Suite    mls.CipherSuite // of the room, with Came
	Went     []Member        // leaves that a commit removed or replaced
	Before   []string        // providers with clients before a commit
	External bool            // an external commit: its sender is told of it too, for what is stapled to it
	ByCode   bool            // the joiner used its join code
	Roles    bool            // roles of participants who stay, or what roles may do, may have changed
	Silenced []mimi.URI
	Heard    []mimi.URI // who were silenced, and are not any more
	Departed []mimi.URI // who do not participate any more, or are banned
	Extended bool       // the extensions of the GroupContext have been replaced
}

// Joining is what the hub told a joiner before its external commit.
type Joining struct {
	Epoch uint64
	Refs  [][]byte // proposals that the commit must refer to
	Code  policy.JoinCode
}

// Update decides about a HandshakeBundle (section 5.3). joining returns what
// the client of an external commit was told, or nil.
func (r *Room) Update(ctx context.Context, from From, u *mimi.HandshakeBundle, joining func(client mimi.URI) *Joining) (*Outcome, error) {
	r.names_ = r.names(from.Provider)
	defer func() { r.names_ = nil }()
	var out *Outcome
	var err error
	if u.IsCommit() {
		out, err = r.commit(ctx, from, u, joining)
	} else {
		out, err = r.propose(ctx, from, u)
	}
	if err == nil {
		return out, nil
	}
	return r.refusal(err)
}

// refusal turns an error into an answer with a code, where there is one.
func (r *Room) refusal(err error) (*Outcome, error) {
	p := new(mimi.UpdateRoomResponse)
	var why *reason
	var policyRefusal *policy.Refusal
	var credential *CredentialError
	var invalid *mls.ValidationError
	switch {
	case errors.Is(err, mls.ErrWrongEpoch), errors.Is(err, errWrongEpoch):
		p.ResponseCode, p.CurrentEpoch = mimi.UpdateWrongEpoch, r.Epoch()
	case errors.As(err, &why):
		p.ResponseCode = mimi.UpdateNotAllowed
		if why.code == invalidProposal {
			p.ResponseCode, p.InvalidProposals = mimi.UpdateInvalidProposal, why.refs
		}
	case errors.As(err, &policyRefusal), errors.As(err, &credential):
		p.ResponseCode = mimi.UpdateNotAllowed
	case errors.As(err, &invalid), errors.Is(err, mls.ErrUnsupported), errors.Is(err, mls.ErrReInitialized), errors.Is(err, mls.ErrWrongGroup):
		p.ResponseCode = mimi.UpdateInvalidProposal
	default:
		return nil, err
	}
	p.ErrorDescription = err.Error()
	if credential != nil {
		p.ErrorDescription = credential.Told()
	}
	if len(p.ErrorDescription) > 500 {
		p.ErrorDescription = strings.ToValidUTF8(p.ErrorDescription[:500], "")
	}
	return &Outcome{Response: p}, nil
}

// open verifies one handshake of a bundle.
func (r *Room) open(ctx context.Context, m *mimi.MLSMessage) (mls.Verified, error) {
	if m.WireFormat != mls.WirePublicMessage && m.WireFormat != mls.WireSemiPrivateMessage {
		return nil, fmt.Errorf("%w: wire format 0x%04x", ErrMalformed, uint16(m.WireFormat))
	}
	if err := r.handshakeFormat(m.WireFormat); err != nil {
		return nil, err
	}
	if string(m.GroupID) != string(r.GroupID()) {
		return nil, refuse("group_id is not the room's")
	}
	if m.Epoch != r.Epoch() {
		return nil, errWrongEpoch
	}
	parsed, err := mls.ParseMessage(m.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return r.group.Verify(ctx, parsed)
}

// handshakeFormat refuses a wire format that the operational policy leaves out.
// What must be public is public in every room.
func (r *Room) handshakeFormat(w mls.WireFormat) error {
	if r.ops == nil || len(r.ops.HandshakeFormats) == 0 || w == mls.WirePublicMessage {
		return nil
	}
	for _, f := range r.ops.HandshakeFormats {
		if f == uint16(w) {
			return nil
		}
	}
	return refuse("the room takes no handshakes in wire format 0x%04x", uint16(w))
}

// sender checks that who brought a handshake speaks for who signed it, and
// returns the user, which is zero for an external sender of a provider.
func (r *Room) sender(ctx context.Context, from From, v mls.Verified, leaf *mls.LeafNode) (mimi.URI, error) {
	s := v.Sender()
	switch s.Type {
	case mls.SenderMember:
		m := r.members[s.Index]
		if !from.speaksFor(m.Client) {
			return mimi.URI{}, fmt.Errorf("%w: leaf %d is of %s", ErrForeign, s.Index, m.Client)
		}
		return m.User, nil
	case mls.SenderExternal:
		return r.externalSender(ctx, from, s.Index)
	case mls.SenderNewMemberProposal, mls.SenderNewMemberCommit:
		if leaf == nil {
			return mimi.URI{}, invalid(nil, "a new member shows no leaf")
		}
		v, err := r.names_.verdict(ctx, leaf)
		if err != nil {
			return mimi.URI{}, err
		}
		if !from.speaksFor(v.Identity.Client) {
			return mimi.URI{}, fmt.Errorf("%w: the new member is %s", ErrForeign, v.Identity.Client)
		}
		return v.Identity.User, nil
	}
	return mimi.URI{}, invalid(nil, "sender type %d", s.Type)
}

func (r *Room) externalSender(ctx context.Context, from From, index uint32) (mimi.URI, error) {
	gc := r.group.Current().Context()
	senders, err := gc.Extensions.ExternalSenders()
	if err != nil || int(index) >= len(senders) {
		return mimi.URI{}, invalid(nil, "external sender %d is not there", index)
	}
	s, err := r.names_.ExternalSender(ctx, senders[index])
	uri := s.URI
	if err != nil {
		return uri, err
	}
	if uri.Host() != from.Provider || !from.Client.IsZero() || uri == r.cfg.Provider {
		return uri, fmt.Errorf("%w: external sender %d is %s", ErrForeign, index, uri)
	}
	return uri, nil
}
