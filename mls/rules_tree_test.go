package mls

import (
	"context"
	"crypto"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A flatTree is a tree as the ratchet_tree extension lists it, to be spoilt.
type flatTree struct {
	t       *testing.T
	suite   *suite
	ctx     GroupContext
	nodes   []*node
	signers map[LeafIndex]crypto.Signer
}

// newFlatTree takes the tree of a group of eight, all of whose upper parents
// are set and have the unmerged leaf 7.
func newFlatTree(t *testing.T) *flatTree {
	t.Helper()
	r := newRoom(t, P256AES128SHA256P256, "a", GroupOptions{}, nil)
	r.add("a", CommitOptions{}, "b", "c", "d", "e", "f", "g")
	for _, name := range []string{"b", "c", "f", "d", "g"} {
		r.commit(name, CommitOptions{})
	}
	r.add("a", CommitOptions{OmitPath: true}, "h")
	f := &flatTree{t: t, suite: suites[r.suite], ctx: r.groups["a"].Context(), signers: map[LeafIndex]crypto.Signer{}}
	for _, g := range r.groups {
		f.signers[g.OwnLeaf()] = g.signer
	}
	rd := tlsvec.NewReader(r.groups["a"].RatchetTree())
	rd.Each(func(rd *tlsvec.Reader) {
		n := new(node)
		n.unmarshal(rd)
		f.nodes = append(f.nodes, n)
	})
	if err := rd.Done(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *flatTree) bytes() []byte {
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		for _, n := range f.nodes {
			switch {
			case n.leaf != nil:
				b.Uint16(0x0101)
				n.leaf.marshal(b)
			case n.parent != nil:
				b.Uint16(0x0102)
				n.parent.marshal(b)
			default:
				b.Optional(false)
			}
		}
	})
	return b.Bytes()
}

// validate does what a joiner does, under a tree hash that fits.
func (f *flatTree) validate() error {
	tree, err := parseTree(f.suite, f.bytes())
	if err != nil {
		return err
	}
	f.ctx.TreeHash = tree.hash()
	_, err = validateTree(tree, &f.ctx, leafRules{})
	return err
}

// resign makes a leaf's signature fit what was changed in it.
func (f *flatTree) resign(l LeafIndex, leaf LeafNode) *LeafNode {
	leaf.raw = nil
	if err := leaf.sign(context.Background(), f.suite, f.signers[l], f.ctx.GroupID, l); err != nil {
		f.t.Fatal(err)
	}
	return &leaf
}

