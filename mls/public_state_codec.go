package mls

import (
	"bytes"
	"errors"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A PublicGroupState is a PublicGroup's stored form, in two parts: the tree
// changes with commits only. It holds no secrets.
type PublicGroupState struct {
	ID    []byte
	Epoch uint64
	Tree  []byte
	// Rest is, in the notation of the wire:
	//
	//	struct {
	//	    uint16 version = 1;
	//	    GroupContext context;
	//	    MAC confirmation_tag;
	//	    optional<ReInit> reinit;
	//	    KeptProposal proposals<V>;
	//	    optional<GroupInfo> group_info;
	//	} PublicGroupState;
	//
	//	struct {
	//	    AuthenticatedContent content;
	//	    opaque membership_tag<V>; /* empty if there is none */
	//	} KeptProposal;
	Rest []byte
}

// State encodes the group.
func (p *PublicGroup) State() PublicGroupState {
	s := p.state()
	return PublicGroupState{s.context.GroupID, s.context.Epoch, s.tree.bytes(), p.Rest()}
}

// Rest encodes what State returns in Rest, for who keeps the tree by what has
// changed in it (PublicEpoch.TreeChanges).
func (p *PublicGroup) Rest() []byte { return encode((*publicGroupWriter)(p)) }

type publicGroupWriter PublicGroup

func (p *publicGroupWriter) marshal(b *tlsvec.Builder) {
	s := (*PublicGroup)(p).state()
	b.Uint16(stateVersion)
	s.context.marshal(b)
	b.Vector(s.confirmationTag)
	b.Optional(p.reinit != nil)
	if p.reinit != nil {
		p.reinit.marshal(b)
	}
	b.Nested(func(b *tlsvec.Builder) {
		for _, k := range p.proposals {
			k.content.marshal(b)
			b.Vector(k.content.tag)
		}
	})
	b.Optional(p.info != nil)
	if p.info != nil {
		p.info.marshal(b)
	}
}

// MarshalBinary encodes the group as one piece.
func (p *PublicGroup) MarshalBinary() ([]byte, error) {
	st := p.State()
	b := tlsvec.NewBuilder(len(st.Tree) + len(st.Rest) + 16)
	b.Uint16(stateVersion)
	b.Vector(st.Tree)
	b.Vector(st.Rest)
	return b.Bytes(), nil
}

// UnmarshalPublicGroup reads what MarshalBinary of this or an earlier release
// wrote.
func UnmarshalPublicGroup(data []byte, cfg PublicConfig) (*PublicGroup, error) {
	st, err := SplitPublicGroup(data)
	if err != nil {
		return nil, err
	}
	return LoadPublicGroup(st, cfg)
}

// SplitPublicGroup takes what MarshalBinary wrote apart, for LoadPublicGroup. ID
// and Epoch are left out.
func SplitPublicGroup(data []byte) (PublicGroupState, error) {
	r := tlsvec.NewReader(data)
	if err := checkStateVersion(r); err != nil {
		return PublicGroupState{}, err
	}
	st := PublicGroupState{Tree: r.Vector(), Rest: r.Vector()}
	if err := r.Done(); err != nil {
		return PublicGroupState{}, &ParseError{"public group state", err}
	}
	return st, nil
}

// LoadPublicGroup reads what State returned, of which Tree and Rest count. The tree is trusted as far as
// its hash: it was validated when it was stored.
func LoadPublicGroup(st PublicGroupState, cfg PublicConfig) (*PublicGroup, error) {
	p := newPublicGroup(cfg)
	r := tlsvec.NewReader(bytes.Clone(st.Rest))
	if err := checkStateVersion(r); err != nil {
		return nil, err
	}
	s, err := readPublicEpoch(r)
	if err != nil {
		return nil, err
	}
	p.unmarshal(r, s.suite)
	if err := r.Done(); err != nil {
		return nil, &ParseError{"public group state", err}
	}
	if err := s.loadTree(bytes.Clone(st.Tree)); err != nil {
		return nil, err
	}
	p.current.Store(&PublicEpoch{s})
	if p.info != nil && !p.info.GroupContext.equal(&s.context) {
		return nil, &ParseError{"public group state", errors.New("stored GroupInfo is of another epoch")}
	}
	return p, nil
}

func readPublicEpoch(r *tlsvec.Reader) (*publicState, error) {
	s := new(publicState)
	s.context.unmarshal(r)
	tag := r.Vector()
	if err := r.Err(); err != nil {
		return nil, &ParseError{"public group state", err}
	}
	var err error
	if s.suite, err = lookupSuite(s.context.CipherSuite); err != nil {
		return nil, err
	}
	s.confirm(tag)
	return s, nil
}

func (p *PublicGroup) unmarshal(r *tlsvec.Reader, s *suite) {
	if r.Optional() {
		p.reinit = new(ReInit)
		p.reinit.unmarshal(r)
	}
	r.Each(func(r *tlsvec.Reader) {
		a := new(AuthenticatedContent)
		a.unmarshal(r)
		a.tag = emptyNil(r.Vector())
		if r.Err() != nil {
			return
		}
		if a.Content.Proposal == nil || len(p.proposals) >= p.cfg.Limits.MaxProposals {
			r.Fail("kept message is no proposal, or one too many")
			return
		}
		p.keep(&keptProposal{a, a.proposalRef(s)})
	})
	if r.Optional() {
		p.info = new(GroupInfo)
		p.info.unmarshal(r)
	}
}
