package mls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/privyseal/privyseal/mls"
)

// Two devices and a chat. The signature keys are software keys here; a key of
// a token or TPM is a crypto.Signer too, and goes into the same field.
func Example() {
	ctx := context.Background()
	device := func(name string) *mls.Client {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // or a token's key
		check(err)
		client, err := mls.NewClient(mls.Config{
			CipherSuite: mls.P256AES128SHA256P256,
			Signer:      key,
			Credential:  mls.BasicCredential([]byte(name)),
			Storage:     mls.NewMemoryStorage(), // or one on a disk
		})
		check(err)
		return client
	}
	alice, bob := device("alice"), device("bob")

	// Bob publishes a KeyPackage, Alice creates a group and adds him.
	entry, err := bob.NewKeyPackage(ctx, mls.KeyPackageOptions{})
	check(err)
	atAlice, err := alice.CreateGroup(ctx, []byte("chat"), mls.GroupOptions{})
	check(err)
	commit, err := atAlice.Commit(ctx, mls.CommitOptions{
		Proposals:   []mls.Proposal{&mls.Add{KeyPackage: entry.KeyPackage}},
		RatchetTree: true,
	})
	check(err)
	check(atAlice.MergePending(ctx)) // the delivery service accepted it

	// Bob joins from the Welcome, which finds the KeyPackage in his storage.
	welcome, err := mls.ParseWelcome(commit.Welcome)
	check(err)
	atBob, err := bob.Join(ctx, welcome, nil, mls.JoinOptions{})
	check(err)

	// Alice speaks, Bob listens.
	sent, err := atAlice.Send(ctx, []byte("Hello, Bob!"), nil)
	check(err)
	message, err := mls.ParseMessage(sent)
	check(err)
	received, err := atBob.Verify(message)
	check(err)
	check(atBob.Save(ctx)) // the message key is gone from storage, too
	fmt.Printf("%s\n", received.(*mls.ApplicationMessage).Data())
	// Output: Hello, Bob!
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
