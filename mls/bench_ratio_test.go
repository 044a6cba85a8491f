package mls

import (
	"context"
	"crypto/cipher"
	"fmt"
	"runtime"
	"testing"
)

// The suites of the tables in docs/performance.md.
var benchSuites = []CipherSuite{X25519AES128SHA256Ed25519, P256AES128SHA256P256}

func eachBenchSuite(b *testing.B, f func(*testing.B, CipherSuite)) {
	for _, c := range benchSuites {
		b.Run(fmt.Sprintf("suite=%d", c), func(b *testing.B) { f(b, c) })
	}
}

// BenchmarkCommit makes and processes a commit with a path in a tree of which
// all parents are filled.
func BenchmarkCommit(b *testing.B) {
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		for _, n := range []int{16, 128, 1024, 10_000} {
			alice, last := largeRoom(b, c, n)
			settle(b, alice, last)
			b.Run(fmt.Sprintf("members=%d/create", n), func(b *testing.B) { benchCreate(b, alice) })
			b.Run(fmt.Sprintf("members=%d/process", n), func(b *testing.B) { benchProcess(b, alice, last) })
		}
	})
}

func benchCreate(b *testing.B, g *Group) {
	ctx := context.Background()
	race(b,
		contestant{name: "commit", run: func() {
			must(g.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}))
			g.pending = nil
		}},
		contestant{name: "primitives", run: func() { createPrimitives(g) }},
		contestant{name: "serial", run: func() { createSerially(g) }})
}

// createPrimitives is what a commit with a path cannot avoid: a new leaf key, a
// key pair for each level, an encryption for each level on all cores, and two
// signatures. The hashes of the path, the key schedule and MACs, which cannot
// be avoided either, are left out: they are less than a hundredth.
func createPrimitives(g *Group) {
	steps, secret, info := unavoidableCommit(g)
	must(0, parallel(len(steps), func(i int) error {
		_, err := g.public.suite.seal(steps[i].copath.key(), info, secret)
		return err
	}))
}

// createSerially is the same on one core.
func createSerially(g *Group) {
	steps, secret, info := unavoidableCommit(g)
	for i := range steps {
		must(g.public.suite.seal(steps[i].copath.key(), info, secret))
	}
}

func unavoidableCommit(g *Group) (steps []pathStep, secret, info []byte) {
	s, ctx := g.public.suite, context.Background()
	must(s.kem.GenerateKey())
	steps = g.public.tree.filteredPath(g.keys.index)
	secret = make([]byte, s.nh)
	for i := range steps {
		secret[0] = byte(i)
		must(s.kem.DeriveKeyPair(secret)).PublicKey().Bytes()
	}
	leaf := g.public.tree.leaf(g.keys.index)
	must(s.sig.sign(ctx, g.signer, leaf.raw))
	must(s.sig.sign(ctx, g.signer, make([]byte, 1000)))
	return steps, secret, encryptContext("UpdatePathNode", g.public.raw)
}

func (n *node) key() []byte {
	if n.leaf != nil {
		return n.leaf.EncryptionKey
	}
	return n.parent.EncryptionKey
}

func benchProcess(b *testing.B, from, to *Group) {
	ctx := context.Background()
	p := must(from.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}))
	from.pending = nil
	m := must(ParseMessage(p.Message))
	commit := m.PublicMessage.Content.Commit
	race(b,
		contestant{name: "process", run: func() {
			v := must(to.Verify(must(ParseMessage(p.Message))))
			must(to.Stage(ctx, v.(*VerifiedCommit)))
		}},
		contestant{name: "primitives", run: func() { processPrimitives(from, to, m, commit) }})
}

// processPrimitives is what a receiver cannot avoid: two signatures verified,
// one decryption, a key pair for each level from the common ancestor up, and
// the parsing of the path's public keys.
func processPrimitives(from, to *Group, m *Message, commit *Commit) {
	s := to.public.suite
	leaf := commit.Path.LeafNode
	must(0, leaf.verifySignature(s, to.public.context.GroupID, from.keys.index))
	key := must(to.public.senderKey(m.PublicMessage.authenticated()))
	must(0, m.PublicMessage.authenticated().verify(s, key, to.public.raw))
	for i := range commit.Path.Nodes {
		must(0, s.checkPublicKey(commit.Path.Nodes[i].EncryptionKey))
	}
	steps := to.public.tree.filteredPath(from.keys.index)
	level := commonAncestorLevel(from.keys.index, to.keys.index)
	secret := make([]byte, s.nh)
	for i := range steps {
		if steps[i].x.level() < level {
			continue
		}
		must(s.kem.DeriveKeyPair(secret)).PublicKey().Bytes()
		if steps[i].x.level() == level {
			pair, _ := to.keys.find(resolved{steps[i].copathX, steps[i].copath.key()})
			s.decryptWithLabel(pair.private, "UpdatePathNode", to.public.raw, commit.Path.Nodes[i].EncryptedPathSecrets[0])
		}
	}
}

// BenchmarkJoin joins from a Welcome whose tree comes beside it. What cannot be
// avoided is the verification of the leaf signatures, on all cores.
func BenchmarkJoin(b *testing.B) {
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		for _, n := range []int{1000, 10_000} {
			b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { benchJoin(b, c, n) })
		}
	})
}

