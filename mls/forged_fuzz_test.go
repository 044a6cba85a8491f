package mls

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// known reports whether an error is one that this package documents.
func known(err error) bool {
	for _, e := range []error{ErrMissingPropose, ErrDecrypt, ErrUnknownPSK, ErrOwnMessage, ErrWrongGroup, ErrWrongEpoch, ErrNotForUs, ErrNoTree, ErrBadMAC, ErrBadSignature, errTooManyProposals} {
		if errors.Is(err, e) {
			return true
		}
	}
	return typed(err)
}

// An insider is a member of a small group whose other member is attacked with
// messages that are signed and authenticated as they should be, whatever they
// say. The group is a stored one: the fuzzer's processes must all have it.
type insider struct {
	*Group
	victim *Group
	state  []byte
}

func newInsider(f *testing.F) *insider {
	f.Helper()
	r := newStateRoom(f, X25519AES128SHA256Ed25519)
	r.load("proposals", "alice", "bob")
	i := &insider{Group: r.groups["alice"], victim: r.groups["bob"]}
	for _, g := range r.groups {
		g.ClearProposals()
		g.client.cfg.PSK = func(_ context.Context, id []byte) ([]byte, error) { return append([]byte("psk of "), id...), nil }
	}
	var err error
	i.state, err = i.victim.MarshalBinary()
	r.must(err)
	return i
}

// attack frames a body and hands it to the victim.
func (i *insider) attack(t *testing.T, c FramedContent) error {
	t.Helper()
	a, err := i.sign(context.Background(), WirePublicMessage, nil, c)
	if err != nil {
		t.Fatal(err)
	}
	a.Auth.ConfirmationTag = make([]byte, 32)
	m, err := a.public(i.public.suite, i.secrets.membershipKey, i.public.raw)
	if err != nil {
		t.Fatal(err)
	}
	return process(i.victim, reparse(t, &Message{WireFormat: WirePublicMessage, PublicMessage: m}))
}

func (i *insider) unchanged(t *testing.T) {
	t.Helper()
	state, err := i.victim.MarshalBinary()
	if err != nil || !bytes.Equal(state, i.state) {
		t.Fatalf("the group changed: %v", err)
	}
	if !bytes.Equal(i.victim.public.tree.hash(), i.victim.public.context.TreeHash) {
		t.Fatal("the tree changed")
	}
}

// mend signs the path's leaf again, so that what is wrong elsewhere is seen.
func (i *insider) mend(t *testing.T, p *UpdatePath) {
	t.Helper()
	tree := i.public.tree
	if steps := tree.filteredPath(i.keys.index); len(p.Nodes) == len(steps) {
		_, p.LeafNode.ParentHash = tree.pathParents(steps, p.publicKeys())
	}
	p.LeafNode.raw, p.LeafNode.SignatureKey = nil, i.client.public
	if err := p.LeafNode.sign(context.Background(), i.public.suite, i.signer, i.public.context.GroupID, i.keys.index); err != nil {
		t.Fatal(err)
	}
}

// FuzzForgedCommit changes what a member commits, inside signature and
// membership tag.
func FuzzForgedCommit(f *testing.F) {
	i := newInsider(f)
	ctx := context.Background()
	e, err := newTestClient(f, X25519AES128SHA256Ed25519, "grace", nil).NewKeyPackage(ctx, KeyPackageOptions{})
	if err != nil {
		f.Fatal(err)
	}
	for _, list := range [][]Proposal{
		nil, {&Remove{2}}, {&Add{e.KeyPackage}}, {i.ExternalPSK([]byte("x"))}, {i.ResumptionPSK(1), &Add{e.KeyPackage}},
		{&GroupContextExtensions{Extensions{RequiredCapabilities{}.Extension()}}}, {&ReInit{[]byte("n"), MLS10, 1, nil}},
	} {
		p, err := i.Commit(ctx, CommitOptions{Proposals: list})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Staged.content.Content.body, true)
		f.Add(p.Staged.content.Content.body, false)
		if err := i.DiscardPending(ctx); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, mend bool) {
		c := new(Commit)
		if parse("Commit", body, c) != nil {
			return
		}
		if mend && c.Path != nil && c.Path.LeafNode.Credential.check() == nil {
			i.mend(t, c.Path)
		}
		err := i.attack(t, FramedContent{ContentType: ContentCommit, Commit: c})
		if err == nil {
			t.Fatal("a commit with a wrong confirmation tag was accepted")
		}
		if !known(err) {
			t.Fatalf("untyped: %v", err)
		}
		i.unchanged(t)
	})
}

