package mls

import (
	"fmt"
	"iter"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A ratchetTree is the public tree of an epoch (section 7). Nodes are shared
// between the trees of successive epochs: an edit copies the nodes on its
// path and leaves the older tree as it was, so staging a commit costs what
// the commit changes and dropping it costs nothing. Hashes live in the nodes
// and are recomputed for copied ones only.
//
//	epoch n       root          epoch n+1 (leaf C changed)   root'
//	             /    \                                     /     \
//	            x      y                                   x       y'
//	           / \    / \                             (shared)    /  \
//	          A   B  C   D                                       C'   D (shared)
type ratchetTree struct {
	suite *suite
	size  treeSize
	root  *node
	edit  *treeEdit // nodes of this edit may change in place
}

// A treeEdit is the identity of one series of changes.
type treeEdit struct{ _ byte }

type node struct {
	left, right *node       // both nil in a leaf
	leaf        *LeafNode   // nil if blank
	parent      *ParentNode // nil if blank
	hash        []byte      // tree hash, nil until computed
	leaves      uint32      // non-blank leaves below
	owner       *treeEdit
}

// ParentNode is a non-blank intermediate node (section 7.1). It is never
// changed, only replaced.
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    opaque parent_hash<V>;
//	    uint32 unmerged_leaves<V>;
//	} ParentNode;
type ParentNode struct {
	EncryptionKey  []byte
	ParentHash     []byte
	UnmergedLeaves []LeafIndex
}

func (p *ParentNode) marshal(b *tlsvec.Builder) {
	b.Vector(p.EncryptionKey)
	b.Vector(p.ParentHash)
	b.Raw(tlsvec.AppendLength(nil, 4*len(p.UnmergedLeaves)))
	for _, l := range p.UnmergedLeaves {
		b.Uint32(uint32(l))
	}
}

func (p *ParentNode) unmarshal(r *tlsvec.Reader) {
	p.EncryptionKey = r.Vector()
	p.ParentHash = r.Vector()
	sub := r.Sub()
	for !sub.Empty() {
		p.UnmergedLeaves = append(p.UnmergedLeaves, LeafIndex(sub.Uint32()))
	}
	r.End(sub)
}

// withUnmerged returns the node with one more unmerged leaf.
func (p *ParentNode) withUnmerged(l LeafIndex) *ParentNode {
	i, found := slices.BinarySearch(p.UnmergedLeaves, l)
	if found {
		return p
	}
	list := make([]LeafIndex, 0, len(p.UnmergedLeaves)+1)
	list = append(append(append(list, p.UnmergedLeaves[:i]...), l), p.UnmergedLeaves[i:]...)
	return &ParentNode{p.EncryptionKey, p.ParentHash, list}
}

func newTree(s *suite, leaf *LeafNode) *ratchetTree {
	n := &node{leaf: leaf, leaves: 1}
	return &ratchetTree{suite: s, size: 1, root: n}
}

// fork returns a tree to edit; t itself must not be edited any more.
func (t *ratchetTree) fork() *ratchetTree {
	t.edit = nil
	return &ratchetTree{t.suite, t.size, t.root, new(treeEdit)}
}

// writable returns n, or a copy of it that this edit owns.
func (t *ratchetTree) writable(n *node) *node {
	if n.owner == t.edit && t.edit != nil {
		n.hash = nil
		return n
	}
	return &node{n.left, n.right, n.leaf, n.parent, nil, n.leaves, t.edit}
}

// change replaces a leaf, and every parent above it by what parent returns.
func (t *ratchetTree) change(l LeafIndex, leaf *LeafNode, parent func(NodeIndex, *ParentNode) *ParentNode) {
	t.root = t.changeBelow(t.root, t.size.height(), l, leaf, parent)
}

func (t *ratchetTree) changeBelow(n *node, level int, l LeafIndex, leaf *LeafNode, parent func(NodeIndex, *ParentNode) *ParentNode) *node {
	n = t.writable(n)
	if level == 0 {
		n.leaf, n.leaves = leaf, 0
		if leaf != nil {
			n.leaves = 1
		}
		return n
	}
	if l>>(level-1)&1 == 0 {
		n.left = t.changeBelow(n.left, level-1, l, leaf, parent)
	} else {
		n.right = t.changeBelow(n.right, level-1, l, leaf, parent)
	}
	n.leaves = n.left.leaves + n.right.leaves
	n.parent = parent(nodeAt(l, level), n.parent)
	return n
}

// add puts a leaf at the leftmost blank place (section 12.1.1).
func (t *ratchetTree) add(leaf *LeafNode) LeafIndex {
	l := t.freeLeaf()
	t.change(l, leaf, func(_ NodeIndex, p *ParentNode) *ParentNode {
		if p == nil {
			return nil
		}
		return p.withUnmerged(l)
	})
	return l
}

// freeLeaf finds the leftmost blank leaf and extends the tree if there is
// none (section 7.7).
func (t *ratchetTree) freeLeaf() LeafIndex {
	if t.root.leaves == uint32(t.size) {
		right := t.blank(t.size.height())
		t.root = &node{left: t.root, right: right, leaves: t.root.leaves, owner: t.edit}
		t.size *= 2
	}
	n, l := t.root, LeafIndex(0)
	for level := t.size.height(); level > 0; level-- {
		if n.left.leaves < 1<<(level-1) {
			n = n.left
		} else {
			n, l = n.right, l|1<<(level-1)
		}
	}
	return l
}

func (t *ratchetTree) blank(height int) *node {
	n := &node{owner: t.edit}
	if height > 0 {
		n.left, n.right = t.blank(height-1), t.blank(height-1)
	}
	return n
}

// update replaces a leaf and blanks its direct path (section 12.1.2).
func (t *ratchetTree) update(l LeafIndex, leaf *LeafNode) {
	t.change(l, leaf, blankParent)
}

func blankParent(NodeIndex, *ParentNode) *ParentNode { return nil }

// remove blanks a leaf and its direct path, and truncates the tree (section
// 12.1.3).
func (t *ratchetTree) remove(l LeafIndex) {
	t.change(l, nil, blankParent)
	t.truncate()
}

func (t *ratchetTree) truncate() {
	for t.size > 1 && t.root.right.leaves == 0 {
		t.root, t.size = t.root.left, t.size/2
	}
}

// at returns the node of an index, or nil if it is outside the tree.
func (t *ratchetTree) at(x NodeIndex) *node {
	if x >= t.size.nodes() {
		return nil
	}
	n, l := t.root, x.firstLeaf()
	for level := t.size.height(); level > x.level(); level-- {
		if l>>(level-1)&1 == 0 {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n
}

// leaf returns a member's leaf, or nil.
func (t *ratchetTree) leaf(l LeafIndex) *LeafNode {
	if treeSize(l) >= t.size {
		return nil
	}
	return t.at(l.Node()).leaf
}

func (t *ratchetTree) members() int { return int(t.root.leaves) }

// nodes yields every node with its index, children after their parents.
func (t *ratchetTree) nodes() iter.Seq2[NodeIndex, *node] {
	return func(yield func(NodeIndex, *node) bool) {
		t.root.walk(t.size.root(), yield)
	}
}

func (n *node) walk(x NodeIndex, yield func(NodeIndex, *node) bool) bool {
	if !yield(x, n) {
		return false
	}
	if n.left == nil {
		return true
	}
	left, _ := x.left()
	right, _ := x.right()
	return n.left.walk(left, yield) && n.right.walk(right, yield)
}

// leaves yields every non-blank leaf from the left.
func (t *ratchetTree) leaves() iter.Seq2[LeafIndex, *LeafNode] {
	return func(yield func(LeafIndex, *LeafNode) bool) {
		for x, n := range t.nodes() {
			if n.leaf != nil && !yield(x.firstLeaf(), n.leaf) {
				return
			}
		}
	}
}

// A resolved node is one entry of a resolution (section 4.1.1).
type resolved struct {
	x   NodeIndex
	key []byte
}

// resolution appends the resolution of n, which is at x.
func (n *node) resolution(x NodeIndex, out []resolved) []resolved {
	switch {
	case n.leaf != nil:
		return append(out, resolved{x, n.leaf.EncryptionKey})
	case n.parent != nil:
		out = append(out, resolved{x, n.parent.EncryptionKey})
		for _, l := range n.parent.UnmergedLeaves {
			if leaf := n.below(x, l); leaf != nil {
				out = append(out, resolved{l.Node(), leaf.EncryptionKey})
			}
		}
		return out
	case n.leaves == 0 || n.left == nil:
		return out
	}
	left, _ := x.left()
	right, _ := x.right()
	return n.right.resolution(right, n.left.resolution(left, out))
}

// below returns a leaf under n, or nil.
func (n *node) below(x NodeIndex, l LeafIndex) *LeafNode {
	if !x.contains(l) {
		return nil
	}
	for level := x.level(); level > 0; level-- {
		if l>>(level-1)&1 == 0 {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n.leaf
}

// A pathStep is one node of a filtered direct path (section 4.1.2) with its
// child on the copath.
type pathStep struct {
	x       NodeIndex
	copathX NodeIndex
	copath  *node
}

// filteredPath lists the direct path of a leaf from below, without the nodes
// whose copath child has an empty resolution.
func (t *ratchetTree) filteredPath(l LeafIndex) []pathStep {
	steps := make([]pathStep, 0, t.size.height())
	n := t.root
	for level := t.size.height(); level > 0; level-- {
		x := nodeAt(l, level)
		left, _ := x.left()
		right, _ := x.right()
		step := pathStep{x, right, n.right}
		next := n.left
		if l>>(level-1)&1 == 1 {
			step.copathX, step.copath, next = left, n.left, n.right
		}
		if step.copath.leaves > 0 {
			steps = append(steps, step)
		}
		n = next
	}
	slices.Reverse(steps)
	return steps
}

// hash returns the tree hash of the root (section 7.8).
func (t *ratchetTree) hash() []byte {
	var b tlsvec.Builder
	return t.hashNode(t.root, t.size.root(), &b)
}

// hashNode computes the missing hashes from n down.
//
//	struct {
//	  NodeType node_type;
//	  select (TreeHashInput.node_type) {
//	    case leaf:   LeafNodeHashInput leaf_node;
//	    case parent: ParentNodeHashInput parent_node;
//	  };
//	} TreeHashInput;
func (t *ratchetTree) hashNode(n *node, x NodeIndex, b *tlsvec.Builder) []byte {
	if n.hash != nil {
		return n.hash
	}
	if n.left == nil {
		n.hash = t.suite.leafHash(b, x.firstLeaf(), n.leaf)
		return n.hash
	}
	left, _ := x.left()
	right, _ := x.right()
	lh, rh := t.hashNode(n.left, left, b), t.hashNode(n.right, right, b)
	n.hash = t.suite.parentNodeHash(b, n.parent, lh, rh)
	return n.hash
}

// leafHash hashes a LeafNodeHashInput.
//
//	struct {
//	    uint32 leaf_index;
//	    optional<LeafNode> leaf_node;
//	} LeafNodeHashInput;
func (s *suite) leafHash(b *tlsvec.Builder, l LeafIndex, leaf *LeafNode) []byte {
	b.Reset()
	b.Uint8(1)
	b.Uint32(uint32(l))
	b.Optional(leaf != nil)
	if leaf != nil {
		leaf.marshal(b)
	}
	return s.sum(b.Bytes())
}

// parentNodeHash hashes a ParentNodeHashInput.
//
//	struct {
//	    optional<ParentNode> parent_node;
//	    opaque left_hash<V>;
//	    opaque right_hash<V>;
//	} ParentNodeHashInput;
func (s *suite) parentNodeHash(b *tlsvec.Builder, p *ParentNode, left, right []byte) []byte {
	b.Reset()
	b.Uint8(2)
	b.Optional(p != nil)
	if p != nil {
		p.marshal(b)
	}
	b.Vector(left)
	b.Vector(right)
	return s.sum(b.Bytes())
}

// marshal writes the ratchet_tree extension's content (section 12.4.3.3).
//
//	optional<Node> ratchet_tree<V>;
//
// bytes is the encoding of ratchet_tree, made in one piece of memory: that of a
// large group has megabytes.
func (t *ratchetTree) bytes() []byte {
	size := 16
	for _, n := range t.nodes() {
		switch {
		case n.leaf != nil:
			size += 512 + len(n.leaf.Credential.Body)
		case n.parent != nil:
			size += 128 + 4*len(n.parent.UnmergedLeaves)
		default:
			size++
		}
	}
	b := tlsvec.NewBuilder(size)
	t.marshal(b)
	return b.Bytes()
}

func (t *ratchetTree) marshal(b *tlsvec.Builder) {
	last := NodeIndex(0)
	for x, n := range t.nodes() {
		if n.leaf != nil || n.parent != nil {
			last = max(last, x)
		}
	}
	b.Nested(func(b *tlsvec.Builder) { t.root.marshalInOrder(t.size.root(), last, b) })
}

func (n *node) marshalInOrder(x, last NodeIndex, b *tlsvec.Builder) {
	left, inner := x.left()
	if inner {
		n.left.marshalInOrder(left, last, b)
	}
	if x > last {
		return
	}
	n.marshalNode(b)
	if inner {
		right, _ := x.right()
		n.right.marshalInOrder(right, last, b)
	}
}

// marshalNode writes one optional<Node>.
func (n *node) marshalNode(b *tlsvec.Builder) {
	switch {
	case n.leaf != nil:
		b.Uint16(0x0101) // present, leaf
		n.leaf.marshal(b)
	case n.parent != nil:
		b.Uint16(0x0102) // present, parent
		n.parent.marshal(b)
	default:
		b.Optional(false)
	}
}

// maxLeaves bounds the trees that are decoded.
const maxLeaves = 1 << maxHeight

// maxHeight is the height of the highest tree.
const maxHeight = 17

// unmarshalTree reads a ratchet_tree and checks its shape.
func unmarshalTree(s *suite, r *tlsvec.Reader) (*ratchetTree, error) {
	var flat []*node
	r.Each(func(r *tlsvec.Reader) {
		n := new(node)
		n.unmarshal(r)
		if flat = append(flat, n); len(flat) >= 2*maxLeaves {
			r.Fail("tree has too many nodes")
		}
	})
	if err := r.Err(); err != nil {
		return nil, &ParseError{"ratchet_tree", err}
	}
	if len(flat) == 0 {
		return nil, broken(RuleTreeLastBlank, "tree is empty")
	}
	if last := flat[len(flat)-1]; last.leaf == nil && last.parent == nil {
		return nil, broken(RuleTreeLastBlank, "last node is blank")
	}
	size := sizeFor(uint32(len(flat)+2) / 2)
	t := &ratchetTree{suite: s, size: size}
	var err error
	t.root, err = assemble(flat, size.root())
	return t, err
}

// unmarshal reads one optional<Node>.
//
//	struct {
//	    NodeType node_type;
//	    select (Node.node_type) {
//	        case leaf:   LeafNode leaf_node;
//	        case parent: ParentNode parent_node;
//	    };
//	} Node;
func (n *node) unmarshal(r *tlsvec.Reader) {
	if !r.Optional() {
		return
	}
	switch t := r.Uint8(); t {
	case 1:
		n.leaf, n.leaves = new(LeafNode), 1
		n.leaf.unmarshal(r)
	case 2:
		n.parent = new(ParentNode)
		n.parent.unmarshal(r)
	default:
		r.Fail(fmt.Sprintf("node_type %d is unknown", t))
	}
}

// assemble links the nodes of the array form.
func assemble(flat []*node, x NodeIndex) (*node, error) {
	n := new(node)
	if int(x) < len(flat) {
		n = flat[x]
	}
	if x.isLeaf() {
		if n.parent != nil {
			return nil, broken(RuleTreeNodeKind, "node %d is a parent in a leaf's place", x)
		}
		return n, nil
	}
	if n.leaf != nil {
		return nil, broken(RuleTreeNodeKind, "node %d is a leaf in a parent's place", x)
	}
	left, _ := x.left()
	right, _ := x.right()
	var err error
	if n.left, err = assemble(flat, left); err != nil {
		return nil, err
	}
	if n.right, err = assemble(flat, right); err != nil {
		return nil, err
	}
	n.leaves = n.left.leaves + n.right.leaves
	return n, nil
}

// parseTree decodes the content of a ratchet_tree extension.
func parseTree(s *suite, data []byte) (*ratchetTree, error) {
	r := tlsvec.NewReader(data)
	t, err := unmarshalTree(s, r)
	if err != nil {
		return nil, err
	}
	if err := r.Done(); err != nil {
		return nil, &ParseError{"ratchet_tree", err}
	}
	return t, nil
}
