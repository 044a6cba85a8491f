package tpm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

func wantCheck(t *testing.T, what string, err error, checks ...string) {
	t.Helper()
	var e *tpm.EvidenceError
	if !errors.As(err, &e) || !errors.Is(err, tpm.ErrEvidence) {
		t.Errorf("%s: error %v is no *tpm.EvidenceError", what, err)
		return
	}
	for _, c := range checks {
		if e.Check == c {
			return
		}
	}
	t.Errorf("%s: refused by check %q (%v), want %v", what, e.Check, err, checks)
}

// evidence is a whole set of evidence with what made it.
type evidence struct {
	d        *tpm.Device
	ak, key  *tpm.Key
	verifier tpm.Verifier
	e        *tpm.Evidence
	server   *swtpm.Server
}

func newEvidence(t *testing.T) *evidence {
	t.Helper()
	s := tpmtest.Start(t, swtpm.Config{Endorsement: true})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	x := &evidence{d: d, server: s, ak: generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256}), key: generate(t, d, tpm.KeySpec{})}
	x.verifier = tpm.Verifier{Nonce: []byte(rand.Text()), AKName: x.ak.Name(), EKRoots: roots(t, s), EKIntermediates: issuer(t, s)}
	keys, err := d.EndorsementKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x.e, err = d.Attest(t.Context(), x.ak, x.key, x.verifier.Nonce, tpm.AttestOptions{PCRs: []int{0, 5}, Endorsement: &keys[0]})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func roots(t *testing.T, s *swtpm.Server) *x509.CertPool {
	t.Helper()
	pool, err := s.Roots()
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func issuer(t *testing.T, s *swtpm.Server) *x509.CertPool {
	t.Helper()
	b, err := s.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("no certificate")
	}
	return pool
}

