package mls

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// KeyForExternalReceiver lets one receiver open one message.
//
//	opaque ExternalReceiverRef<V>; /* hash(ExternalReceiver) */
//
//	struct {
//	  ExternalReceiverRef external_receiver_ref;
//	  HPKECiphertext encrypted_keys_and_nonces;
//	} KeyForExternalReceiver;
type KeyForExternalReceiver struct {
	ReceiverRef            []byte
	EncryptedKeysAndNonces HPKECiphertext
}

func (k *KeyForExternalReceiver) marshal(b *tlsvec.Builder) {
	b.Vector(k.ReceiverRef)
	k.EncryptedKeysAndNonces.marshal(b)
}

func (k *KeyForExternalReceiver) unmarshal(r *tlsvec.Reader) {
	k.ReceiverRef = r.Vector()
	k.EncryptedKeysAndNonces.unmarshal(r)
}

// A SemiPrivateMessage is a proposal or commit that members and external
// receivers can read (section 3.1).
//
//	struct {
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    ContentType content_type;
//	    opaque authenticated_data<V>;
//	    opaque partial_context_hash<V>;
//	    KeyForExternalReceiver keys_for_external_receivers<V>;
//	    opaque framed_content_tbs_hash<V>;
//	    opaque encrypted_sender_data<V>;
//	    opaque ciphertext<V>;
//	} SemiPrivateMessage;
type SemiPrivateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         ContentType
	AuthenticatedData   []byte
	PartialContextHash  []byte
	Keys                []KeyForExternalReceiver
	ContentTBSHash      []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

func (m *SemiPrivateMessage) marshal(b *tlsvec.Builder) {
	m.marshalAAD(b)
	b.Vector(m.EncryptedSenderData)
	b.Vector(m.Ciphertext)
}

// marshalAAD writes SemiPrivateContentAAD, the first seven fields.
func (m *SemiPrivateMessage) marshalAAD(b *tlsvec.Builder) {
	b.Vector(m.GroupID)
	b.Uint64(m.Epoch)
	b.Uint8(uint8(m.ContentType))
	b.Vector(m.AuthenticatedData)
	b.Vector(m.PartialContextHash)
	b.Nested(func(b *tlsvec.Builder) {
		for i := range m.Keys {
			m.Keys[i].marshal(b)
		}
	})
	b.Vector(m.ContentTBSHash)
}

func (m *SemiPrivateMessage) unmarshal(r *tlsvec.Reader) {
	m.GroupID = r.Vector()
	m.Epoch = r.Uint64()
	m.ContentType = ContentType(r.Uint8())
	if m.ContentType != ContentProposal && m.ContentType != ContentCommit {
		r.Fail(fmt.Sprintf("content_type %d is neither proposal nor commit (rule %v)", m.ContentType, RuleSemiPrivateContent))
	}
	m.AuthenticatedData = r.Vector()
	m.PartialContextHash = r.Vector()
	r.Each(func(r *tlsvec.Reader) {
		var k KeyForExternalReceiver
		k.unmarshal(r)
		if m.Keys = append(m.Keys, k); len(m.Keys) > maxExternalReceivers {
			r.Fail(fmt.Sprintf("more than %d external receivers", maxExternalReceivers))
		}
	})
	m.ContentTBSHash = r.Vector()
	m.EncryptedSenderData = r.Vector()
	m.Ciphertext = r.Vector()
}

// private is the message as far as it is a PrivateMessage: sender data and
// content are encrypted and encoded in the same way.
func (m *SemiPrivateMessage) private() *PrivateMessage {
	return &PrivateMessage{m.GroupID, m.Epoch, m.ContentType, m.AuthenticatedData, m.EncryptedSenderData, m.Ciphertext}
}

// perMessageKey is what an external receiver gets.
//
//	struct {
//	  opaque key<V>;
//	  opaque nonce<V>;
//	  opaque reuse_guard[4];
//	  uint32 sender_leaf_index;
//	} PerMessageKeyAndNonces;
type perMessageKey struct {
	keyNonce
	guard [4]byte
	leaf  LeafIndex
}

func (k *perMessageKey) marshal(b *tlsvec.Builder) {
	b.Vector(k.key)
	b.Vector(k.nonce)
	b.Raw(k.guard[:])
	b.Uint32(uint32(k.leaf))
}

func (k *perMessageKey) unmarshal(r *tlsvec.Reader) {
	k.key = r.Vector()
	k.nonce = r.Vector()
	copy(k.guard[:], r.Bytes(4))
	k.leaf = LeafIndex(r.Uint32())
}

