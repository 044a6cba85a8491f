package mls

import (
	"bytes"
	"context"
	"os"
	"testing"
)

type messageProtectionVector struct {
	CipherSuite             CipherSuite `json:"cipher_suite"`
	GroupID                 hexBytes    `json:"group_id"`
	Epoch                   uint64      `json:"epoch"`
	TreeHash                hexBytes    `json:"tree_hash"`
	ConfirmedTranscriptHash hexBytes    `json:"confirmed_transcript_hash"`
	SignaturePriv           hexBytes    `json:"signature_priv"`
	SignaturePub            hexBytes    `json:"signature_pub"`
	EncryptionSecret        hexBytes    `json:"encryption_secret"`
	SenderDataSecret        hexBytes    `json:"sender_data_secret"`
	MembershipKey           hexBytes    `json:"membership_key"`
	Proposal                hexBytes    `json:"proposal"`
	ProposalPub             hexBytes    `json:"proposal_pub"`
	ProposalPriv            hexBytes    `json:"proposal_priv"`
	Commit                  hexBytes    `json:"commit"`
	CommitPub               hexBytes    `json:"commit_pub"`
	CommitPriv              hexBytes    `json:"commit_priv"`
	Application             hexBytes    `json:"application"`
	ApplicationPriv         hexBytes    `json:"application_priv"`
}

func TestVectorsMessageProtection(t *testing.T) {
	eachSuite(t, "message-protection", func(c *messageProtectionVector) CipherSuite { return c.CipherSuite }, testMessageProtection)
}

// A protectionCase is one content type of a message-protection vector.
type protectionCase struct {
	*messageProtectionVector
	suite   *suite
	context []byte
	kind    ContentType
	raw     []byte
}

func testMessageProtection(t *testing.T, s *suite, c *messageProtectionVector) {
	ctx := encode(&GroupContext{Version: MLS10, CipherSuite: s.id, GroupID: c.GroupID, Epoch: c.Epoch,
		TreeHash: c.TreeHash, ConfirmedTranscriptHash: c.ConfirmedTranscriptHash})
	for _, m := range []struct {
		kind            ContentType
		raw, pub, wrapp []byte
	}{
		{ContentProposal, c.Proposal, c.ProposalPub, c.ProposalPriv},
		{ContentCommit, c.Commit, c.CommitPub, c.CommitPriv},
		{ContentApplication, c.Application, nil, c.ApplicationPriv},
	} {
		p := &protectionCase{c, s, ctx, m.kind, m.raw}
		if m.pub != nil {
			p.checkPublic(t, m.pub)
		}
		p.checkPrivate(t, m.wrapp)
		p.checkOwn(t)
	}
}

func (p *protectionCase) checkContent(t *testing.T, a *AuthenticatedContent) {
	t.Helper()
	if err := a.verify(p.suite, p.SignaturePub, p.context); err != nil {
		t.Error(err)
	}
	got := a.Content.body
	if p.kind == ContentApplication {
		got = a.Content.ApplicationData
	}
	wantBytes(t, "content", got, p.raw)
}

func (p *protectionCase) checkPublic(t *testing.T, raw []byte) {
	t.Helper()
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.PublicMessage.open(p.suite, p.MembershipKey, p.context)
	if err != nil {
		t.Fatal(err)
	}
	p.checkContent(t, a)
}

func (p *protectionCase) checkPrivate(t *testing.T, raw []byte) {
	t.Helper()
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.suite.openSenderData(p.SenderDataSecret, m.PrivateMessage)
	if err != nil {
		t.Fatal(err)
	}
	if d.leaf != 1 {
		t.Errorf("sender is leaf %d", d.leaf)
	}
	r, err := newSecretTree(p.suite, 2, bytes.Clone(p.EncryptionSecret)).ratchet(1, p.kind)
	if err != nil {
		t.Fatal(err)
	}
	k, err := r.find(p.suite, d.generation, ratchetLimits{100, 100})
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.suite.openContent(m.PrivateMessage, k, d)
	if err != nil {
		t.Fatal(err)
	}
	p.checkContent(t, a)
}

