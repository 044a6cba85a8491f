package mls

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// typed reports whether an error is one that callers can tell apart.
func typed(err error) bool {
	var p *ParseError
	var v *ValidationError
	return errors.As(err, &p) || errors.As(err, &v) || errors.Is(err, ErrStateVersion) || errors.Is(err, ErrUnsupported)
}

// fuzzCodec asserts that a decoder accepts only what its encoder would write,
// and refuses the rest with a typed error.
func fuzzCodec(f *testing.F, fresh func() interface {
	marshaler
	unmarshaler
}) {
	f.Fuzz(func(t *testing.T, in []byte) {
		m := fresh()
		if err := parse("fuzz", in, m); err != nil {
			var e *tlsvec.Error
			if !errors.As(err, &e) || e.Offset > len(in) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if out := encode(m); !bytes.Equal(out, in) {
			t.Fatalf("%x re-encoded as %x", in, out)
		}
	})
}

// seeds are structures of a small group, made from fixed keys.
type seedSet struct {
	messages                                        [][]byte
	keyPackage, welcome, info, tree, state, kpState []byte
	proposals, commits                              [][]byte
}

func makeSeeds(f testing.TB) *seedSet {
	ctx := context.Background()
	s := &seedSet{}
	client := func(name string) *Client {
		seed := sigSeed(name)
		c, err := NewClient(Config{CipherSuite: X25519AES128SHA256Ed25519, Signer: ed25519.NewKeyFromSeed(seed), Credential: BasicCredential([]byte(name)),
			Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
		if err != nil {
			f.Fatal(err)
		}
		return c
	}
	must := func(b []byte, err error) []byte {
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	alice, bob := client("alice"), client("bob")
	e, err := bob.NewKeyPackage(ctx, KeyPackageOptions{})
	if err != nil {
		f.Fatal(err)
	}
	g, err := alice.CreateGroup(ctx, []byte("seed"), GroupOptions{})
	if err != nil {
		f.Fatal(err)
	}
	p, err := g.Commit(ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true, WireFormat: WirePublicMessage, GroupInfo: &GroupInfoOptions{ExternalPub: true}})
	if err != nil {
		f.Fatal(err)
	}
	s.commits = append(s.commits, p.Staged.content.Content.body)
	s.kpState = must(e.MarshalBinary())
	s.keyPackage = e.KeyPackage.Bytes()
	s.state = must(g.MarshalBinary())
	if err := g.MergePending(ctx); err != nil {
		f.Fatal(err)
	}
	s.messages = [][]byte{p.Message, p.Welcome, p.GroupInfo, e.KeyPackage.Message(), must(g.Send(ctx, []byte("data"), nil))}
	s.welcome, s.info, s.tree = p.Welcome[4:], p.GroupInfo[4:], g.RatchetTree()
	for _, pr := range []Proposal{
		&Add{e.KeyPackage}, &Update{e.KeyPackage.LeafNode}, &Remove{1}, g.ExternalPSK([]byte("id")), g.ResumptionPSK(1),
		&ReInit{[]byte("n"), MLS10, 1, nil}, &ExternalInit{[]byte("kem")}, &GroupContextExtensions{}, &CustomProposal{0xF001, []byte("x")},
		UpdateAppData(0x8001, []byte("u")), RemoveAppData(0x8001), &AppEphemeral{0x8001, []byte("e")}, &SelfRemove{}, g.ApplicationPSK(0x8001, []byte("id")),
	} {
		s.proposals = append(s.proposals, MarshalProposal(pr))
	}
	return s
}

func sigSeed(name string) []byte { return append([]byte(name), make([]byte, 32-len(name))...) }

func FuzzMLSMessage(f *testing.F) {
	for _, m := range makeSeeds(f).messages {
		f.Add(m)
	}
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(Message)
	})
}

func FuzzKeyPackage(f *testing.F) {
	f.Add(makeSeeds(f).keyPackage)
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(KeyPackage)
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add(makeSeeds(f).welcome)
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(Welcome)
	})
}

