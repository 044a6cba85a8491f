package signer_test

import (
	"errors"
	"reflect"
	"testing"

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
