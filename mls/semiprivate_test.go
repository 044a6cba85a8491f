package mls

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// sealDirectly makes a SemiPrivateMessage of a proposal, as seen in a public
// state that may be wrong.
func sealDirectly(h *hubRoom, from string, p *publicState, damage func(*AuthenticatedContent)) *Message {
	h.t.Helper()
	g := h.groups[from]
	a := &AuthenticatedContent{WireFormat: WireSemiPrivateMessage, Content: FramedContent{
		GroupID: g.ID(), Epoch: g.Epoch(), Sender: memberSender(g.keys.index), ContentType: ContentProposal, Proposal: &Remove{0},
	}}
	a.Content.setBody()
	h.must(a.sign(h.ctx, p.suite, g.signer, g.public.raw))
	damage(a)
	k, generation, err := g.ownKey(h.ctx, ContentProposal)
	h.must(err)
	m, err := a.sealSemiPrivate(p, g.secrets.senderData, k, generation, NoPadding)
	h.must(err)
	return &Message{WireFormat: WireSemiPrivateMessage, SemiPrivateMessage: m}
}

func TestSemiPrivateRules(t *testing.T) {
	h := smallHubRoom(t, WireSemiPrivateMessage)
	base := h.groups["m1"].public
	otherContext := *base
	otherContext.raw = append(bytes.Clone(base.raw), 0)
	keep := func(*AuthenticatedContent) {}
	for name, c := range map[string]struct {
		rule    Rule
		message func() *Message
	}{
		"hash of other content": {RuleSemiPrivateHash, func() *Message { return sealDirectly(h, "m1", &otherContext, keep) }},
		"signature": {RuleFrameSignature, func() *Message {
			return sealDirectly(h, "m1", base, func(a *AuthenticatedContent) { a.Auth.Signature = make([]byte, 64) })
		}},
		"SelfRemove": {RuleSelfRemoveFraming, func() *Message {
			return sealDirectly(h, "m1", base, func(a *AuthenticatedContent) {
				a.Content.Proposal = &SelfRemove{}
				a.Content.setBody()
			})
		}},
		"a key too few": {RuleSemiPrivateReceivers, func() *Message {
			m := sealDirectly(h, "m1", base, keep)
			m.SemiPrivateMessage.Keys = m.SemiPrivateMessage.Keys[:1]
			return m
		}},
		"one receiver twice": {RuleSemiPrivateReceivers, func() *Message {
			m := sealDirectly(h, "m1", base, keep)
			m.SemiPrivateMessage.Keys[0] = m.SemiPrivateMessage.Keys[1]
			return m
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.message()
			_, err := h.groups["m2"].Verify(m)
			wantRule(t, err, c.rule)
			_, err = h.hub.Verify(h.ctx, m)
			wantRule(t, err, c.rule)
		})
	}
	m := sealDirectly(h, "m1", base, keep)
	m.SemiPrivateMessage.PartialContextHash[0] ^= 1
	_, err := h.groups["m2"].Verify(m)
	wantRule(t, err, RuleSemiPrivateContext)
	if _, err = h.hub.Verify(h.ctx, m); !errors.Is(err, ErrDecrypt) {
		t.Fatalf("hub: %v", err)
	}
	m.SemiPrivateMessage.PartialContextHash[0] ^= 1
	if _, err := h.groups["m1"].Verify(m); !errors.Is(err, ErrOwnMessage) {
		t.Fatalf("own message: %v", err)
	}
	// What was refused did not cost the message its key; once read, it did.
	if _, err := h.groups["m2"].Verify(m); err != nil {
		t.Fatal(err)
	}
	if _, err := h.groups["m2"].Verify(m); !errors.Is(err, ErrConsumed) {
		t.Fatalf("replay: %v", err)
	}
	h.hub.cfg.ReceiverKey = nil
	if _, err := h.hub.Verify(h.ctx, m); !errors.Is(err, ErrDecrypt) {
		t.Fatalf("hub without its key: %v", err)
	}
}

