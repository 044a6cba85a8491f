package signer_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

var mlsContents = []struct {
	label   string
	content []byte
	want    signer.MLSFields
}{
	{"FramedContentTBS", signertest.ApplicationTBS("room", 7, "hello"), signer.MLSFields{Group: []byte("room"), Epoch: 7, HasEpoch: true,
		CipherSuite: 2, WireFormat: 2, Sender: "member", ContentType: "application"}},
	{"FramedContentTBS", signertest.CommitTBS("room", 8, "x"), signer.MLSFields{Group: []byte("room"), Epoch: 8, HasEpoch: true,
		CipherSuite: 2, WireFormat: 2, Sender: "member", ContentType: "commit"}},
	{"LeafNodeTBS", signertest.LeafNodeTBS("alice"), signer.MLSFields{Leaf: "key_package", NotBefore: 1_700_000_000, NotAfter: 1_800_000_000,
		Credential: &signer.MLSCredential{Type: 1, Identity: []byte("alice")}}},
	{"KeyPackageTBS", signertest.KeyPackageTBS("alice"), signer.MLSFields{CipherSuite: 2, Leaf: "key_package", NotBefore: 1_700_000_000, NotAfter: 1_800_000_000,
		Credential: &signer.MLSCredential{Type: 1, Identity: []byte("alice")}}},
	{"GroupInfoTBS", signertest.GroupInfoTBS("room", 9), signer.MLSFields{Group: []byte("room"), Epoch: 9, HasEpoch: true, CipherSuite: 2}},
}

func TestMLSFields(t *testing.T) {
	for _, c := range mlsContents {
		r, err := signer.MLSRequest(c.label, c.content)
		if err != nil {
			t.Errorf("%s: %v", c.label, err)
			continue
		}
		if got := r.Parsed().(*signer.MLSContent).Fields; !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.label, *got, c.want)
		}
		for n := range c.content {
			if _, err := signer.MLSRequest(c.label, c.content[:n]); !errors.As(err, new(*signer.Refusal)) {
				t.Errorf("%s cut to %d of %d octets: %v", c.label, n, len(c.content), err)
			}
		}
		if _, err := signer.MLSRequest(c.label, append(c.content[:len(c.content):len(c.content)], 0)); err == nil {
			t.Errorf("%s with an octet more was accepted", c.label)
		}
	}
}

// TestMLSContextMustAgree: a member cannot have the guard look at one epoch
// and sign for another.
func TestMLSContextMustAgree(t *testing.T) {
	content := signertest.ApplicationTBS("room", 7, "hello")
	content[2+2+5+7] = 8 // the epoch of the FramedContent
	if _, err := signer.MLSRequest("FramedContentTBS", content); !errors.As(err, new(*signer.Refusal)) {
		t.Errorf("content and context of different epochs: %v", err)
	}
}

