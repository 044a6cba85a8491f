package mls

import (
	"bytes"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// TestTreeChangesGoWithTheCommit has members of a large room commit, come and go,
// until the tree has become twice and half as large: the tree follows from the
// changes, which are small.
func TestTreeChangesGoWithTheCommit(t *testing.T) {
	alice, last := largeRoom(t, P256AES128SHA256P256, 256)
	settle(t, alice, last)
	hub := hubOf(t, alice)
	whole := len(hub.Current().RatchetTree())
	commit := func(proposals ...Proposal) {
		t.Helper()
		before, tree := hub.Current(), hub.Current().RatchetTree()
		p := must(alice.Commit(t.Context(), CommitOptions{Proposals: proposals, WireFormat: WirePublicMessage}))
		_, staged, err := hub.Process(t.Context(), must(ParseMessage(p.Message)))
		if err != nil {
			t.Fatal(err)
		}
		must(0, alice.MergePending(t.Context()))
		must(0, hub.Merge(staged))
		changes := hub.Current().TreeChanges(before)
		wantBytes(t, "patched tree", must(PatchTree(tree, changes)), hub.Current().RatchetTree())
		wantBytes(t, "difference of the trees", must(DiffTrees(tree, hub.Current().RatchetTree())), changes)
		if len(changes) > whole/8 {
			t.Errorf("a commit of %d proposals changes %d octets of a tree of %d", len(proposals), len(changes), whole)
		}
	}
	commit()
	added := &Add{KeyPackage: must(newTestClient(t, P256AES128SHA256P256, "newcomer", nil).NewKeyPackage(t.Context(), KeyPackageOptions{})).KeyPackage}
	commit(added) // the tree is full: it becomes twice as large
	commit(&Remove{Removed: 256})
	commit(&Remove{Removed: 17})
	commit(added)
}

// TestPatchTreeRefuses gives PatchTree what is no tree, and no changes.
func TestPatchTreeRefuses(t *testing.T) {
	alice, _ := largeRoom(t, P256AES128SHA256P256, 8)
	hub := hubOf(t, alice)
	tree := hub.Current().RatchetTree()
	change := func(width uint32, nodes ...any) []byte {
		var b tlsvec.Builder
		b.Uint32(width)
		b.Nested(func(b *tlsvec.Builder) {
			for i := 0; i < len(nodes); i += 2 {
				b.Uint32(uint32(nodes[i].(int)))
				b.Raw(nodes[i+1].([]byte))
			}
		})
		return b.Bytes()
	}
	blank := []byte{0}
	parent := []byte{1, 2, 0, 0, 0}
	for name, c := range map[string][]byte{
		"nothing":             {},
		"no nodes":            change(0),
		"too many nodes":      change(1 << 30),
		"out of order":        change(15, 5, blank, 3, blank),
		"twice":               change(15, 5, blank, 5, blank),
		"outside":             change(15, 15, parent),
		"last node blank":     change(15, 14, blank),
		"cut off in a parent": change(13),
		"unknown node":        change(15, 0, []byte{1, 3}),
		"unknown source":      change(15, 0, append([]byte{1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 9)),
		"a presence of 2":     change(15, 0, []byte{2}),
		"more octets":         append(change(15), 0),
	} {
		out, err := PatchTree(tree, c)
		if name == "cut off in a parent" { // seven leaves are left, of which the last counts
			if err != nil || len(out) >= len(tree) {
				t.Errorf("%s: %d octets, %v", name, len(out), err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range len(tree) {
		if _, err := PatchTree(tree[:i]); err == nil {
			t.Fatalf("a tree of %d octets was accepted after %d", len(tree), i)
		}
	}
	if out, err := PatchTree(tree); err != nil || !bytes.Equal(out, tree) {
		t.Errorf("a tree without changes became another: %v", err)
	}
}

// TestDiffTreesRefuses gives DiffTrees what is no tree.
func TestDiffTreesRefuses(t *testing.T) {
	alice, _ := largeRoom(t, P256AES128SHA256P256, 4)
	tree := hubOf(t, alice).Current().RatchetTree()
	for name, bad := range map[string][]byte{"nothing": {}, "no nodes": {0}, "a blank at the end": {1, 0}, "half a tree": tree[:len(tree)/2], "an octet more": append(bytes.Clone(tree), 0)} {
		if out, err := DiffTrees(tree, bad); err == nil {
			t.Errorf("%s as the new tree: %x", name, out)
		}
		if out, err := DiffTrees(bad, tree); err == nil && name != "no nodes" && name != "a blank at the end" {
			t.Errorf("%s as the old tree: %x", name, out)
		}
	}
	whole := must(DiffTrees([]byte{0}, tree))
	wantBytes(t, "a tree from nothing", must(PatchTree([]byte{0}, whole)), tree)
	wantBytes(t, "no difference", must(PatchTree(tree, must(DiffTrees(tree, tree)))), tree)
}

// TestTreeLeaves decodes the leaves of a tree that has blank ones.
func TestTreeLeaves(t *testing.T) {
	alice, _ := largeRoom(t, P256AES128SHA256P256, 8)
	must(alice.Commit(t.Context(), CommitOptions{Proposals: []Proposal{&Remove{Removed: 3}}}))
	must(0, alice.MergePending(t.Context()))
	tree := alice.RatchetTree()
	leaves := must(TreeLeaves(tree))
	if len(leaves) != 8 || leaves[3] != nil {
		t.Fatalf("%d leaves, the removed one is %v", len(leaves), leaves[3])
	}
	for m := range alice.Members() {
		wantBytes(t, "leaf", encode(leaves[m.Leaf]), encode(m.Node))
	}
	for i := range len(tree) {
		if _, err := TreeLeaves(tree[:i]); err == nil {
			t.Fatalf("a tree of %d octets was accepted after %d", len(tree), i)
		}
	}
	if _, err := TreeLeaves([]byte{5, 1, 2, 0, 0, 0}); err == nil {
		t.Error("a parent in a leaf's place was accepted")
	}
}

// FuzzPatchTree gives PatchTree any octets: it makes a tree whose nodes it reads
// again, or refuses.
func FuzzPatchTree(f *testing.F) {
	alice, _ := largeRoom(f, P256AES128SHA256P256, 8)
	tree := hubOf(f, alice).Current().RatchetTree()
	f.Add(tree, []byte{0, 0, 0, 15, 0})
	f.Add(tree, []byte{0, 0, 0, 17, 10, 0, 0, 0, 16, 1, 2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, tree, changes []byte) {
		out, err := PatchTree(tree, changes)
		if err != nil {
			return
		}
		if again, err := PatchTree(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("what was patched is read as another tree: %v", err)
		}
	})
}
