package vectors

import (
	"context"
	"crypto"
	"fmt"

	"github.com/privyseal/privyseal/mls"
)

type messageProtectionVector struct {
	CipherSuite             mls.CipherSuite `json:"cipher_suite"`
	GroupID                 hexBytes        `json:"group_id"`
	Epoch                   uint64          `json:"epoch"`
	TreeHash                hexBytes        `json:"tree_hash"`
	ConfirmedTranscriptHash hexBytes        `json:"confirmed_transcript_hash"`
	SignaturePriv           hexBytes        `json:"signature_priv"`
	SignaturePub            hexBytes        `json:"signature_pub"`
	EncryptionSecret        hexBytes        `json:"encryption_secret"`
	SenderDataSecret        hexBytes        `json:"sender_data_secret"`
	MembershipKey           hexBytes        `json:"membership_key"`
	Proposal                hexBytes        `json:"proposal"`
	ProposalPub             hexBytes        `json:"proposal_pub"`
	ProposalPriv            hexBytes        `json:"proposal_priv"`
	Commit                  hexBytes        `json:"commit"`
	CommitPub               hexBytes        `json:"commit_pub"`
	CommitPriv              hexBytes        `json:"commit_priv"`
	Application             hexBytes        `json:"application"`
	ApplicationPriv         hexBytes        `json:"application_priv"`
}

// A protection is one content of a message-protection vector.
type protection struct {
	*check
	*messageProtectionVector
	framing *mls.Framing
	signer  crypto.Signer
	name    string
	kind    mls.ContentType
	raw     []byte
}

// Two members; the sender is leaf 1 (test-vectors.md).
const protectionLeaves, protectionSender = 2, 1

func messageProtection(c *check, p mls.Primitives, v *messageProtectionVector) {
	c.length("encryption_secret", v.EncryptionSecret, p)
	c.length("sender_data_secret", v.SenderDataSecret, p)
	c.length("membership_key", v.MembershipKey, p)
	signer, err := SignatureKey(p.CipherSuite(), v.SignaturePriv)
	if !c.ok("signature_priv", err) {
		return
	}
	ctx := mls.GroupContext{Version: mls.MLS10, CipherSuite: p.CipherSuite(), GroupID: v.GroupID, Epoch: v.Epoch,
		TreeHash: v.TreeHash, ConfirmedTranscriptHash: v.ConfirmedTranscriptHash}
	f := &mls.Framing{Primitives: p, GroupContext: ctx.Bytes(), Leaf: protectionSender, SignatureKey: v.SignaturePub,
		MembershipKey: v.MembershipKey, SenderDataSecret: v.SenderDataSecret}
	for _, m := range []struct {
		name              string
		kind              mls.ContentType
		raw, pub, private []byte
	}{
		{"proposal", mls.ContentProposal, v.Proposal, v.ProposalPub, v.ProposalPriv},
		{"commit", mls.ContentCommit, v.Commit, v.CommitPub, v.CommitPriv},
		{"application", mls.ContentApplication, v.Application, nil, v.ApplicationPriv},
	} {
		t := &protection{c, v, f, signer, m.name, m.kind, m.raw}
		if m.kind != mls.ContentApplication {
			t.open(m.name+"_pub", m.pub)
		}
		t.open(m.name+"_priv", m.private)
		t.protect()
	}
}

// open unprotects a message with a fresh secret tree.
func (t *protection) open(what string, raw []byte) {
	m, err := mls.ParseMessage(raw)
	if !t.ok(what, err) {
		return
	}
	t.equal(what+" re-encoded", m.Bytes(), raw)
	tree, err := t.framing.NewSecretTree(protectionLeaves, maxForward, t.EncryptionSecret)
	if !t.ok(what, err) {
		return
	}
	a, err := t.framing.Open(m, tree)
	if !t.ok(what, err) {
		return
	}
	got := a.Content.Body()
	if t.kind == mls.ContentApplication {
		got = a.Content.ApplicationData
	}
	t.equal(what+" content", got, t.raw)
}

// protect does it ourselves, both ways, and opens the result. Application data
// must be refused as a PublicMessage.
func (t *protection) protect() {
	content, err := t.content()
	if !t.ok(t.name, err) {
		return
	}
	tag := []byte("a tag")
	if t.kind != mls.ContentCommit {
		tag = nil
	}
	for _, w := range []mls.WireFormat{mls.WirePublicMessage, mls.WirePrivateMessage} {
		tree, err := t.framing.NewSecretTree(protectionLeaves, maxForward, t.EncryptionSecret)
		if !t.ok(t.name, err) {
			return
		}
		raw, err := t.framing.Protect(context.Background(), t.signer, w, content, tag, tree, 0)
		switch {
		case t.kind == mls.ContentApplication && w == mls.WirePublicMessage:
			if err == nil {
				t.fail("application data was encoded as a PublicMessage")
			}
		case t.ok("own "+t.name, err):
			t.open("own "+t.name, raw)
		}
	}
}

