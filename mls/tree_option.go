package mls

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A TreeRepresentation says where a ratchet tree is to be had.
type TreeRepresentation uint8

// The representations of draft-mahy-mls-ratchet-tree-options-03, section 3.
const (
	TreeFull                TreeRepresentation = 1 // full
	TreeHTTPS               TreeRepresentation = 2 // httpsUri
	TreeOutOfBand           TreeRepresentation = 3 // outOfBand
	TreeDistributionService TreeRepresentation = 4 // distributionService
)

// A RatchetTreeOption conveys a ratchet tree or says where it is. This
// package makes the forms TreeFull and TreeDistributionService only:
// what tree_signature covers is defined nowhere. It needs no signature of its
// own, since a GroupInfo signs the tree's hash.
//
//	struct {
//	  RatchetTreeRepresentation representation;
//	  select (representation) {
//	    case full:
//	      optional<Node> ratchet_tree<V>;
//	    case httpsUri:
//	      opaque ratchet_tree_url<V>;
//	      opaque tree_signature<V>;
//	    case outOfBand:
//	      opaque tree_signature<V>;
//	    case distributionService:
//	      struct {};
//	  };
//	} RatchetTreeOption;
type RatchetTreeOption struct {
	Representation TreeRepresentation
	// Tree is the content of a ratchet_tree extension, its length included.
	// It is checked when it is used.
	Tree      []byte
	URL       string
	Signature []byte // tree_signature
}

// FullTree is a RatchetTreeOption with the tree that RatchetTree returned.
func FullTree(tree []byte) *RatchetTreeOption {
	return &RatchetTreeOption{Representation: TreeFull, Tree: tree}
}

// ParseRatchetTreeOption decodes a RatchetTreeOption.
func ParseRatchetTreeOption(b []byte) (*RatchetTreeOption, error) {
	o := new(RatchetTreeOption)
	if err := parse("RatchetTreeOption", b, o); err != nil {
		return nil, err
	}
	return o, nil
}

// Bytes returns the encoding.
func (o *RatchetTreeOption) Bytes() []byte {
	b := tlsvec.NewBuilder(len(o.Tree) + len(o.URL) + len(o.Signature) + 16)
	o.marshal(b)
	return b.Bytes()
}

func (o *RatchetTreeOption) marshal(b *tlsvec.Builder) {
	b.Uint8(uint8(o.Representation))
	switch o.Representation {
	case TreeFull:
		b.Raw(o.Tree)
	case TreeHTTPS:
		b.String(o.URL)
		b.Vector(o.Signature)
	case TreeOutOfBand:
		b.Vector(o.Signature)
	}
}

func (o *RatchetTreeOption) unmarshal(r *tlsvec.Reader) {
	switch o.Representation = TreeRepresentation(r.Uint8()); o.Representation {
	case TreeFull:
		start := r.Pos()
		r.Vector()
		if r.Err() == nil {
			o.Tree = r.Since(start)
		}
	case TreeHTTPS:
		o.URL = string(r.Vector())
		o.Signature = r.Vector()
	case TreeOutOfBand:
		o.Signature = r.Vector()
	case TreeDistributionService:
	default:
		r.Fail(fmt.Sprintf("tree representation %d is unknown", o.Representation))
	}
}

// Source returns the URL of an option of the form TreeHTTPS, which must point
// into one of the group's ratchet_tree_source_domains (section 3.1). What is
// fetched there is checked against the tree_hash of the GroupContext.
func (o *RatchetTreeOption) Source(groupContext Extensions) (*url.URL, error) {
	if o.Representation != TreeHTTPS {
		return nil, broken(RuleTreeSource, "representation %d has no URL", o.Representation)
	}
	domains, err := groupContext.TreeSourceDomains()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, broken(RuleTreeSource, "ratchet_tree_url is no URL")
	}
	if u.Scheme != "https" || u.User != nil || u.Opaque != "" || u.Host == "" {
		return nil, broken(RuleTreeSource, "ratchet_tree_url is no https URL with a host and without a user")
	}
	if !slices.ContainsFunc(domains, func(d string) bool { return strings.EqualFold(d, u.Hostname()) }) {
		return nil, broken(RuleTreeSource, "ratchet_tree_source_domains does not list the host %q", u.Hostname())
	}
	return u, nil
}

// TreeSourceDomainsExtension lists for a GroupContext where its ratchet tree
// may be fetched.
//
//	struct {
//	    opaque domain<V>;
//	} Domain;
//
//	struct {
//	    Domain domains<V>
//	} DomainList;
func TreeSourceDomainsExtension(domains ...string) Extension {
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		for _, d := range domains {
			b.String(d)
		}
	})
	return Extension{ExtensionRatchetTreeSourceDomains, b.Bytes()}
}

// TreeSourceDomains decodes the ratchet_tree_source_domains extension; absent
// is empty.
func (e Extensions) TreeSourceDomains() ([]string, error) {
	data, ok := e.Find(ExtensionRatchetTreeSourceDomains)
	if !ok {
		return nil, nil
	}
	var list []string
	r := tlsvec.NewReader(data)
	r.Each(func(r *tlsvec.Reader) { list = append(list, string(r.Vector())) })
	if len(list) == 0 {
		r.Fail("list of domains is empty")
	}
	if err := r.Done(); err != nil {
		return nil, &ParseError{"ratchet_tree_source_domains", err}
	}
	return list, nil
}

