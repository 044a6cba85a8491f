package vectors

import (
	"context"
	"crypto"
	"slices"

	"github.com/privyseal/privyseal/mls"
)

type treeValidationVector struct {
	CipherSuite mls.CipherSuite   `json:"cipher_suite"`
	Tree        hexBytes          `json:"tree"`
	GroupID     hexBytes          `json:"group_id"`
	Resolutions [][]mls.NodeIndex `json:"resolutions"`
	TreeHashes  []hexBytes        `json:"tree_hashes"`
}

func treeValidation(c *check, p mls.Primitives, v *treeValidationVector) {
	tree, err := p.ParseRatchetTree(v.Tree)
	if !c.ok("tree", err) {
		return
	}
	c.equal("tree re-encoded", tree.Bytes(), v.Tree)
	if n := tree.Nodes(); len(v.Resolutions) != n || len(v.TreeHashes) != n {
		c.fail("%d resolutions and %d tree_hashes for %d nodes", len(v.Resolutions), len(v.TreeHashes), n)
		return
	}
	for i, want := range v.Resolutions {
		x := mls.NodeIndex(i)
		c.equal("tree_hashes", tree.TreeHash(x), v.TreeHashes[i])
		if got := tree.Resolution(x); !slices.Equal(got, want) {
			c.fail("resolution of %d: got %v, want %v", x, got, want)
		}
	}
	c.ok("validation", tree.Validate(v.GroupID))
}

type treeOperationsVector struct {
	CipherSuite    mls.CipherSuite `json:"cipher_suite"`
	TreeBefore     hexBytes        `json:"tree_before"`
	Proposal       hexBytes        `json:"proposal"`
	ProposalSender mls.LeafIndex   `json:"proposal_sender"`
	TreeHashBefore hexBytes        `json:"tree_hash_before"`
	TreeAfter      hexBytes        `json:"tree_after"`
	TreeHashAfter  hexBytes        `json:"tree_hash_after"`
}

func treeOperations(c *check, p mls.Primitives, v *treeOperationsVector) {
	before, err := p.ParseRatchetTree(v.TreeBefore)
	if !c.ok("tree_before", err) {
		return
	}
	c.equal("tree_hash_before", before.RootHash(), v.TreeHashBefore)
	proposal, err := mls.ParseProposal(v.Proposal)
	if !c.ok("proposal", err) {
		return
	}
	after, err := before.Apply(proposal, v.ProposalSender)
	if !c.ok("proposal applied", err) {
		return
	}
	c.equal("tree_hash_after", after.RootHash(), v.TreeHashAfter)
	c.equal("tree_after", after.Bytes(), v.TreeAfter)
	c.equal("tree_before, after the change", before.Bytes(), v.TreeBefore)
}

type treeKEMVector struct {
	CipherSuite             mls.CipherSuite `json:"cipher_suite"`
	GroupID                 hexBytes        `json:"group_id"`
	Epoch                   uint64          `json:"epoch"`
	ConfirmedTranscriptHash hexBytes        `json:"confirmed_transcript_hash"`
	RatchetTree             hexBytes        `json:"ratchet_tree"`
	LeavesPrivate           []struct {
		Index          mls.LeafIndex `json:"index"`
		EncryptionPriv hexBytes      `json:"encryption_priv"`
		SignaturePriv  hexBytes      `json:"signature_priv"`
		PathSecrets    []struct {
			Node       mls.NodeIndex `json:"node"`
			PathSecret hexBytes      `json:"path_secret"`
		} `json:"path_secrets"`
	} `json:"leaves_private"`
	UpdatePaths []updatePathVector `json:"update_paths"`
}

type updatePathVector struct {
	Sender        mls.LeafIndex `json:"sender"`
	UpdatePath    hexBytes      `json:"update_path"`
	PathSecrets   []*hexBytes   `json:"path_secrets"`
	CommitSecret  hexBytes      `json:"commit_secret"`
	TreeHashAfter hexBytes      `json:"tree_hash_after"`
}

// A treeKEMCheck is one case, with its members' keys.
type treeKEMCheck struct {
	*check
	tree    *mls.RatchetTree
	context mls.GroupContext
	members map[mls.LeafIndex]*mls.TreeKeys
	signers map[mls.LeafIndex]crypto.Signer
}

