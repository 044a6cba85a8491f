package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// TreeChanges returns the nodes in which this epoch's tree differs from that of
// an earlier epoch of the same PublicGroup, for PatchTree. Its size and cost go
// with what has changed, not with the tree.
//
//	struct {
//	    uint32 width;               /* nodes of the array form, to the last that is not blank */
//	    NodeChange changes<V>;      /* by index, each once */
//	} TreeChanges;
//
//	struct {
//	    uint32 index;
//	    optional<Node> node;
//	} NodeChange;
func (e *PublicEpoch) TreeChanges(since *PublicEpoch) []byte {
	now, was := e.tree, since.tree
	var list []nodeChange
	for now.size > was.size { // was is the left part of a larger tree
		was = &ratchetTree{size: 2 * was.size, root: &node{left: was.root, right: blankNode}}
	}
	old := was.root
	for s := was.size; s > now.size; s /= 2 {
		old = old.left
	}
	now.root.changes(old, now.size.root(), &list)
	slices.SortFunc(list, func(a, b nodeChange) int { return int(a.x) - int(b.x) })
	b := tlsvec.NewBuilder(256 * (len(list) + 1))
	b.Uint32(uint32(now.width()))
	b.Nested(func(b *tlsvec.Builder) {
		for _, c := range list {
			b.Uint32(uint32(c.x))
			c.n.marshalNode(b)
		}
	})
	return b.Bytes()
}

type nodeChange struct {
	x NodeIndex
	n *node
}

// blankNode stands for a subtree that was not there.
var blankNode = new(node)

// changes lists the nodes at and below x that are not what they were. Nodes that
// two trees share are the same; what is in a node is replaced and never changed.
func (n *node) changes(was *node, x NodeIndex, list *[]nodeChange) {
	if n == was {
		return
	}
	if n.leaf != was.leaf || n.parent != was.parent {
		*list = append(*list, nodeChange{x, n})
	}
	left, inner := x.left()
	if !inner {
		return
	}
	wasLeft, wasRight := was.left, was.right
	if wasLeft == nil {
		wasLeft, wasRight = blankNode, blankNode
	}
	right, _ := x.right()
	n.left.changes(wasLeft, left, list)
	n.right.changes(wasRight, right, list)
}

// width is the number of nodes that the encoding has: those after the last that
// is not blank are left out.
func (t *ratchetTree) width() NodeIndex {
	n, x := t.root, t.size.root()
	for { // the last node that is not blank is a leaf: in a valid tree no parent is without leaves
		left, inner := x.left()
		if !inner {
			return x + 1
		}
		if n.right.leaves > 0 {
			n = n.right
			x, _ = x.right()
		} else {
			n, x = n.left, left
		}
	}
}

// PatchTree returns the encoded ratchet tree that an encoded tree became by
// changes, in their order. It checks the shape of what it is given and no more:
// whether the result is the tree of an epoch is told by its hash.
func PatchTree(tree []byte, changes ...[]byte) ([]byte, error) {
	nodes, err := readNodes(tree)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if nodes, err = patchNodes(nodes, c); err != nil {
			return nil, err
		}
	}
	size := 0
	for _, n := range nodes {
		size += len(n)
	}
	if size > tlsvec.MaxLength {
		return nil, &ParseError{"tree changes", errors.New("the tree is too long")}
	}
	out := tlsvec.AppendLength(make([]byte, 0, size+4), size)
	for _, n := range nodes {
		out = append(out, n...)
	}
	return out, nil
}

// DiffTrees returns the changes by which PatchTree makes one encoded ratchet tree
// of another, for who has no PublicGroup. It looks at the octets of each node, and
// judges neither tree.
func DiffTrees(was, now []byte) ([]byte, error) {
	old, err := readNodes(was)
	if err != nil {
		return nil, err
	}
	nodes, err := readNodes(now)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 || bytes.Equal(nodes[len(nodes)-1], encodedBlank) {
		return nil, broken(RuleTreeLastBlank, "last node is blank")
	}
	var b tlsvec.Builder
	b.Uint32(uint32(len(nodes)))
	b.Nested(func(b *tlsvec.Builder) {
		for x, n := range nodes {
			before := encodedBlank
			if x < len(old) {
				before = old[x]
			}
			if !bytes.Equal(n, before) {
				b.Uint32(uint32(x))
				b.Raw(n)
			}
		}
	})
	return b.Bytes(), nil
}