// TestSemiPrivate: a member's handshakes are signed as SemiPrivateMessages too,
// and nothing else is.
func TestSemiPrivate(t *testing.T) {
	as := func(format uint16, content []byte) []byte {
		content[2], content[3] = byte(format>>8), byte(format)
		return content
	}
	commit := signertest.CommitTBS("room", 8, "x")
	r, err := signer.MLSRequest("FramedContentTBS", as(0xF051, commit))
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Parsed().(*signer.MLSContent).Fields; f.WireFormat != 0xF051 || f.ContentType != "commit" || f.Epoch != 8 {
		t.Errorf("read as %+v", *f)
	}
	outside := as(1, signertest.CommitTBS("room", 8, "x"))
	const sender = 2 + 2 + 5 + 8
	outside[sender] = 4 // new_member_commit, which has no index
	outside = slices.Delete(outside, sender+1, sender+5)
	if _, err := signer.MLSRequest("FramedContentTBS", outside); err != nil {
		t.Errorf("a public external commit: %v", err)
	}
	for name, content := range map[string][]byte{
		"a message":          as(0xF051, signertest.ApplicationTBS("room", 7, "hello")),
		"an external commit": as(0xF051, outside),
		"another format":     as(0xF052, commit),
		"a Welcome":          as(3, commit),
	} {
		if _, err := signer.MLSRequest("FramedContentTBS", content); !errors.As(err, new(*signer.Refusal)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCredentialTypes reads a leaf with a credential of every type, under the
// suggested number of each and under private ones.
func TestCredentialTypes(t *testing.T) {
	vector := func(parts ...[]byte) []byte {
		var b tlsvec.Builder
		for _, p := range parts {
			b.Vector(p)
		}
		return b.Bytes()
	}
	text := []byte(strings.Repeat("eyJhbGciOiJFUzI1NiJ9.e30.AA~", 20))
	classic := append([]byte{0}, vector(text)...)
	compacted := append([]byte{1}, vector([]byte(`{"alg":"ES256"}`), []byte(`{}`), make([]byte, 64), vector([]byte(`["s","a",1]`)), text)...)
	one := vector(make([]byte, 300))
	for _, c := range []struct {
		name string
		typ  uint16
		body []byte
		ok   bool
	}{
		{"x509", 2, vector(vector(make([]byte, 400))), true},
		{"multi", 3, one, true}, {"weak-multi", 4, one, true}, {"sd_cwt", 5, one, true},
		{"sd_jwt, classic", 6, classic, true}, {"sd_jwt, compacted", 6, compacted, true},
		{"private, one vector", 0xF003, one, true}, {"private, an empty vector", 0xF003, vector(nil), true},
		{"private sd_jwt, classic", 0xF006, classic, true}, {"private sd_jwt, compacted", 0xFFFF, compacted, true},
		{"sd_jwt as one vector", 6, vector(text), false}, {"sd_jwt of form 2", 6, append([]byte{2}, vector(text)...), false},
		{"sd_cwt as an sd_jwt", 5, classic, false}, {"unassigned as an sd_jwt", 0x0042, classic, false}, {"GREASE as an sd_jwt", 0x0A0A, classic, false},
		{"private of form 2", 0xF006, append([]byte{2}, vector(text)...), false}, {"private, cut", 0xF006, classic[:len(classic)-1], false},
		{"private, nothing", 0xF006, nil, false},
	} {
		r, err := signer.MLSRequest("KeyPackageTBS", signertest.KeyPackageTBSOf(c.typ, c.body))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err != nil {
			if !errors.As(err, new(*signer.Refusal)) {
				t.Errorf("%s: %v is no Refusal", c.name, err)
			}
			continue
		}
		want := signer.MLSFields{CipherSuite: 2, Leaf: "key_package", NotBefore: 1_700_000_000, NotAfter: 1_800_000_000, Credential: &signer.MLSCredential{Type: c.typ}}
		if got := r.Parsed().(*signer.MLSContent).Fields; !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v", c.name, *got)
		}
	}
}

// TestCredentialInTwoWays has a private type that fits both as one vector and
// as an sd_jwt: what cannot be told is not signed.
func TestCredentialInTwoWays(t *testing.T) {
	for kind, ok := range map[uint16]bool{5: true, 6: true, 0xF006: false} {
		var b tlsvec.Builder
		b.Vector(make([]byte, 65))
		b.Vector(make([]byte, 65))
		b.Uint16(kind)
		b.Uint8(0) // an empty vector, or the form of a token
		for range 5 {
			b.Vector(nil) // capabilities, or a token and four of them
		}
		// Source update, no extension, a group of 3 octets and leaf 0; or the
		// fifth of the capabilities, and then the same with a group of none.
		b.Raw([]byte{2, 0, 3, 2, 0, 0, 0, 0, 0, 0})
		if _, err := signer.MLSRequest("LeafNodeTBS", b.Bytes()); (err == nil) != ok {
			t.Errorf("type 0x%04x: %v", kind, err)
		}
	}
}
