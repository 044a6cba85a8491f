package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
)

// A TreeShape is the arithmetic of a tree (appendix C).
type TreeShape struct{ size treeSize }

// NewTreeShape is the smallest tree with room for a number of leaves.
func NewTreeShape(leaves uint32) (TreeShape, error) {
	if leaves == 0 || leaves > 1<<30 {
		return TreeShape{}, fmt.Errorf("mls: no tree has %d leaves", leaves)
	}
	return TreeShape{sizeFor(leaves)}, nil
}

// Nodes is the number of nodes.
func (t TreeShape) Nodes() uint32 { return uint32(t.size.nodes()) }

// Root is the root's index.
func (t TreeShape) Root() NodeIndex { return t.size.root() }

// Left is the left child; a leaf has none.
func (t TreeShape) Left(x NodeIndex) (NodeIndex, bool) { return x.left() }

// Right is the right child; a leaf has none.
func (t TreeShape) Right(x NodeIndex) (NodeIndex, bool) { return x.right() }

// Parent is the parent; the root has none.
func (t TreeShape) Parent(x NodeIndex) (NodeIndex, bool) { return t.size.parent(x) }

// Sibling is the parent's other child; the root has none.
func (t TreeShape) Sibling(x NodeIndex) (NodeIndex, bool) { return t.size.sibling(x) }

// A RatchetTree is a public ratchet tree outside of a group (section 7). It is
// never changed.
type RatchetTree struct{ tree *ratchetTree }

// ParseRatchetTree decodes the content of a ratchet_tree extension (section
// 12.4.3.3). It checks the shape; see Validate.
func (p Primitives) ParseRatchetTree(b []byte) (*RatchetTree, error) {
	t, err := parseTree(p.suite, bytes.Clone(b))
	if err != nil {
		return nil, err
	}
	t.hash()
	return &RatchetTree{t}, nil
}

// Bytes returns the encoding.
func (t *RatchetTree) Bytes() []byte { return t.tree.bytes() }

// Nodes is the number of nodes, blank ones included.
func (t *RatchetTree) Nodes() int { return int(t.tree.size.nodes()) }

// TreeHash returns the tree hash of a node (section 7.8), or nil if the tree
// has no such node.
func (t *RatchetTree) TreeHash(x NodeIndex) []byte {
	if n := t.tree.at(x); n != nil {
		return bytes.Clone(n.hash)
	}
	return nil
}

// RootHash returns the tree hash of the root.
func (t *RatchetTree) RootHash() []byte { return bytes.Clone(t.tree.hash()) }

// Resolution returns the resolution of a node (section 4.1.1).
func (t *RatchetTree) Resolution(x NodeIndex) []NodeIndex {
	n := t.tree.at(x)
	if n == nil {
		return nil
	}
	var out []NodeIndex
	for _, r := range n.resolution(x, nil) {
		out = append(out, r.x)
	}
	return out
}

// Leaf returns a leaf, or nil if it is blank.
func (t *RatchetTree) Leaf(l LeafIndex) *LeafNode { return t.tree.leaf(l) }

// Validate checks parent hashes, keys, unmerged leaves and leaf signatures
// (section 12.4.3.1), without lifetimes and as with Config.AdmitUnlisted.
func (t *RatchetTree) Validate(groupID []byte) error {
	_, err := validateTree(t.tree, &GroupContext{GroupID: groupID, TreeHash: t.tree.hash()}, leafRules{unlisted: true})
	return err
}

// Apply returns the tree after an Add, Update or Remove (section 12.1).
func (t *RatchetTree) Apply(p Proposal, sender LeafIndex) (*RatchetTree, error) {
	after := t.tree.fork()
	switch p := p.(type) {
	case *Add:
		after.add(p.KeyPackage.LeafNode)
	case *Update:
		if t.tree.leaf(sender) == nil {
			return nil, broken(RuleUpdateSender, "leaf %d is blank", sender)
		}
		after.update(sender, p.LeafNode)
	case *Remove:
		if t.tree.leaf(p.Removed) == nil {
			return nil, broken(RuleRemoveTarget, "leaf %d is blank", p.Removed)
		}
		after.remove(p.Removed)
	default:
		return nil, fmt.Errorf("%w: proposal type 0x%04x does not change the tree", ErrUnsupported, uint16(p.ProposalType()))
	}
	after.hash()
	return &RatchetTree{after}, nil
}

// TreeKeys are one member's private keys in a tree (section 4.2).
type TreeKeys struct{ keys *ownKeys }

// NewTreeKeys starts with the key of a leaf, which must be the tree's.
func (t *RatchetTree) NewTreeKeys(l LeafIndex, k hpke.PrivateKey) (*TreeKeys, error) {
	leaf, pair := t.tree.leaf(l), newKeyPair(k)
	if leaf == nil || !bytes.Equal(leaf.EncryptionKey, pair.public) {
		return nil, fmt.Errorf("mls: the private key is not that of leaf %d", l)
	}
	return &TreeKeys{&ownKeys{l, pair, map[NodeIndex]keyPair{}}}, nil
}

