package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

// attestOptions are the flags of key attest.
type attestOptions struct {
	version int
	nonce   string // hexadecimal
	ak      string // hexadecimal Name of the attestation key that is believed
	verify  string // file
}

func newKeyAttest(a *app) *cobra.Command {
	var o attestOptions
	c := &cobra.Command{
		Use: "attest [ID]", Short: "Have the device make evidence about a key, or verify such evidence",
		Long: `With an ID, the device makes evidence and it is printed as JSON: for a key in a
TPM a proof, signed by the TPM's attestation key over --nonce; for a key in a
PKCS#11 token a claim, which is the module's own word.

With --verify FILE the proof in a file is verified in software, without a TPM
and without configuration. A verifier should bring --nonce, the one that it had
given out, and --ak, the attestation key that it believes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return keyAttest(cmd.Context(), a, args, o) },
	}
	c.Flags().IntVar(&o.version, "version", 0, "version of the key; default the active one")
	c.Flags().StringVar(&o.nonce, "nonce", "", "the verifier's challenge, 16 to 48 octets in hexadecimal")
	c.Flags().StringVar(&o.ak, "ak", "", "with --verify: Name of the attestation key that is believed, in hexadecimal")
	c.Flags().StringVar(&o.verify, "verify", "", "verify the proof in this file")
	return c
}

// An attestation is the file that key attest writes.
type attestation struct {
	Key       signer.KeyID           `json:"key"`
	Version   int                    `json:"version"`
	Algorithm signer.Algorithm       `json:"algorithm"`
	KID       string                 `json:"kid,omitempty"`
	Kind      string                 `json:"evidence"` // "claim" or "proof"
	Claim     *signer.AttributeClaim `json:"claim,omitempty"`
	Proof     *signer.Certification  `json:"proof,omitempty"`
}

// keyAttest is "privyseal key attest".
func keyAttest(ctx context.Context, a *app, args []string, o attestOptions) error {
	nonce, err := hex.DecodeString(o.nonce)
	if err != nil {
		return usageError{errors.New("--nonce is not hexadecimal")}
	}
	switch {
	case o.verify != "" && len(args) == 0:
		return attestVerify(a, o, nonce)
	case o.verify != "" || len(args) != 1:
		return usageError{errors.New("give the ID of a key, or --verify FILE")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		key, v, err := w.version(ctx, args[0], o.version)
		if err != nil {
			return err
		}
		e, err := w.ring.Attest(ctx, key.ID, v.Number, nonce)
		if err != nil {
			return err
		}
		return writeJSON(a.out, attestation{Key: key.ID, Version: v.Number, Algorithm: key.Algorithm, KID: v.KID,
			Kind: e.Kind(), Claim: e.Claim, Proof: e.Proof})
	})
}

// version returns a version of a key, or the active one for 0.
func (w *wiring) version(ctx context.Context, id string, number int) (*signer.Key, *signer.Version, error) {
	key, err := w.store.Key(ctx, signer.KeyID(id))
	if err != nil {
		return nil, nil, err
	}
	v := key.Active()
	if number != 0 {
		v = key.Version(number)
	}
	if v == nil {
		return nil, nil, fmt.Errorf("%w: key %s has no such version; see: privyseal key show %s", signer.ErrKeyState, id, id)
	}
	return key, v, nil
}

// maxAttestation bounds the file that is verified.
const maxAttestation = 1 << 20

// attestVerify verifies the proof in a file.
func attestVerify(a *app, o attestOptions, nonce []byte) error {
	att, err := readAttestation(o.verify)
	if err != nil {
		return err
	}
	if att.Proof == nil {
		return refusedError{fmt.Errorf("%s has a claim, the word of a PKCS#11 module: there is nothing in it to verify", o.verify)}
	}
	ak, err := hex.DecodeString(o.ak)
	if err != nil {
		return usageError{errors.New("--ak is not hexadecimal")}
	}
	result, err := att.verify(nonce, ak)
	if err != nil {
		return err
	}
	for _, w := range result.Warnings {
		a.note("warning: %s", w)
	}
	return a.print(result, result.text)
}

func readAttestation(path string) (*attestation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAttestation+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxAttestation {
		return nil, refusedError{fmt.Errorf("%s has more than %d octets", path, maxAttestation)}
	}
	return parseAttestation(b)
}

// parseAttestation decodes what key attest writes; unknown members are errors.
func parseAttestation(b []byte) (*attestation, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	att := new(attestation)
	if err := d.Decode(att); err != nil {
		return nil, refusedError{fmt.Errorf("not an attestation: %w", err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refusedError{errors.New("not an attestation: octets are left after the JSON object")}
	}
	if e := (signer.Evidence{Claim: att.Claim, Proof: att.Proof}); att.Kind != e.Kind() || (att.Claim != nil) == (att.Proof != nil) {
		return nil, refusedError{errors.New("not an attestation: it must have exactly the claim or the proof that it says it has")}
	}
	return att, nil
}

// A proofVerdict is what verified evidence proves, computed from the statements and
// not from what the file says beside them.
type proofVerdict struct {
	Verified            bool     `json:"verified"`
	KID                 string   `json:"kid,omitempty"`
	Created             bool     `json:"created_in_tpm"`
	FixedTPM            bool     `json:"fixed_tpm"`
	FixedParent         bool     `json:"fixed_parent"`
	SensitiveDataOrigin bool     `json:"sensitive_data_origin"`
	AttestationKey      string   `json:"attestation_key"`
	Believed            bool     `json:"attestation_key_believed"`
	Warnings            []string `json:"warnings"`
}

// verify checks the statements, and that they are about the key named.
func (att *attestation) verify(nonce, ak []byte) (*proofVerdict, error) {
	r := &proofVerdict{Warnings: []string{}}
	if len(nonce) == 0 {
		e, err := tpm.ParseEvidence(att.Proof.Statement)
		if err != nil {
			return nil, err
		}
		nonce = e.Nonce
		r.Warnings = append(r.Warnings, "without --nonce an old statement cannot be told from a fresh one")
	}
	if len(ak) == 0 {
		ak = nil
		r.Warnings = append(r.Warnings, "without --ak any key may have signed: compare attestation_key with the one you know")
	}
	proof, err := checkCertification(att.Proof.Statement, nonce, ak)
	if err != nil {
		return nil, err
	}
	if err := att.matches(proof, r); err != nil {
		return nil, err
	}
	r.Verified, r.Believed, r.Created = true, proof.verified.AKTrusted, proof.verified.Created
	r.FixedTPM, r.FixedParent, r.SensitiveDataOrigin = proof.FixedTPM, proof.FixedParent, proof.SensitiveDataOrigin
	r.AttestationKey = proof.AttestationKey
	return r, nil
}

// matches refuses a file whose kid is not that of the certified key.
func (att *attestation) matches(proof *checkedProof, r *proofVerdict) error {
	if proof.verified.Key == nil {
		r.Warnings = append(r.Warnings, "a MAC key has no public key: the proof is about an object named "+hex.EncodeToString(proof.keyName))
		return nil
	}
	kid, err := signer.JWKThumbprint(crypto.PublicKey(proof.verified.Key))
	if err != nil {
		return err
	}
	if kid != att.KID {
		return refusedError{&credentials.Error{Code: credentials.CodeCnfLeafMismatch, Where: "attestation",
			Detail: fmt.Sprintf("the statement is about key %s and the file says %s", kid, clip(att.KID))}}
	}
	r.KID = kid
	return nil
}

func (r *proofVerdict) text(w io.Writer) {
	fmt.Fprintln(w, "verified         yes: signed by the attestation key, over the nonce, about this key")
	if r.KID != "" {
		fmt.Fprintf(w, "kid              %s\n", r.KID)
	}
	fmt.Fprintf(w, "made in the TPM  %v (creation certified: %v)\nfixedTPM         %v\nfixedParent      %v\nattestation key  %s (believed: %v)\n",
		r.SensitiveDataOrigin, r.Created, r.FixedTPM, r.FixedParent, r.AttestationKey, r.Believed)
}