// contextHash is partial_context_hash.
//
//	partial_context_hash = hash(sender_leaf_index || nonce)
func (k *perMessageKey) contextHash(s *suite) []byte {
	var b tlsvec.Builder
	b.Uint32(uint32(k.leaf))
	b.Raw(k.nonce)
	return s.sum(b.Bytes())
}

const semiPrivateLabel = "SemiPrivateMessageReceiver"

// receiverContext is the HPKE context of the keys.
//
//	struct {
//	  opaque group_id<V>;
//	  uint64 epoch;
//	  opaque partial_context_hash<V>;
//	} SemiPrivateMessageContext;
func (m *SemiPrivateMessage) receiverContext() []byte {
	var b tlsvec.Builder
	b.Vector(m.GroupID)
	b.Uint64(m.Epoch)
	b.Vector(m.PartialContextHash)
	return b.Bytes()
}

// checkWireFormat says whether members may send handshakes in a format.
func (p *publicState) checkWireFormat(w WireFormat) error {
	switch w {
	case WirePublicMessage, WirePrivateMessage:
		return nil
	case WireSemiPrivateMessage:
		_, err := p.semiPrivateReceivers()
		return err
	}
	return fmt.Errorf("%w: wire format 0x%04x", ErrUnsupported, uint16(w))
}

// semiPrivateReceivers returns the receivers of an epoch in which
// SemiPrivateMessages may be sent.
func (p *publicState) semiPrivateReceivers() ([]ExternalReceiver, error) {
	required, err := p.context.Extensions.wireFormats(ExtensionRequiredWireFormats)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(required, WireSemiPrivateMessage) {
		return nil, broken(RuleSemiPrivateAllowed, "required_wire_formats does not list mls_semiprivate_message")
	}
	list, err := p.context.Extensions.ExternalReceivers()
	if err == nil && len(list) == 0 {
		err = broken(RuleSemiPrivateAllowed, "the GroupContext has no external_receivers")
	}
	return list, err
}

// sealSemiPrivate encrypts a message with one generation of its sender's
// ratchet and gives every receiver the key (section 3.1).
func (a *AuthenticatedContent) sealSemiPrivate(p *publicState, senderDataSecret []byte, k keyNonce, generation uint32, pad PaddingPolicy) (*SemiPrivateMessage, error) {
	c, s := &a.Content, p.suite
	key := perMessageKey{keyNonce: k, leaf: LeafIndex(c.Sender.Index)}
	copy(key.guard[:], random(4))
	m := &SemiPrivateMessage{
		GroupID: c.GroupID, Epoch: c.Epoch, ContentType: c.ContentType, AuthenticatedData: c.AuthenticatedData,
		PartialContextHash: key.contextHash(s), ContentTBSHash: s.sum(a.tbsPieces(p.contextPieces()...)...),
	}
	if err := m.sealKeys(p, &key); err != nil {
		return nil, err
	}
	var aad tlsvec.Builder
	m.marshalAAD(&aad)
	var err error
	if m.Ciphertext, err = a.sealContent(s, aad.Bytes(), k.guarded(key.guard), pad); err != nil {
		return nil, err
	}
	m.EncryptedSenderData, err = s.sealSenderData(senderDataSecret, m.private(), &senderData{key.leaf, generation, key.guard})
	return m, err
}

func (m *SemiPrivateMessage) sealKeys(p *publicState, key *perMessageKey) error {
	receivers, err := p.semiPrivateReceivers()
	if err != nil {
		return err
	}
	plain, info := encode(key), m.receiverContext()
	defer clear(plain)
	for i := range receivers {
		ct, err := p.suite.encryptWithLabel(receivers[i].PublicKey, semiPrivateLabel, info, plain)
		if err != nil {
			return fmt.Errorf("external receiver %d: %w", i, err)
		}
		m.Keys = append(m.Keys, KeyForExternalReceiver{receivers[i].ref(p.suite), ct})
	}
	return nil
}

func (g *Group) protectSemiPrivate(a *AuthenticatedContent, k keyNonce, generation uint32) ([]byte, error) {
	m, err := a.sealSemiPrivate(g.public, g.secrets.senderData, k, generation, g.client.cfg.Padding)
	if err != nil {
		return nil, err
	}
	return wrapMessage(WireSemiPrivateMessage, m), nil
}

