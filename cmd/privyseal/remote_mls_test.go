package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"testing"

	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/service/servicetest"
)

// TestRemoteMLSMember has a member of an MLS group whose leaf key and init key
// are in a SoftHSM token behind the signing service, over mutual TLS: it joins
// by a Welcome, reads, sends, updates and commits.
func TestRemoteMLSMember(t *testing.T) {
	b := newRemoteBench(t, initOptions{softHSM: true}, "softhsm", 1, false)
	ctx := context.Background()
	if _, err := b.w.ring.Create(ctx, signer.NewKey{ID: "acme.leaf-init", Purpose: signer.PurposeMLSInit, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.server.Access.SetGrants(ctx, "acme", "bot", servicetest.Client(t, "acme", "bot", "leaf-0:sign", "leaf-init:agree").Grants))
	b.server.Policy(`{"version":1,"rules":[{"id":"messages","effect":"allow","when":"key.purpose == 'mls-leaf' && request.shape == 'mls'"},{"id":"init","effect":"allow","when":"request.operation == 'agree'"}]}`)
	identity, err := client.OpenIdentity(b.load.Identity)
	must(err)
	remote := b.server.Client(identity, nil)
	leaf, err := remote.Signer(ctx, "leaf-0")
	must(err)
	exchanger, err := remote.KeyExchanger(ctx, "leaf-init")
	must(err)
	initKey, err := hpke.NewDHKEMPrivateKey(exchanger)
	must(err)
	software, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	const suite = mls.P256AES128SHA256P256
	alice, err := mls.NewClient(mls.Config{CipherSuite: suite, Signer: software, Credential: mls.BasicCredential([]byte("alice")), Storage: mls.NewMemoryStorage()})
	must(err)
	bob, err := mls.NewClient(mls.Config{CipherSuite: suite, Signer: leaf, Credential: mls.BasicCredential([]byte("bob")), Storage: mls.NewMemoryStorage(),
		PrivateKey: func(context.Context, []byte) (hpke.PrivateKey, error) { return initKey, nil }})
	must(err)
	a, err := alice.CreateGroup(ctx, []byte("room"), mls.GroupOptions{})
	must(err)
	entry, err := bob.NewKeyPackage(ctx, mls.KeyPackageOptions{InitKey: initKey})
	must(err)
	added, err := a.Commit(ctx, mls.CommitOptions{Proposals: []mls.Proposal{&mls.Add{KeyPackage: entry.KeyPackage}}, RatchetTree: true})
	must(err)
	must(a.MergePending(ctx))
	welcome, err := mls.ParseWelcome(added.Welcome)
	must(err)
	g, err := bob.Join(ctx, welcome, nil, mls.JoinOptions{})
	must(err)
	read := func(to *mls.Group, raw []byte) mls.Verified {
		t.Helper()
		m, err := mls.ParseMessage(raw)
		must(err)
		v, err := to.Verify(m)
		must(err)
		return v
	}
	for range 3 {
		raw, err := g.Send(ctx, []byte("from the token"), nil)
		must(err)
		if got := read(a, raw).(*mls.ApplicationMessage).Data(); !bytes.Equal(got, []byte("from the token")) {
			t.Fatalf("alice reads %q", got)
		}
		commit, err := g.Commit(ctx, mls.CommitOptions{})
		must(err)
		must(g.MergePending(ctx))
		staged, err := a.Stage(ctx, read(a, commit.Message).(*mls.VerifiedCommit))
		must(err)
		must(a.Merge(ctx, staged))
	}
	if a.Epoch() != g.Epoch() || !bytes.Equal(a.EpochAuthenticator(), g.EpochAuthenticator()) {
		t.Error("the members are in different epochs")
	}
	head, err := b.server.Journal.Head(ctx)
	must(err)
	if head.Entries < 10 {
		t.Errorf("the journal has %d entries", head.Entries)
	}
}
