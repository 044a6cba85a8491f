package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/signer"
)

// attest asks the device of the holder's key for evidence over a fresh nonce and
// says what it supports. docs/attestation.md has what each level proves.
func (w *wiring) attest(ctx context.Context, o *issueOptions, p *possession) error {
	if o.holder == "" {
		return usageError{fmt.Errorf("--attest is for a --holder in this key store")}
	}
	key, err := w.store.Key(ctx, signer.KeyID(o.holder))
	if err != nil {
		return err
	}
	var nonce []byte // a PKCS#11 module only answers questions, which carry none
	if _, isTPM := w.devices[key.Active().Device].(*tpmDevice); isTPM {
		nonce = make([]byte, 32)
		rand.Read(nonce)
	}
	e, err := w.ring.Attest(ctx, key.ID, key.Active().Number, nonce)
	if err != nil {
		return err
	}
	if e.Proof != nil {
		return w.attestTPM(ctx, key, e, nonce, p)
	}
	if weak := e.Weaknesses(); e.Claim == nil || len(weak) > 0 {
		return refusedError{fmt.Errorf("key %s: the module does not state what a device key should have: %s", key.ID, strings.Join(weak, ", "))}
	}
	p.level = credentials.AttestationStated
	p.evidence, err = w.statedEvidence(ctx, enrol.Attributes(*e.Claim), p)
	return err
}
