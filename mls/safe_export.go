package mls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// exporterSize is the number of leaves of the exporter tree: one for each
// ComponentID (section 3.5).
const exporterSize treeSize = 1 << 16

// newExporterTree plants the tree whose leaves are the components' secrets.
// It is built and deleted like the secret tree of RFC 9420, section 9.
func newExporterTree(s *suite, root []byte) *secretTree {
	return newSecretTree(s, exporterSize, root)
}

// SafeExport returns SafeExportSecret of a component (section 3.5), once in an
// epoch and then ErrExported: the secret and everything that leads to it are
// deleted, and the group is saved, before the secret is returned.
func (g *Group) SafeExport(ctx context.Context, id ComponentID) ([]byte, error) {
	if g.removed {
		return nil, ErrInactive
	}
	punctured := g.exports.clone()
	secret, err := punctured.takeLeaf(LeafIndex(id))
	if errors.Is(err, ErrConsumed) {
		return nil, fmt.Errorf("%w: component 0x%04x", ErrExported, uint16(id))
	}
	if err != nil {
		return nil, err
	}
	before := g.exports
	g.exports = punctured
	if err := g.Save(ctx); err != nil {
		g.exports = before
		return nil, err
	}
	before.erase()
	return secret, nil
}

// clone copies the nodes, deeply: a derivation clears what it used.
func (t *secretTree) clone() *secretTree {
	c := &secretTree{suite: t.suite, size: t.size, nodes: make(map[NodeIndex][]byte, len(t.nodes)+16)}
	for x, secret := range t.nodes {
		c.nodes[x] = bytes.Clone(secret)
	}
	return c
}

// erase clears all nodes.
func (t *secretTree) erase() {
	for _, secret := range t.nodes {
		clear(secret)
	}
}
