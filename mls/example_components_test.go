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

// A component of the application keeps the topic of a group in its
// GroupContext, where all members and the delivery service agree on it.
func ExampleComponents() {
	ctx := context.Background()
	const topic mls.ComponentID = 0x8001 // of the private range
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	client, err := mls.NewClient(mls.Config{
		CipherSuite:  mls.P256AES128SHA256P256,
		Signer:       key,
		Credential:   mls.BasicCredential([]byte("alice")),
		Capabilities: mls.ExtendedCapabilities(),
		Components: mls.Components{topic: mls.ReplaceData(func(b []byte) error {
			if len(b) > 100 {
				return fmt.Errorf("a topic has at most 100 octets")
			}
			return nil
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	group, err := client.CreateGroup(ctx, nil, mls.GroupOptions{})
	if err != nil {
		log.Fatal(err)
	}
	pending, err := group.Commit(ctx, mls.CommitOptions{
		Proposals: []mls.Proposal{mls.UpdateAppData(topic, []byte("pizza"))},
		OmitPath:  true,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, ch := range pending.Staged.ComponentChanges() {
		fmt.Printf("component 0x%04x becomes %q\n", uint16(ch.Component), ch.New)
	}
	if err := group.MergePending(ctx); err != nil {
		log.Fatal(err)
	}
	dictionary, err := group.Context().Extensions.AppData()
	if err != nil {
		log.Fatal(err)
	}
	now, _ := dictionary.Find(topic)
	fmt.Printf("the topic is %q\n", now)
	// Output:
	// component 0x8001 becomes "pizza"
	// the topic is "pizza"
}