func treeKEM(c *check, p mls.Primitives, v *treeKEMVector) {
	tree, err := p.ParseRatchetTree(v.RatchetTree)
	if !c.ok("ratchet_tree", err) {
		return
	}
	k := &treeKEMCheck{check: c, tree: tree, members: map[mls.LeafIndex]*mls.TreeKeys{}, signers: map[mls.LeafIndex]crypto.Signer{}}
	k.context = mls.GroupContext{Version: mls.MLS10, CipherSuite: p.CipherSuite(), GroupID: v.GroupID,
		Epoch: v.Epoch, ConfirmedTranscriptHash: v.ConfirmedTranscriptHash}
	if !k.readKeys(p, v) {
		return
	}
	if len(v.UpdatePaths) == 0 {
		k.fail("no update_paths")
	}
	for i := range v.UpdatePaths {
		k.given(&v.UpdatePaths[i])
		k.own(v.UpdatePaths[i].Sender)
	}
}

func (k *treeKEMCheck) readKeys(p mls.Primitives, v *treeKEMVector) bool {
	for i := range v.LeavesPrivate {
		l := &v.LeavesPrivate[i]
		if k.members[l.Index] != nil {
			k.fail("leaves_private has leaf %d twice", l.Index)
			return false
		}
		priv, err := HPKEKey(p.CipherSuite(), l.EncryptionPriv)
		if !k.ok("encryption_priv", err) {
			return false
		}
		if k.members[l.Index], err = k.tree.NewTreeKeys(l.Index, priv); !k.ok("encryption_priv", err) {
			return false
		}
		if k.signers[l.Index], err = SignatureKey(p.CipherSuite(), l.SignaturePriv); !k.ok("signature_priv", err) {
			return false
		}
		k.checkSigner(l.Index)
		for _, s := range l.PathSecrets {
			k.length("path_secrets", s.PathSecret, p)
			k.ok("path_secrets", k.tree.AddPathSecret(k.members[l.Index], s.Node, s.PathSecret))
		}
	}
	for l := range k.leaves() {
		if k.tree.Leaf(l) != nil && k.members[l] == nil {
			k.fail("leaves_private lacks leaf %d", l)
		}
	}
	return true
}

// leaves is how many leaves the tree has, with blank ones.
func (k *treeKEMCheck) leaves() mls.LeafIndex { return mls.LeafIndex(k.tree.Nodes()+1) / 2 }

// checkSigner checks that a signature key is its leaf's.
func (k *treeKEMCheck) checkSigner(l mls.LeafIndex) {
	suite, label, content := k.context.CipherSuite, "test", []byte("content")
	sig, err := mls.SignWithLabel(context.Background(), suite, k.signers[l], label, content)
	if k.ok("signature_priv", err) {
		k.ok("signature_priv", mls.VerifyWithLabel(suite, k.tree.Leaf(l).SignatureKey, label, content, sig))
	}
}

// given processes the vector's UpdatePath as every member.
func (k *treeKEMCheck) given(u *updatePathVector) {
	if len(u.PathSecrets) != int(k.leaves()) {
		k.fail("%d path_secrets for %d leaves", len(u.PathSecrets), k.leaves())
		return
	}
	for l, s := range u.PathSecrets {
		if l := mls.LeafIndex(l); s != nil && (l == u.Sender || k.members[l] == nil) {
			k.fail("path_secrets has one for leaf %d, which needs none", l)
		}
	}
	path, err := mls.ParseUpdatePath(u.UpdatePath)
	if !k.ok("update_path", err) {
		return
	}
	k.equal("update_path re-encoded", path.Bytes(), u.UpdatePath)
	after, err := k.tree.MergePath(u.Sender, path)
	if !k.ok("update_path", err) {
		return
	}
	k.equal("tree_hash_after", after.RootHash(), u.TreeHashAfter)
	k.context.TreeHash = after.RootHash()
	k.follow(u.Sender, path, u.CommitSecret, u.PathSecrets)
}

// own makes an UpdatePath of the sender and processes it as every member.
func (k *treeKEMCheck) own(sender mls.LeafIndex) {
	if k.signers[sender] == nil {
		k.fail("leaves_private lacks the sender %d", sender)
		return
	}
	path, secret, err := k.tree.NewPath(context.Background(), sender, k.signers[sender], &k.context)
	if k.ok("own path", err) {
		k.follow(sender, path, secret, nil)
	}
}

func (k *treeKEMCheck) follow(sender mls.LeafIndex, path *mls.UpdatePath, commitSecret []byte, secrets []*hexBytes) {
	for l, keys := range k.members {
		if l == sender {
			continue
		}
		secret, got, err := k.tree.OpenPath(keys, sender, path, k.context.Bytes())
		if !k.ok("opening the path", err) {
			continue
		}
		k.equal("commit_secret", got, commitSecret)
		if secrets == nil {
			continue
		}
		if secrets[l] == nil {
			k.fail("path_secrets lacks leaf %d", l)
			continue
		}
		k.equal("path_secret", secret, *secrets[l])
	}
}
