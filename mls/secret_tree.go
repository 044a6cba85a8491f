package mls

import (
	"bytes"
	"fmt"
	"slices"
)

// A keyNonce encrypts one message.
type keyNonce struct{ key, nonce []byte }

// A secretTree gives every member its two ratchets (section 9). Nodes are
// derived when they are first needed and deleted as section 9.2 demands: what
// is kept are the roots of subtrees that nobody has used yet.
type secretTree struct {
	suite    *suite
	size     treeSize
	nodes    map[NodeIndex][]byte
	ratchets map[LeafIndex]*senderRatchets
}

type senderRatchets struct {
	handshake, application ratchet
}

// A ratchet is one sender's chain of keys. Keys that were skipped wait in
// kept, sorted by generation, until they are used or too many follow them.
type ratchet struct {
	secret []byte
	next   uint32
	kept   []keptKey
	ahead  *ratchetAhead // after find and before erase or abandon
}

// A ratchetAhead is a ratchet as it will be if the message is authentic that
// asked for a generation further on.
type ratchetAhead struct {
	ratchet
	limit int // keys to keep
}

type keptKey struct {
	generation uint32
	keyNonce
}

// ratchetLimits bound what a sender's claims can cost a receiver.
type ratchetLimits struct {
	forward uint32 // generations that one message may skip
	kept    int    // skipped keys that are kept for each ratchet
}

func newSecretTree(s *suite, size treeSize, encryptionSecret []byte) *secretTree {
	return &secretTree{
		suite:    s,
		size:     size,
		nodes:    map[NodeIndex][]byte{size.root(): encryptionSecret},
		ratchets: map[LeafIndex]*senderRatchets{},
	}
}

// ratchet returns the ratchet of a leaf for a content type.
func (t *secretTree) ratchet(l LeafIndex, c ContentType) (*ratchet, error) {
	r := t.ratchets[l]
	if r == nil {
		secret, err := t.takeLeaf(l)
		if err != nil {
			return nil, err
		}
		r = &senderRatchets{
			handshake:   ratchet{secret: t.suite.expandWithLabel(secret, "handshake", nil, t.suite.nh)},
			application: ratchet{secret: t.suite.expandWithLabel(secret, "application", nil, t.suite.nh)},
		}
		clear(secret)
		t.ratchets[l] = r
	}
	if c == ContentApplication {
		return &r.application, nil
	}
	return &r.handshake, nil
}

// takeLeaf derives the secret of a leaf, leaves its copath behind and deletes
// the secrets above it.
func (t *secretTree) takeLeaf(l LeafIndex) ([]byte, error) {
	if treeSize(l) >= t.size {
		return nil, fmt.Errorf("%w: no leaf %d", ErrDecrypt, l)
	}
	level := 0
	for t.nodes[nodeAt(l, level)] == nil {
		if level++; level > t.size.height() {
			return nil, fmt.Errorf("%w: leaf %d", ErrConsumed, l)
		}
	}
	for ; level > 0; level-- {
		t.split(nodeAt(l, level))
	}
	secret := t.nodes[l.Node()]
	delete(t.nodes, l.Node())
	return secret, nil
}

// split replaces the secret of a node by those of its children.
func (t *secretTree) split(x NodeIndex) {
	secret := t.nodes[x]
	left, _ := x.left()
	right, _ := x.right()
	t.nodes[left] = t.suite.expandWithLabel(secret, "tree", []byte("left"), t.suite.nh)
	t.nodes[right] = t.suite.expandWithLabel(secret, "tree", []byte("right"), t.suite.nh)
	clear(secret)
	delete(t.nodes, x)
}

// step derives the key of the next generation and moves on.
func (r *ratchet) step(s *suite) keyNonce {
	k := keyNonce{
		key:   s.deriveTreeSecret(r.secret, "key", r.next, s.nk),
		nonce: s.deriveTreeSecret(r.secret, "nonce", r.next, s.nn),
	}
	next := s.deriveTreeSecret(r.secret, "secret", r.next, s.nh)
	clear(r.secret)
	r.secret = next
	r.next++
	return k
}

// find returns the key of a generation and leaves the ratchet where it is: a
// message that is not authentic must not cost its pretended sender a key. The
// caller calls erase when the message was authentic, and abandon in any case.
func (r *ratchet) find(s *suite, generation uint32, lim ratchetLimits) (keyNonce, error) {
	r.abandon()
	if generation < r.next {
		if i, ok := r.search(generation); ok {
			return r.kept[i].keyNonce, nil
		}
		return keyNonce{}, fmt.Errorf("%w: generation %d", ErrConsumed, generation)
	}
	if generation-r.next > lim.forward || generation == ^uint32(0) {
		return keyNonce{}, fmt.Errorf("%w: generation %d, expected %d", ErrTooFarAhead, generation, r.next)
	}
	a := &ratchetAhead{ratchet{secret: bytes.Clone(r.secret), next: r.next}, lim.kept}
	for a.next <= generation {
		g := a.next
		a.kept = append(a.kept, keptKey{g, a.step(s)})
	}
	r.ahead = a
	return a.kept[len(a.kept)-1].keyNonce, nil
}

// abandon forgets what find derived, unless erase has adopted it.
func (r *ratchet) abandon() {
	if r.ahead == nil {
		return
	}
	clear(r.ahead.secret)
	for i := range r.ahead.kept {
		r.ahead.kept[i].erase()
	}
	r.ahead = nil
}

// adopt moves to where find went.
func (r *ratchet) adopt() {
	a := r.ahead
	clear(r.secret)
	r.secret, r.next, r.ahead = a.secret, a.next, nil
	r.kept = append(r.kept, a.kept...)
}

// trim drops the oldest kept keys.
func (r *ratchet) trim(limit int) {
	drop := len(r.kept) - max(limit, 0)
	if drop <= 0 {
		return
	}
	for i := range r.kept[:drop] {
		r.kept[i].erase()
	}
	r.kept = append(r.kept[:0], r.kept[drop:]...)
}

func (r *ratchet) search(generation uint32) (int, bool) {
	return slices.BinarySearchFunc(r.kept, generation, func(k keptKey, g uint32) int {
		return int(int64(k.generation) - int64(g))
	})
}

// erase deletes the key of a generation, which find has returned.
func (r *ratchet) erase(generation uint32) {
	if r.ahead != nil {
		defer r.trim(r.ahead.limit)
		r.adopt()
	}
	if i, ok := r.search(generation); ok {
		r.kept[i].erase()
		r.kept = slices.Delete(r.kept, i, i+1)
	}
}

func (k *keyNonce) erase() {
	clear(k.key)
	clear(k.nonce)
}

// forward moves a sending ratchet to a generation, deleting what is before.
func (r *ratchet) forward(s *suite, generation uint32) {
	for r.next < generation {
		k := r.step(s)
		k.erase()
	}
}

// senderDataKey gives the key of a PrivateMessage's sender data (section
// 6.3.2).
func (s *suite) senderDataKey(senderDataSecret, ciphertext []byte) keyNonce {
	sample := ciphertext[:min(len(ciphertext), s.nh)]
	return keyNonce{
		key:   s.expandWithLabel(senderDataSecret, "key", sample, s.nk),
		nonce: s.expandWithLabel(senderDataSecret, "nonce", sample, s.nn),
	}
}
