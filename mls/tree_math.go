package mls

import "math/bits"

// A LeafIndex numbers a leaf of the ratchet tree from the left.
type LeafIndex uint32

// A NodeIndex numbers a node in the in-order array form of the tree
// (RFC 9420, appendix C): leaf L is node 2L, and the level of a node is its
// number of trailing one bits.
//
//	                     X
//	                     |
//	           .---------+---------.
//	          /                     \
//	         X                       X
//	         |                       |
//	     .---+---.               .---+---.
//	    /         \             /         \
//	   X           X           X           X
//	  / \         / \         / \         / \
//	 /   \       /   \       /   \       /   \
//	X     X     X     X     X     X     X     X
//
//	0  1  2  3  4  5  6  7  8  9 10 11 12 13 14
type NodeIndex uint32

// Node returns the index of the leaf's node.
func (l LeafIndex) Node() NodeIndex { return NodeIndex(l) * 2 }

func (x NodeIndex) isLeaf() bool { return x&1 == 0 }

func (x NodeIndex) level() int { return bits.TrailingZeros32(^uint32(x)) }

// firstLeaf is the leftmost leaf below x.
func (x NodeIndex) firstLeaf() LeafIndex {
	return LeafIndex((x - (1<<x.level() - 1)) / 2)
}

// nodeAt is the node of the given level above leaf l.
func nodeAt(l LeafIndex, level int) NodeIndex {
	return NodeIndex(l)>>level<<(level+1) | (1<<level - 1)
}

func (x NodeIndex) left() (NodeIndex, bool) {
	k := x.level()
	if k == 0 {
		return 0, false
	}
	return x ^ (1 << (k - 1)), true
}

func (x NodeIndex) right() (NodeIndex, bool) {
	k := x.level()
	if k == 0 {
		return 0, false
	}
	return x ^ (3 << (k - 1)), true
}

// contains reports whether leaf l is below x, or x itself.
func (x NodeIndex) contains(l LeafIndex) bool { return l>>x.level() == x.firstLeaf()>>x.level() }

// A treeSize is the number of leaves of a tree, blank ones included: a power
// of two.
type treeSize uint32

// sizeFor is the smallest tree with room for n leaves, n > 0.
func sizeFor(n uint32) treeSize { return treeSize(1) << bits.Len32(n-1) }

func (s treeSize) height() int      { return bits.TrailingZeros32(uint32(s)) }
func (s treeSize) root() NodeIndex  { return NodeIndex(s) - 1 }
func (s treeSize) nodes() NodeIndex { return 2*NodeIndex(s) - 1 }

func (s treeSize) parent(x NodeIndex) (NodeIndex, bool) {
	if x == s.root() {
		return 0, false
	}
	k := x.level()
	return (x | 1<<k) &^ (1 << (k + 1)), true
}

func (s treeSize) sibling(x NodeIndex) (NodeIndex, bool) {
	if x == s.root() {
		return 0, false
	}
	return x ^ (2 << x.level()), true
}

// commonAncestorLevel is the level of the lowest node above both leaves.
func commonAncestorLevel(a, b LeafIndex) int { return bits.Len32(uint32(a ^ b)) }
