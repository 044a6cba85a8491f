package sdjwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// An issuer signs a credential for a device, the device shows a part of it to
// one verifier, and the verifier gets the claims that it may see. The keys are
// crypto.Signer: those of a token or a TPM serve as well.
func Example() {
	ctx := context.Background()
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	deviceKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}

	// The issuer makes three claims selectively disclosable.
	issuer := &sdjwt.Issuer{Key: issuerKey, Name: "https://issuer.example", Kid: "2026-1"}
	token, err := issuer.Issue(ctx, sdjwt.Request{
		Claims: []byte(`{"vct":"https://issuer.example/member","name":"Ada","address":{"town":"Ham","street":"1 Way"},"groups":["staff","chess"]}`),
		Redact: []sdjwt.Path{{"name"}, {"address", "street"}, {"groups", nil}},
		Holder: deviceKey.Public(), IssuedAt: time.Now(), Expires: time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		log.Fatal(err)
	}

	// Everyone who checks agrees on who is believed.
	verifier, err := sdjwt.NewVerifier(sdjwt.Policy{
		Issuers:   sdjwt.IssuerTable{"https://issuer.example": sdjwt.StaticKeys{{Kid: "2026-1", Public: issuerKey.Public()}}},
		VC:        true,
		Audiences: []string{"https://door.example"},
		Required:  []string{"exp"},
		Nonces:    new(sdjwt.MemoryNonces),
	})
	if err != nil {
		log.Fatal(err)
	}

	// The holder checks what it got, and shows one group to the door.
	credential, err := verifier.Receive(ctx, token.String(), deviceKey.Public())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("may be withheld:", credential.Disclosable())
	shown, err := credential.Present(ctx, sdjwt.Presentation{
		Disclose: []sdjwt.Path{{"groups", 1}},
		Key:      deviceKey, Audience: "https://door.example", Nonce: "the door's challenge",
	})
	if err != nil {
		log.Fatal(err)
	}

	// The door sees the town, which was never redacted, and that group.
	seen, err := verifier.Verify(ctx, shown.String(), sdjwt.Expect{Nonce: "the door's challenge"})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"vct", "name", "address", "groups"} {
		value, there := seen.Claims.Get(name)
		fmt.Printf("%s: %s %v\n", name, value, there)
	}

	// The same presentation works once.
	_, err = verifier.Verify(ctx, shown.String(), sdjwt.Expect{Nonce: "the door's challenge"})
	fmt.Println(err)

	// Output:
	// may be withheld: [["name"] ["address","street"] ["groups",0] ["groups",1]]
	// vct: "https://issuer.example/member" true
	// name:  false
	// address: {"town":"Ham"} true
	// groups: ["chess"] true
	// nonce in KB-JWT: the nonce was used before
}
