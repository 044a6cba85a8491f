package softhsmtests

import (
	"context"
	"crypto"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// TestDeviceCredentials has the key of a leaf in a token or a TPM: it signs the
// KB-JWT, the KBT and the binding of its own credentials, which are believed.
func TestDeviceCredentials(t *testing.T) {
	ctx := context.Background()
	t.Run("token", func(t *testing.T) {
		tok := hsmtest.Token(t)
		info, err := tok.Generate(ctx, hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "leaf"})
		if err != nil {
			t.Fatal(err)
		}
		key, err := tok.Signer(ctx, info.URI())
		if err != nil {
			t.Fatal(err)
		}
		deviceCredentials(t, key)
	})
	t.Run("TPM", func(t *testing.T) {
		key, err := tpmtest.Open(t).GenerateKey(ctx, tpm.KeySpec{Kind: tpm.SignP256})
		if err != nil {
			t.Fatal(err)
		}
		deviceCredentials(t, key)
	})
}

func deviceCredentials(t *testing.T, key crypto.Signer) {
	const client, user, hub = "mimi://acme.example/d/alice/phone", "mimi://acme.example/u/alice", "mimi://hub.example"
	dir := t.TempDir()
	ca, tokens := identitytest.NewCA(t, "Acme", nil), identitytest.NewTokenIssuer(t, "https://idp.example", nil)
	_, eval := identitytest.Open(t, identitytest.WriteConfig(t, dir, nil,
		ca.Entry(t, dir, "acme", "acme.example"), tokens.Entry(t, dir, "jwt", "sd_jwt", "acme.example"), tokens.Entry(t, dir, "cwt", "sd_cwt", "acme.example")), nil)
	leaf := identitytest.NewKey(t)
	leafKey, err := credentials.MLSPublicKey(leaf.Public())
	if err != nil {
		t.Fatal(err)
	}
	binding, err := mls.BindCredential(t.Context(), mls.P256AES128SHA256P256, ca.Client(t, key.Public(), client, user), key, leafKey)
	if err != nil {
		t.Fatal(err)
	}
	room, err := mimi.ParseURI(hub + "/r/room")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		credential mls.Credential
		signer     crypto.Signer
	}{
		"x509": {ca.Client(t, key.Public(), client, user), key}, "sd_jwt": {tokens.SDJWT(t, key, hub, client, user), key},
		"sd_cwt": {tokens.SDCWT(t, key, hub, client, user), key}, "multi": {mls.MultiCredential(binding), leaf},
	} {
		public, err := credentials.MLSPublicKey(c.signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		v, err := eval.Evaluate(t.Context(), identity.Question{Suite: mls.P256AES128SHA256P256, Credential: c.credential, SignatureKey: public, Room: room, Acting: true})
		if err != nil || v.Identity.Client.String() != client {
			t.Errorf("%s: %+v, %v", name, v.Identity, err)
		}
	}
}
