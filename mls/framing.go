package mls

import (
	"bytes"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A Sender says who framed a message (section 6).
//
//	struct {
//	    SenderType sender_type;
//	    select (Sender.sender_type) {
//	        case member:   uint32 leaf_index;
//	        case external: uint32 sender_index;
//	        case new_member_commit:
//	        case new_member_proposal: struct{};
//	    };
//	} Sender;
type Sender struct {
	Type  SenderType
	Index uint32 // leaf_index or sender_index
}

func memberSender(l LeafIndex) Sender { return Sender{SenderMember, uint32(l)} }

func (s *Sender) marshal(b *tlsvec.Builder) {
	b.Uint8(uint8(s.Type))
	if s.Type == SenderMember || s.Type == SenderExternal {
		b.Uint32(s.Index)
	}
}

func (s *Sender) unmarshal(r *tlsvec.Reader) {
	switch s.Type = SenderType(r.Uint8()); s.Type {
	case SenderMember, SenderExternal:
		s.Index = r.Uint32()
	case SenderNewMemberProposal, SenderNewMemberCommit:
	default:
		r.Fail(fmt.Sprintf("sender_type %d is unknown", s.Type))
	}
}

// FramedContent is what a message says, and who says it (section 6).
//
//	struct {
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    Sender sender;
//	    opaque authenticated_data<V>;
//	    ContentType content_type;
//	    select (FramedContent.content_type) {
//	        case application: opaque application_data<V>;
//	        case proposal:    Proposal proposal;
//	        case commit:      Commit commit;
//	    };
//	} FramedContent;
type FramedContent struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	ContentType       ContentType
	ApplicationData   []byte
	Proposal          Proposal
	Commit            *Commit

	body []byte // encoding of the selected content
}

func (c *FramedContent) marshal(b *tlsvec.Builder) {
	b.Vector(c.GroupID)
	b.Uint64(c.Epoch)
	c.Sender.marshal(b)
	b.Vector(c.AuthenticatedData)
	b.Uint8(uint8(c.ContentType))
	b.Raw(c.body)
}

func (c *FramedContent) unmarshal(r *tlsvec.Reader) {
	c.GroupID = r.Vector()
	c.Epoch = r.Uint64()
	c.Sender.unmarshal(r)
	c.AuthenticatedData = r.Vector()
	c.ContentType = ContentType(r.Uint8())
	c.unmarshalBody(r)
}

// unmarshalBody reads what ContentType selects.
func (c *FramedContent) unmarshalBody(r *tlsvec.Reader) {
	start := r.Pos()
	switch c.ContentType {
	case ContentApplication:
		c.ApplicationData = r.Vector()
	case ContentProposal:
		var box proposalBox
		box.unmarshal(r)
		c.Proposal = box.Proposal
	case ContentCommit:
		c.Commit = new(Commit)
		c.Commit.unmarshal(r)
	default:
		r.Fail(fmt.Sprintf("content_type %d is unknown", c.ContentType))
	}
	if r.Err() == nil {
		c.body = r.Since(start)
	}
}

// setBody encodes the selected content, once for all uses.
func (c *FramedContent) setBody() {
	b := tlsvec.NewBuilder(len(c.ApplicationData) + 8)
	switch c.ContentType {
	case ContentApplication:
		b.Vector(c.ApplicationData)
	case ContentProposal:
		(&proposalBox{c.Proposal}).marshal(b)
	case ContentCommit:
		c.Commit.marshal(b)
	}
	c.body = b.Bytes()
}

// FramedContentAuthData authenticates a FramedContent (section 6.1).
//
//	struct {
//	    /* SignWithLabel(., "FramedContentTBS", FramedContentTBS) */
//	    opaque signature<V>;
//	    select (FramedContent.content_type) {
//	        case commit: MAC confirmation_tag;
//	        ...
//	    };
//	} FramedContentAuthData;
type FramedContentAuthData struct {
	Signature       []byte
	ConfirmationTag []byte
}

func (a *FramedContentAuthData) marshal(b *tlsvec.Builder, t ContentType) {
	b.Vector(a.Signature)
	if t == ContentCommit {
		b.Vector(a.ConfirmationTag)
	}
}

func (a *FramedContentAuthData) unmarshal(r *tlsvec.Reader, t ContentType) {
	a.Signature = r.Vector()
	if t == ContentCommit {
		a.ConfirmationTag = r.Vector()
	}
}

// AuthenticatedContent is a message without its protection (section 6).
//
//	struct {
//	    WireFormat wire_format;
//	    FramedContent content;
//	    FramedContentAuthData auth;
//	} AuthenticatedContent;
type AuthenticatedContent struct {
	WireFormat WireFormat
	Content    FramedContent
	Auth       FramedContentAuthData

	tag []byte // membership_tag of a member's PublicMessage, if known
}

func (a *AuthenticatedContent) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(a.WireFormat))
	a.Content.marshal(b)
	a.Auth.marshal(b, a.Content.ContentType)
}