// FuzzForgedProposal does the same with proposals, which may turn out to be
// good. What is kept must then not keep the victim from committing.
func FuzzForgedProposal(f *testing.F) {
	i := newInsider(f)
	for _, p := range makeSeeds(f).proposals {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := ParseProposal(in)
		if err != nil {
			return
		}
		if _, self := p.(*SelfRemove); self {
			return // its framing is another matter
		}
		if err := i.attack(t, FramedContent{ContentType: ContentProposal, Proposal: p}); err != nil {
			if !known(err) {
				t.Fatalf("untyped: %v", err)
			}
			i.unchanged(t)
			return
		}
		ctx := context.Background()
		if _, err := i.victim.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}); err != nil {
			t.Fatalf("%T keeps the victim from committing: %v", p, err)
		}
		if err := i.victim.DiscardPending(ctx); err != nil {
			t.Fatal(err)
		}
		i.victim.ClearProposals()
		i.unchanged(t)
	})
}

// FuzzForgedWelcome changes GroupInfo and group secrets inside their
// encryption.
func FuzzForgedWelcome(f *testing.F) {
	ctx := context.Background()
	r := newStateRoom(f, X25519AES128SHA256Ed25519)
	r.load("fresh", "alice")
	alice, bob := r.groups["alice"], stateClient(f, r.suite, "bob")
	e, err := bob.UnmarshalKeyPackage(ctx, r.read("keypackage-bob"))
	r.must(err)
	p, err := alice.Commit(ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	r.must(err)
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	s := alice.public.suite
	secrets, err := w.openSecrets(s, w.For(e.Ref()), e.init.private)
	r.must(err)
	info, err := w.openGroupInfo(s, s.deriveSecret(s.memberSecret(secrets.joiner, s.zero()), "welcome"))
	r.must(err)
	f.Add(encode(secrets), encode(info))
	f.Fuzz(func(t *testing.T, rawSecrets, rawInfo []byte) {
		var gs groupSecrets
		var gi GroupInfo
		if parse("GroupSecrets", rawSecrets, &gs) != nil || parse("GroupInfo", rawInfo, &gi) != nil || len(gs.psks) > 0 {
			return
		}
		if err := gi.sign(ctx, s, alice.signer); err != nil {
			t.Fatal(err)
		}
		forged := &Welcome{CipherSuite: s.id}
		var err error
		if forged.EncryptedGroupInfo, err = s.sealGroupInfo(s.deriveSecret(s.memberSecret(gs.joiner, s.zero()), "welcome"), &gi); err != nil {
			t.Fatal(err)
		}
		ct, err := s.seal(e.KeyPackage.InitKey, encryptContext("Welcome", forged.EncryptedGroupInfo), encode(&gs))
		if err != nil {
			t.Fatal(err)
		}
		forged.Secrets = []EncryptedGroupSecrets{{e.Ref(), ct}}
		staged, err := bob.StageWelcome(ctx, forged, []*KeyPackageEntry{e}, JoinOptions{})
		if err != nil {
			if !known(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		g := staged.group
		if !bytes.Equal(g.Member(g.OwnLeaf()).raw, e.KeyPackage.LeafNode.raw) || !bytes.Equal(g.ID(), gi.GroupContext.GroupID) {
			t.Fatal("joined another group than the Welcome's")
		}
		reload(t, g)
	})
}
