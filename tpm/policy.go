package tpm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// A policy is what must be true for a key to be used: steps that are executed
// in a policy session, in order (Part 1, 19.7).
type policy []policyStep

// A policyStep is one command of a policy.
type policyStep struct {
	code      tpm2.TPMCC // TPM2_PolicyPCR or TPM2_PolicyAuthValue
	pcrDigest []byte     // for TPM2_PolicyPCR
	pcrs      pcrSelection
}

// maxPolicySteps bounds a policy from outside.
const maxPolicySteps = 8

// needsAuth reports whether the policy asks for the authorization value.
func (p policy) needsAuth() bool {
	return slices.ContainsFunc(p, func(s policyStep) bool { return s.code == tpm2.TPMCCPolicyAuthValue })
}

// digest computes what TPM2_PolicyGetDigest returns after the steps, with
// SHA-256:
//
//	policyDigest_new = H(policyDigest_old || TPM_CC_PolicyPCR || pcrs || pcrDigest)  /* Part 3, 23.7 */
//	policyDigest_new = H(policyDigest_old || TPM_CC_PolicyAuthValue)                 /* Part 3, 23.17 */
func (p policy) digest() []byte {
	digest := make([]byte, sha256.Size)
	for _, s := range p {
		h := sha256.New()
		h.Write(digest)
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(s.code)))
		if s.code == tpm2.TPMCCPolicyPCR {
			h.Write(s.pcrs.appendTo(nil))
			h.Write(s.pcrDigest)
		}
		digest = h.Sum(nil)
	}
	return digest
}

// bindPolicy makes the policy of a key bound to the present values of PCRs and
// returns it with its digest, as the TPM computes it in a trial session.
func (a *attachment) bindPolicy(ctx context.Context, pcrs pcrSelection, withAuth bool) (policy, []byte, error) {
	if len(pcrs) == 0 {
		return nil, nil, nil
	}
	values, err := a.readPCRs(pcrs)
	if err != nil {
		return nil, nil, err
	}
	p := policy{{code: tpm2.TPMCCPolicyPCR, pcrDigest: digestPCRs(pcrs, values), pcrs: pcrs}}
	if withAuth {
		p = append(p, policyStep{code: tpm2.TPMCCPolicyAuthValue})
	}
	digest, err := a.trial(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(digest, p.digest()) {
		return nil, nil, a.malformed("TPM2_PolicyGetDigest", "another digest than the policy has")
	}
	return p, digest, nil
}

// trial runs a policy in a trial session. It takes the place of the policy
// session, since a TPM need not load a fourth.
func (a *attachment) trial(ctx context.Context, p policy) ([]byte, error) {
	if err := a.policyTurn(ctx); err != nil {
		return nil, err
	}
	defer a.sessions.policy.release(1)
	select {
	case idle := <-a.sessions.single:
		if err := a.flush(idle.handle); err != nil {
			return nil, err
		}
	default:
	}
	s, err := a.startSession(tpm2.TPMSETrial, nil, nil)
	if err != nil {
		return nil, err
	}
	digest, err := a.trialDigest(s, p)
	if flushErr := a.flush(s.handle); flushErr != nil {
		return nil, flushErr
	}
	return digest, err
}

func (a *attachment) trialDigest(s *session, p policy) ([]byte, error) {
	if err := a.satisfy(s, p); err != nil {
		return nil, err
	}
	rsp, err := run(a, tpm2.PolicyGetDigest{PolicySession: s.handle})
	if err != nil {
		return nil, err
	}
	return rsp.PolicyDigest.Buffer, nil
}

// satisfy executes the steps of a policy in a session.
func (a *attachment) satisfy(s *session, p policy) error {
	for _, step := range p {
		if err := a.step(s.handle, step); err != nil {
			return err
		}
	}
	return nil
}

func (a *attachment) step(h tpm2.TPMHandle, step policyStep) error {
	var err error
	switch step.code {
	case tpm2.TPMCCPolicyPCR:
		err = a.acknowledged(step.code, policyPCRParameters(h, step))
	case tpm2.TPMCCPolicyAuthValue:
		err = a.runRaw(step.code, uint32(h)) // Part 3, 23.17
	}
	return policyError(err)
}

// policyPCRParameters are the octets of TPM2_PolicyPCR after its header (Part 3,
// 23.7):
//
//	TPMI_SH_POLICY      policySession;
//	TPM2B_DIGEST        pcrDigest;
//	TPML_PCR_SELECTION  pcrs;
func policyPCRParameters(h tpm2.TPMHandle, step policyStep) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 64), uint32(h))
	return step.pcrs.appendTo(append2B(b, step.pcrDigest))
}

// policyError: TPM2_PolicyPCR says TPM_RC_VALUE when the PCRs are not those
// that the digest was computed from (Part 3, 23.7).
func policyError(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.RC == 0 || !errors.Is(err, tpm2.TPMRCValue) {
		return err
	}
	changed := *e
	changed.Class, changed.Err = ClassAuth, fmt.Errorf("%w: %w", ErrPolicy, e.RC)
	changed.Advice = rcMeanings[tpm2.TPMRCPolicyFail].advice
	return &changed
}

func (k *Key) authorizeByPolicy(ctx context.Context, a *attachment, d direction) (tpm2.Session, func(), error) {
	s, giveBack, err := a.borrowPolicy(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := a.satisfy(s, k.policy); err != nil {
		giveBack()
		return nil, nil, err
	}
	var auth []byte
	if k.policy.needsAuth() {
		auth = k.auth.Bytes()
	}
	return s.with(auth, d), giveBack, nil
}
