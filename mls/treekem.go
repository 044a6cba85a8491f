package mls

import (
	"bytes"
	"crypto/hpke"
	"fmt"
	"maps"
)

// A keyPair is an HPKE private key with its public key's encoding. The
// private key may be held by a device.
type keyPair struct {
	private hpke.PrivateKey
	public  []byte
}

func newKeyPair(k hpke.PrivateKey) keyPair { return keyPair{k, k.PublicKey().Bytes()} }

// ownKeys are the private keys of one member: its leaf's and those of the
// nodes above it that it knows.
type ownKeys struct {
	index   LeafIndex
	leaf    keyPair
	parents map[NodeIndex]keyPair
}

func (k *ownKeys) clone() *ownKeys {
	return &ownKeys{k.index, k.leaf, maps.Clone(k.parents)}
}

// find returns the private key for one entry of a resolution, if it is ours.
func (k *ownKeys) find(r resolved) (keyPair, bool) {
	if r.x == k.index.Node() {
		return k.leaf, bytes.Equal(r.key, k.leaf.public)
	}
	p, ok := k.parents[r.x]
	return p, ok && bytes.Equal(r.key, p.public)
}

// A pathSecretChain yields path secrets from a node up to the root and past
// it (section 7.4).
type pathSecretChain struct {
	suite  *suite
	secret []byte
}

// next returns the current path secret's key pair and moves up.
func (c *pathSecretChain) next() (keyPair, error) {
	priv, err := c.suite.deriveKeyPair(c.suite.deriveSecret(c.secret, "node"))
	if err != nil {
		return keyPair{}, fmt.Errorf("mls: path secret: %w", err)
	}
	c.secret = c.suite.deriveSecret(c.secret, "path")
	return newKeyPair(priv), nil
}

// A newPath is an UpdatePath in the making: what the committer knows of it.
type newPath struct {
	steps        []pathStep
	secrets      [][]byte // one for each step
	pairs        []keyPair
	commitSecret []byte
}

// derivePath makes the secrets of a path from the first (section 7.4).
func (s *suite) derivePath(steps []pathStep, first []byte) (*newPath, error) {
	p := &newPath{steps: steps}
	chain := pathSecretChain{s, first}
	for range steps {
		p.secrets = append(p.secrets, chain.secret)
		pair, err := chain.next()
		if err != nil {
			return nil, err
		}
		p.pairs = append(p.pairs, pair)
	}
	p.commitSecret = chain.secret
	return p, nil
}

func (p *newPath) publicKeys() [][]byte {
	keys := make([][]byte, len(p.pairs))
	for i := range p.pairs {
		keys[i] = p.pairs[i].public
	}
	return keys
}

// keep adds the path's private keys to a member's.
func (p *newPath) keep(k *ownKeys) {
	for i := range p.steps {
		k.parents[p.steps[i].x] = p.pairs[i]
	}
}

// secretFor returns the path secret of the lowest node above both the
// committer and another leaf.
func (p *newPath) secretFor(committer, l LeafIndex) []byte {
	x := nodeAt(l, commonAncestorLevel(committer, l))
	for i := range p.steps {
		if p.steps[i].x == x {
			return p.secrets[i]
		}
	}
	return nil
}

// recipients are the nodes to which a step's path secret is encrypted: the
// copath child's resolution without the leaves that the commit adds.
func (st *pathStep) recipients(added map[LeafIndex]bool) []resolved {
	res := st.copath.resolution(st.copathX, nil)
	if len(added) == 0 {
		return res
	}
	kept := res[:0]
	for _, r := range res {
		if !r.x.isLeaf() || !added[r.x.firstLeaf()] {
			kept = append(kept, r)
		}
	}
	return kept
}

