package mls

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// sign fills in the signature of a message whose content is complete.
func (a *AuthenticatedContent) sign(ctx context.Context, s *suite, signer crypto.Signer, context []byte) error {
	sig, err := s.signWithLabel(ctx, signer, "FramedContentTBS", a.tbs(context))
	if err != nil {
		return err
	}
	a.Auth.Signature = sig
	return nil
}

// verify checks the signature with the key of the sender. context is the encoded
// GroupContext, or its pieces.
func (a *AuthenticatedContent) verify(s *suite, publicKey []byte, context ...[]byte) error {
	if err := a.checkFraming(); err != nil {
		return err
	}
	if err := s.verifyPieces(publicKey, "FramedContentTBS", a.Auth.Signature, a.tbsPieces(context...)...); err != nil {
		return brokenBy(RuleFrameSignature, err, "sender %d/%d", a.Content.Sender.Type, a.Content.Sender.Index)
	}
	return nil
}

// public encodes the message as a PublicMessage (section 6.2).
func (a *AuthenticatedContent) public(s *suite, membershipKey, context []byte) (*PublicMessage, error) {
	if a.Content.ContentType == ContentApplication {
		return nil, broken(RuleFrameApplicationPrivate, "application data must be sent as a PrivateMessage")
	}
	m := &PublicMessage{Content: a.Content, Auth: a.Auth}
	if a.Content.Sender.Type == SenderMember {
		m.MembershipTag = a.membershipTag(s, membershipKey, context)
		a.tag = m.MembershipTag
	}
	return m, nil
}

// open checks a PublicMessage's membership tag. The signature is checked by
// the caller, who knows the sender's key.
func (p *PublicMessage) open(s *suite, membershipKey, context []byte) (*AuthenticatedContent, error) {
	if p.Content.ContentType == ContentApplication {
		return nil, broken(RuleFrameApplicationPrivate, "application data came as a PublicMessage")
	}
	a := p.authenticated()
	if p.Content.Sender.Type == SenderMember && membershipKey != nil {
		if !hmac.Equal(a.membershipTag(s, membershipKey, context), p.MembershipTag) {
			return nil, brokenBy(RuleFrameMembershipTag, ErrBadMAC, "membership_tag of leaf %d", p.Content.Sender.Index)
		}
	}
	return a, nil
}

// A PaddingPolicy gives the number of octets with which a plaintext of n
// octets is padded (section 15.1).
type PaddingPolicy func(n int) int

// PadToMultiple pads to the next multiple of block octets.
func PadToMultiple(block int) PaddingPolicy {
	return func(n int) int {
		if block <= 1 {
			return 0
		}
		return (block - n%block) % block
	}
}

// NoPadding does not pad.
func NoPadding(int) int { return 0 }

// seal encrypts a message with one generation of its sender's ratchet
// (section 6.3).
func (a *AuthenticatedContent) seal(s *suite, senderDataSecret []byte, k keyNonce, generation uint32, pad PaddingPolicy) (*PrivateMessage, error) {
	c := &a.Content
	m := &PrivateMessage{GroupID: c.GroupID, Epoch: c.Epoch, ContentType: c.ContentType, AuthenticatedData: c.AuthenticatedData}
	data := senderData{leaf: LeafIndex(c.Sender.Index), generation: generation}
	rand.Read(data.guard[:])
	var err error
	if m.Ciphertext, err = a.sealContent(s, m.contentAAD(), k.guarded(data.guard), pad); err != nil {
		return nil, err
	}
	m.EncryptedSenderData, err = s.sealSenderData(senderDataSecret, m, &data)
	return m, err
}