// AddPathSecret adds the key of a parent, which must be the tree's.
func (t *RatchetTree) AddPathSecret(k *TreeKeys, x NodeIndex, secret []byte) error {
	pair, err := (&pathSecretChain{t.tree.suite, secret}).next()
	if err != nil {
		return err
	}
	n := t.tree.at(x)
	if n == nil || n.parent == nil || !bytes.Equal(n.parent.EncryptionKey, pair.public) {
		return broken(RulePathDerivedKey, "path secret does not derive the key of node %d", x)
	}
	k.keys.parents[x] = pair
	return nil
}

// ParseUpdatePath decodes an UpdatePath (section 7.6).
func ParseUpdatePath(b []byte) (*UpdatePath, error) {
	p := new(UpdatePath)
	return p, parse("UpdatePath", b, p)
}

// Bytes returns the encoding.
func (p *UpdatePath) Bytes() []byte { return encode(p) }

// MergePath returns the tree after an UpdatePath, whose shape and parent hash
// are checked (section 7.5).
func (t *RatchetTree) MergePath(sender LeafIndex, path *UpdatePath) (*RatchetTree, error) {
	if t.tree.leaf(sender) == nil {
		return nil, broken(RuleFrameSender, "leaf %d is blank", sender)
	}
	steps := t.tree.filteredPath(sender)
	if err := checkPathShape(t.tree.suite, path, steps, nil); err != nil {
		return nil, err
	}
	parents, hash := t.tree.pathParents(steps, path.publicKeys())
	if !bytes.Equal(path.LeafNode.ParentHash, hash) {
		return nil, broken(RulePathParentHash, "parent_hash of the path's leaf is not the computed one")
	}
	after := t.tree.fork()
	after.setPath(sender, path.LeafNode, steps, parents)
	after.hash()
	return &RatchetTree{after}, nil
}

// OpenPath decrypts a member's path secret and derives the commit secret.
// groupContext is the encoded provisional GroupContext.
func (t *RatchetTree) OpenPath(k *TreeKeys, sender LeafIndex, path *UpdatePath, groupContext []byte) (pathSecret, commitSecret []byte, err error) {
	s, steps := t.tree.suite, t.tree.filteredPath(sender)
	if err := checkPathShape(s, path, steps, nil); err != nil {
		return nil, nil, err
	}
	if _, commitSecret, err = decryptPath(s, k.keys, sender, path, steps, groupContext, nil); err != nil {
		return nil, nil, err
	}
	x := nodeAt(k.keys.index, commonAncestorLevel(sender, k.keys.index))
	for i := range steps {
		if steps[i].x == x {
			pathSecret, err = openStep(s, k.keys, &steps[i], &path.Nodes[i], groupContext, nil)
		}
	}
	return pathSecret, commitSecret, err
}

// NewPath makes an UpdatePath of a member with fresh secrets. groupContext is
// completed with the new tree hash.
func (t *RatchetTree) NewPath(ctx context.Context, sender LeafIndex, signer crypto.Signer, groupContext *GroupContext) (*UpdatePath, []byte, error) {
	old := t.tree.leaf(sender)
	if old == nil {
		return nil, nil, errors.New("mls: the sender's leaf is blank")
	}
	s, steps := t.tree.suite, t.tree.filteredPath(sender)
	np, err := s.derivePath(steps, random(s.nh))
	if err != nil {
		return nil, nil, err
	}
	leaf := *old
	parents, hash := t.tree.pathParents(steps, np.publicKeys())
	leaf.raw, leaf.Source, leaf.ParentHash = nil, LeafFromCommit, hash
	if err := leaf.sign(ctx, s, signer, groupContext.GroupID, sender); err != nil {
		return nil, nil, err
	}
	after := t.tree.fork()
	after.setPath(sender, &leaf, steps, parents)
	groupContext.TreeHash = after.hash()
	nodes, err := np.encrypt(s, encode(groupContext), nil)
	return &UpdatePath{&leaf, nodes}, np.commitSecret, err
}

// ParseCommit decodes a Commit (section 12.4).
func ParseCommit(b []byte) (*Commit, error) {
	c := new(Commit)
	return c, parse("Commit", b, c)
}

// Bytes returns the encoding.
func (c *Commit) Bytes() []byte { return encode(c) }

// ParseAuthenticatedContent decodes an AuthenticatedContent (section 6).
func ParseAuthenticatedContent(b []byte) (*AuthenticatedContent, error) {
	a := new(AuthenticatedContent)
	return a, parse("AuthenticatedContent", b, a)
}

// Bytes returns the encoding.
func (a *AuthenticatedContent) Bytes() []byte { return encode(a) }

// ReencodeGroupSecrets decodes the plaintext of an EncryptedGroupSecrets
// (section 12.4.3.1) and encodes it again.
func ReencodeGroupSecrets(b []byte) ([]byte, error) {
	g := new(groupSecrets)
	if err := parse("GroupSecrets", b, g); err != nil {
		return nil, err
	}
	return encode(g), nil
}