// encrypt seals every path secret to its recipients, on all cores (section
// 7.6). context is the encoded provisional GroupContext.
func (p *newPath) encrypt(s *suite, context []byte, added map[LeafIndex]bool) ([]UpdatePathNode, error) {
	type job struct {
		step, i int
		key     []byte
	}
	var jobs []job
	nodes := make([]UpdatePathNode, len(p.steps))
	for i := range p.steps {
		res := p.steps[i].recipients(added)
		nodes[i] = UpdatePathNode{p.pairs[i].public, make([]HPKECiphertext, len(res))}
		for j, r := range res {
			jobs = append(jobs, job{i, j, r.key})
		}
	}
	info := encryptContext("UpdatePathNode", context)
	err := parallel(len(jobs), func(n int) (err error) {
		j := jobs[n]
		nodes[j.step].EncryptedPathSecrets[j.i], err = s.seal(j.key, info, p.secrets[j.step])
		return err
	})
	return nodes, err
}

// checkPathShape compares an UpdatePath with the tree that it is for.
func checkPathShape(s *suite, path *UpdatePath, steps []pathStep, added map[LeafIndex]bool) error {
	if len(path.Nodes) != len(steps) {
		return broken(RulePathLength, "UpdatePath has %d nodes, the filtered direct path %d", len(path.Nodes), len(steps))
	}
	for i := range steps {
		n := &path.Nodes[i]
		if want := steps[i].count(added); len(n.EncryptedPathSecrets) != want {
			return broken(RulePathCiphertextCount, "node %d has %d ciphertexts, want %d", steps[i].x, len(n.EncryptedPathSecrets), want)
		}
		if err := s.checkPublicKey(n.EncryptionKey); err != nil {
			return brokenBy(RulePathParentPublicKeys, err, "UpdatePath node %d", i)
		}
	}
	return nil
}

// count is the number of recipients.
func (st *pathStep) count(added map[LeafIndex]bool) int {
	if p := st.copath.parent; p != nil {
		n := 1 + len(p.UnmergedLeaves)
		for _, l := range p.UnmergedLeaves {
			if added[l] {
				n--
			}
		}
		return n
	}
	return len(st.recipients(added))
}

func (p *UpdatePath) publicKeys() [][]byte {
	keys := make([][]byte, len(p.Nodes))
	for i := range p.Nodes {
		keys[i] = p.Nodes[i].EncryptionKey
	}
	return keys
}

// decryptPath finds our copy of a path secret, derives the ones above it and
// checks that they fit the path's public keys (section 7.5). It returns our
// new parents' keys and the commit secret.
func decryptPath(s *suite, keys *ownKeys, sender LeafIndex, path *UpdatePath, steps []pathStep, context []byte, added map[LeafIndex]bool) (*ownKeys, []byte, error) {
	x := nodeAt(keys.index, commonAncestorLevel(sender, keys.index))
	for i := range steps {
		if steps[i].x != x {
			continue
		}
		secret, err := openStep(s, keys, &steps[i], &path.Nodes[i], context, added)
		if err != nil {
			return nil, nil, err
		}
		return followPath(s, keys, steps[i:], path.publicKeys()[i:], secret)
	}
	return nil, nil, broken(RulePathLength, "UpdatePath does not reach our leaf")
}

func openStep(s *suite, keys *ownKeys, st *pathStep, n *UpdatePathNode, context []byte, added map[LeafIndex]bool) ([]byte, error) {
	for j, r := range st.recipients(added) {
		if pair, ok := keys.find(r); ok {
			return s.decryptWithLabel(pair.private, "UpdatePathNode", context, n.EncryptedPathSecrets[j])
		}
	}
	return nil, fmt.Errorf("%w: path secret is encrypted to none of our keys", ErrDecrypt)
}

// followPath derives key pairs from a path secret upwards; they must have the
// given public keys.
func followPath(s *suite, keys *ownKeys, steps []pathStep, public [][]byte, secret []byte) (*ownKeys, []byte, error) {
	keys = keys.clone()
	if len(secret) != s.nh {
		return nil, nil, broken(RulePathDerivedKey, "path secret has %d octets", len(secret))
	}
	chain := pathSecretChain{s, secret}
	for i := range steps {
		pair, err := chain.next()
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(pair.public, public[i]) {
			return nil, nil, broken(RulePathDerivedKey, "path secret does not derive the key of node %d", steps[i].x)
		}
		keys.parents[steps[i].x] = pair
	}
	return keys, chain.secret, nil
}
