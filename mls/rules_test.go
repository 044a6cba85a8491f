package mls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func wantRule(t *testing.T, err error, want Rule) {
	t.Helper()
	var v *ValidationError
	if !errors.As(err, &v) || v.Rule != want {
		t.Errorf("got %v, want rule %v", err, want)
	}
}

// resign changes a KeyPackage and signs it again.
func resign(t *testing.T, e *KeyPackageEntry, c *Client, change func(*KeyPackage, *LeafNode)) *KeyPackage {
	t.Helper()
	k, l := *e.KeyPackage, *e.KeyPackage.LeafNode
	k.LeafNode, k.raw, l.raw = &l, nil, nil
	change(&k, &l)
	ctx := context.Background()
	if err := errors.Join(l.sign(ctx, c.suite, c.cfg.Signer, nil, 0), k.sign(ctx, c.suite, c.cfg.Signer)); err != nil {
		t.Fatal(err)
	}
	return &k
}

func TestKeyPackageRules(t *testing.T) {
	c := newTestClient(t, P256AES128SHA256P256, "alice", nil)
	e, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	policy := LeafPolicy{Now: time.Now(), MaxLifetime: 400 * 24 * time.Hour}
	if err := e.KeyPackage.Validate(policy); err != nil {
		t.Fatal(err)
	}
	for rule, change := range map[Rule]func(*KeyPackage, *LeafNode){
		RuleKeyPackageSuite:      func(k *KeyPackage, _ *LeafNode) { k.CipherSuite = 4 },
		RuleKeyPackageInitKey:    func(k *KeyPackage, l *LeafNode) { k.InitKey = l.EncryptionKey },
		RuleKeyPackagePublicKey:  func(k *KeyPackage, _ *LeafNode) { k.InitKey = []byte("no key") },
		RuleKeyPackageExtensions: func(k *KeyPackage, _ *LeafNode) { k.Extensions = Extensions{{0xF00D, nil}} },
		RuleLeafPublicKeys:       func(_ *KeyPackage, l *LeafNode) { l.EncryptionKey = []byte("no key") },
		RuleLeafSource:           func(_ *KeyPackage, l *LeafNode) { l.Source = LeafFromUpdate },
		RuleLeafVersion:          func(_ *KeyPackage, l *LeafNode) { l.Capabilities.CipherSuites = nil },
		RuleLeafCredentialListed: func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Credentials = []CredentialType{CredentialX509} },
		RuleLeafExtensions:       func(_ *KeyPackage, l *LeafNode) { l.Extensions = Extensions{{0xF00D, nil}} },
		RuleLeafLifetime:         func(_ *KeyPackage, l *LeafNode) { l.Lifetime = Lifetime{1, 2} },
		RuleLeafLifetimeTotal:    func(_ *KeyPackage, l *LeafNode) { l.Lifetime = Lifetime{0, 1 << 40} },
	} {
		wantRule(t, resign(t, e, c, change).Validate(policy), rule)
	}
	k := *e.KeyPackage
	k.Signature = []byte("no signature")
	wantRule(t, k.Validate(policy), RuleKeyPackageSignature)
	l := *e.KeyPackage.LeafNode
	l.Signature = []byte("no signature")
	k.LeafNode = &l
	wantRule(t, k.Validate(policy), RuleLeafSignature)
}

