package mls

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A Proposal is one change to a group (section 12.1): *Add, *Update, *Remove,
// *PreSharedKey, *ReInit, *ExternalInit, *GroupContextExtensions,
// *AppDataUpdate, *AppEphemeral, *SelfRemove or *CustomProposal.
type Proposal interface {
	ProposalType() ProposalType
	marshal(*tlsvec.Builder) // without the type
	unmarshal(*tlsvec.Reader)
}

// Add adds the client of a KeyPackage (section 12.1.1).
type Add struct{ KeyPackage *KeyPackage }

// Update replaces its sender's leaf (section 12.1.2).
type Update struct{ LeafNode *LeafNode }

// Remove removes a member (section 12.1.3).
type Remove struct{ Removed LeafIndex }

// PreSharedKey injects a PSK (section 12.1.4).
type PreSharedKey struct{ PSK PreSharedKeyID }

// ReInit closes the group in favour of a new one (section 12.1.5).
type ReInit struct {
	GroupID     []byte
	Version     ProtocolVersion
	CipherSuite CipherSuite
	Extensions  Extensions
}

// ExternalInit carries the init secret of an external commit (section 12.1.6).
type ExternalInit struct{ KEMOutput []byte }

// GroupContextExtensions replaces the GroupContext's extensions (section
// 12.1.7).
type GroupContextExtensions struct{ Extensions Extensions }

// A CustomProposal has a type of the private use range. Its body on the wire
// is one opaque vector, whose content is Data.
type CustomProposal struct {
	Type ProposalType
	Data []byte
}

// ProposalType implements Proposal.
func (*Add) ProposalType() ProposalType { return ProposalAdd }

// ProposalType implements Proposal.
func (*Update) ProposalType() ProposalType { return ProposalUpdate }

// ProposalType implements Proposal.
func (*Remove) ProposalType() ProposalType { return ProposalRemove }

// ProposalType implements Proposal.
func (*PreSharedKey) ProposalType() ProposalType { return ProposalPSK }

// ProposalType implements Proposal.
func (*ReInit) ProposalType() ProposalType { return ProposalReInit }

// ProposalType implements Proposal.
func (*ExternalInit) ProposalType() ProposalType { return ProposalExternalInit }

// ProposalType implements Proposal.
func (*GroupContextExtensions) ProposalType() ProposalType { return ProposalGroupContextExtensions }

// ProposalType implements Proposal.
func (p *CustomProposal) ProposalType() ProposalType { return p.Type }

// newProposal returns an empty proposal of a type, or nil if the type is
// unknown.
func newProposal(t ProposalType) Proposal {
	switch t {
	case ProposalAdd:
		return new(Add)
	case ProposalUpdate:
		return new(Update)
	case ProposalRemove:
		return new(Remove)
	case ProposalPSK:
		return new(PreSharedKey)
	case ProposalReInit:
		return new(ReInit)
	case ProposalExternalInit:
		return new(ExternalInit)
	case ProposalGroupContextExtensions:
		return new(GroupContextExtensions)
	case ProposalAppDataUpdate:
		return new(AppDataUpdate)
	case ProposalAppEphemeral:
		return new(AppEphemeral)
	case ProposalSelfRemove:
		return new(SelfRemove)
	}
	if t >= firstPrivateProposal {
		return &CustomProposal{Type: t}
	}
	return nil
}

// ParseProposal decodes a Proposal.
func ParseProposal(b []byte) (Proposal, error) {
	var p proposalBox
	err := parse("Proposal", b, &p)
	return p.Proposal, err
}

// MarshalProposal encodes a Proposal.
func MarshalProposal(p Proposal) []byte { return encode(&proposalBox{p}) }

// A proposalBox adds the type to a Proposal's encoding.
//
//	struct {
//	    ProposalType proposal_type;
//	    select (Proposal.proposal_type) { ... };
//	} Proposal;
type proposalBox struct{ Proposal }

func (p *proposalBox) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(p.ProposalType()))
	p.Proposal.marshal(b)
}

func (p *proposalBox) unmarshal(r *tlsvec.Reader) {
	t := ProposalType(r.Uint16())
	if r.Err() != nil {
		return
	}
	if p.Proposal = newProposal(t); p.Proposal == nil {
		r.Fail(fmt.Sprintf("proposal type 0x%04x is unknown", uint16(t)))
		return
	}
	p.Proposal.unmarshal(r)
}

func (p *Add) marshal(b *tlsvec.Builder) { p.KeyPackage.marshal(b) }

func (p *Add) unmarshal(r *tlsvec.Reader) {
	p.KeyPackage = new(KeyPackage)
	p.KeyPackage.unmarshal(r)
}

func (p *Update) marshal(b *tlsvec.Builder) { p.LeafNode.marshal(b) }

func (p *Update) unmarshal(r *tlsvec.Reader) {
	p.LeafNode = new(LeafNode)
	p.LeafNode.unmarshal(r)
}

func (p *Remove) marshal(b *tlsvec.Builder)        { b.Uint32(uint32(p.Removed)) }
func (p *Remove) unmarshal(r *tlsvec.Reader)       { p.Removed = LeafIndex(r.Uint32()) }
func (p *PreSharedKey) marshal(b *tlsvec.Builder)  { p.PSK.marshal(b) }
func (p *PreSharedKey) unmarshal(r *tlsvec.Reader) { p.PSK.unmarshal(r) }