func (a *AuthenticatedContent) unmarshal(r *tlsvec.Reader) {
	a.WireFormat = WireFormat(r.Uint16())
	a.Content.unmarshal(r)
	a.Auth.unmarshal(r, a.Content.ContentType)
}

// proposalRef is the ProposalRef of a framed proposal (section 5.2).
func (a *AuthenticatedContent) proposalRef(s *suite) []byte {
	return s.refHash("MLS 1.0 Proposal Reference", encode(a))
}

// tbs is what the signature covers (section 6.1). context is the encoded
// GroupContext.
//
//	struct {
//	    ProtocolVersion version = mls10;
//	    WireFormat wire_format;
//	    FramedContent content;
//	    select (FramedContentTBS.content.sender.sender_type) {
//	        case member:
//	        case new_member_commit: GroupContext context;
//	        ...
//	    };
//	} FramedContentTBS;
func (a *AuthenticatedContent) tbs(context []byte) []byte {
	return bytes.Join(a.tbsPieces(context), nil)
}

// tbsPieces is tbs in pieces that follow each other, as those of context do.
func (a *AuthenticatedContent) tbsPieces(context ...[]byte) [][]byte {
	c := &a.Content
	b := tlsvec.NewBuilder(len(c.body) + len(c.GroupID) + len(c.AuthenticatedData) + 32)
	b.Uint16(uint16(MLS10))
	b.Uint16(uint16(a.WireFormat))
	c.marshal(b)
	pieces := [][]byte{b.Bytes()}
	if t := c.Sender.Type; t == SenderMember || t == SenderNewMemberCommit {
		pieces = append(pieces, context...)
	}
	return pieces
}

// membershipTag is the MAC of a member's PublicMessage (section 6.2).
//
//	struct {
//	  FramedContentTBS content_tbs;
//	  FramedContentAuthData auth;
//	} AuthenticatedContentTBM;
func (a *AuthenticatedContent) membershipTag(s *suite, key, context []byte) []byte {
	var b tlsvec.Builder
	b.Raw(a.tbs(context))
	a.Auth.marshal(&b, a.Content.ContentType)
	return s.mac(key, b.Bytes())
}

// PublicMessage is a signed message that everybody can read (section 6.2).
//
//	struct {
//	    FramedContent content;
//	    FramedContentAuthData auth;
//	    select (PublicMessage.content.sender.sender_type) {
//	        case member: MAC membership_tag;
//	        ...
//	    };
//	} PublicMessage;
type PublicMessage struct {
	Content       FramedContent
	Auth          FramedContentAuthData
	MembershipTag []byte
}

// ProposalRef returns the ProposalRef (section 5.2) of a proposal, for who keeps
// proposals without following the group. The cipher suite is the group's.
func (p *PublicMessage) ProposalRef(c CipherSuite) ([]byte, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return nil, err
	}
	if p.Content.Proposal == nil {
		return nil, broken(RuleFrameSender, "the message is no proposal")
	}
	return p.authenticated().proposalRef(s), nil
}

func (p *PublicMessage) marshal(b *tlsvec.Builder) {
	p.Content.marshal(b)
	p.Auth.marshal(b, p.Content.ContentType)
	if p.Content.Sender.Type == SenderMember {
		b.Vector(p.MembershipTag)
	}
}

func (p *PublicMessage) unmarshal(r *tlsvec.Reader) {
	p.Content.unmarshal(r)
	p.Auth.unmarshal(r, p.Content.ContentType)
	if p.Content.Sender.Type == SenderMember {
		p.MembershipTag = r.Vector()
	}
}

func (p *PublicMessage) authenticated() *AuthenticatedContent {
	return &AuthenticatedContent{WirePublicMessage, p.Content, p.Auth, p.MembershipTag}
}

// PrivateMessage is an encrypted message (section 6.3).
//
//	struct {
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    ContentType content_type;
//	    opaque authenticated_data<V>;
//	    opaque encrypted_sender_data<V>;
//	    opaque ciphertext<V>;
//	} PrivateMessage;
type PrivateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         ContentType
	AuthenticatedData   []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

func (p *PrivateMessage) marshal(b *tlsvec.Builder) {
	p.marshalAAD(b)
	b.Vector(p.EncryptedSenderData)
	b.Vector(p.Ciphertext)
}

func (p *PrivateMessage) unmarshal(r *tlsvec.Reader) {
	p.GroupID = r.Vector()
	p.Epoch = r.Uint64()
	p.ContentType = ContentType(r.Uint8())
	if p.ContentType < ContentApplication || p.ContentType > ContentCommit {
		r.Fail(fmt.Sprintf("content_type %d is unknown", p.ContentType))
	}
	p.AuthenticatedData = r.Vector()
	p.EncryptedSenderData = r.Vector()
	p.Ciphertext = r.Vector()
}

// marshalAAD writes PrivateContentAAD, the first four fields.
func (p *PrivateMessage) marshalAAD(b *tlsvec.Builder) {
	p.marshalSenderDataAAD(b)
	b.Vector(p.AuthenticatedData)
}

// marshalSenderDataAAD writes SenderDataAAD, the first three fields.
func (p *PrivateMessage) marshalSenderDataAAD(b *tlsvec.Builder) {
	b.Vector(p.GroupID)
	b.Uint64(p.Epoch)
	b.Uint8(uint8(p.ContentType))
}