// checkSemiPrivate checks what can be checked before decryption, by members
// and receivers alike. It returns the receivers, in the order of the keys.
func (p *publicState) checkSemiPrivate(m *SemiPrivateMessage) ([]ExternalReceiver, error) {
	if err := p.checkAddress(m.GroupID, m.Epoch); err != nil {
		return nil, err
	}
	receivers, err := p.semiPrivateReceivers()
	if err != nil {
		return nil, err
	}
	if len(m.Keys) != len(receivers) {
		return nil, broken(RuleSemiPrivateReceivers, "%d keys for %d external receivers", len(m.Keys), len(receivers))
	}
	byRef := make(map[string]ExternalReceiver, len(receivers))
	for i := range receivers {
		byRef[string(receivers[i].ref(p.suite))] = receivers[i]
	}
	ordered := make([]ExternalReceiver, len(m.Keys))
	for i := range m.Keys {
		ref := string(m.Keys[i].ReceiverRef)
		x, ok := byRef[ref]
		if !ok {
			return nil, broken(RuleSemiPrivateReceivers, "key %d is for nobody in external_receivers, or for one who has a key", i)
		}
		ordered[i] = x
		delete(byRef, ref)
	}
	return ordered, nil
}

// openSemiPrivate decrypts with the message key and verifies (sections 3.2
// and 3.3).
func (p *publicState) openSemiPrivate(m *SemiPrivateMessage, k *perMessageKey) (*AuthenticatedContent, error) {
	s := p.suite
	if len(k.key) != s.nk || len(k.nonce) != s.nn {
		return nil, broken(RuleSemiPrivateContext, "key or nonce has the wrong length")
	}
	if !bytes.Equal(k.contextHash(s), m.PartialContextHash) {
		return nil, broken(RuleSemiPrivateContext, "partial_context_hash is not that of leaf %d and its nonce", k.leaf)
	}
	leaf := p.tree.leaf(k.leaf)
	if leaf == nil {
		return nil, broken(RuleFrameSenderData, "leaf %d is blank", k.leaf)
	}
	var aad tlsvec.Builder
	m.marshalAAD(&aad)
	a, err := s.openContentWith(m.private(), aad.Bytes(), k.keyNonce, &senderData{leaf: k.leaf, guard: k.guard})
	if err != nil {
		return nil, err
	}
	a.WireFormat = WireSemiPrivateMessage
	if !bytes.Equal(s.sum(a.tbsPieces(p.contextPieces()...)...), m.ContentTBSHash) {
		return nil, broken(RuleSemiPrivateHash, "framed_content_tbs_hash is not that of the content")
	}
	return a, a.verify(s, leaf.SignatureKey, p.contextPieces()...)
}

// verifySemiPrivate opens a message as a member. The ratchet's key is erased
// only if everything fits.
func (g *Group) verifySemiPrivate(m *SemiPrivateMessage) (Verified, error) {
	if _, err := g.public.checkSemiPrivate(m); err != nil {
		return nil, err
	}
	s := g.public.suite
	d, err := s.openSenderData(g.secrets.senderData, m.private())
	if err != nil {
		return nil, err
	}
	if d.leaf == g.keys.index {
		return nil, ErrOwnMessage
	}
	if g.signatureKey(d.leaf) == nil {
		return nil, broken(RuleFrameSenderData, "leaf %d is blank", d.leaf)
	}
	r, err := g.messages.ratchet(d.leaf, m.ContentType)
	if err != nil {
		return nil, err
	}
	k, err := r.find(s, d.generation, g.client.ratchetLimits())
	if err != nil {
		return nil, err
	}
	defer r.abandon()
	a, err := g.public.openSemiPrivate(m, &perMessageKey{k, d.guard, d.leaf})
	if err != nil {
		return nil, err
	}
	r.erase(d.generation)
	return classify(s, a, g.public, d.generation)
}

// openAsReceiver opens a message as one of its external receivers.
func (p *publicState) openAsReceiver(ctx context.Context, m *SemiPrivateMessage, find ReceiverKeyFunc) (*AuthenticatedContent, error) {
	receivers, err := p.checkSemiPrivate(m)
	if err != nil {
		return nil, err
	}
	for i := range receivers {
		key, err := find.find(ctx, receivers[i].PublicKey)
		if err != nil {
			return nil, fmt.Errorf("mls: finding the key of external receiver %d: %w", i, err)
		}
		if key == nil {
			continue
		}
		plain, err := p.suite.decryptWithLabel(key, semiPrivateLabel, m.receiverContext(), m.Keys[i].EncryptedKeysAndNonces)
		if err != nil {
			return nil, fmt.Errorf("%w: keys_for_external_receivers[%d]: %w", ErrDecrypt, i, err)
		}
		k := new(perMessageKey)
		if err := decode("PerMessageKeyAndNonces", plain, k); err != nil {
			return nil, err
		}
		defer k.erase()
		return p.openSemiPrivate(m, k)
	}
	return nil, fmt.Errorf("%w: no external receiver's key is known here", ErrDecrypt)
}
