package softhsmtests

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// TestFrank makes franks whose MAC and signature keys are in a token or a TPM,
// and judges them as a receiver and as the hub that made them.
func TestFrank(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("token", func(t *testing.T) {
		tok := hsmtest.Token(t)
		sign, err := tok.Generate(ctx, hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "frank"})
		must(err)
		signer, err := tok.Signer(ctx, sign.URI())
		must(err)
		secret, err := tok.Generate(ctx, hsm.KeySpec{Type: hsm.HMACSHA256, Use: hsm.UseMAC, Label: "hub"})
		must(err)
		mac, err := tok.MAC(ctx, secret.URI())
		must(err)
		frankWith(t, mac, signer)
	})
	t.Run("TPM", func(t *testing.T) {
		d := tpmtest.Open(t)
		signer, err := d.GenerateKey(ctx, tpm.KeySpec{Kind: tpm.SignP256})
		must(err)
		mac, err := d.GenerateKey(ctx, tpm.KeySpec{Kind: tpm.MACSHA256})
		must(err)
		frankWith(t, mac, signer)
	})
}

func frankWith(t *testing.T, mac mimi.MAC, signer crypto.Signer) {
	ctx := context.Background()
	alice, err := mimi.ParseURI("mimi://example.com/u/alice")
	if err != nil {
		t.Fatal(err)
	}
	room, err := mimi.ParseURI("mimi://example.com/r/clubhouse")
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	const suite, at = mls.P256AES128SHA256P256, 1_800_000_000_000
	content := mimi.FrankedContent{ApplicationData: []byte("hello"), Salt: [16]byte{1}, SenderURI: alice, RoomURI: room}
	tag := mimi.ComputeFrankingTag(content.Salt, content.ApplicationData)
	hub := mimi.Franker{CipherSuite: suite, MAC: mac, Signer: signer}
	frank, err := hub.Frank(ctx, tag, &mimi.ServerFrankingContext{SenderURI: alice, RoomURI: room, AcceptedTimestamp: at})
	if err != nil {
		t.Fatal(err)
	}
	received := mimi.FrankedMessage{
		Content: content, Frank: frank, AcceptedTimestamp: at, Tag: tag, GroupSuite: suite,
		AgentKey: key, AgentDomain: room.Host(), LeafUserURI: alice, RoomURI: room,
	}
	if err := received.Verify(); err != nil {
		t.Errorf("receiver: %v", err)
	}
	var keys mimi.FrankingKeys
	keys.AddMAC(0, mimi.MaxTimestamp, mac)
	keys.AddSignatureKey(0, mimi.MaxTimestamp, suite, key)
	report := mimi.FrankReport{Content: content, Frank: frank, AcceptedTimestamp: at, RoomURI: room, AllegedAbuser: alice}
	if err := keys.VerifyReport(ctx, &report); err != nil {
		t.Errorf("a true report: %v", err)
	}
	report.Content.ApplicationData = []byte("something worse")
	if err := keys.VerifyReport(ctx, &report); !errors.Is(err, &mimi.FrankError{Reason: mimi.FrankMAC}) {
		t.Errorf("a forged report: %v, want %s", err, mimi.FrankMAC)
	}
}
