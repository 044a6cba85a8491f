package mimi

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

const (
	maxProposals        = 1024
	maxErrorDescription = 1024
	maxProposalRef      = 255
)

// A HandshakeBundle is a commit with what newcomers need, or proposals that
// are one intent (section 5.3). It is the body of an update request.
//
//	struct {
//	    MLSMessage proposalOrCommit;
//	    select (content type of proposalOrCommit) {
//	        case commit:
//	            optional<Welcome> welcome;
//	            GroupInfoOption groupInfoOption;
//	            RatchetTreeOption ratchetTreeOption;
//	        case proposal:
//	            MLSMessage moreProposals<V>;
//	    };
//	} HandshakeBundle;
//
// The content type is FramedContent.content_type of a PublicMessage, or that
// of a SemiPrivateMessage.
type HandshakeBundle struct {
	ProposalOrCommit *MLSMessage
	Welcome          *mls.Welcome // with a commit, or nil
	GroupInfo        GroupInfoOption
	RatchetTree      *mls.RatchetTreeOption // with a commit; nil is distributionService
	MoreProposals    []*MLSMessage          // with a proposal
}

// IsCommit reports whether the bundle has a commit.
func (u *HandshakeBundle) IsCommit() bool {
	return u.ProposalOrCommit.ContentType == mls.ContentCommit
}

// Proposals returns all proposals of a bundle of proposals.
func (u *HandshakeBundle) Proposals() []*MLSMessage {
	if u.IsCommit() {
		return nil
	}
	return append([]*MLSMessage{u.ProposalOrCommit}, u.MoreProposals...)
}

func (u *HandshakeBundle) append(b *tlsvec.Builder) {
	u.ProposalOrCommit.append(b)
	if !u.IsCommit() {
		appendMessages(b, u.MoreProposals)
		return
	}
	b.Optional(u.Welcome != nil)
	if u.Welcome != nil {
		appendWelcome(b, u.Welcome)
	}
	u.GroupInfo.append(b)
	appendTree(b, u.RatchetTree)
}

func (u *HandshakeBundle) read(r *tlsvec.Reader) {
	u.ProposalOrCommit = new(MLSMessage)
	u.ProposalOrCommit.read(r)
	first := u.ProposalOrCommit
	switch {
	case r.Err() != nil:
	case first.handshake(mls.ContentProposal):
		u.MoreProposals = readProposals(r, first.GroupID, first.Epoch)
	case first.handshake(mls.ContentCommit):
		if r.Optional() {
			u.Welcome = readWelcome(r)
		}
		u.GroupInfo.read(r)
		u.RatchetTree = readTree(r)
	default:
		r.Fail(fmt.Sprintf("message of wire format 0x%04x is neither a proposal nor a commit that a hub can read", uint16(first.WireFormat)))
	}
}

// A GroupInfoRepresentation says how much of a GroupInfo is there.
type GroupInfoRepresentation uint8

// The representations of draft-mahy-mls-ratchet-tree-options-03, section 4.
const (
	GroupInfoFull    GroupInfoRepresentation = 1
	GroupInfoPartial GroupInfoRepresentation = 2
)

// A GroupInfoOption is the GroupInfo of the epoch that a commit begins, or
// what the hub cannot compute of it.
//
//	enum { reserved(0), full(1), partial(2), (255) } GroupInfoRepresentation;
//
//	struct {
//	    GroupInfoRepresentation representation;
//	    select (representation) {
//	        case full:    GroupInfo groupInfo;
//	        case partial: PartialGroupInfo partialGroupInfo;
//	    };
//	} GroupInfoOption;
//
// Neither carries a ratchet_tree in MIMI.
type GroupInfoOption struct {
	Full    *mls.GroupInfo // or
	Partial *mls.PartialGroupInfo
}

func (o *GroupInfoOption) append(b *tlsvec.Builder) {
	if o.Full != nil {
		b.Uint8(uint8(GroupInfoFull))
		b.Raw(o.Full.Bytes())
		return
	}
	b.Uint8(uint8(GroupInfoPartial))
	b.Raw(o.Partial.Bytes())
}

