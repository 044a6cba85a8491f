package statuslist_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

// An issuer hands out a status, revokes it and publishes; a verifier notices.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "status")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := statuslist.OpenSQLStore(ctx, filepath.Join(dir, "status.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // or a key in a token
	if err != nil {
		log.Fatal(err)
	}
	const uri = "https://issuer.example/status/1"
	publisher := &statuslist.Publisher{Store: store, URI: uri, Key: key}
	if err := publisher.Open(ctx); err != nil {
		log.Fatal(err)
	}
	ref, err := publisher.Allocate(ctx) // goes into the credential
	if err != nil {
		log.Fatal(err)
	}
	if err := publisher.Set(ctx, ref.Index, statuslist.Invalid); err != nil {
		log.Fatal(err)
	}
	if _, err := publisher.Publish(ctx); err != nil {
		log.Fatal(err)
	}

	checker, _ := newChecker(publisher, nil) // over HTTP in earnest
	checker.Keys = statuslist.StaticKeys{key.Public()}
	checker.Prefixes = []string{"https://issuer.example/status/"}
	fmt.Println(credentials.CodeOf(checker.Check(ctx, ref)))
	// Output: revoked
}