// A listCase is a proposal list that section 12.2 refuses.
func TestProposalListRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice := r.groups["alice"]
	before, err := alice.MarshalBinary()
	r.must(err)
	defer func() {
		if after, err := alice.MarshalBinary(); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the group changed: %v", err)
		}
	}()
	p := alice.public
	self, bob := memberSender(0), memberSender(1)
	external := Sender{Type: SenderNewMemberCommit}
	e := r.keyPackage("dave", nil)
	twin := resign(t, e, newTestClient(t, r.suite, "x", nil), func(*KeyPackage, *LeafNode) {})
	update := &Update{p.tree.leaf(1)}
	psk := r.groups["alice"].ExternalPSK([]byte("x"))
	short := &PreSharedKey{PreSharedKeyID{Type: PSKExternal, Nonce: []byte("short")}}
	branch := &PreSharedKey{PreSharedKeyID{Type: PSKResumption, Usage: UsageBranch, Nonce: random(32)}}
	value := func(from Sender, list ...Proposal) []proposalItem { return byValue(list, from) }
	gce := &GroupContextExtensions{}
	init := &ExternalInit{}
	required := &GroupContextExtensions{Extensions{RequiredCapabilities{Proposals: []ProposalType{0xF001}}.Extension()}}
	for _, c := range []struct {
		rule  Rule
		items []proposalItem
		from  Sender
	}{
		{RuleRemoveTarget, value(self, &Remove{99}), self},
		{RuleListSelfRemove, value(self, &Remove{0}), self},
		{RuleListSameLeaf, value(self, &Remove{1}, &Remove{1}), self},
		{RuleListOwnUpdate, value(self, update), self},
		{RuleLeafSource, value(bob, update), self},
		{RuleUpdateSender, value(Sender{Type: SenderExternal}, update), self},
		{RuleListSameClient, value(self, &Add{e.KeyPackage}, &Add{e.KeyPackage}), self},
		{RuleLeafSignature, value(self, &Add{twin}), self},
		{RuleListSamePSK, value(self, psk, psk), self},
		{RulePSKNonce, value(self, short), self},
		{RulePSKUsage, value(self, branch), self},
		{RuleListOneGCE, value(self, gce, gce), self},
		{RuleListReInitAlone, value(self, &ReInit{Version: MLS10}, gce), self},
		{RuleReInitVersion, value(self, &ReInit{Version: 0}), self},
		{RuleListExternalInit, value(self, init), self},
		{RuleListUnsupported, value(self, &CustomProposal{0xF001, nil}), self},
		{RuleExternalList, value(external, init, &Add{e.KeyPackage}), external},
		{RuleExternalInitOnce, value(external, init, init), external},
		{RuleExternalInitOnce, value(external, psk), external},
		{RuleExternalRemoveOnce, value(external, init, &Remove{0}, &Remove{1}), external},
		{RuleExternalByValue, []proposalItem{{proposal: psk, sender: self, ref: []byte("r")}}, external},
	} {
		_, err := p.apply(c.items, c.from, listRules{})
		wantRule(t, err, c.rule)
	}
	ch, err := p.apply(value(self, required), self, listRules{})
	r.must(err)
	wantRule(t, ch.checkGroup(), RuleGroupRequired)
	ch, err = p.apply(value(self, &GroupContextExtensions{Extensions{{0xF00D, nil}}}), self, listRules{})
	r.must(err)
	wantRule(t, ch.checkGroup(), RuleGroupExtensions)
	_, err = p.apply(value(self, required, &Add{e.KeyPackage}), self, listRules{})
	wantRule(t, err, RuleLeafRequired)
	_, err = p.apply(value(self, &Add{e.KeyPackage}), self, listRules{maxMembers: 3})
	wantRule(t, err, RuleAddLeafLimit)
	_, _, err = p.follow(value(self, &Remove{1}), self, nil, listRules{})
	wantRule(t, err, RuleCommitPathRequired)
}

func TestFrameRules(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	raw, err := alice.Propose(r.ctx, &Remove{1}, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	for rule, damage := range map[Rule]func(*PublicMessage){
		RuleFrameMembershipTag:      func(m *PublicMessage) { m.MembershipTag[0] ^= 1 },
		RuleFrameApplicationPrivate: func(m *PublicMessage) { m.Content.ContentType = ContentApplication },
		RuleFrameSender:             func(m *PublicMessage) { m.Content.Sender = Sender{SenderExternal, 7} },
	} {
		m, err := ParseMessage(raw)
		r.must(err)
		damage(m.PublicMessage)
		unmoved(t, bob, rule, func() error { _, err := bob.Verify(m); return err })
	}
	m, err := ParseMessage(raw)
	r.must(err)
	m.PublicMessage.Auth.Signature = []byte("no signature")
	m.PublicMessage.MembershipTag = m.PublicMessage.authenticated().membershipTag(bob.public.suite, bob.secrets.membershipKey, bob.public.raw)
	unmoved(t, bob, RuleFrameSignature, func() error { _, err := bob.Verify(m); return err })
	pm := &PrivateMessage{ContentType: ContentApplication}
	_, err = pm.decodeContent(append([]byte{0, 0}, 0, 1), 0)
	wantRule(t, err, RuleFramePadding)
}

// docs/validation.md lists every rule once, and the tests that it names exist.
func TestValidationDocument(t *testing.T) {
	doc, err := os.ReadFile("../docs/validation.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests bytes.Buffer
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n.Name(), "_test.go") {
			b, err := os.ReadFile(n.Name())
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(b)
		}
	}
	for rule, section := range ruleSections {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^\| %v \| %s \|.*$`, rule, regexp.QuoteMeta(section)))
		if n := len(line.FindAll(doc, -1)); n != 1 {
			t.Errorf("rule %v, section %s, has %d lines", rule, section, n)
		}
	}
	for _, m := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(doc), -1) {
		if !bytes.Contains(tests.Bytes(), []byte("func "+m+"(")) {
			t.Errorf("docs/validation.md names %s, which does not exist", m)
		}
	}
}
