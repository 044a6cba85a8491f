package mls

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"testing"
)

func FuzzSemiPrivateMessage(f *testing.F) {
	h := smallHubRoom(f, WireSemiPrivateMessage)
	raw, err := h.groups["m1"].Propose(h.ctx, &Remove{0}, ProposeOptions{WireFormat: WireSemiPrivateMessage})
	h.must(err)
	f.Add(raw[4:])
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(SemiPrivateMessage)
	})
}

func FuzzRatchetTreeOption(f *testing.F) {
	f.Add(FullTree(makeSeeds(f).tree).Bytes())
	f.Add((&RatchetTreeOption{Representation: TreeHTTPS, URL: "https://hub.example/", Signature: []byte("s")}).Bytes())
	f.Add((&RatchetTreeOption{Representation: TreeOutOfBand, Signature: []byte("s")}).Bytes())
	f.Add((&RatchetTreeOption{Representation: TreeDistributionService}).Bytes())
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(RatchetTreeOption)
	})
}

func FuzzPartialGroupInfo(f *testing.F) {
	f.Add((&PartialGroupInfo{TreeAbsent, Extensions{externalPubExtension([]byte("key"))}, []byte("signature")}).Bytes())
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(PartialGroupInfo)
	})
}

// FuzzTreeSource feeds URLs to the check of their host.
func FuzzTreeSource(f *testing.F) {
	groupContext := Extensions{TreeSourceDomainsExtension("hub.example")}
	for _, s := range []string{"https://hub.example/t", "https://hub.example@x/", "https://HUB.example:1", "//hub.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := (&RatchetTreeOption{Representation: TreeHTTPS, URL: s}).Source(groupContext)
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if u.Scheme != "https" || !bytes.EqualFold([]byte(u.Hostname()), []byte("hub.example")) || u.User != nil {
			t.Fatalf("%q was accepted as %v", s, u)
		}
	})
}

func FuzzExternalReceivers(f *testing.F) {
	f.Add(ExternalReceiversExtension(ExternalReceiver{make([]byte, 32), BasicCredential([]byte("hub"))}).Data)
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := Extensions{{ExtensionExternalReceivers, in}}.ExternalReceivers()
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if out := ExternalReceiversExtension(list...).Data; !bytes.Equal(out, in) {
			t.Fatalf("%x re-encoded as %x", in, out)
		}
	})
}

func FuzzPublicGroupState(f *testing.F) {
	h := smallHubRoom(f, WirePublicMessage)
	f.Add(h.stateBytes())
	h.proposeThrough("m1", &Remove{0}, WirePublicMessage)
	f.Add(h.stateBytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := UnmarshalPublicGroup(in, h.cfg)
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if out, err := p.MarshalBinary(); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("%x re-encoded as %x, %v", in, out, err)
		}
	})
}

// FuzzPublicGroup feeds damaged messages of members to a hub, which must
// refuse them and stay as it is.
func FuzzPublicGroup(f *testing.F) {
	type target struct {
		h    *hubRoom
		raw  []byte
		home []byte
	}
	var targets []target
	for _, wire := range []WireFormat{WirePublicMessage, WireSemiPrivateMessage} {
		h := smallHubRoom(f, wire)
		p, err := h.groups["m0"].Commit(h.ctx, CommitOptions{WireFormat: wire})
		h.must(err)
		proposal, err := h.groups["m1"].Propose(h.ctx, &Remove{0}, ProposeOptions{WireFormat: wire})
		h.must(err)
		home := h.stateBytes()
		targets = append(targets, target{h, p.Message, home}, target{h, proposal, home})
	}
	for i := range targets {
		f.Add(uint8(i), uint16(40), uint8(1))
		f.Add(uint8(i), uint16(len(targets[i].raw)-1), uint8(128))
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint16, flip uint8) {
		x := targets[int(which)%len(targets)]
		raw := bytes.Clone(x.raw)
		raw[int(at)%len(raw)] ^= flip
		m, err := ParseMessage(raw)
		if err != nil || flip == 0 || unseen(t, x.raw, m) {
			return
		}
		if _, _, err := x.h.hub.Process(x.h.ctx, m); err == nil {
			t.Fatalf("a message with octet %d changed was accepted", at)
		}
		if state, err := x.h.hub.MarshalBinary(); err != nil || !bytes.Equal(state, x.home) {
			t.Fatalf("the hub's state changed: %v", err)
		}
	})
}

func TestPublicStatePrefixesRefused(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	raw := h.stateBytes()
	for i := range raw {
		if _, err := UnmarshalPublicGroup(raw[:i], h.cfg); err == nil {
			t.Fatalf("a prefix of %d octets was accepted", i)
		}
	}
	st := h.hub.State()
	for i := range st.Rest {
		if _, err := LoadPublicGroup(PublicGroupState{Tree: st.Tree, Rest: st.Rest[:i]}, h.cfg); err == nil {
			t.Fatalf("a prefix of %d octets of the rest was accepted", i)
		}
	}
	st.Tree = FullTree(h.groups["m1"].RatchetTree()).Tree[:len(st.Tree)-1]
	if _, err := LoadPublicGroup(st, h.cfg); err == nil {
		t.Fatal("a tree that is cut off was accepted")
	}
}

var updateState = flag.Bool("update-public-state", false, "write the state vector of PublicGroup anew")

// A state of version 1 is read by every later release.
func TestPublicStateVector(t *testing.T) {
	const file = "testdata/state/public-group-v1.hex"
	if *updateState {
		h := smallHubRoom(t, WireSemiPrivateMessage)
		h.proposeThrough("m1", &Remove{0}, WireSemiPrivateMessage)
		h.proposeThrough("m2", &SelfRemove{}, WirePublicMessage)
		h.must(os.MkdirAll("testdata/state", 0o755))
		h.must(os.WriteFile(file, []byte(hex.EncodeToString(h.stateBytes())+"\n"), 0o644))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := UnmarshalPublicGroup(raw, PublicConfig{Components: testComponents})
	if err != nil {
		t.Fatal(err)
	}
	e := p.Current()
	if e.Epoch() != 1 || e.Size() != 3 || e.CipherSuite() != X25519AES128SHA256Ed25519 || p.GroupInfo() == nil || p.ReInit() != nil {
		t.Errorf("epoch %d, %d members, suite %d", e.Epoch(), e.Size(), e.CipherSuite())
	}
	pending := p.PendingProposals()
	if len(pending) != 2 || pending[0].Message() != nil || pending[1].Message() == nil {
		t.Fatalf("%d pending proposals", len(pending))
	}
	m, err := ParseMessage(pending[1].Message())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.PublicMessage.MembershipTag) != 32 {
		t.Error("the membership_tag is lost")
	}
	if string(e.Member(0).Credential.Identity()) != "m0" {
		t.Error("member 0 is another one")
	}
	if err := e.checkGroupInfo(p.GroupInfo()); err != nil {
		t.Error(err)
	}
	out, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "state", out, raw)
}
