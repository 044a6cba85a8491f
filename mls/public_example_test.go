package mls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"

	"github.com/privyseal/privyseal/mls"
)

// A hub follows a group and refuses what it does not believe.
func ExamplePublicGroup() {
	ctx := context.Background()
	client := func(name string) *mls.Client {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		c, err := mls.NewClient(mls.Config{CipherSuite: mls.P256AES128SHA256P256, Signer: key, Credential: mls.BasicCredential([]byte(name))})
		check(err)
		return c
	}
	alice, bob := client("alice"), client("bob")

	// Alice makes the group and tells the hub.
	group, err := alice.CreateGroup(ctx, nil, mls.GroupOptions{})
	check(err)
	info, err := group.GroupInfo(ctx, mls.GroupInfoOptions{ExternalPub: true})
	check(err)
	hub, err := mls.NewPublicGroup(ctx, info, mls.FullTree(group.RatchetTree()), mls.PublicConfig{})
	check(err)

	// She commits, and sends the hub what it needs to know of the GroupInfo.
	entry, err := bob.NewKeyPackage(ctx, mls.KeyPackageOptions{})
	check(err)
	pending, err := group.Commit(ctx, mls.CommitOptions{
		Proposals:  []mls.Proposal{&mls.Add{KeyPackage: entry.KeyPackage}},
		WireFormat: mls.WirePublicMessage,
		GroupInfo:  &mls.GroupInfoOptions{ExternalPub: true},
	})
	check(err)
	info, err = mls.ParseGroupInfo(pending.GroupInfo)
	check(err)
	partial, err := info.Partial()
	check(err)

	// The hub looks at the commit before it accepts it.
	message, err := mls.ParseMessage(pending.Message)
	check(err)
	_, staged, err := hub.Process(ctx, message)
	check(err)
	for _, m := range staged.Added() {
		fmt.Printf("%s joins\n", m.Node.Credential.Identity())
	}
	_, err = staged.RebuildGroupInfo(partial)
	check(err)
	check(hub.Merge(staged))
	check(group.MergePending(ctx))
	fmt.Println(hub.Current().Size(), "members in epoch", hub.Current().Epoch())

	// Output:
	// bob joins
	// 2 members in epoch 1
}