// The message is taken apart here by the text of the draft, without the
// engine's own functions for it.
func TestSemiPrivateByTheText(t *testing.T) {
	h := smallHubRoom(t, WireSemiPrivateMessage)
	raw, err := h.groups["m1"].Propose(h.ctx, &Remove{0}, ProposeOptions{WireFormat: WireSemiPrivateMessage, AuthenticatedData: []byte("aad")})
	h.must(err)
	for i := range raw {
		if _, err := ParseMessage(raw[:i]); err == nil {
			t.Fatalf("a prefix of %d octets was accepted", i)
		}
	}
	ctx := h.groups["m0"].Context()
	receivers, err := ctx.Extensions.ExternalReceivers()
	h.must(err)
	private, err := h.cfg.ReceiverKey(h.ctx, receivers[1].PublicKey)
	h.must(err)

	r := tlsvec.NewReader(raw[4:])
	r.Vector()
	r.Uint64()
	r.Uint8()
	r.Vector()
	contextHash := r.Vector()
	var ref []byte
	var ct HPKECiphertext
	r.Each(func(r *tlsvec.Reader) {
		ref = r.Vector()
		ct = HPKECiphertext{r.Vector(), r.Vector()}
	})
	tbsHash := r.Vector()
	aad := r.Since(0)
	r.Vector()
	ciphertext := r.Vector()
	h.must(r.Done())

	p, err := NewPrimitives(h.suite)
	h.must(err)
	var b tlsvec.Builder
	b.Vector(receivers[1].PublicKey)
	b.Uint16(1)
	b.String("hub")
	sum := func(b []byte) []byte { d := sha256.Sum256(b); return d[:] }
	wantBytes(t, "external_receiver_ref", ref, sum(b.Bytes()))
	b = tlsvec.Builder{}
	b.Vector(ctx.GroupID)
	b.Uint64(ctx.Epoch)
	b.Vector(contextHash)
	keys, err := p.DecryptWithLabel(private, "SemiPrivateMessageReceiver", b.Bytes(), ct)
	h.must(err)
	r = tlsvec.NewReader(keys)
	key, nonce, guard, leaf := r.Vector(), r.Vector(), r.Bytes(4), r.Bytes(4)
	h.must(r.Done())
	wantBytes(t, "sender_leaf_index", leaf, []byte{0, 0, 0, 1})
	wantBytes(t, "partial_context_hash", contextHash, sum(append(bytes.Clone(leaf), nonce...)))
	for i := range guard {
		nonce[i] ^= guard[i]
	}
	block, err := aes.NewCipher(key)
	h.must(err)
	aead, err := cipher.NewGCM(block)
	h.must(err)
	plain, err := aead.Open(nil, nonce, ciphertext, aad)
	h.must(err)
	if !bytes.HasPrefix(plain, []byte{0, 3, 0, 0, 0, 0, 64, 64}) { // Remove of leaf 0, signature of 64 octets
		t.Fatalf("content is %x", plain)
	}
	b = tlsvec.Builder{}
	b.Uint16(1)
	b.Uint16(uint16(WireSemiPrivateMessage))
	b.Vector(ctx.GroupID)
	b.Uint64(ctx.Epoch)
	b.Raw([]byte{1, 0, 0, 0, 1})
	b.String("aad")
	b.Raw([]byte{2, 0, 3, 0, 0, 0, 0})
	b.Raw(h.groups["m0"].ContextBytes())
	wantBytes(t, "framed_content_tbs_hash", tbsHash, sum(b.Bytes()))
}

// A pending SemiPrivateMessage survives a restart of its sender.
func TestSemiPrivatePendingReloaded(t *testing.T) {
	h := smallHubRoom(t, WireSemiPrivateMessage)
	p, err := h.groups["m1"].Commit(h.ctx, CommitOptions{WireFormat: WireSemiPrivateMessage, GroupInfo: &GroupInfoOptions{ExternalPub: true}})
	h.must(err)
	h.groups["m1"] = reload(t, h.groups["m1"])
	h.accept("m1", p.Message, p.GroupInfo)
	h.must(h.groups["m1"].MergePending(h.ctx))
	h.compare()
	h.chat()
}