func FuzzGroupInfo(f *testing.F) {
	f.Add(makeSeeds(f).info)
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(GroupInfo)
	})
}

func FuzzCommit(f *testing.F) {
	for _, c := range makeSeeds(f).commits {
		f.Add(c)
	}
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(Commit)
	})
}

func FuzzProposal(f *testing.F) {
	for _, p := range makeSeeds(f).proposals {
		f.Add(p)
	}
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(proposalBox)
	})
}

func FuzzRatchetTree(f *testing.F) {
	f.Add(makeSeeds(f).tree)
	f.Fuzz(func(t *testing.T, in []byte) {
		tree, err := parseTree(suites[1], bytes.Clone(in))
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if out := encode(tree); !bytes.Equal(out, in) {
			t.Fatalf("%x re-encoded as %x", in, out)
		}
		if _, err := validateTree(tree, &GroupContext{TreeHash: tree.hash()}, leafRules{}); err != nil && !typed(err) {
			t.Fatalf("untyped: %v", err)
		}
	})
}

func FuzzGroupState(f *testing.F) {
	s := makeSeeds(f)
	f.Add(s.state)
	f.Add(s.kpState)
	c, err := NewClient(Config{CipherSuite: X25519AES128SHA256Ed25519, Signer: ed25519.NewKeyFromSeed(sigSeed("alice")), Credential: BasicCredential([]byte("alice"))})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if g, err := c.UnmarshalGroup(context.Background(), in); err == nil {
			if _, err := g.MarshalBinary(); err != nil {
				t.Fatal(err)
			}
		}
		if e, err := c.UnmarshalKeyPackage(context.Background(), in); err == nil {
			if out, err := e.MarshalBinary(); err != nil || !bytes.Equal(out, in) {
				t.Fatalf("%x re-encoded as %x, %v", in, out, err)
			}
		}
	})
}

// FuzzLiveGroup feeds damaged messages to a group, which must refuse them and
// stay as it is.
func FuzzLiveGroup(f *testing.F) {
	r := newRoom(f, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	p, err := r.groups["alice"].Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage})
	r.must(err)
	m, err := r.groups["alice"].Send(r.ctx, []byte("data"), nil)
	r.must(err)
	bob := r.groups["bob"]
	auth := bob.EpochAuthenticator()
	messages := [][]byte{p.Message, m}
	f.Add(uint8(0), uint16(9), uint8(1))
	f.Add(uint8(1), uint16(40), uint8(128))
	f.Fuzz(func(t *testing.T, which uint8, at uint16, flip uint8) {
		raw := bytes.Clone(messages[int(which)%len(messages)])
		raw[int(at)%len(raw)] ^= flip
		msg, err := ParseMessage(raw)
		if err != nil || flip == 0 {
			return
		}
		v, err := bob.Verify(msg)
		if !bytes.Equal(bob.EpochAuthenticator(), auth) {
			t.Fatal("the group changed")
		}
		if err != nil {
			return
		}
		if c, ok := v.(*VerifiedCommit); ok {
			if _, err := bob.Stage(context.Background(), c); err == nil {
				t.Fatalf("a commit with octet %d changed was accepted", at)
			}
			return
		}
		t.Fatalf("a message with octet %d changed was accepted", at)
	})
}

// Every proper prefix of every structure is refused.
func TestPrefixesRefused(t *testing.T) {
	s := makeSeeds(t)
	for _, m := range s.messages {
		for i := range m {
			if _, err := ParseMessage(m[:i]); err == nil {
				t.Fatalf("prefix of %d octets of %d was accepted", i, len(m))
			}
		}
	}
	for i := range s.state {
		c := newTestClient(t, X25519AES128SHA256Ed25519, "alice", nil)
		if _, err := c.UnmarshalGroup(context.Background(), s.state[:i]); err == nil {
			t.Fatalf("prefix of %d octets of a state was accepted", i)
		}
		if i > 600 {
			break
		}
	}
}