func (t *protection) content() (c mls.FramedContent, err error) {
	c = mls.FramedContent{GroupID: t.GroupID, Epoch: t.Epoch, ContentType: t.kind}
	switch t.kind {
	case mls.ContentApplication:
		c.ApplicationData = t.raw
	case mls.ContentProposal:
		c.Proposal, err = mls.ParseProposal(t.raw)
	case mls.ContentCommit:
		c.Commit, err = mls.ParseCommit(t.raw)
	}
	return c, err
}

type messagesVector struct {
	Welcome                hexBytes `json:"mls_welcome"`
	GroupInfo              hexBytes `json:"mls_group_info"`
	KeyPackage             hexBytes `json:"mls_key_package"`
	RatchetTree            hexBytes `json:"ratchet_tree"`
	GroupSecrets           hexBytes `json:"group_secrets"`
	Add                    hexBytes `json:"add_proposal"`
	Update                 hexBytes `json:"update_proposal"`
	Remove                 hexBytes `json:"remove_proposal"`
	PreSharedKey           hexBytes `json:"pre_shared_key_proposal"`
	ReInit                 hexBytes `json:"re_init_proposal"`
	ExternalInit           hexBytes `json:"external_init_proposal"`
	GroupContextExtensions hexBytes `json:"group_context_extensions_proposal"`
	Commit                 hexBytes `json:"commit"`
	PublicApplication      hexBytes `json:"public_message_application"`
	PublicProposal         hexBytes `json:"public_message_proposal"`
	PublicCommit           hexBytes `json:"public_message_commit"`
	PrivateMessage         hexBytes `json:"private_message"`
}

// messages decodes every structure and encodes it again.
func messages(c *check, v *messagesVector) {
	for _, m := range []struct {
		name string
		raw  []byte
		wire mls.WireFormat
		kind mls.ContentType // of a PublicMessage
	}{
		{"mls_welcome", v.Welcome, mls.WireWelcome, 0},
		{"mls_group_info", v.GroupInfo, mls.WireGroupInfo, 0},
		{"mls_key_package", v.KeyPackage, mls.WireKeyPackage, 0},
		{"public_message_application", v.PublicApplication, mls.WirePublicMessage, mls.ContentApplication},
		{"public_message_proposal", v.PublicProposal, mls.WirePublicMessage, mls.ContentProposal},
		{"public_message_commit", v.PublicCommit, mls.WirePublicMessage, mls.ContentCommit},
		{"private_message", v.PrivateMessage, mls.WirePrivateMessage, 0},
	} {
		c.value(m.name, m.raw)(reencodeMessage(m.raw, m.wire, m.kind))
	}
	for _, m := range []struct {
		name string
		raw  []byte
		kind mls.ProposalType
	}{
		{"add_proposal", v.Add, mls.ProposalAdd},
		{"update_proposal", v.Update, mls.ProposalUpdate},
		{"remove_proposal", v.Remove, mls.ProposalRemove},
		{"pre_shared_key_proposal", v.PreSharedKey, mls.ProposalPSK},
		{"re_init_proposal", v.ReInit, mls.ProposalReInit},
		{"external_init_proposal", v.ExternalInit, mls.ProposalExternalInit},
		{"group_context_extensions_proposal", v.GroupContextExtensions, mls.ProposalGroupContextExtensions},
	} {
		c.value(m.name, m.raw)(reencodeProposal(m.raw, m.kind))
	}
	c.value("group_secrets", v.GroupSecrets)(mls.ReencodeGroupSecrets(v.GroupSecrets))
	if commit, err := mls.ParseCommit(v.Commit); c.ok("commit", err) {
		c.equal("commit", commit.Bytes(), v.Commit)
	}
	p, err := mls.NewPrimitives(mls.X25519AES128SHA256Ed25519) // the encoding is the same for all
	if !c.ok("ratchet_tree", err) {
		return
	}
	if tree, err := p.ParseRatchetTree(v.RatchetTree); c.ok("ratchet_tree", err) {
		c.equal("ratchet_tree", tree.Bytes(), v.RatchetTree)
	}
}

func reencodeMessage(raw []byte, w mls.WireFormat, kind mls.ContentType) ([]byte, error) {
	m, err := mls.ParseMessage(raw)
	switch {
	case err != nil:
		return nil, err
	case m.WireFormat != w:
		return nil, fmt.Errorf("wire format %d, want %d", m.WireFormat, w)
	case w == mls.WirePublicMessage && m.PublicMessage.Content.ContentType != kind:
		return nil, fmt.Errorf("content type %d, want %d", m.PublicMessage.Content.ContentType, kind)
	}
	return m.Bytes(), nil
}

// reencodeProposal puts the type before the body, as in a Proposal.
func reencodeProposal(raw []byte, t mls.ProposalType) ([]byte, error) {
	p, err := mls.ParseProposal(append([]byte{byte(t >> 8), byte(t)}, raw...))
	if err != nil {
		return nil, err
	}
	return mls.MarshalProposal(p)[2:], nil
}