// checkOwn protects the raw content both ways and opens it again.
func (p *protectionCase) checkOwn(t *testing.T) {
	t.Helper()
	for _, w := range []WireFormat{WirePublicMessage, WirePrivateMessage} {
		c := FramedContent{GroupID: p.GroupID, Epoch: p.Epoch, Sender: memberSender(1), ContentType: p.kind}
		switch p.kind {
		case ContentApplication:
			c.ApplicationData = p.raw
		case ContentProposal:
			var box proposalBox
			mustDecode(t, "Proposal", p.raw, &box)
			c.Proposal = box.Proposal
		case ContentCommit:
			c.Commit = new(Commit)
			mustDecode(t, "Commit", p.raw, c.Commit)
		}
		c.setBody()
		a := &AuthenticatedContent{WireFormat: w, Content: c}
		if err := a.sign(context.Background(), p.suite, vectorSigner(t, p.suite, p.SignaturePriv), p.context); err != nil {
			t.Fatal(err)
		}
		a.Auth.ConfirmationTag = []byte("a tag")
		if w == WirePrivateMessage {
			r, err := newSecretTree(p.suite, 2, bytes.Clone(p.EncryptionSecret)).ratchet(1, p.kind)
			if err != nil {
				t.Fatal(err)
			}
			m, err := a.seal(p.suite, p.SenderDataSecret, r.step(p.suite), 0, PadToMultiple(64))
			if err != nil {
				t.Fatal(err)
			}
			p.checkPrivate(t, wrapMessage(w, m))
			continue
		}
		m, err := a.public(p.suite, p.MembershipKey, p.context)
		if p.kind == ContentApplication {
			if err == nil {
				t.Error("application data was encoded as a PublicMessage")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p.checkPublic(t, wrapMessage(w, m))
	}
}

type welcomeVector struct {
	CipherSuite CipherSuite `json:"cipher_suite"`
	InitPriv    hexBytes    `json:"init_priv"`
	SignerPub   hexBytes    `json:"signer_pub"`
	KeyPackage  hexBytes    `json:"key_package"`
	Welcome     hexBytes    `json:"welcome"`
}

func TestVectorsWelcome(t *testing.T) {
	eachSuite(t, "welcome", func(c *welcomeVector) CipherSuite { return c.CipherSuite }, func(t *testing.T, s *suite, c *welcomeVector) {
		kp, err := ParseKeyPackage(c.KeyPackage)
		if err != nil {
			t.Fatal(err)
		}
		w, err := ParseWelcome(c.Welcome)
		if err != nil {
			t.Fatal(err)
		}
		part := w.For(kp.Ref())
		if part == nil {
			t.Fatal("Welcome has no part for the KeyPackage")
		}
		secrets, err := w.openSecrets(s, part, vectorHPKE(t, s, c.InitPriv).private)
		if err != nil {
			t.Fatal(err)
		}
		member := s.memberSecret(secrets.joiner, s.zero())
		gi, err := w.openGroupInfo(s, s.deriveSecret(member, "welcome"))
		if err != nil {
			t.Fatal(err)
		}
		if err := gi.verify(s, c.SignerPub); err != nil {
			t.Error(err)
		}
		e := s.deriveEpoch(secrets.joiner, s.zero(), encode(&gi.GroupContext))
		if !s.verifyMAC(e.confirmationKey, gi.GroupContext.ConfirmedTranscriptHash, gi.ConfirmationTag) {
			t.Error("confirmation tag does not match")
		}
	})
}

type passiveVector struct {
	CipherSuite  CipherSuite `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  hexBytes `json:"psk_id"`
		PSK hexBytes `json:"psk"`
	} `json:"external_psks"`
	KeyPackage     hexBytes  `json:"key_package"`
	SignaturePriv  hexBytes  `json:"signature_priv"`
	EncryptionPriv hexBytes  `json:"encryption_priv"`
	InitPriv       hexBytes  `json:"init_priv"`
	Welcome        hexBytes  `json:"welcome"`
	RatchetTree    *hexBytes `json:"ratchet_tree"`
	InitialAuth    hexBytes  `json:"initial_epoch_authenticator"`
	Epochs         []struct {
		Proposals []hexBytes `json:"proposals"`
		Commit    hexBytes   `json:"commit"`
		Auth      hexBytes   `json:"epoch_authenticator"`
	} `json:"epochs"`
}

func passiveSuite(c *passiveVector) CipherSuite { return c.CipherSuite }

func TestVectorsPassiveWelcome(t *testing.T) {
	eachSuite(t, "passive-client-welcome", passiveSuite, testPassive)
}

func TestVectorsPassiveCommit(t *testing.T) {
	eachSuite(t, "passive-client-handling-commit", passiveSuite, testPassive)
}

// TestVectorsExtra runs the two large files of the working group that the
// module leaves out, if MLS_VECTORS names a folder that has them.
func TestVectorsExtra(t *testing.T) {
	dir := os.Getenv("MLS_VECTORS")
	if dir == "" {
		t.Log("MLS_VECTORS is not set: messages.json and passive-client-random.json are not run")
		return
	}
	old := vectorFolder
	vectorFolder = func() (string, error) { return dir, nil }
	defer func() { vectorFolder = old }()
	t.Run("passive-client-random", func(t *testing.T) { eachSuite(t, "passive-client-random", passiveSuite, testPassive) })
	t.Run("messages", testMessages)
}

func testPassive(t *testing.T, s *suite, c *passiveVector) {
	ctx := context.Background()
	psks := map[string][]byte{}
	for _, p := range c.ExternalPSKs {
		psks[string(p.ID)] = p.PSK
	}
	kp, err := ParseKeyPackage(c.KeyPackage)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Config{
		CipherSuite: s.id, Signer: vectorSigner(t, s, c.SignaturePriv), Credential: kp.LeafNode.Credential,
		Capabilities: kp.LeafNode.Capabilities, Limits: Limits{MaxLifetime: -1},
		PSK: func(_ context.Context, id []byte) ([]byte, error) {
			if v, ok := psks[string(id)]; ok {
				return v, nil
			}
			return nil, ErrUnknownPSK
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "signature key", client.public, kp.LeafNode.SignatureKey)
	entry, err := client.ImportKeyPackage(ctx, kp, vectorHPKE(t, s, c.InitPriv).private, vectorHPKE(t, s, c.EncryptionPriv).private)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseWelcome(c.Welcome)
	if err != nil {
		t.Fatal(err)
	}
	var opts JoinOptions
	if c.RatchetTree != nil {
		opts.RatchetTree = *c.RatchetTree
	}
	g, err := client.Join(ctx, w, []*KeyPackageEntry{entry}, opts)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "initial epoch_authenticator", g.EpochAuthenticator(), c.InitialAuth)
	for i, e := range c.Epochs {
		for _, p := range e.Proposals {
			if err := g.Keep(mustVerify(t, g, p).(*VerifiedProposal)); err != nil {
				t.Fatal(err)
			}
		}
		staged, err := g.Stage(ctx, mustVerify(t, g, e.Commit).(*VerifiedCommit))
		if err != nil {
			t.Fatalf("epoch %d: %v", i, err)
		}
		if err := g.Merge(ctx, staged); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "epoch_authenticator", g.EpochAuthenticator(), e.Auth)
		g = reload(t, g)
	}
}

// reload stores a group and reads it back.
func reload(t testing.TB, g *Group) *Group {
	t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.client.UnmarshalGroup(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustVerify(t testing.TB, g *Group, raw []byte) Verified {
	t.Helper()
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.Verify(m)
	if err != nil {
		t.Fatal(err)
	}
	return v
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

func testMessages(t *testing.T) {
	for _, c := range loadVectors[messagesVector](t, "messages") {
		for _, m := range []hexBytes{c.Welcome, c.GroupInfo, c.KeyPackage, c.PublicApplication, c.PublicProposal, c.PublicCommit, c.PrivateMessage} {
			mustDecode(t, "MLSMessage", m, new(Message))
		}
		mustDecode(t, "GroupSecrets", c.GroupSecrets, new(groupSecrets))
		mustDecode(t, "Commit", c.Commit, new(Commit))
		for raw, p := range map[*hexBytes]Proposal{
			&c.Add: new(Add), &c.Update: new(Update), &c.Remove: new(Remove), &c.PreSharedKey: new(PreSharedKey),
			&c.ReInit: new(ReInit), &c.ExternalInit: new(ExternalInit), &c.GroupContextExtensions: new(GroupContextExtensions),
		} {
			mustDecode(t, "Proposal", *raw, p)
		}
		tree, err := parseTree(suites[1], c.RatchetTree)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "ratchet_tree", encode(tree), c.RatchetTree)
	}
}
