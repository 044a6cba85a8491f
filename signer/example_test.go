package signer_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// A key of a holder signs a key binding, and refuses a certificate.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "signer")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := signer.OpenKeyStore(ctx, filepath.Join(dir, "keys.db"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	// A program passes adapters of its PKCS#11 tokens and TPMs here.
	ring := signer.NewKeyring(store, map[string]signer.Device{"soft": signertest.New()})
	defer ring.Close()

	key, err := ring.Create(ctx, signer.NewKey{ID: "holder", Purpose: signer.PurposeCredentialConfirmation, Device: "soft"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Algorithm, key.Active().State)

	s, err := ring.Signer(ctx, "holder", signer.PurposeCredentialConfirmation)
	if err != nil {
		log.Fatal(err)
	}
	binding, err := signer.JWSRequest([]byte(`{"alg":"ES256","typ":"kb+jwt"}`), []byte(`{"aud":"https://verifier.example","nonce":"n-0S6","iat":1766000000,"sd_hash":"x"}`))
	if err != nil {
		log.Fatal(err)
	}
	sig, err := s.SignRequest(ctx, binding)
	fmt.Println(s.Scheme().Verify(s.Public(), binding.Octets(), sig), err)

	_, err = s.SignMessage(nil, []byte("anything else"), nil)
	var refused *signer.Refusal
	fmt.Println(errors.As(err, &refused), err)
	// Output:
	// P-256 active
	// true <nil>
	// true refused to sign unclassified octets: text that does not end in a line feed, or has more than 4096 octets, is no checkpoint
}
