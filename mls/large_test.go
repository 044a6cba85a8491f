package mls

import (
	"context"
	"fmt"
	"testing"
)

// largeRoom makes a group of n members of which two are real: the creator and
// the last one. The others' keys are thrown away.
func largeRoom(t testing.TB, c CipherSuite, n int) (*Group, *Group) {
	t.Helper()
	ctx := context.Background()
	alice, err := newTestClient(t, c, "alice", nil).CreateGroup(ctx, []byte("large"), GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	proposals := make([]Proposal, n-1)
	entries := make([]*KeyPackageEntry, n-1)
	clients := make([]*Client, n-1)
	for i := range clients {
		clients[i] = newTestClient(t, c, fmt.Sprintf("member %d", i+1), nil)
	}
	err = parallel(n-1, func(i int) (err error) {
		entries[i], err = clients[i].NewKeyPackage(ctx, KeyPackageOptions{})
		if err == nil {
			proposals[i] = &Add{entries[i].KeyPackage}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := alice.Commit(ctx, CommitOptions{Proposals: proposals})
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.MergePending(ctx); err != nil {
		t.Fatal(err)
	}
	w, err := ParseWelcome(p.Welcome)
	if err != nil {
		t.Fatal(err)
	}
	last, err := clients[n-2].Join(ctx, w, entries[n-2:], JoinOptions{RatchetTree: alice.RatchetTree()})
	if err != nil {
		t.Fatal(err)
	}
	return alice, last
}

// settle fills the parents of a tree, so that a commit costs one encryption a
// level, and tells the given members the keys on their paths.
func settle(t testing.TB, groups ...*Group) {
	t.Helper()
	var tree *ratchetTree
	s := groups[0].public.suite
	tree = groups[0].public.tree.fork()
	pairs := map[NodeIndex]keyPair{}
	for l := 0; l < int(tree.size); l += 2 {
		if tree.leaf(LeafIndex(l)) == nil {
			break
		}
		tree.change(LeafIndex(l), tree.leaf(LeafIndex(l)), func(x NodeIndex, p *ParentNode) *ParentNode {
			if p != nil {
				return p
			}
			k, err := s.kem.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			pairs[x] = newKeyPair(k)
			return &ParentNode{EncryptionKey: pairs[x].public}
		})
	}
	for _, g := range groups {
		p := *g.public
		p.tree, p.context.TreeHash = tree, tree.hash()
		p.raw = encode(&p.context)
		var err error
		if p.census, err = takeCensus(tree); err != nil {
			t.Fatal(err)
		}
		g.public = &p
		for level := 1; level <= tree.size.height(); level++ {
			if x := nodeAt(g.keys.index, level); pairs[x].private != nil {
				g.keys.parents[x] = pairs[x]
			}
		}
	}
}

// Ten thousand members: one commit adds them, one of them joins, both go on.
func TestTenThousandMembers(t *testing.T) {
	alice, last := largeRoom(t, X25519AES128SHA256Ed25519, 10_000)
	r := &room{t, context.Background(), alice.CipherSuite(), map[string]*Group{"alice": alice, "last": last}}
	step := func(from string) {
		p, err := r.groups[from].Commit(r.ctx, CommitOptions{})
		r.must(err)
		r.deliver(from, p.Message)
		r.must(r.groups[from].MergePending(r.ctx))
		wantBytes(t, "authenticator", last.EpochAuthenticator(), alice.EpochAuthenticator())
	}
	step("last")
	step("alice")
	step("last")
	r.chat()
	p, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Remove{17}, &Remove{4711}}})
	r.must(err)
	r.deliver("alice", p.Message)
	r.must(alice.MergePending(r.ctx))
	if alice.Size() != 9998 || last.Size() != 9998 {
		t.Fatalf("%d and %d members", alice.Size(), last.Size())
	}
	wantBytes(t, "authenticator", last.EpochAuthenticator(), alice.EpochAuthenticator())
}