// sealContent encrypts PrivateMessageContent (section 6.3.1).
//
//	struct {
//	    select (PrivateMessage.content_type) { ... };
//	    FramedContentAuthData auth;
//	    opaque padding[length_of_padding];
//	} PrivateMessageContent;
func (a *AuthenticatedContent) sealContent(s *suite, aad []byte, k keyNonce, pad PaddingPolicy) ([]byte, error) {
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: message key: %w", err)
	}
	size := len(a.Content.body) + len(a.Auth.Signature) + len(a.Auth.ConfirmationTag) + 8
	b := tlsvec.NewBuilder(size + size/2 + 64)
	b.Raw(a.Content.body)
	a.Auth.marshal(b, a.Content.ContentType)
	if n := pad(b.Len()); n > 0 {
		b.Raw(make([]byte, n))
	}
	return aead.Seal(b.Bytes()[:0], k.nonce, b.Bytes(), aad), nil
}

func (s *suite) sealSenderData(secret []byte, m *PrivateMessage, d *senderData) ([]byte, error) {
	k := s.senderDataKey(secret, m.Ciphertext)
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: sender data key: %w", err)
	}
	aad := tlsvec.NewBuilder(len(m.GroupID) + 16)
	m.marshalSenderDataAAD(aad)
	plain := tlsvec.NewBuilder(32)
	d.marshal(plain)
	return aead.Seal(plain.Bytes()[:0], k.nonce, plain.Bytes(), aad.Bytes()), nil
}

// openSenderData decrypts the sender data of a PrivateMessage.
func (s *suite) openSenderData(secret []byte, m *PrivateMessage) (*senderData, error) {
	k := s.senderDataKey(secret, m.Ciphertext)
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: sender data key: %w", err)
	}
	aad := tlsvec.NewBuilder(len(m.GroupID) + 16)
	m.marshalSenderDataAAD(aad)
	plain, err := aead.Open(nil, k.nonce, m.EncryptedSenderData, aad.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: sender data", ErrDecrypt)
	}
	d := new(senderData)
	return d, decode("SenderData", plain, d)
}

func (p *PrivateMessage) contentAAD() []byte {
	aad := tlsvec.NewBuilder(len(p.GroupID) + len(p.AuthenticatedData) + 24)
	p.marshalAAD(aad)
	return aad.Bytes()
}

// openContent decrypts and decodes PrivateMessageContent.
func (s *suite) openContent(m *PrivateMessage, k keyNonce, d *senderData) (*AuthenticatedContent, error) {
	return s.openContentWith(m, m.contentAAD(), k, d)
}

func (s *suite) openContentWith(m *PrivateMessage, aad []byte, k keyNonce, d *senderData) (*AuthenticatedContent, error) {
	k = k.guarded(d.guard)
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: message key: %w", err)
	}
	plain, err := aead.Open(nil, k.nonce, m.Ciphertext, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: content from leaf %d, generation %d", ErrDecrypt, d.leaf, d.generation)
	}
	return m.decodeContent(plain, d.leaf)
}

func (m *PrivateMessage) decodeContent(plain []byte, leaf LeafIndex) (*AuthenticatedContent, error) {
	a := &AuthenticatedContent{WireFormat: WirePrivateMessage, Content: FramedContent{
		GroupID: m.GroupID, Epoch: m.Epoch, Sender: memberSender(leaf),
		AuthenticatedData: m.AuthenticatedData, ContentType: m.ContentType,
	}}
	r := tlsvec.NewReader(plain)
	a.Content.unmarshalBody(r)
	a.Auth.unmarshal(r, m.ContentType)
	padding := r.Rest()
	if err := r.Err(); err != nil {
		return nil, &ParseError{"PrivateMessageContent", err}
	}
	for _, b := range padding {
		if b != 0 {
			return nil, broken(RuleFramePadding, "padding is not all zero")
		}
	}
	return a, nil
}

// guarded XORs the reuse guard into a copy of the nonce.
func (k keyNonce) guarded(guard [4]byte) keyNonce {
	nonce := append(make([]byte, 0, 16), k.nonce...)
	for i, b := range guard {
		nonce[i] ^= b
	}
	return keyNonce{k.key, nonce}
}