func TestSemiPrivateNeedsAgreement(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	_, err := h.groups["m1"].Commit(h.ctx, CommitOptions{WireFormat: WireSemiPrivateMessage})
	wantRule(t, err, RuleSemiPrivateAllowed)
	_, err = h.groups["m1"].Propose(h.ctx, &Remove{0}, ProposeOptions{WireFormat: WireSemiPrivateMessage})
	wantRule(t, err, RuleSemiPrivateAllowed)
	if _, err = h.groups["m1"].Commit(h.ctx, CommitOptions{WireFormat: WireWelcome}); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("commit as a Welcome: %v", err)
	}
	semi := smallHubRoom(t, WireSemiPrivateMessage)
	m := sealDirectly(semi, "m1", semi.groups["m1"].public, func(*AuthenticatedContent) {})
	m.SemiPrivateMessage.GroupID, m.SemiPrivateMessage.Epoch = h.groups["m1"].ID(), h.groups["m1"].Epoch()
	_, err = h.groups["m1"].Verify(m)
	wantRule(t, err, RuleSemiPrivateAllowed)
	_, err = h.hub.Verify(h.ctx, m)
	wantRule(t, err, RuleSemiPrivateAllowed)
}

func TestExternalReceivers(t *testing.T) {
	h := smallHubRoom(t, WireSemiPrivateMessage)
	ctx := h.groups["m0"].Context()
	list, err := ctx.Extensions.ExternalReceivers()
	h.must(err)
	name := BasicCredential([]byte("hub"))
	for what, receivers := range map[string][]ExternalReceiver{
		"no key":        {{[]byte("no key"), name}},
		"one key twice": {list[0], {list[0].PublicKey, name}},
	} {
		x := ExternalReceiversExtension(receivers...)
		_, err := h.groups["m0"].Commit(h.ctx, CommitOptions{Proposals: []Proposal{&GroupContextExtensions{ctx.Extensions.With(x.Type, x.Data)}}})
		t.Run(what, func(t *testing.T) { wantRule(t, err, RuleExternalReceivers) })
	}

	// Another receiver's key: the hub that is no receiver any more reads the
	// commit that says so, and nothing afterwards.
	x := ExternalReceiversExtension(list[0])
	h.commitThrough("m0", &GroupContextExtensions{ctx.Extensions.With(x.Type, x.Data)})
	h.compare()
	p, err := h.groups["m1"].Commit(h.ctx, CommitOptions{WireFormat: WireSemiPrivateMessage})
	h.must(err)
	m, err := ParseMessage(p.Message)
	h.must(err)
	if _, err := h.hub.Verify(h.ctx, m); !errors.Is(err, ErrDecrypt) {
		t.Fatalf("a hub that is no receiver: %v", err)
	}
}

// The list of receivers may be a component instead of an extension.
func TestExternalReceiversAsComponent(t *testing.T) {
	ComponentExternalReceivers = 0x0008
	defer func() { ComponentExternalReceivers = 0 }()
	h := smallHubRoom(t, WirePublicMessage)
	key, err := suites[h.suite].kem.GenerateKey()
	h.must(err)
	name := BasicCredential([]byte("hub"))
	h.hub.cfg.ReceiverKey = func(context.Context, []byte) (hpke.PrivateKey, error) { return key, nil }
	_, err = h.groups["m0"].Commit(h.ctx, CommitOptions{Proposals: []Proposal{
		UpdateAppData(ComponentExternalReceivers, ExternalReceiversExtension(ExternalReceiver{[]byte("no key"), name}).Data),
	}})
	wantRule(t, err, RuleAppDataRefused)
	h.commitThrough("m0", UpdateAppData(ComponentExternalReceivers, ExternalReceiversExtension(ExternalReceiver{key.PublicKey().Bytes(), name}).Data))
	wire := WireFormatsExtension(ExtensionRequiredWireFormats, WireSemiPrivateMessage)
	ctx := h.groups["m0"].Context()
	h.commitThrough("m0", &GroupContextExtensions{ctx.Extensions.With(wire.Type, wire.Data)})
	h.wire = WireSemiPrivateMessage
	h.commitThrough("m1")
	h.compare()
}