func (p *ReInit) marshal(b *tlsvec.Builder) {
	b.Vector(p.GroupID)
	b.Uint16(uint16(p.Version))
	b.Uint16(uint16(p.CipherSuite))
	p.Extensions.marshal(b)
}

func (p *ReInit) unmarshal(r *tlsvec.Reader) {
	p.GroupID = r.Vector()
	p.Version = ProtocolVersion(r.Uint16())
	p.CipherSuite = CipherSuite(r.Uint16())
	p.Extensions.unmarshal(r)
}

func (p *ExternalInit) marshal(b *tlsvec.Builder)    { b.Vector(p.KEMOutput) }
func (p *ExternalInit) unmarshal(r *tlsvec.Reader)   { p.KEMOutput = r.Vector() }
func (p *CustomProposal) marshal(b *tlsvec.Builder)  { b.Vector(p.Data) }
func (p *CustomProposal) unmarshal(r *tlsvec.Reader) { p.Data = r.Vector() }

func (p *GroupContextExtensions) marshal(b *tlsvec.Builder)  { p.Extensions.marshal(b) }
func (p *GroupContextExtensions) unmarshal(r *tlsvec.Reader) { p.Extensions.unmarshal(r) }

// An UpdatePathNode is one new parent of an UpdatePath (section 7.6).
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    HPKECiphertext encrypted_path_secret<V>;
//	} UpdatePathNode;
type UpdatePathNode struct {
	EncryptionKey        []byte
	EncryptedPathSecrets []HPKECiphertext
}

func (n *UpdatePathNode) marshal(b *tlsvec.Builder) {
	b.Vector(n.EncryptionKey)
	b.Nested(func(b *tlsvec.Builder) {
		for i := range n.EncryptedPathSecrets {
			n.EncryptedPathSecrets[i].marshal(b)
		}
	})
}

func (n *UpdatePathNode) unmarshal(r *tlsvec.Reader) {
	n.EncryptionKey = r.Vector()
	r.Each(func(r *tlsvec.Reader) {
		var c HPKECiphertext
		c.unmarshal(r)
		n.EncryptedPathSecrets = append(n.EncryptedPathSecrets, c)
		limitCount(r, len(n.EncryptedPathSecrets), maxLeaves)
	})
}

// An UpdatePath replaces a committer's leaf and the parents above it (section
// 7.6).
//
//	struct {
//	    LeafNode leaf_node;
//	    UpdatePathNode nodes<V>;
//	} UpdatePath;
type UpdatePath struct {
	LeafNode *LeafNode
	Nodes    []UpdatePathNode
}

func (p *UpdatePath) marshal(b *tlsvec.Builder) {
	p.LeafNode.marshal(b)
	b.Nested(func(b *tlsvec.Builder) {
		for i := range p.Nodes {
			p.Nodes[i].marshal(b)
		}
	})
}

func (p *UpdatePath) unmarshal(r *tlsvec.Reader) {
	p.LeafNode = new(LeafNode)
	p.LeafNode.unmarshal(r)
	r.Each(func(r *tlsvec.Reader) {
		var n UpdatePathNode
		n.unmarshal(r)
		p.Nodes = append(p.Nodes, n)
		limitCount(r, len(p.Nodes), maxHeight)
	})
}

// A ProposalOrRef is a proposal of a commit, by value or by reference
// (section 12.4).
//
//	struct {
//	  ProposalOrRefType type;
//	  select (ProposalOrRef.type) {
//	    case proposal:  Proposal proposal;
//	    case reference: ProposalRef reference;
//	  };
//	} ProposalOrRef;
type ProposalOrRef struct {
	Proposal  Proposal // nil if by reference
	Reference []byte
}

func (p *ProposalOrRef) marshal(b *tlsvec.Builder) {
	if p.Proposal == nil {
		b.Uint8(2)
		b.Vector(p.Reference)
		return
	}
	b.Uint8(1)
	(&proposalBox{p.Proposal}).marshal(b)
}

func (p *ProposalOrRef) unmarshal(r *tlsvec.Reader) {
	switch t := r.Uint8(); t {
	case 1:
		var box proposalBox
		box.unmarshal(r)
		p.Proposal = box.Proposal
	case 2:
		p.Reference = r.Vector()
	default:
		r.Fail(fmt.Sprintf("ProposalOrRef type %d is unknown", t))
	}
}

// A Commit applies proposals and starts an epoch (section 12.4).
//
//	struct {
//	    ProposalOrRef proposals<V>;
//	    optional<UpdatePath> path;
//	} Commit;
type Commit struct {
	Proposals []ProposalOrRef
	Path      *UpdatePath
}

func (c *Commit) marshal(b *tlsvec.Builder) {
	b.Nested(func(b *tlsvec.Builder) {
		for i := range c.Proposals {
			c.Proposals[i].marshal(b)
		}
	})
	b.Optional(c.Path != nil)
	if c.Path != nil {
		c.Path.marshal(b)
	}
}

func (c *Commit) unmarshal(r *tlsvec.Reader) {
	r.Each(func(r *tlsvec.Reader) {
		var p ProposalOrRef
		p.unmarshal(r)
		c.Proposals = append(c.Proposals, p)
		limitCount(r, len(c.Proposals), 2*maxLeaves)
	})
	if r.Optional() {
		c.Path = new(UpdatePath)
		c.Path.unmarshal(r)
	}
}
