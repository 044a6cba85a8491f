package mls

import (
	"bytes"
	"context"
	"crypto"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A GroupInfo tells newcomers about an epoch (section 12.4.3).
//
//	struct {
//	    GroupContext group_context;
//	    Extension extensions<V>;
//	    MAC confirmation_tag;
//	    uint32 signer;
//	    /* SignWithLabel(., "GroupInfoTBS", GroupInfoTBS) */
//	    opaque signature<V>;
//	} GroupInfo;
type GroupInfo struct {
	GroupContext    GroupContext
	Extensions      Extensions
	ConfirmationTag []byte
	Signer          LeafIndex
	Signature       []byte
}

// ParseGroupInfo decodes a GroupInfo, bare or as an MLSMessage.
func ParseGroupInfo(b []byte) (*GroupInfo, error) {
	g := new(GroupInfo)
	return g, parseBareOrMessage("GroupInfo", b, WireGroupInfo, g)
}

// Bytes returns the encoding.
func (g *GroupInfo) Bytes() []byte { return encode(g) }

// Message returns the encoding as an MLSMessage.
func (g *GroupInfo) Message() []byte { return wrapMessage(WireGroupInfo, g) }

func (g *GroupInfo) marshal(b *tlsvec.Builder) {
	g.GroupContext.marshal(b)
	g.marshalTail(b)
	b.Vector(g.Signature)
}

// marshalTail writes what stands between the GroupContext and the signature.
func (g *GroupInfo) marshalTail(b *tlsvec.Builder) {
	g.Extensions.marshal(b)
	b.Vector(g.ConfirmationTag)
	b.Uint32(uint32(g.Signer))
}

func (g *GroupInfo) unmarshal(r *tlsvec.Reader) {
	g.GroupContext.unmarshal(r)
	g.Extensions.unmarshal(r)
	g.ConfirmationTag = r.Vector()
	g.Signer = LeafIndex(r.Uint32())
	g.Signature = r.Vector()
}

func (g *GroupInfo) tbs() []byte { return bytes.Join(g.tbsPieces(), nil) }

// tbsPieces is what is signed, in pieces that follow each other.
func (g *GroupInfo) tbsPieces() [][]byte {
	b := tlsvec.NewBuilder(256)
	g.marshalTail(b)
	return append(g.GroupContext.pieces(), b.Bytes())
}

func (g *GroupInfo) sign(ctx context.Context, s *suite, signer crypto.Signer) error {
	sig, err := s.signWithLabel(ctx, signer, "GroupInfoTBS", g.tbs())
	if err != nil {
		return err
	}
	g.Signature = sig
	return nil
}

func (g *GroupInfo) verify(s *suite, publicKey []byte) error {
	if err := s.verifyPieces(publicKey, "GroupInfoTBS", g.Signature, g.tbsPieces()...); err != nil {
		return brokenBy(RuleWelcomeSignature, err, "GroupInfo signed by leaf %d", g.Signer)
	}
	return nil
}
