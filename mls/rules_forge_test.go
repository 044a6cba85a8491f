package mls

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// unmoved runs what a group must refuse: the error names the rule, and the
// group's stored form is the same octet for octet afterwards.
func unmoved(t *testing.T, g *Group, want Rule, f func() error) {
	t.Helper()
	before, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	wantRule(t, f(), want)
	after, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("rule %v: the group changed", want)
	}
	if !bytes.Equal(g.public.tree.hash(), g.public.context.TreeHash) {
		t.Errorf("rule %v: the tree changed", want)
	}
	c, err := takeCensus(g.public.tree)
	if err != nil || len(c.keys) != len(g.public.census.keys) {
		t.Errorf("rule %v: the census changed: %v", want, err)
	}
}

// A forger is a member who signs whatever it likes.
type forger struct {
	t *testing.T
	*Group
}

// reframe changes a public handshake message of the forger's and makes its
// signature and membership tag fit again.
func (f forger) reframe(raw []byte, change func(*FramedContent, *FramedContentAuthData)) *Message {
	f.t.Helper()
	m, err := ParseMessage(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	a := m.PublicMessage.authenticated()
	change(&a.Content, &a.Auth)
	a.Content.setBody()
	if err := a.sign(context.Background(), f.public.suite, f.signer, f.public.raw); err != nil {
		f.t.Fatal(err)
	}
	m.PublicMessage, err = a.public(f.public.suite, f.secrets.membershipKey, f.public.raw)
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// commit makes an empty commit and lets its path be changed.
func (f forger) commit(change func(*UpdatePath)) *Message {
	f.t.Helper()
	p, err := f.Commit(context.Background(), CommitOptions{WireFormat: WirePublicMessage})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.DiscardPending(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	return f.reframe(p.Message, func(c *FramedContent, _ *FramedContentAuthData) { change(c.Commit.Path) })
}

// signLeaf signs a leaf as the forger's in the group.
func (f forger) signLeaf(l *LeafNode) {
	f.t.Helper()
	l.raw = nil
	if err := l.sign(context.Background(), f.public.suite, f.signer, f.public.context.GroupID, f.keys.index); err != nil {
		f.t.Fatal(err)
	}
}

// refit makes the path's leaf fit the path's public keys.
func (f forger) refit(p *UpdatePath) {
	f.t.Helper()
	tree := f.public.tree
	_, p.LeafNode.ParentHash = tree.pathParents(tree.filteredPath(f.keys.index), p.publicKeys())
	f.signLeaf(p.LeafNode)
}

// foreignPath is a path whose ciphertexts are good, but the public key of its
// last node is not the one that the path secrets give.
func (f forger) foreignPath(p *UpdatePath) {
	f.t.Helper()
	s, tree := f.public.suite, f.public.tree
	steps := tree.filteredPath(f.keys.index)
	np, err := s.derivePath(steps, random(s.nh))
	if err != nil {
		f.t.Fatal(err)
	}
	other, err := s.kem.GenerateKey()
	if err != nil {
		f.t.Fatal(err)
	}
	np.pairs[len(np.pairs)-1].public = other.PublicKey().Bytes()
	parents, hash := tree.pathParents(steps, np.publicKeys())
	p.LeafNode.ParentHash = hash
	f.signLeaf(p.LeafNode)
	after := tree.fork()
	after.setPath(f.keys.index, p.LeafNode, steps, parents)
	ctx := f.public.context
	ctx.Epoch, ctx.TreeHash = ctx.Epoch+1, after.hash()
	if p.Nodes, err = np.encrypt(s, encode(&ctx), nil); err != nil {
		f.t.Fatal(err)
	}
}

// propose sends any proposal at all.
func (f forger) propose(p Proposal) *Message {
	f.t.Helper()
	a, err := f.sign(context.Background(), WirePublicMessage, nil, FramedContent{ContentType: ContentProposal, Proposal: p})
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := a.public(f.public.suite, f.secrets.membershipKey, f.public.raw)
	if err != nil {
		f.t.Fatal(err)
	}
	return &Message{WireFormat: WirePublicMessage, PublicMessage: m}
}

// process verifies and stages, or keeps.
func process(g *Group, m *Message) error {
	v, err := g.Verify(m)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case *VerifiedCommit:
		_, err = g.Stage(context.Background(), v)
	case *VerifiedProposal:
		err = g.Keep(v)
	}
	return err
}

// A forgedWelcome is a Welcome that was opened, changed and closed again.
type forgedWelcome struct {
	secrets *groupSecrets
	info    *GroupInfo
}

// rewelcome changes a Welcome without PSKs for the holder of an entry.
func rewelcome(t *testing.T, raw []byte, e, to *KeyPackageEntry, change func(*forgedWelcome)) *Welcome {
	t.Helper()
	w, err := ParseWelcome(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := suites[w.CipherSuite]
	f := new(forgedWelcome)
	if f.secrets, err = w.openSecrets(s, w.For(e.Ref()), e.init.private); err != nil {
		t.Fatal(err)
	}
	welcome := s.deriveSecret(s.memberSecret(f.secrets.joiner, s.zero()), "welcome")
	if f.info, err = w.openGroupInfo(s, welcome); err != nil {
		t.Fatal(err)
	}
	change(f)
	if w.EncryptedGroupInfo, err = s.sealGroupInfo(welcome, f.info); err != nil {
		t.Fatal(err)
	}
	ct, err := s.seal(to.KeyPackage.InitKey, encryptContext("Welcome", w.EncryptedGroupInfo), encode(f.secrets))
	if err != nil {
		t.Fatal(err)
	}
	w.Secrets = []EncryptedGroupSecrets{{to.Ref(), ct}}
	return w
}

var errRefused = errors.New("the application refuses")

func refuseAll(context.Context, *Judgement) error { return errRefused }