func (x *evidence) copy(t *testing.T) *tpm.Evidence {
	t.Helper()
	b, err := x.e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e, err := tpm.ParseEvidence(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvidence(t *testing.T) {
	x := newEvidence(t)
	r, err := x.verifier.Verify(x.copy(t))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Key.Equal(x.key.Public()) || !bytes.Equal(r.AKName, x.ak.Name()) || !r.Created || !r.AKTrusted || len(r.PCRs) != 2 {
		t.Errorf("verified %+v", r)
	}
	if r.EK == nil || r.EK.ManufacturerName() != "id:00001014" || r.EK.Certificate == nil {
		t.Errorf("endorsement %+v", r.EK)
	}
}

// TestEvidenceRefused alters evidence in every way we can think of and names
// the check that must notice.
func TestEvidenceRefused(t *testing.T) {
	x := newEvidence(t)
	ctx := t.Context()
	must := func(a *tpm.Attestation, err error) *tpm.Attestation {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	otherAK := generate(t, x.d, tpm.KeySpec{Kind: tpm.AttestP256})
	otherKey := generate(t, x.d, tpm.KeySpec{})
	loose, err := x.d.GenerateUnrestricted(ctx)
	if err != nil {
		t.Fatal(err)
	}
	movable, err := x.d.GenerateMovable(ctx)
	if err != nil {
		t.Fatal(err)
	}
	otherNonce := []byte(rand.Text())
	tests := []struct {
		name   string
		change func(*tpm.Evidence, *tpm.Verifier)
		check  string
	}{
		{"another nonce asked for", func(e *tpm.Evidence, v *tpm.Verifier) { v.Nonce = otherNonce }, "nonce"},
		{"no nonce asked for", func(e *tpm.Evidence, v *tpm.Verifier) { v.Nonce = nil }, "nonce"},
		{"certification of an older nonce", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Certification = must(x.d.Certify(ctx, x.ak, x.key, otherNonce))
		}, "nonce"},
		{"creation of an older nonce", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Creation = must(x.d.CertifyCreation(ctx, x.ak, x.key, otherNonce))
		}, "nonce"},
		{"quote of an older nonce", func(e *tpm.Evidence, v *tpm.Verifier) {
			q, err := x.d.Quote(ctx, x.ak, otherNonce, 0, 5)
			if err != nil {
				t.Fatal(err)
			}
			e.Quote = q
		}, "nonce"},
		{"certification of another key", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Certification = must(x.d.Certify(ctx, x.ak, otherKey, v.Nonce))
		}, "name"},
		{"creation of another key", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Creation = must(x.d.CertifyCreation(ctx, x.ak, otherKey, v.Nonce))
		}, "name"},
		{"another key's public area", func(e *tpm.Evidence, v *tpm.Verifier) { e.Key = otherKey.PublicArea() }, "name"},
		{"certification in place of creation", func(e *tpm.Evidence, v *tpm.Verifier) { e.Creation = e.Certification }, "type"},
		{"creation in place of certification", func(e *tpm.Evidence, v *tpm.Verifier) { e.Certification = e.Creation }, "type"},
		{"certification in place of a quote", func(e *tpm.Evidence, v *tpm.Verifier) { e.Quote.Attestation = *e.Certification }, "type"},
		{"signed by another attestation key", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Certification = must(x.d.Certify(ctx, otherAK, x.key, v.Nonce))
		}, "signature"},
		{"another attestation key altogether", func(e *tpm.Evidence, v *tpm.Verifier) { e.AK = otherAK.PublicArea() }, "ak-name"},
		{"another attestation key, none asked for", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.AK, v.AKName = otherAK.PublicArea(), nil
		}, "signature"},
		{"an unrestricted key certifies", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.AK, v.AKName = loose.PublicArea(), nil
			e.Certification = must(x.d.CertifyWith(ctx, loose, x.key, v.Nonce))
		}, "ak-attributes"},
		{"an unrestricted key, expected by name", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.AK, v.AKName = loose.PublicArea(), loose.Name()
		}, "ak-attributes"},
		{"a forged statement by an unrestricted key", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.AK, v.AKName = loose.PublicArea(), nil
			e.Certification = forge(t, ctx, loose, e.Certification.Statement)
		}, "ak-attributes"},
		{"the key as its own attestation key", func(e *tpm.Evidence, v *tpm.Verifier) { e.AK, v.AKName = e.Key, nil }, "ak-attributes"},
		{"a key that may leave the TPM", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Key, e.Creation, e.CreationData = movable.PublicArea(), nil, nil
			e.Certification = must(x.d.Certify(ctx, x.ak, movable, v.Nonce))
		}, "key-attributes"},
		{"other creation data", func(e *tpm.Evidence, v *tpm.Verifier) { e.CreationData[len(e.CreationData)-1] ^= 1 }, "creation-hash"},
		{"a PCR value", func(e *tpm.Evidence, v *tpm.Verifier) { e.Quote.PCRs[0][0] ^= 1 }, "pcr-digest"},
		{"a PCR more", func(e *tpm.Evidence, v *tpm.Verifier) { e.Quote.PCRs[9] = make([]byte, 32) }, "pcr-digest"},
		{"a PCR less", func(e *tpm.Evidence, v *tpm.Verifier) { delete(e.Quote.PCRs, 5) }, "pcr-digest"},
		{"a PCR renamed", func(e *tpm.Evidence, v *tpm.Verifier) {
			e.Quote.PCRs[6] = e.Quote.PCRs[5]
			delete(e.Quote.PCRs, 5)
		}, "pcr-digest"},
		{"a short PCR", func(e *tpm.Evidence, v *tpm.Verifier) { e.Quote.PCRs[5] = e.Quote.PCRs[5][:31] }, "pcr-digest"},
		{"PCRs that are not wanted", func(e *tpm.Evidence, v *tpm.Verifier) { v.PCRs = map[int][]byte{0: make([]byte, 31)} }, "pcrs"},
		{"a PCR that was not quoted", func(e *tpm.Evidence, v *tpm.Verifier) { v.PCRs = map[int][]byte{1: make([]byte, 32)} }, "pcrs"},
		{"no quote", func(e *tpm.Evidence, v *tpm.Verifier) { e.Quote, v.PCRs = nil, map[int][]byte{1: make([]byte, 32)} }, "pcrs"},
		{"no magic", func(e *tpm.Evidence, v *tpm.Verifier) { e.Certification.Statement[0] = 0 }, "magic"},
		{"no endorsement certificate", func(e *tpm.Evidence, v *tpm.Verifier) { e.EKCertificates = nil }, "ek-chain"},
		{"no root", func(e *tpm.Evidence, v *tpm.Verifier) { v.EKRoots = x509.NewCertPool() }, "ek-chain"},
		{"no intermediate", func(e *tpm.Evidence, v *tpm.Verifier) { v.EKIntermediates = nil }, "ek-chain"},
		{"certificates of the far future", func(e *tpm.Evidence, v *tpm.Verifier) { v.Time = time.Now().AddDate(-30, 0, 0) }, "ek-chain"},
		{"another endorsement key", func(e *tpm.Evidence, v *tpm.Verifier) { e.EK = ekOf(t, x.d, 1).Public }, "ek"},
		{"a signing key as endorsement key", func(e *tpm.Evidence, v *tpm.Verifier) { e.EK = e.Key }, "ek"},
		{"the issuer's certificate", func(e *tpm.Evidence, v *tpm.Verifier) { e.EKCertificates = [][]byte{issuerDER(t, x.server)} }, "ek"},
		{"another format", func(e *tpm.Evidence, v *tpm.Verifier) { e.Format = "privyseal-tpm-evidence-2" }, "format"},
		{"no certification", func(e *tpm.Evidence, v *tpm.Verifier) { e.Certification = nil }, "format"},
		{"creation without data", func(e *tpm.Evidence, v *tpm.Verifier) { e.CreationData = nil }, "format"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, v := x.copy(t), x.verifier
			tt.change(e, &v)
			_, err := v.Verify(e)
			wantCheck(t, tt.name, err, tt.check)
		})
	}
}

