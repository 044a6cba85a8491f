package hsm_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"log"

	"github.com/privyseal/privyseal/hsm"
)

// A program opens a module in two workers, a token by its URI, and a key, and
// signs. It calls hsm.WorkerMain first in main.
func Example() {
	ctx := context.Background()
	module, err := hsm.Open(ctx, hsm.Config{
		Path:    "/usr/lib/softhsm/libsofthsm2.so",
		Env:     []string{"SOFTHSM2_CONF=/etc/privyseal/softhsm2.conf"},
		Workers: 2,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer module.Close(ctx)
	uri, err := hsm.ParseURI("pkcs11:token=issuer;object=ca?pin-source=credential:token-pin")
	if err != nil {
		log.Fatal(err)
	}
	token, err := module.OpenToken(ctx, uri, nil)
	if err != nil {
		log.Fatal(err)
	}
	key, err := token.Signer(ctx, uri)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("to be signed"))
	signature, err := key.SignContext(ctx, digest[:], crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature))
}