func (o *GroupInfoOption) read(r *tlsvec.Reader) {
	switch readCode(r, "GroupInfo representation", GroupInfoFull, GroupInfoPartial) {
	case GroupInfoFull:
		o.Full = readGroupInfo(r)
	case GroupInfoPartial:
		o.Partial = readPartialGroupInfo(r)
	}
}

// Marshal returns the bundle's encoding.
func (u *HandshakeBundle) Marshal() []byte {
	size := 512
	if u.Welcome != nil {
		size += sizeOfWelcome(u.Welcome)
	}
	b := tlsvec.NewBuilder(size)
	u.append(b)
	return b.Bytes()
}

// ParseHandshakeBundle decodes the body of an update request.
func ParseHandshakeBundle(b []byte) (*HandshakeBundle, error) {
	u := new(HandshakeBundle)
	return u, parse("HandshakeBundle", b, u)
}

// ReadHandshakeBundle is ParseHandshakeBundle for who gives b away: it keeps b and
// copies nothing of it that is long.
func ReadHandshakeBundle(b []byte) (*HandshakeBundle, error) {
	u := new(HandshakeBundle)
	return u, read("HandshakeBundle", b, u)
}

// An UpdateResponseCode says what the hub did with an update.
type UpdateResponseCode uint8

// The codes of an update.
const (
	UpdateSuccess         UpdateResponseCode = 0
	UpdateWrongEpoch      UpdateResponseCode = 1
	UpdateNotAllowed      UpdateResponseCode = 2
	UpdateInvalidProposal UpdateResponseCode = 3
)

// PendingProposals is the ErrorDescription of an UpdateNotAllowed that is
// refused because it leaves out proposals of the epoch. The draft has no code
// for it; a client that meets it fetches them and tries again.
const PendingProposals = "pending-proposals"

// An UpdateRoomResponse answers an update.
//
//	struct {
//	    UpdateResponseCode responseCode;
//	    opaque errorDescription<V>;
//	    select (responseCode) {
//	        case success:         uint64 accepted_timestamp;
//	        case wrongEpoch:      uint64 currentEpoch;
//	        case invalidProposal: ProposalRef invalidProposals<V>;
//	    };
//	} UpdateRoomResponse;
type UpdateRoomResponse struct {
	ResponseCode      UpdateResponseCode
	ErrorDescription  string   // UTF-8, may be empty, is there on success too
	AcceptedTimestamp uint64   // with UpdateSuccess, in milliseconds
	CurrentEpoch      uint64   // with UpdateWrongEpoch
	InvalidProposals  [][]byte // with UpdateInvalidProposal; a proposal by value has no reference
}

func (p *UpdateRoomResponse) append(b *tlsvec.Builder) {
	b.Uint8(uint8(p.ResponseCode))
	b.String(p.ErrorDescription)
	switch p.ResponseCode {
	case UpdateSuccess:
		b.Uint64(p.AcceptedTimestamp)
	case UpdateWrongEpoch:
		b.Uint64(p.CurrentEpoch)
	case UpdateInvalidProposal:
		appendList(b, p.InvalidProposals, (*tlsvec.Builder).Vector)
	}
}

func (p *UpdateRoomResponse) read(r *tlsvec.Reader) {
	p.ResponseCode = readCode(r, "responseCode", UpdateSuccess, UpdateInvalidProposal)
	p.ErrorDescription = readNote(r, "errorDescription", maxErrorDescription)
	if r.Err() != nil {
		return
	}
	switch p.ResponseCode {
	case UpdateSuccess:
		p.AcceptedTimestamp = r.Uint64()
	case UpdateWrongEpoch:
		p.CurrentEpoch = r.Uint64()
	case UpdateInvalidProposal:
		p.InvalidProposals = readList(r, "invalid proposals", maxProposals, func(r *tlsvec.Reader) []byte {
			return readBounded(r, "ProposalRef", maxProposalRef)
		})
	}
}

// Marshal returns the response's encoding.
func (p *UpdateRoomResponse) Marshal() []byte { return marshal(p) }

// ParseUpdateRoomResponse decodes a response.
func ParseUpdateRoomResponse(b []byte) (*UpdateRoomResponse, error) {
	p := new(UpdateRoomResponse)
	return p, parse("UpdateRoomResponse", b, p)
}
