package sdcwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
)

// An issuer hides two claims; the holder shows one of them to one verifier.
func Example() {
	ctx := context.Background()
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // or a key in a token
	if err != nil {
		log.Fatal(err)
	}
	deviceKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	cnf, err := credentials.CWTConfirmation(deviceKey.Public())
	if err != nil {
		log.Fatal(err)
	}
	confirmation, err := sdcwt.CBOR(cnf)
	if err != nil {
		log.Fatal(err)
	}

	now := time.Now()
	issuer := &sdcwt.Issuer{Key: issuerKey}
	token, err := issuer.Issue(ctx, sdcwt.Claims{
		sdcwt.ClaimIssuer:      "https://issuer.example",
		sdcwt.ClaimSubject:     "mimi://a.example/d/alice/phone",
		sdcwt.ClaimIssuedAt:    now.Unix(),
		sdcwt.ClaimExpires:     now.Add(time.Hour).Unix(),
		sdcwt.ClaimCnf:         confirmation,
		sdcwt.Redact("name"):   "Alice",
		sdcwt.Redact("office"): map[any]any{"city": "Berlin"},
		sdcwt.Decoy(1):         nil,
	})
	if err != nil {
		log.Fatal(err)
	}

	issuers := &sdcwt.StaticIssuer{Issuer: "https://issuer.example", Keys: []sdcwt.StaticKey{{Public: issuerKey.Public()}}}
	holder := &sdcwt.Holder{Issuers: issuers, Key: deviceKey.Public()}
	credential, err := holder.Accept(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	nonce := []byte("from the verifier")
	kbt, err := credential.Present(ctx, deviceKey, sdcwt.Presentation{
		Audience: "https://hub.example", IssuedAt: now, Nonce: nonce, Disclose: sdcwt.Keys("name"),
	})
	if err != nil {
		log.Fatal(err)
	}

	verifier := &sdcwt.Verifier{Issuers: issuers, Audience: []string{"https://hub.example"}, Nonce: nonce, MaxAge: 5 * time.Minute}
	verified, err := verifier.Verify(ctx, kbt)
	if err != nil {
		log.Fatal(err)
	}
	name, _ := verified.Claims.Text("name")
	fmt.Println(name, verified.Claims.Has("office"), verified.Redacted)

	_, err = verifier.Verify(ctx, kbt[:len(kbt)-1])
	fmt.Println(credentials.CodeOf(err))
	// Output:
	// Alice false 2
	// malformed
}