// A TreePresence says whether the GroupInfo of the epoch before and of this
// one contain the ratchet_tree extension.
type TreePresence uint8

// The presences of section 4.
const (
	TreeAbsent  TreePresence = 0 // no_ratchet_tree
	TreePresent TreePresence = 1 // present
	TreeRemoved TreePresence = 2 // removed
	TreeAdded   TreePresence = 3 // added
)

// A PartialGroupInfo is what somebody who follows the group cannot compute of
// a GroupInfo (section 4).
//
//	struct {
//	  RatchetTreePresence ratchet_tree_presence;
//	  /* GroupInfo extensions excluding ratchet_tree */
//	  Extension group_info_extensions<V>;
//	  opaque signature<V>;
//	} PartialGroupInfo;
type PartialGroupInfo struct {
	Presence   TreePresence
	Extensions Extensions
	Signature  []byte
}

// ParsePartialGroupInfo decodes a PartialGroupInfo.
func ParsePartialGroupInfo(b []byte) (*PartialGroupInfo, error) {
	p := new(PartialGroupInfo)
	if err := parse("PartialGroupInfo", b, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Bytes returns the encoding.
func (p *PartialGroupInfo) Bytes() []byte { return encode(p) }

func (p *PartialGroupInfo) marshal(b *tlsvec.Builder) {
	b.Uint8(uint8(p.Presence))
	p.Extensions.marshal(b)
	b.Vector(p.Signature)
}

func (p *PartialGroupInfo) unmarshal(r *tlsvec.Reader) {
	if p.Presence = TreePresence(r.Uint8()); p.Presence > TreeAdded {
		r.Fail(fmt.Sprintf("ratchet_tree_presence %d is unknown", p.Presence))
	}
	p.Extensions.unmarshal(r)
	if _, ok := p.Extensions.Find(ExtensionRatchetTree); ok && r.Err() == nil {
		r.Fail("group_info_extensions contain a ratchet_tree")
	}
	p.Signature = r.Vector()
}

// Partial leaves out of a GroupInfo what a delivery service knows. A GroupInfo
// that contains the ratchet tree has no such form here: where in the list of
// extensions it stood could not be told.
func (g *GroupInfo) Partial() (*PartialGroupInfo, error) {
	if _, ok := g.Extensions.Find(ExtensionRatchetTree); ok {
		return nil, broken(RulePartialPresence, "the GroupInfo contains the ratchet tree; make it without")
	}
	return &PartialGroupInfo{TreeAbsent, g.Extensions, g.Signature}, nil
}

// RebuildGroupInfo completes the committer's PartialGroupInfo with what the
// commit leads to, and checks the result like CheckGroupInfo.
func (s *StagedCommit) RebuildGroupInfo(p *PartialGroupInfo) (*GroupInfo, error) {
	if p.Presence != TreeAbsent {
		return nil, broken(RulePartialPresence, "ratchet_tree_presence is %d; the GroupInfo must be without the tree", p.Presence)
	}
	info := &GroupInfo{s.next.context, p.Extensions, s.next.confirmationTag, s.change.committer, p.Signature}
	return info, s.CheckGroupInfo(info)
}

// CheckGroupInfo checks that a GroupInfo which came with the commit describes
// the epoch that the commit begins, and that the committer signed it. A
// delivery service does this before it accepts the commit: with a GroupInfo
// that is wrong nobody could join afterwards, and nobody would be to blame.
func (s *StagedCommit) CheckGroupInfo(info *GroupInfo) error {
	if info.Signer != s.change.committer {
		return broken(RuleGroupInfoSigner, "signer is leaf %d, the committer leaf %d", info.Signer, s.change.committer)
	}
	if err := s.next.checkGroupInfo(info); err != nil {
		return err
	}
	s.info = info
	return nil
}

// checkGroupInfo checks a GroupInfo against an epoch that is known.
func (p *publicState) checkGroupInfo(info *GroupInfo) error {
	if !info.GroupContext.equal(&p.context) {
		return broken(RuleGroupInfoContext, "GroupContext is not that of epoch %d as it is known here", p.context.Epoch)
	}
	if !bytes.Equal(info.ConfirmationTag, p.confirmationTag) {
		return broken(RuleGroupInfoConfirmation, "confirmation_tag is not the commit's")
	}
	if tree, ok := info.Extensions.Find(ExtensionRatchetTree); ok && !bytes.Equal(tree, p.tree.bytes()) {
		return broken(RuleGroupInfoTree, "ratchet_tree is not that of the group")
	}
	pub, err := info.Extensions.ExternalPub()
	if err == nil && pub != nil {
		err = p.suite.checkPublicKey(pub)
	}
	if err != nil {
		return brokenBy(RuleGroupInfoExternalPub, err, "external_pub")
	}
	signer := p.tree.leaf(info.Signer)
	if signer == nil {
		return broken(RuleGroupInfoSigner, "signer's leaf %d is blank", info.Signer)
	}
	return info.verify(p.suite, signer.SignatureKey)
}
