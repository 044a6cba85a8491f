package mimi

import (
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

const (
	maxJoiningCode = 1024
	maxHPKEKey     = 4096
	maxGroupInfo   = 64 << 20 // of an encrypted GroupInfo with its tree
)

// The labels of section 5.6. That of the encryption is literal, with its
// spaces and its underscore.
const (
	labelGroupInfoRequest  = "GroupInfoRequestTBS"
	labelGroupInfoResponse = "GroupInfoResponseTBS"
	labelGroupInfoTree     = "GroupInfo and ratchet_tree encryption"
)

// A GroupInfoRequest asks the hub for what an external join needs (section
// 5.6).
//
//	struct {
//	    Protocol protocol;
//	    select (protocol) {
//	        case mls10:
//	            CipherSuite cipher_suite;
//	            SignaturePublicKey requestingSignatureKey;
//	            Credential requestingCredential;
//	            HPKEPublicKey groupInfoPublicKey;
//	            optional<opaque joiningCode<V>>;
//	            /* SignWithLabel(., "GroupInfoRequestTBS", GroupInfoRequestTBS) */
//	            opaque signature<V>;
//	    };
//	} GroupInfoRequest;
//
// GroupInfoRequestTBS is everything before the signature. The draft has the
// joining code optional in one of the two and plain in the other; here it is
// optional in both. The TBS has neither room nor nonce: a hub must not see the
// same HPKE key twice.
type GroupInfoRequest struct {
	Protocol             Protocol
	CipherSuite          mls.CipherSuite // of this exchange, not of the group
	RequestingKey        []byte
	RequestingCredential mls.Credential
	GroupInfoPublicKey   []byte
	JoiningCode          []byte // nil if there is none
	Signature            []byte
}

func (q *GroupInfoRequest) appendTBS(b *tlsvec.Builder) {
	b.Uint8(uint8(q.Protocol))
	b.Uint16(uint16(q.CipherSuite))
	b.Vector(q.RequestingKey)
	appendCredential(b, q.RequestingCredential)
	b.Vector(q.GroupInfoPublicKey)
	b.Optional(q.JoiningCode != nil)
	if q.JoiningCode != nil {
		b.Vector(q.JoiningCode)
	}
}

func (q *GroupInfoRequest) append(b *tlsvec.Builder) {
	q.appendTBS(b)
	b.Vector(q.Signature)
}

func (q *GroupInfoRequest) read(r *tlsvec.Reader) {
	q.Protocol = readProtocol(r)
	q.CipherSuite = mls.CipherSuite(r.Uint16())
	q.RequestingKey = readBounded(r, "requestingSignatureKey", maxPublicKey)
	q.RequestingCredential = readCredential(r)
	q.GroupInfoPublicKey = readBounded(r, "groupInfoPublicKey", maxHPKEKey)
	if r.Optional() {
		q.JoiningCode = readBounded(r, "joiningCode", maxJoiningCode)
	}
	q.Signature = readBounded(r, "signature", maxSignature)
}

// Marshal returns the request's encoding.
func (q *GroupInfoRequest) Marshal() []byte { return marshal(q) }

// ParseGroupInfoRequest decodes a request. Verify checks its signature.
func ParseGroupInfoRequest(b []byte) (*GroupInfoRequest, error) {
	q := new(GroupInfoRequest)
	return q, parse("GroupInfoRequest", b, q)
}

// Sign signs the request with the key that RequestingKey names.
func (q *GroupInfoRequest) Sign(ctx context.Context, key crypto.Signer) (err error) {
	if q.Signature, err = sign(ctx, q.CipherSuite, key, labelGroupInfoRequest, q); err != nil {
		return err
	}
	return q.Verify()
}

// Verify checks the signature under RequestingKey.
func (q *GroupInfoRequest) Verify() error {
	return verify(q.CipherSuite, q.RequestingKey, labelGroupInfoRequest, q, q.Signature)
}

// A PendingProposal is a proposal that the hub accepted in this epoch. A
// joiner must reference those that may stand in an external commit.
//
//	struct {
//	    MLSMessage proposal;
//	    uint64 hub_accepted_time;
//	} PendingProposal;
//
// A proposal in a SemiPrivateMessage cannot be judged by a joiner and is not
// among them.
type PendingProposal struct {
	Proposal        *MLSMessage
	HubAcceptedTime uint64 // in milliseconds
}

func (p PendingProposal) append(b *tlsvec.Builder) {
	p.Proposal.append(b)
	b.Uint64(p.HubAcceptedTime)
}

func readPendingProposal(r *tlsvec.Reader) (p PendingProposal) {
	p.Proposal = new(MLSMessage)
	p.Proposal.read(r)
	if m := p.Proposal; r.Err() == nil && (m.WireFormat != mls.WirePublicMessage || m.ContentType != mls.ContentProposal) {
		r.Fail("a pending proposal is not a proposal in a PublicMessage")
	}
	p.HubAcceptedTime = r.Uint64()
	return p
}

// A GroupInfoRatchetTree is what the hub tells a joiner.
//
//	struct {
//	    GroupInfo groupInfo;    /* without ratchet_tree */
//	    RatchetTreeOption ratchetTreeOption;
//	    PendingProposal pending_proposals<V>;
//	} GroupInfoRatchetTreeTBE;
type GroupInfoRatchetTree struct {
	GroupInfo        *mls.GroupInfo
	RatchetTree      *mls.RatchetTreeOption // nil is distributionService
	PendingProposals []PendingProposal
}

func (t *GroupInfoRatchetTree) append(b *tlsvec.Builder) {
	b.Raw(t.GroupInfo.Bytes())
	appendTree(b, t.RatchetTree)
	appendList(b, t.PendingProposals, func(b *tlsvec.Builder, p PendingProposal) { p.append(b) })
}

func (t *GroupInfoRatchetTree) read(r *tlsvec.Reader) {
	t.GroupInfo = readGroupInfo(r)
	t.RatchetTree = readTree(r)
	if r.Err() != nil {
		return
	}
	id, epoch := t.GroupInfo.GroupContext.GroupID, t.GroupInfo.GroupContext.Epoch
	t.PendingProposals = readList(r, "pending proposals", maxProposals, func(r *tlsvec.Reader) PendingProposal {
		p := readPendingProposal(r)
		if r.Err() == nil && (string(p.Proposal.GroupID) != string(id) || p.Proposal.Epoch != epoch) {
			r.Fail("a pending proposal is of another group or epoch")
		}
		return p
	})
}

// Marshal returns the encoding before encryption.
func (t *GroupInfoRatchetTree) Marshal() []byte { return marshal(t) }

// ParseGroupInfoRatchetTree decodes what Open decrypts.
func ParseGroupInfoRatchetTree(b []byte) (*GroupInfoRatchetTree, error) {
	t := new(GroupInfoRatchetTree)
	return t, parse("GroupInfoRatchetTreeTBE", b, t)
}

// A GroupInfoCode says how a GroupInfoRequest went. GroupInfoNotAuthorized may
// stand in for GroupInfoNoSuchRoom.
type GroupInfoCode uint8

// The codes of a GroupInfoResponse. All but success are unsigned hints.
const (
	GroupInfoSuccess       GroupInfoCode = 1
	GroupInfoNotAuthorized GroupInfoCode = 2
	GroupInfoNoSuchRoom    GroupInfoCode = 3
)

// A GroupInfoResponse answers a GroupInfoRequest.
//
//	struct {
//	    Protocol version;
//	    opaque room_id<V>;
//	    GroupInfoCode status;
//	    select (status) {
//	        case success:
//	            CipherSuite cipher_suite;
//	            ExternalSender hub_sender;
//	            HPKECiphertext encrypted_groupinfo_and_tree;
//	            /* SignWithLabel(., "GroupInfoResponseTBS", GroupInfoResponseTBS) */
//	            opaque signature<V>;
//	    };
//	} GroupInfoResponse;
//
// GroupInfoResponseTBS is everything before the signature, of a success.
type GroupInfoResponse struct {
	Version     Protocol
	RoomID      URI
	Status      GroupInfoCode
	CipherSuite mls.CipherSuite
	HubSender   mls.ExternalSender
	Encrypted   mls.HPKECiphertext
	Signature   []byte
}

func (p *GroupInfoResponse) appendTBS(b *tlsvec.Builder) {
	b.Uint8(uint8(p.Version))
	appendURI(b, p.RoomID)
	b.Uint8(uint8(p.Status))
	if p.Status != GroupInfoSuccess {
		return
	}
	b.Uint16(uint16(p.CipherSuite))
	appendExternalSender(b, p.HubSender)
	b.Vector(p.Encrypted.KEMOutput)
	b.Vector(p.Encrypted.Ciphertext)
}

func (p *GroupInfoResponse) append(b *tlsvec.Builder) {
	p.appendTBS(b)
	if p.Status == GroupInfoSuccess {
		b.Vector(p.Signature)
	}
}

func (p *GroupInfoResponse) read(r *tlsvec.Reader) {
	p.Version = readProtocol(r)
	p.RoomID = readURI(r, KindRoom)
	p.Status = readCode(r, "status", GroupInfoSuccess, GroupInfoNoSuchRoom)
	if r.Err() != nil || p.Status != GroupInfoSuccess {
		return
	}
	p.CipherSuite = mls.CipherSuite(r.Uint16())
	p.HubSender = readExternalSender(r)
	p.Encrypted = mls.HPKECiphertext{
		KEMOutput:  readBounded(r, "kem_output", maxHPKEKey),
		Ciphertext: readBounded(r, "ciphertext", maxGroupInfo),
	}
	p.Signature = readBounded(r, "signature", maxSignature)
}

// Marshal returns the response's encoding.
func (p *GroupInfoResponse) Marshal() []byte { return marshal(p) }

// ParseGroupInfoResponse decodes a response.
func ParseGroupInfoResponse(b []byte) (*GroupInfoResponse, error) {
	p := new(GroupInfoResponse)
	return p, parse("GroupInfoResponse", b, p)
}

// Respond encrypts a room's state to the requester and signs the response as
// the hub. The key must be sender's and fit the request's cipher suite, which
// need not be the group's.
func (q *GroupInfoRequest) Respond(ctx context.Context, room URI, t *GroupInfoRatchetTree, sender mls.ExternalSender, key crypto.Signer) (*GroupInfoResponse, error) {
	suite, err := mls.NewPrimitives(q.CipherSuite)
	if err != nil {
		return nil, fmt.Errorf("mimi: GroupInfoRequest: %w", err)
	}
	p := &GroupInfoResponse{Version: q.Protocol, RoomID: room, Status: GroupInfoSuccess, CipherSuite: q.CipherSuite, HubSender: sender}
	p.Encrypted, err = suite.EncryptWithLabel(q.GroupInfoPublicKey, labelGroupInfoTree, []byte(room.String()), t.Marshal())
	if err != nil {
		return nil, fmt.Errorf("mimi: GroupInfoResponse: %w", err)
	}
	if p.Signature, err = sign(ctx, q.CipherSuite, key, labelGroupInfoResponse, p); err != nil {
		return nil, err
	}
	return p, p.verify()
}

func (p *GroupInfoResponse) verify() error {
	return verify(p.CipherSuite, p.HubSender.SignatureKey, labelGroupInfoResponse, p, p.Signature)
}

// ErrGroupInfoResponse is found in the errors of a response that is not the
// answer to the request.
var ErrGroupInfoResponse = errors.New("mimi: GroupInfoResponse is not the answer to the request")

// Open checks that a successful response is about the room and in the cipher
// suite of the request and signed by its HubSender, and decrypts it. Whether
// HubSender's credential is the hub's is for package mimi/identity to say, and
// the GroupInfo's signature and tree hash are checked when the room is joined.
func (p *GroupInfoResponse) Open(q *GroupInfoRequest, room URI, key hpke.PrivateKey) (*GroupInfoRatchetTree, error) {
	switch {
	case p.Status != GroupInfoSuccess:
		return nil, fmt.Errorf("%w: status %d", ErrGroupInfoResponse, p.Status)
	case p.RoomID != room:
		return nil, fmt.Errorf("%w: it is about another room", ErrGroupInfoResponse)
	case p.CipherSuite != q.CipherSuite:
		return nil, fmt.Errorf("%w: cipher suite 0x%04x, asked for 0x%04x", ErrGroupInfoResponse, uint16(p.CipherSuite), uint16(q.CipherSuite))
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	suite, err := mls.NewPrimitives(p.CipherSuite)
	if err != nil {
		return nil, fmt.Errorf("mimi: GroupInfoResponse: %w", err)
	}
	plain, err := suite.DecryptWithLabel(key, labelGroupInfoTree, []byte(room.String()), p.Encrypted)
	if err != nil {
		return nil, fmt.Errorf("mimi: GroupInfoResponse: %w", err)
	}
	return ParseGroupInfoRatchetTree(plain)
}