// senderData says which key encrypts a PrivateMessage (section 6.3.2).
//
//	struct {
//	    uint32 leaf_index;
//	    uint32 generation;
//	    opaque reuse_guard[4];
//	} SenderData;
type senderData struct {
	leaf       LeafIndex
	generation uint32
	guard      [4]byte
}

func (d *senderData) marshal(b *tlsvec.Builder) {
	b.Uint32(uint32(d.leaf))
	b.Uint32(d.generation)
	b.Raw(d.guard[:])
}

func (d *senderData) unmarshal(r *tlsvec.Reader) {
	d.leaf = LeafIndex(r.Uint32())
	d.generation = r.Uint32()
	copy(d.guard[:], r.Bytes(4))
}

// A Message is a decoded MLSMessage, of which exactly one field is set
// (section 6). Nothing about it is verified.
//
//	struct {
//	    ProtocolVersion version = mls10;
//	    WireFormat wire_format;
//	    select (MLSMessage.wire_format) {
//	        case mls_public_message:  PublicMessage public_message;
//	        case mls_private_message: PrivateMessage private_message;
//	        case mls_welcome:         Welcome welcome;
//	        case mls_group_info:      GroupInfo group_info;
//	        case mls_key_package:     KeyPackage key_package;
//	        case mls_semiprivate_message: SemiPrivateMessage semiprivate_message;
//	    };
//	} MLSMessage;
type Message struct {
	WireFormat         WireFormat
	PublicMessage      *PublicMessage
	PrivateMessage     *PrivateMessage
	Welcome            *Welcome
	GroupInfo          *GroupInfo
	KeyPackage         *KeyPackage
	SemiPrivateMessage *SemiPrivateMessage
}

// ParseMessage decodes an MLSMessage.
func ParseMessage(b []byte) (*Message, error) {
	m := new(Message)
	if err := parse("MLSMessage", b, m); err != nil {
		return nil, err
	}
	return m, nil
}

// Bytes returns the encoding.
func (m *Message) Bytes() []byte { return encode(m) }

// GroupID returns the group that the message is for and its epoch; ok is
// false for a Welcome and a KeyPackage.
func (m *Message) GroupID() (id []byte, epoch uint64, ok bool) {
	switch {
	case m.PublicMessage != nil:
		return m.PublicMessage.Content.GroupID, m.PublicMessage.Content.Epoch, true
	case m.PrivateMessage != nil:
		return m.PrivateMessage.GroupID, m.PrivateMessage.Epoch, true
	case m.GroupInfo != nil:
		return m.GroupInfo.GroupContext.GroupID, m.GroupInfo.GroupContext.Epoch, true
	case m.SemiPrivateMessage != nil:
		return m.SemiPrivateMessage.GroupID, m.SemiPrivateMessage.Epoch, true
	}
	return nil, 0, false
}

func (m *Message) body() interface {
	marshaler
	unmarshaler
} {
	switch m.WireFormat {
	case WirePublicMessage:
		if m.PublicMessage == nil {
			m.PublicMessage = new(PublicMessage)
		}
		return m.PublicMessage
	case WirePrivateMessage:
		if m.PrivateMessage == nil {
			m.PrivateMessage = new(PrivateMessage)
		}
		return m.PrivateMessage
	case WireWelcome:
		if m.Welcome == nil {
			m.Welcome = new(Welcome)
		}
		return m.Welcome
	case WireGroupInfo:
		if m.GroupInfo == nil {
			m.GroupInfo = new(GroupInfo)
		}
		return m.GroupInfo
	case WireKeyPackage:
		if m.KeyPackage == nil {
			m.KeyPackage = new(KeyPackage)
		}
		return m.KeyPackage
	case WireSemiPrivateMessage:
		if m.SemiPrivateMessage == nil {
			m.SemiPrivateMessage = new(SemiPrivateMessage)
		}
		return m.SemiPrivateMessage
	}
	return nil
}

func (m *Message) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(MLS10))
	b.Uint16(uint16(m.WireFormat))
	if body := m.body(); body != nil {
		body.marshal(b)
	}
}

func (m *Message) unmarshal(r *tlsvec.Reader) {
	readVersion(r)
	m.WireFormat = WireFormat(r.Uint16())
	body := m.body()
	if body == nil {
		r.Fail(fmt.Sprintf("wire_format 0x%04x is unknown", uint16(m.WireFormat)))
		return
	}
	body.unmarshal(r)
}

// wrapMessage encodes a structure as an MLSMessage.
func wrapMessage(w WireFormat, body marshaler) []byte {
	size := 256
	if m, ok := body.(*PrivateMessage); ok {
		size = len(m.GroupID) + len(m.AuthenticatedData) + len(m.EncryptedSenderData) + len(m.Ciphertext) + 64
	}
	b := tlsvec.NewBuilder(size)
	b.Uint16(uint16(MLS10))
	b.Uint16(uint16(w))
	body.marshal(b)
	return b.Bytes()
}
