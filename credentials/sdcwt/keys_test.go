package sdcwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
)

// Keys of appendix C of the draft.
const (
	issuerD = "71c54d2221937ea612db1221f0d3ddf771c9381c4e3be41d5aa0a89d685f09cfef74c4bbf104783fd57e87ab227d074c"
	holderD = "5759a86e59bb3b002dde467da4b52f3d06e6c2cd439456cf0485b9b864294ce5"
)

const (
	exampleIssuer = "https://issuer.example"
	exampleAud    = "https://verifier.example/app"
)

var (
	exampleNonce = unhex("8c0f5f523b95bea44a9a48c649240803")
	exampleNow   = time.Unix(1725244240, 0)
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func privateKey(curve elliptic.Curve, d string) *ecdsa.PrivateKey {
	k, err := ecdsa.ParseRawPrivateKey(curve, new(big.Int).SetBytes(unhex(d)).FillBytes(make([]byte, (curve.Params().BitSize+7)/8)))
	if err != nil {
		panic(err)
	}
	return k
}

var (
	issuerKey = privateKey(elliptic.P384(), issuerD)
	holderKey = privateKey(elliptic.P256(), holderD)
)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// exampleIssuers knows the issuer of the draft's examples.
func exampleIssuers() sdcwt.IssuerKeys {
	return &sdcwt.StaticIssuer{Issuer: exampleIssuer, Keys: []sdcwt.StaticKey{
		{ID: []byte("https://issuer.example/cose-key3"), Public: issuerKey.Public()},
	}}
}

func exampleVerifier() *sdcwt.Verifier {
	return &sdcwt.Verifier{Issuers: exampleIssuers(), Audience: []string{exampleAud}, Now: at(exampleNow)}
}

func exampleHolder() *sdcwt.Holder {
	return &sdcwt.Holder{Issuers: exampleIssuers(), Key: holderKey.Public(), Now: at(exampleNow)}
}

func example(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "draft-ietf-spice-sd-cwt", name+".cbor"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantCode(t testing.TB, err error, want credentials.Code) {
	t.Helper()
	if got := credentials.CodeOf(err); got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

func cnfOf(t testing.TB, pub crypto.PublicKey) any {
	t.Helper()
	b, err := credentials.CWTConfirmation(pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := sdcwt.CBOR(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