// forge has a key that anybody may use sign a statement of our making.
func forge(t *testing.T, ctx context.Context, k *tpm.Key, statement []byte) *tpm.Attestation {
	t.Helper()
	digest := sha256.Sum256(statement)
	der, err := k.SignContext(ctx, digest[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], der) {
		t.Fatal("the forgery does not verify")
	}
	return &tpm.Attestation{Statement: statement, Signature: tpmtSignature(t, der)}
}

func ekOf(t *testing.T, d *tpm.Device, i int) *tpm.EndorsementKey {
	t.Helper()
	keys, err := d.EndorsementKeys(t.Context())
	if err != nil || len(keys) <= i {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	return &keys[i]
}

func issuerDER(t *testing.T, s *swtpm.Server) []byte {
	t.Helper()
	b, err := s.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	return block.Bytes
}

// TestEvidenceBitFlips flips bits in every octet of every part and cuts at each.
func TestEvidenceBitFlips(t *testing.T) {
	x := newEvidence(t)
	parts := map[string]func(*tpm.Evidence) *[]byte{
		"certification": func(e *tpm.Evidence) *[]byte { return &e.Certification.Statement },
		"its signature": func(e *tpm.Evidence) *[]byte { return &e.Certification.Signature },
		"creation":      func(e *tpm.Evidence) *[]byte { return &e.Creation.Statement },
		"creation data": func(e *tpm.Evidence) *[]byte { return &e.CreationData },
		"quote":         func(e *tpm.Evidence) *[]byte { return &e.Quote.Statement },
		"ak":            func(e *tpm.Evidence) *[]byte { return &e.AK },
		"key":           func(e *tpm.Evidence) *[]byte { return &e.Key },
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) {
			n := len(*part(x.e))
			for bit := 0; bit < 8*n; bit += 5 { // in turn each bit of an octet
				e := x.copy(t)
				(*part(e))[bit/8] ^= 1 << (bit % 8)
				if _, err := x.verifier.Verify(e); !errors.Is(err, tpm.ErrEvidence) {
					t.Fatalf("bit %d: %v", bit, err)
				}
			}
			for cut := range n {
				e := x.copy(t)
				*part(e) = (*part(e))[:cut]
				if _, err := x.verifier.Verify(e); !errors.Is(err, tpm.ErrEvidence) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
			}
			e := x.copy(t)
			*part(e) = append(*part(e), 0)
			if _, err := x.verifier.Verify(e); !errors.Is(err, tpm.ErrEvidence) {
				t.Fatalf("an octet more: %v", err)
			}
		})
	}
}

