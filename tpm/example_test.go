package tpm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"log"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
)

// A key is made in a TPM, signs, and proves where it lives.
func Example() {
	ctx := context.Background()
	server, err := swtpm.New(ctx, swtpm.Config{}) // a throwaway TPM in place of device:/dev/tpmrm0
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	device, err := tpm.Open(ctx, tpm.Config{Address: server.Address()})
	if err != nil {
		log.Fatal(err)
	}
	defer device.Close()

	key, err := device.GenerateKey(ctx, tpm.KeySpec{Kind: tpm.SignP256})
	if err != nil {
		log.Fatal(err)
	}
	message := []byte("hello")
	signature, err := key.SignMessageContext(ctx, message, nil)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256(message)
	fmt.Println("signature:", ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature))

	ak, err := device.GenerateKey(ctx, tpm.KeySpec{Kind: tpm.AttestP256})
	if err != nil {
		log.Fatal(err)
	}
	nonce := []byte("a nonce of the verifier")
	evidence, err := device.Attest(ctx, ak, key, nonce, tpm.AttestOptions{})
	if err != nil {
		log.Fatal(err)
	}
	verifier := tpm.Verifier{Nonce: nonce, AKName: ak.Name()} // on another machine
	verified, err := verifier.Verify(evidence)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("made in the TPM:", verified.Created, "cannot leave it:", verified.Attributes.FixedTPM)
	// Output:
	// signature: true
	// made in the TPM: true cannot leave it: true
}
