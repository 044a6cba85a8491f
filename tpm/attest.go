package tpm

import (
	"bytes"
	"context"

	"github.com/google/go-tpm/tpm2"
)

// An AttestOptions says what evidence to make beyond the certification of the
// key.
type AttestOptions struct {
	PCRs        []int           // quote these PCRs
	Endorsement *EndorsementKey // name this endorsement key and its certificate
}

// Attest makes evidence about a key: that it is in this TPM, with the
// attributes it has, and, for a key made by this Device, that it was made in
// it. The attestation key is one of kind AttestP256; the nonce, 16 to 48
// octets, is the verifier's.
func (d *Device) Attest(ctx context.Context, ak, key *Key, nonce []byte, opts AttestOptions) (*Evidence, error) {
	e := &Evidence{Format: EvidenceFormat, Nonce: bytes.Clone(nonce), AK: ak.PublicArea(), Key: key.PublicArea()}
	var err error
	if e.Certification, err = d.Certify(ctx, ak, key, nonce); err != nil {
		return nil, err
	}
	if key.creation != nil {
		if e.Creation, err = d.CertifyCreation(ctx, ak, key, nonce); err != nil {
			return nil, err
		}
		e.CreationData = bytes.Clone(key.creation.data)
	}
	if len(opts.PCRs) > 0 {
		if e.Quote, err = d.Quote(ctx, ak, nonce, opts.PCRs...); err != nil {
			return nil, err
		}
	}
	if ek := opts.Endorsement; ek != nil {
		e.EK = bytes.Clone(ek.Public)
		if len(ek.Certificate) > 0 {
			e.EKCertificates = [][]byte{bytes.Clone(ek.Certificate)}
		}
	}
	return e, nil
}

func (d *Device) checkAttest(ak *Key, nonce []byte) error {
	if ak.kind != AttestP256 {
		return d.inputError(ErrKeyUse, "a key of kind %v does not attest", ak.kind)
	}
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return d.inputError(ErrEvidence, "a nonce has %d to %d octets, not %d", minNonce, maxNonce, len(nonce))
	}
	return nil
}

// Certify has the attestation key sign that the key is loaded in this TPM
// (Part 3, 18.2).
func (d *Device) Certify(ctx context.Context, ak, key *Key, nonce []byte) (*Attestation, error) {
	if err := d.checkAttest(ak, nonce); err != nil {
		return nil, err
	}
	nonce = bytes.Clone(nonce)
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Attestation, error) {
		sessions, giveBack, err := a.borrow(ctx, 2)
		if err != nil {
			return nil, err
		}
		defer giveBack()
		l, err := a.slots.lease(ctx, 0, key.object, ak.object)
		if err != nil {
			return nil, err
		}
		defer l.release()
		// Certify asks for the ADMIN role, for which the authorization
		// value serves whether or not the key's use takes a policy.
		rsp, err := run(a, tpm2.Certify{
			ObjectHandle:   l.authHandle(0, sessions[0].with(key.auth.Bytes(), inOut)),
			SignHandle:     l.authHandle(1, sessions[1].with(ak.auth.Bytes(), plain)),
			QualifyingData: tpm2.TPM2BData{Buffer: nonce},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		})
		if err != nil {
			return nil, err
		}
		return a.attestation("TPM2_Certify", rsp.CertifyInfo.Bytes(), rsp.Signature)
	})
}

// CertifyCreation has the attestation key sign that the key was made in this
// TPM (Part 3, 18.3). It takes a key that this Device has made.
func (d *Device) CertifyCreation(ctx context.Context, ak, key *Key, nonce []byte) (*Attestation, error) {
	if err := d.checkAttest(ak, nonce); err != nil {
		return nil, err
	}
	if key.creation == nil {
		return nil, d.inputError(ErrKeyUse, "only a key that was just made can have its creation certified")
	}
	nonce = bytes.Clone(nonce)
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Attestation, error) {
		sessions, giveBack, err := a.borrow(ctx, 1)
		if err != nil {
			return nil, err
		}
		defer giveBack()
		l, err := a.slots.lease(ctx, 0, key.object, ak.object)
		if err != nil {
			return nil, err
		}
		defer l.release()
		object := l.handle(0)
		rsp, err := run(a, tpm2.CertifyCreation{
			SignHandle:     l.authHandle(1, sessions[0].with(ak.auth.Bytes(), inOut)),
			ObjectHandle:   &object,
			QualifyingData: tpm2.TPM2BData{Buffer: nonce},
			CreationHash:   tpm2.TPM2BDigest{Buffer: key.creation.hash},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			CreationTicket: key.creation.ticket,
		})
		if err != nil {
			return nil, err
		}
		return a.attestation("TPM2_CertifyCreation", rsp.CertifyInfo.Bytes(), rsp.Signature)
	})
}

// Quote has the attestation key sign the values of PCRs (Part 3, 18.4).
func (d *Device) Quote(ctx context.Context, ak *Key, nonce []byte, pcrs ...int) (*Quote, error) {
	if err := d.checkAttest(ak, nonce); err != nil {
		return nil, err
	}
	selection, err := newPCRSelection(pcrs)
	if err != nil || len(selection) == 0 {
		return nil, d.inputError(errPCRs, "%v", pcrs)
	}
	nonce = bytes.Clone(nonce)
	return withKey(ctx, ak, inOut, func(a *attachment, h tpm2.AuthHandle) (*Quote, error) {
		return a.quote(h, nonce, selection)
	})
}

// quote signs and then reads the PCRs, again when they changed in between.
func (a *attachment) quote(h tpm2.AuthHandle, nonce []byte, selection pcrSelection) (*Quote, error) {
	const tries = 3
	for try := 1; ; try++ {
		rsp, err := run(a, tpm2.Quote{
			SignHandle:     h,
			QualifyingData: tpm2.TPM2BData{Buffer: nonce},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      selection.tpml(),
		})
		if err != nil {
			return nil, err
		}
		signed, err := a.attestation("TPM2_Quote", rsp.Quoted.Bytes(), rsp.Signature)
		if err != nil {
			return nil, err
		}
		values, err := a.readPCRs(selection)
		if err != nil {
			return nil, err
		}
		q := &Quote{Attestation: *signed, PCRs: values}
		if err := q.checkDigest(); err == nil || try == tries {
			return q, err
		}
	}
}

// attestation takes a statement and its signature out of an answer.
func (a *attachment) attestation(command string, statement []byte, sig tpm2.TPMTSignature) (*Attestation, error) {
	ecc, err := sig.Signature.ECDSA()
	if sig.SigAlg != tpm2.TPMAlgECDSA || err != nil || len(ecc.SignatureR.Buffer) == 0 || len(ecc.SignatureS.Buffer) == 0 {
		return nil, a.malformed(command, "no ECDSA signature")
	}
	return &Attestation{Statement: bytes.Clone(statement), Signature: tpm2.Marshal(sig)}, nil
}
