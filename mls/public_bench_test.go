package mls

import (
	"context"
	"fmt"
	"runtime"
	"testing"
)

// hubOf makes a PublicGroup with a member's view of the tree.
func hubOf(t testing.TB, g *Group) *PublicGroup {
	t.Helper()
	p := newPublicGroup(PublicConfig{})
	census, err := takeCensus(g.public.tree)
	if err != nil {
		t.Fatal(err)
	}
	s := *g.public
	s.census = census
	p.current.Store(&PublicEpoch{&s})
	return p
}

// BenchmarkPublicGroup lets a hub process a commit with a path, parsing
// included.
func BenchmarkPublicGroup(b *testing.B) {
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		for _, n := range []int{16, 128, 1024, 10_000} {
			alice, last := largeRoom(b, c, n)
			settle(b, alice, last)
			b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { benchPublicGroup(b, alice) })
		}
	})
}

func benchPublicGroup(b *testing.B, from *Group) {
	ctx := context.Background()
	hub := hubOf(b, from)
	p := must(from.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}))
	from.pending = nil
	m := must(ParseMessage(p.Message)).PublicMessage
	race(b,
		contestant{name: "process", run: func() {
			v := must(hub.Verify(ctx, must(ParseMessage(p.Message))))
			must(hub.Stage(ctx, v.(*VerifiedCommit)))
		}},
		contestant{name: "primitives", run: func() { hubPrimitives(hub.state(), m) }})
}

// hubPrimitives is what nobody who processes a commit can leave out: two
// signatures verified and the public keys of the path parsed. The hashes of
// transcript and path, which cannot be avoided either, are left out.
func hubPrimitives(p *publicState, m *PublicMessage) {
	path, from := m.Content.Commit.Path, LeafIndex(m.Content.Sender.Index)
	must(0, m.authenticated().verify(p.suite, p.tree.leaf(from).SignatureKey, p.contextPieces()...))
	must(0, path.LeafNode.verifySignature(p.suite, p.context.GroupID, from))
	for i := range path.Nodes {
		must(0, p.suite.checkPublicKey(path.Nodes[i].EncryptionKey))
	}
}

// BenchmarkPublicGroupFollow merges commit after commit at 10,000 members, so
// that what merging leaves behind counts too.
func BenchmarkPublicGroupFollow(b *testing.B) {
	ctx := context.Background()
	alice, last := largeRoom(b, X25519AES128SHA256Ed25519, 10_000)
	settle(b, alice, last)
	hub := hubOf(b, alice)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		p := must(alice.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}))
		must(0, alice.MergePending(ctx))
		b.StartTimer()
		_, staged, err := hub.Process(ctx, must(ParseMessage(p.Message)))
		must(0, err)
		must(0, hub.Merge(staged))
	}
}

// BenchmarkPublicGroupMemory measures what a hub keeps of a large group.
func BenchmarkPublicGroupMemory(b *testing.B) {
	const members = 10_000
	alice, _ := largeRoom(b, X25519AES128SHA256Ed25519, members)
	raw := must(hubOf(b, alice).MarshalBinary())
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		hub := must(UnmarshalPublicGroup(raw, PublicConfig{}))
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/members, "heapbytes/member")
		b.ReportMetric(float64(len(raw))/members, "storedbytes/member")
		runtime.KeepAlive(hub)
	}
	b.ReportMetric(0, "ns/op")
}