// SemiPrivateMessages carry handshakes only.
func TestSemiPrivateApplicationRefused(t *testing.T) {
	m := &SemiPrivateMessage{ContentType: ContentApplication}
	err := parse("SemiPrivateMessage", encode(m), new(SemiPrivateMessage))
	var e *tlsvec.Error
	if !errors.As(err, &e) {
		t.Fatalf("application data: %v", err)
	}
}

func TestRatchetTreeOption(t *testing.T) {
	options := map[string]*RatchetTreeOption{
		"full":                FullTree([]byte{1, 0}),
		"httpsUri":            {Representation: TreeHTTPS, URL: "https://hub.example/t/1", Signature: []byte("s")},
		"outOfBand":           {Representation: TreeOutOfBand, Signature: []byte("s")},
		"distributionService": {Representation: TreeDistributionService},
	}
	for name, o := range options {
		raw := o.Bytes()
		back, err := ParseRatchetTreeOption(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantBytes(t, name, back.Bytes(), raw)
		for i := range raw {
			if _, err := ParseRatchetTreeOption(raw[:i]); err == nil {
				t.Fatalf("%s: a prefix of %d octets was accepted", name, i)
			}
		}
		if _, err := ParseRatchetTreeOption(append(raw, 0)); err == nil {
			t.Fatalf("%s: a trailing octet was accepted", name)
		}
	}
	for _, raw := range [][]byte{{0}, {5}, {255}} {
		if _, err := ParseRatchetTreeOption(raw); err == nil {
			t.Fatalf("representation %d was accepted", raw[0])
		}
	}
}

func TestTreeSource(t *testing.T) {
	groupContext := Extensions{TreeSourceDomainsExtension("hub.example", "b.example")}
	for u, good := range map[string]bool{
		"https://hub.example/t": true, "https://B.example:8443/t?x": true, "http://hub.example/t": false,
		"https://evil.example/hub.example": false, "https://x.hub.example/t": false, "https://hub.example@evil.example/": false,
		"https://u@hub.example/": false, "https:hub.example": false, "https://": false, "https://%zz": false, "": false,
	} {
		o := &RatchetTreeOption{Representation: TreeHTTPS, URL: u}
		_, err := o.Source(groupContext)
		if good && err != nil {
			t.Errorf("%s: %v", u, err)
		}
		if !good {
			wantRule(t, err, RuleTreeSource)
		}
		_, err = o.Source(nil)
		wantRule(t, err, RuleTreeSource)
	}
	_, err := FullTree(nil).Source(groupContext)
	wantRule(t, err, RuleTreeSource)
	if err := (Extensions{TreeSourceDomainsExtension()}).checkKnown(); err == nil {
		t.Error("an empty list of domains was accepted")
	}
}

func TestPartialGroupInfoCodec(t *testing.T) {
	p := &PartialGroupInfo{TreeRemoved, Extensions{externalPubExtension([]byte("key"))}, []byte("signature")}
	raw := p.Bytes()
	back, err := ParsePartialGroupInfo(raw)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "round trip", back.Bytes(), raw)
	for i := range raw {
		if _, err := ParsePartialGroupInfo(raw[:i]); err == nil {
			t.Fatalf("a prefix of %d octets was accepted", i)
		}
	}
	for name, bad := range map[string]*PartialGroupInfo{
		"presence": {Presence: 4},
		"tree":     {Extensions: Extensions{{ExtensionRatchetTree, []byte{0}}}},
		"twice":    {Extensions: Extensions{{7, nil}, {7, nil}}},
	} {
		if _, err := ParsePartialGroupInfo(bad.Bytes()); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := ParsePartialGroupInfo(append(raw, 0)); err == nil {
		t.Error("a trailing octet was accepted")
	}
}
