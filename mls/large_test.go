package mls

import (
	"context"
	"fmt"
	"runtime"
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

func benchCommit(b *testing.B, c CipherSuite, n int) {
	alice, last := largeRoom(b, c, n)
	settle(b, alice, last)
	ctx := context.Background()
	b.Run("create", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := alice.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}); err != nil {
				b.Fatal(err)
			}
			alice.pending = nil
		}
	})
	p, err := alice.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("process", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m, err := ParseMessage(p.Message)
			if err != nil {
				b.Fatal(err)
			}
			v, err := last.Verify(m)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := last.Stage(ctx, v.(*VerifiedCommit)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for _, c := range []CipherSuite{X25519AES128SHA256Ed25519, P256AES128SHA256P256} {
		for _, n := range []int{16, 128, 1024, 10_000} {
			b.Run(fmt.Sprintf("suite=%d/members=%d", c, n), func(b *testing.B) { benchCommit(b, c, n) })
		}
	}
}

func BenchmarkSendReceive(b *testing.B) {
	alice, last := largeRoom(b, X25519AES128SHA256Ed25519, 16)
	ctx := context.Background()
	data := make([]byte, 256)
	b.Run("send", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := alice.Send(ctx, data, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("send and receive", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			raw, err := alice.Send(ctx, data, nil)
			if err != nil {
				b.Fatal(err)
			}
			m, err := ParseMessage(raw)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := last.Verify(m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkValidateTree is the heart of joining, beside the leaf signatures
// that it cannot avoid.
func BenchmarkValidateTree(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		alice, _ := largeRoom(b, X25519AES128SHA256Ed25519, n)
		raw := alice.RatchetTree()
		ctx := alice.Context()
		b.Run(fmt.Sprintf("members=%d/join", n), func(b *testing.B) {
			for b.Loop() {
				tree, err := parseTree(alice.public.suite, raw)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := validateTree(tree, &ctx, leafRules{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("members=%d/signatures", n), func(b *testing.B) {
			var list []Member
			for m := range alice.Members() {
				list = append(list, m)
			}
			for b.Loop() {
				if err := parallel(len(list), func(i int) error {
					return list[i].Node.verifySignature(alice.public.suite, ctx.GroupID, list[i].Leaf)
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	alice, _ := largeRoom(b, X25519AES128SHA256Ed25519, 10_000)
	raw, err := alice.MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		g := reload(b, alice)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/10_000, "heapbytes/member")
		b.ReportMetric(float64(len(raw))/10_000, "storedbytes/member")
		runtime.KeepAlive(g)
	}
}
