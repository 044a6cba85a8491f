package tpmtest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/tpm"
)

// testEvidence walks the whole way of a device that is enrolled: the verifier
// believes the attestation key after a challenge, then the evidence it signs.
func testEvidence(t *testing.T, d *tpm.Device) {
	ctx := t.Context()
	if err := d.ResetPCR(ctx, contractPCR); err != nil {
		t.Fatal(err)
	}
	ak := generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
	for _, spec := range []tpm.KeySpec{{}, {Kind: tpm.ECDHP256}, {Kind: tpm.MACSHA256}, {PCRs: []int{contractPCR}}} {
		key := generate(t, d, spec)
		nonce := []byte(rand.Text())[:20]
		e, err := d.Attest(ctx, ak, key, nonce, tpm.AttestOptions{PCRs: []int{0, contractPCR}})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if e, err = tpm.ParseEvidence(stored); err != nil {
			t.Fatal(err)
		}
		v := tpm.Verifier{Nonce: nonce, AKName: ak.Name(), PCRs: map[int][]byte{contractPCR: make([]byte, sha256.Size)}}
		r, err := v.Verify(e)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.KeyName, key.Name()) || !r.Created || !r.AKTrusted || r.Kind != spec.Kind {
			t.Errorf("%v: verified %+v", spec.Kind, r)
		}
		v.Nonce = []byte(rand.Text())[:20]
		if _, err := v.Verify(e); !errors.Is(err, tpm.ErrEvidence) {
			t.Errorf("another nonce: %v", err)
		}
	}
	testChallenge(t, d, ak)
}

func testChallenge(t *testing.T, d *tpm.Device, ak *tpm.Key) {
	ctx := t.Context()
	keys, err := d.EndorsementKeys(ctx)
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d endorsement keys, %v", len(keys), err)
	}
	other := generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
	for i := range keys {
		challenge, credential, err := tpm.NewChallenge(keys[i].Public, ak.PublicArea())
		if err != nil {
			t.Fatal(err)
		}
		answer, err := d.ActivateCredential(ctx, &keys[i], ak, credential)
		if err != nil {
			t.Fatalf("%s: %v", keys[i].Algorithm, err)
		}
		if !challenge.Check(answer) || !bytes.Equal(challenge.AKName, ak.Name()) {
			t.Errorf("%s: the answer is wrong", keys[i].Algorithm)
		}
		answer[0] ^= 1
		if challenge.Check(answer) || challenge.Check(nil) {
			t.Errorf("%s: a wrong answer passes", keys[i].Algorithm)
		}
		_, err = d.ActivateCredential(ctx, &keys[i], other, credential)
		wantClass(t, err, tpm.ClassInput, tpm.ErrCredential)
		credential.Blob[len(credential.Blob)-1] ^= 1
		_, err = d.ActivateCredential(ctx, &keys[i], ak, credential)
		wantClass(t, err, tpm.ClassInput, tpm.ErrCredential)
	}
}

func testInfo(t *testing.T, d *tpm.Device) {
	if err := d.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Manufacturer == "" || info.SpecRevision == "" || info.Lockout.Max == 0 || info.Lockout.Locked {
		t.Errorf("info %+v", info)
	}
	if !slices.Contains(info.PCRBanks, "sha256") || !slices.Contains(info.Curves, "P-256") || len(info.SRKName) != 34 {
		t.Errorf("info %+v", info)
	}
	if len(info.Endorsement) == 0 {
		t.Error("no endorsement key")
	}
	t.Logf("%+v", info)
}