func benchJoin(b *testing.B, c CipherSuite, n int) {
	ctx := context.Background()
	alice, _ := largeRoom(b, c, n)
	joiner := newTestClient(b, c, "joiner", nil)
	e := must(joiner.NewKeyPackage(ctx, KeyPackageOptions{}))
	p := must(alice.Commit(ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}}))
	tree := encode(p.Staged.next.tree)
	var list []Member
	for m := range p.Staged.next.members() {
		list = append(list, m)
	}
	race(b,
		contestant{name: "join", run: func() {
			w := must(ParseWelcome(p.Welcome))
			must(joiner.StageWelcome(ctx, w, []*KeyPackageEntry{e}, JoinOptions{RatchetTree: tree}))
		}},
		contestant{name: "signatures", run: func() {
			must(0, parallel(len(list), func(i int) error {
				return list[i].Node.verifySignature(alice.public.suite, alice.public.context.GroupID, list[i].Leaf)
			}))
		}})
}

// BenchmarkSend and BenchmarkReceive have one signature, or one verification,
// and the two AEAD operations of a PrivateMessage as what cannot be avoided.
func BenchmarkSend(b *testing.B) {
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		alice, _ := largeRoom(b, c, 16)
		ctx, data, s := context.Background(), make([]byte, 1024), alice.public.suite
		aead := benchAEAD(s)
		msg, nonce := make([]byte, 1500), make([]byte, 12)
		allocs := testing.AllocsPerRun(200, func() { must(alice.Send(ctx, data, nil)) })
		race(b,
			contestant{name: "send", run: repeat(16, func() { must(alice.Send(ctx, data, nil)) })},
			contestant{name: "primitives", run: repeat(16, func() {
				must(s.sig.sign(ctx, alice.signer, msg))
				aead.Seal(nil, nonce, msg[:1200], msg[:64])
				aead.Seal(nil, nonce, msg[:12], msg[:48])
			})})
		b.ReportMetric(allocs, "allocs/send")
	})
}

func benchAEAD(s *suite) cipher.AEAD { return must(s.newAEAD(make([]byte, s.nk))) }

func BenchmarkReceive(b *testing.B) {
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		alice, last := largeRoom(b, c, 16)
		ctx, data, s := context.Background(), make([]byte, 1024), alice.public.suite
		aead := benchAEAD(s)
		msg, nonce := make([]byte, 1500), make([]byte, 12)
		sealed, small := aead.Seal(nil, nonce, msg[:1200], msg[:64]), aead.Seal(nil, nonce, msg[:12], msg[:48])
		sig := must(s.sig.sign(ctx, alice.signer, msg))
		public := alice.public.tree.leaf(0).SignatureKey
		var queue [][]byte
		fill := func(n int) {
			for len(queue) < n {
				queue = append(queue, must(alice.Send(ctx, data, nil)))
			}
		}
		receive := func() {
			must(last.Verify(must(ParseMessage(queue[0]))))
			queue = queue[1:]
		}
		fill(201)
		allocs := testing.AllocsPerRun(200, receive)
		race(b,
			contestant{name: "receive", before: func() { fill(16) }, run: repeat(16, receive)},
			contestant{name: "primitives", run: repeat(16, func() {
				s.sig.verify(must(s.sig.parsePublicKey(public)), sig, msg)
				must(aead.Open(nil, nonce, sealed, msg[:64]))
				must(aead.Open(nil, nonce, small, msg[:48]))
			})})
		b.ReportMetric(allocs, "allocs/receive")
	})
}

// BenchmarkAddMany adds 1,000 members in one commit. What cannot be avoided is
// to verify their KeyPackages and to encrypt to each, on all cores.
func BenchmarkAddMany(b *testing.B) {
	const n = 1000
	eachBenchSuite(b, func(b *testing.B, c CipherSuite) {
		ctx := context.Background()
		g := must(newTestClient(b, c, "alice", nil).CreateGroup(ctx, nil, GroupOptions{}))
		proposals := make([]Proposal, n)
		for i := range proposals {
			e := must(newTestClient(b, c, fmt.Sprint("member ", i), nil).NewKeyPackage(ctx, KeyPackageOptions{}))
			proposals[i] = &Add{must(ParseKeyPackage(e.KeyPackage.Bytes()))}
		}
		s, info := g.public.suite, encryptContext("Welcome", make([]byte, 500))
		race(b,
			contestant{name: "commit", run: func() {
				must(g.Commit(ctx, CommitOptions{Proposals: proposals}))
				g.pending = nil
			}},
			contestant{name: "primitives", run: func() {
				must(0, parallel(n, func(i int) error {
					k := proposals[i].(*Add).KeyPackage
					must(s.seal(k.InitKey, info, make([]byte, 100)))
					return k.verifySignatures(s)
				}))
			}})
	})
}

// BenchmarkMemory says what a member of a group of 10,000 costs, in memory and
// stored.
func BenchmarkMemory(b *testing.B) {
	alice, _ := largeRoom(b, X25519AES128SHA256Ed25519, 10_000)
	raw := must(alice.MarshalBinary())
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