// readNodes takes an encoded tree apart.
func readNodes(tree []byte) (nodes [][]byte, err error) {
	r := tlsvec.NewReader(tree)
	r.Each(func(r *tlsvec.Reader) {
		if nodes = append(nodes, readNode(r)); len(nodes) >= 2*maxLeaves {
			r.Fail("tree has too many nodes")
		}
	})
	if err := r.Done(); err != nil {
		return nil, &ParseError{"ratchet_tree", err}
	}
	return nodes, nil
}

var encodedBlank = []byte{0}

// patchNodes applies one TreeChanges.
func patchNodes(nodes [][]byte, changes []byte) ([][]byte, error) {
	r := tlsvec.NewReader(changes)
	width := int(r.Uint32())
	if width == 0 || width >= 2*maxLeaves {
		r.Fail(fmt.Sprintf("a tree of %d nodes", width))
		return nil, &ParseError{"tree changes", r.Err()}
	}
	for len(nodes) < width {
		nodes = append(nodes, encodedBlank)
	}
	nodes = nodes[:width]
	next := 0
	r.Each(func(r *tlsvec.Reader) {
		x := int(r.Uint32())
		n := readNode(r)
		switch {
		case r.Err() != nil:
		case x < next:
			r.Fail("changes are out of order")
		case x < width:
			nodes[x], next = n, x+1
		case !bytes.Equal(n, encodedBlank):
			r.Fail("a node is outside of the tree")
		}
	})
	if err := r.Done(); err != nil {
		return nil, &ParseError{"tree changes", err}
	}
	if last := nodes[width-1]; bytes.Equal(last, encodedBlank) {
		return nil, broken(RuleTreeLastBlank, "last node is blank after changes")
	}
	return nodes, nil
}

// readNode reads one optional<Node> and returns its encoding.
func readNode(r *tlsvec.Reader) []byte {
	start := r.Pos()
	if r.Optional() {
		switch t := r.Uint8(); t {
		case 1:
			skipLeaf(r)
		case 2:
			r.Vector() // encryption_key
			r.Vector() // parent_hash
			r.Vector() // unmerged_leaves
		default:
			r.Fail(fmt.Sprintf("node_type %d is unknown", t))
		}
	}
	if r.Err() != nil {
		return nil
	}
	return r.Since(start)
}

// skipLeaf passes over a LeafNode.
func skipLeaf(r *tlsvec.Reader) {
	r.Vector() // encryption_key
	r.Vector() // signature_key
	if t := CredentialType(r.Uint16()); t == CredentialSDJWT {
		readSDJWT(r)
	} else {
		r.Vector()
	}
	for range 5 { // capabilities
		r.Vector()
	}
	switch s := LeafNodeSource(r.Uint8()); s {
	case LeafFromKeyPackage:
		r.Bytes(16)
	case LeafFromUpdate:
	case LeafFromCommit:
		r.Vector()
	default:
		r.Fail(fmt.Sprintf("leaf_node_source %d is unknown", s))
	}
	r.Vector() // extensions
	r.Vector() // signature
}

// TreeLeaves decodes the leaves of an encoded ratchet tree, as in the ratchet_tree
// extension: nil where one is blank. It checks the encoding and no more.
func TreeLeaves(tree []byte) (leaves []*LeafNode, err error) {
	r := tlsvec.NewReader(bytes.Clone(tree))
	inner := true
	r.Each(func(r *tlsvec.Reader) {
		if inner = !inner; inner {
			readNode(r)
			return
		}
		n := new(node)
		if n.unmarshal(r); n.parent != nil {
			r.Fail("a parent is in a leaf's place")
		}
		if leaves = append(leaves, n.leaf); len(leaves) > maxLeaves {
			r.Fail("tree has too many nodes")
		}
	})
	if err := r.Done(); err != nil {
		return nil, &ParseError{"ratchet_tree", err}
	}
	return leaves, nil
}
