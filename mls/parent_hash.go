package mls

import (
	"bytes"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// parentHash hashes a ParentHashInput (section 7.9).
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    opaque parent_hash<V>;
//	    opaque original_sibling_tree_hash<V>;
//	} ParentHashInput;
func (s *suite) parentHash(b *tlsvec.Builder, encryptionKey, parentHash, siblingHash []byte) []byte {
	b.Reset()
	b.Vector(encryptionKey)
	b.Vector(parentHash)
	b.Vector(siblingHash)
	return s.sum(b.Bytes())
}

// pathParents gives the parents that an UpdatePath sets, and the parent hash
// of its leaf. Each node's siblings are hashed as they are now: a node that
// is just being set has no unmerged leaves.
func (t *ratchetTree) pathParents(steps []pathStep, keys [][]byte) ([]*ParentNode, []byte) {
	var b tlsvec.Builder
	parents := make([]*ParentNode, len(steps))
	hash := []byte{}
	for i := len(steps) - 1; i >= 0; i-- {
		parents[i] = &ParentNode{EncryptionKey: keys[i], ParentHash: hash}
		sibling := t.hashNode(steps[i].copath, steps[i].copathX, &b)
		hash = t.suite.parentHash(&b, keys[i], hash, sibling)
	}
	return parents, hash
}

// setPath puts a leaf and its parents in place and blanks the rest of the
// direct path (section 7.5).
func (t *ratchetTree) setPath(l LeafIndex, leaf *LeafNode, steps []pathStep, parents []*ParentNode) {
	t.change(l, leaf, func(x NodeIndex, _ *ParentNode) *ParentNode {
		for i := range steps {
			if steps[i].x == x {
				return parents[i]
			}
		}
		return nil
	})
}

// A parentHashCheck verifies the parent hashes of a received tree from the
// top down (section 7.9.2).
type parentHashCheck struct {
	t *ratchetTree
	b tlsvec.Builder
}

// verifyParentHashes checks that every non-blank parent is parent-hash valid.
func (t *ratchetTree) verifyParentHashes() error {
	t.hash()
	c := &parentHashCheck{t: t}
	for x, n := range t.nodes() {
		if n.parent == nil {
			continue
		}
		left, _ := x.left()
		right, _ := x.right()
		fromLeft := c.valid(n, n.left, left, n.right, right)
		fromRight := c.valid(n, n.right, right, n.left, left)
		if fromLeft == fromRight {
			return broken(RuleTreeParentHash, "parent node %d", x)
		}
	}
	return nil
}

// valid reports whether a descendant of c, child of p, has p's parent hash
// with copath child s.
func (c *parentHashCheck) valid(p, child *node, childX NodeIndex, sibling *node, siblingX NodeIndex) bool {
	d, ok := c.descendant(p.parent, child, childX)
	if !ok {
		return false
	}
	original := c.originalHash(sibling, siblingX, unmergedBelow(p.parent.UnmergedLeaves, siblingX))
	return bytes.Equal(d, c.t.suite.parentHash(&c.b, p.parent.EncryptionKey, p.parent.ParentHash, original))
}

// descendant finds the node D of section 7.9.2: the resolution of the child
// without D must be exactly the unmerged leaves of P below the child. It
// returns D's parent_hash.
func (c *parentHashCheck) descendant(p *ParentNode, child *node, x NodeIndex) ([]byte, bool) {
	res := child.resolution(x, nil)
	unmerged := unmergedBelow(p.UnmergedLeaves, x)
	if len(res) != len(unmerged)+1 {
		return nil, false
	}
	var found *resolved
	for i := range res {
		if _, is := slices.BinarySearch(unmerged, res[i].x.firstLeaf()); is && res[i].x.isLeaf() {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = &res[i]
	}
	if found == nil {
		return nil, false
	}
	return c.t.at(found.x).parentHashField()
}

func (n *node) parentHashField() ([]byte, bool) {
	switch {
	case n.parent != nil:
		return n.parent.ParentHash, true
	case n.leaf != nil && n.leaf.Source == LeafFromCommit:
		return n.leaf.ParentHash, true
	}
	return nil, false
}

// unmergedBelow is the part of a sorted list of leaves that is below x.
func unmergedBelow(list []LeafIndex, x NodeIndex) []LeafIndex {
	first := x.firstLeaf()
	i, _ := slices.BinarySearch(list, first)
	j, _ := slices.BinarySearch(list, first+1<<x.level())
	return list[i:j]
}

// originalHash is the tree hash of n as if the given leaves had never been
// added: they are blank, and in no list of unmerged leaves.
func (c *parentHashCheck) originalHash(n *node, x NodeIndex, without []LeafIndex) []byte {
	if len(without) == 0 {
		return n.hash
	}
	if n.left == nil {
		return c.t.suite.leafHash(&c.b, x.firstLeaf(), nil)
	}
	left, _ := x.left()
	right, _ := x.right()
	lh := c.originalHash(n.left, left, unmergedBelow(without, left))
	rh := c.originalHash(n.right, right, unmergedBelow(without, right))
	return c.t.suite.parentNodeHash(&c.b, n.parent.without(without), lh, rh)
}

func (p *ParentNode) without(leaves []LeafIndex) *ParentNode {
	if p == nil {
		return nil
	}
	var kept []LeafIndex
	for _, l := range p.UnmergedLeaves {
		if _, gone := slices.BinarySearch(leaves, l); !gone {
			kept = append(kept, l)
		}
	}
	return &ParentNode{p.EncryptionKey, p.ParentHash, kept}
}