func TestTreeRules(t *testing.T) {
	whole := newFlatTree(t)
	if err := whole.validate(); err != nil {
		t.Fatal(err)
	}
	root := NodeIndex(7)
	if p := whole.nodes[root].parent; p == nil || !slices.Equal(p.UnmergedLeaves, []LeafIndex{7}) {
		t.Fatalf("the root is %v", p)
	}
	unmerged := func(f *flatTree, x NodeIndex, list ...LeafIndex) {
		p := *f.nodes[x].parent
		p.UnmergedLeaves = list
		f.nodes[x].parent = &p
	}
	leaf := func(f *flatTree, l LeafIndex, change func(*LeafNode)) {
		n := *f.nodes[l.Node()].leaf
		change(&n)
		f.nodes[l.Node()].leaf = f.resign(l, n)
	}
	for _, c := range []struct {
		rule  Rule
		spoil func(*flatTree)
	}{
		{RuleTreeLastBlank, func(f *flatTree) { f.nodes = append(f.nodes, new(node)) }},
		{RuleTreeLastBlank, func(f *flatTree) { f.nodes = nil }},
		{RuleTreeLastBlank, func(f *flatTree) { f.nodes = []*node{new(node)} }},
		{RuleTreeNodeKind, func(f *flatTree) { f.nodes[1], f.nodes[2] = f.nodes[2], f.nodes[1] }},
		{RuleTreeNodeKind, func(f *flatTree) { f.nodes[0] = f.nodes[root] }},
		{RuleTreeParentHash, func(f *flatTree) {
			p := *f.nodes[3].parent
			p.ParentHash = random(32)
			f.nodes[3].parent = &p
		}},
		{RuleTreeParentHash, func(f *flatTree) { f.nodes[5].parent = &ParentNode{EncryptionKey: f.nodes[5].parent.EncryptionKey} }},
		{RuleTreeParentHash, func(f *flatTree) { unmerged(f, root); unmerged(f, 11) }}, // as if leaf 7 had their keys
		{RuleTreeParentHash, func(f *flatTree) { leaf(f, 3, func(l *LeafNode) { l.ParentHash = random(32) }) }},
		{RuleTreeUnmergedSorted, func(f *flatTree) { unmerged(f, root, 7, 6) }},
		{RuleTreeUnmergedSorted, func(f *flatTree) { unmerged(f, root, 7, 7) }},
		{RuleTreeUnmergedLeaf, func(f *flatTree) { unmerged(f, 3, 6) }},
		{RuleTreeUnmergedLeaf, func(f *flatTree) { unmerged(f, root, 7, 8) }},
		{RuleTreeUnmergedLeaf, func(f *flatTree) { unmerged(f, root, 7, 1<<31) }},
		{RuleTreeUnmergedLeaf, func(f *flatTree) { f.nodes[12] = new(node); unmerged(f, 11, 6, 7) }},
		{RuleTreeUnmergedBetween, func(f *flatTree) { unmerged(f, 11) }},
		{RulePathParentPublicKeys, func(f *flatTree) { f.nodes[3].parent = &ParentNode{EncryptionKey: []byte("no key")} }},
		{RuleLeafSignatureKey, func(f *flatTree) {
			f.signers[7] = f.signers[6]
			leaf(f, 7, func(l *LeafNode) { l.SignatureKey = f.nodes[12].leaf.SignatureKey })
		}},
		{RuleLeafEncryptionKey, func(f *flatTree) {
			leaf(f, 7, func(l *LeafNode) { l.EncryptionKey = f.nodes[12].leaf.EncryptionKey })
		}},
		{RuleLeafSignature, func(f *flatTree) {
			n := *f.nodes[14].leaf
			n.raw, n.Signature = nil, f.nodes[12].leaf.Signature
			f.nodes[14].leaf = &n
		}},
		{RuleLeafVersion, func(f *flatTree) { leaf(f, 7, func(l *LeafNode) { l.Capabilities.CipherSuites = nil }) }},
		{RuleLeafCredentialCommon, func(f *flatTree) {
			leaf(f, 7, func(l *LeafNode) { l.Capabilities.Credentials = []CredentialType{CredentialX509} })
		}},
		{RuleGroupExtensions, func(f *flatTree) { f.ctx.Extensions = Extensions{{0xF00D, nil}} }},
		{RuleGroupRequired, func(f *flatTree) {
			f.ctx.Extensions = Extensions{RequiredCapabilities{Extensions: []ExtensionType{0xF00D}}.Extension()}
		}},
	} {
		f := &flatTree{t, whole.suite, whole.ctx, nil, map[LeafIndex]crypto.Signer{}}
		for l, s := range whole.signers {
			f.signers[l] = s
		}
		for _, n := range whole.nodes {
			f.nodes = append(f.nodes, &node{leaf: n.leaf, parent: n.parent, leaves: n.leaves})
		}
		c.spoil(f)
		wantRule(t, f.validate(), c.rule)
	}
	if err := whole.validate(); err != nil {
		t.Fatal("the good tree was changed with the spoilt ones: ", err)
	}
	tree, err := parseTree(whole.suite, whole.bytes())
	if err != nil {
		t.Fatal(err)
	}
	whole.ctx.TreeHash = random(32)
	_, err = validateTree(tree, &whole.ctx, leafRules{})
	wantRule(t, err, RuleTreeHash)
}

// Two parents with one key, in a tree whose parent hashes are all right.
func TestParentKeysAreUnique(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol", "dave")
	f := forger{t, r.groups["alice"]}
	tree := f.public.tree.fork()
	steps := tree.filteredPath(0)
	k, err := tree.suite.kem.GenerateKey()
	r.must(err)
	keys := [][]byte{k.PublicKey().Bytes(), k.PublicKey().Bytes()}
	parents, hash := tree.pathParents(steps, keys)
	leaf := *tree.leaf(0)
	leaf.ParentHash, leaf.Source = hash, LeafFromCommit
	f.signLeaf(&leaf)
	tree.setPath(0, &leaf, steps, parents)
	ctx := f.public.context
	ctx.TreeHash = tree.hash()
	_, err = validateTree(tree, &ctx, leafRules{})
	wantRule(t, err, RuleTreeParentKeyUnique)

	parents[1].EncryptionKey = tree.leaf(3).EncryptionKey // a leaf's
	keys[1] = parents[1].EncryptionKey
	parents, hash = tree.pathParents(steps, keys)
	leaf.ParentHash = hash
	f.signLeaf(&leaf)
	tree = tree.fork()
	tree.setPath(0, &leaf, steps, parents)
	ctx.TreeHash = tree.hash()
	_, err = validateTree(tree, &ctx, leafRules{})
	wantRule(t, err, RuleLeafEncryptionKey)
}

// X25519 takes any octets as a key, also those with which nothing can be
// shared.
func TestLowOrderKeysRefused(t *testing.T) {
	s := suites[X25519AES128SHA256Ed25519]
	for p := range lowOrderPoints {
		for _, bit := range []byte{0, 0x80} {
			key := p
			key[31] |= bit
			if err := s.checkPublicKey(key[:]); err == nil {
				t.Errorf("%x was accepted", key)
			}
			if _, err := s.seal(key[:], nil, nil); err == nil {
				t.Errorf("%x is not of low order", key)
			}
		}
	}
	c := newTestClient(t, s.id, "alice", nil)
	e, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, 32)
	wantRule(t, resign(t, e, c, func(k *KeyPackage, _ *LeafNode) { k.InitKey = zero }).Validate(LeafPolicy{}), RuleKeyPackagePublicKey)
	wantRule(t, resign(t, e, c, func(_ *KeyPackage, l *LeafNode) { l.EncryptionKey = zero }).Validate(LeafPolicy{}), RuleLeafPublicKeys)
}