func TestEvidenceJSON(t *testing.T) {
	x := newEvidence(t)
	good, err := x.e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, good, "", "  "); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.ParseEvidence(indented.Bytes()); err != nil {
		t.Errorf("indented: %v", err)
	}
	text := string(good)
	bad := map[string]string{
		"unknown member":  strings.Replace(text, `{"format"`, `{"more":1,"format"`, 1),
		"repeated member": strings.Replace(text, `{"format"`, `{"nonce":"AAAA","format"`, 1),
		"another case":    strings.Replace(text, `"nonce"`, `"Nonce"`, 1),
		"null":            "null",
		"a list":          "[]",
		"two documents":   text + text,
		"cut off":         text[:len(text)-1],
		"empty":           "",
		"a PCR too many":  strings.Replace(text, `"pcrs":{`, `"pcrs":{"00":"",`, 1),
		"too long":        text + strings.Repeat(" ", 64<<10),
	}
	for name, s := range bad {
		_, err := tpm.ParseEvidence([]byte(s))
		wantCheck(t, name, err, "format")
	}
}

// TestAKSignsNothingElse: a restricted key refuses what a TPM did not make.
func TestAKSignsNothingElse(t *testing.T) {
	x := newEvidence(t)
	_, err := x.ak.Sign(nil, make([]byte, 32), nil)
	wantError(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	_, err = x.d.Certify(t.Context(), x.key, x.ak, x.verifier.Nonce)
	wantError(t, err, tpm.ClassInput, tpm.ErrKeyUse)
	for _, nonce := range [][]byte{nil, make([]byte, 15), make([]byte, 49)} {
		_, err = x.d.Certify(t.Context(), x.ak, x.key, nonce)
		wantError(t, err, tpm.ClassInput, tpm.ErrEvidence)
	}
}

func TestChallengeRefusesOtherKeys(t *testing.T) {
	x := newEvidence(t)
	_, _, err := tpm.NewChallenge(x.e.EK, x.e.Key)
	wantCheck(t, "no attestation key", err, "ak-attributes")
	_, _, err = tpm.NewChallenge(x.e.Key, x.e.AK)
	wantCheck(t, "no endorsement key", err, "ek")
	_, _, err = tpm.NewChallenge(nil, x.e.AK)
	wantCheck(t, "nothing", err, "ek")
	other := newEvidence(t)
	// Between the elliptic curve keys: an RSA credential of another TPM puts
	// libtpms 0.9.2 into failure mode.
	challenge, credential, err := tpm.NewChallenge(ekOf(t, other.d, 1).Public, x.e.AK)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := x.d.ActivateCredential(t.Context(), ekOf(t, x.d, 1), x.ak, credential)
	if err == nil || challenge.Check(answer) {
		t.Error("another TPM answered the challenge")
	}
	wantError(t, err, tpm.ClassInput, tpm.ErrCredential)
}

func TestQuoteFollowsPCRs(t *testing.T) {
	x := newEvidence(t)
	before, err := x.d.ReadPCRs(t.Context(), 16, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.d.ExtendPCR(t.Context(), 16, sha256.Sum256([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	q, err := x.d.Quote(t.Context(), x.ak, x.verifier.Nonce, 16, 5)
	if err != nil {
		t.Fatal(err)
	}
	old := *q
	old.PCRs = before
	x.e.Quote = &old
	_, err = x.verifier.Verify(x.e)
	wantCheck(t, "old values", err, "pcr-digest")
	x.e.Quote = q
	v := x.verifier
	v.PCRs = maps.Clone(q.PCRs)
	if _, err := v.Verify(x.e); err != nil {
		t.Error(err)
	}
}

// tpmtSignature encodes a DER signature as TPMT_SIGNATURE.
func tpmtSignature(t *testing.T, der []byte) []byte {
	t.Helper()
	r, s := parseDER(t, der)
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s},
		}),
	})
}

func parseDER(t *testing.T, der []byte) (r, s []byte) {
	t.Helper()
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	return sig.R.Bytes(), sig.S.Bytes()
}
