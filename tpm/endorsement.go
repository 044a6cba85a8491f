package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// An EndorsementKey is the key by which the maker of a TPM vouches for it.
type EndorsementKey struct {
	Algorithm   string // rsa-2048, ecc-p256 and the like
	Handle      uint32 // where it is persistent, 0 if it is made from its template
	Public      []byte // TPMT_PUBLIC
	Certificate []byte // DER; nil if the TPM has none for it
	object      *object
}

// Ranges of the TCG's registry of reserved handles (2.3.1 and 2.3.2).
const (
	firstEKHandle      tpm2.TPMHandle = 0x81010000
	lastEKHandle       tpm2.TPMHandle = 0x8101ffff
	firstEKCertificate tpm2.TPMHandle = 0x01c00000
	lastEKCertificate  tpm2.TPMHandle = 0x01c07fff
)

// EndorsementKeys lists the endorsement keys: those that are persistent, with
// their certificates from NV memory, or, in a TPM without any, the one of the
// default ECC P-256 template.
func (d *Device) EndorsementKeys(ctx context.Context) ([]EndorsementKey, error) {
	return perform(ctx, d, func(ctx context.Context, a *attachment) ([]EndorsementKey, error) {
		keys, err := a.persistentEKs(ctx)
		if err != nil {
			return nil, err
		}
		certificates, err := a.ekCertificates()
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			ek, err := a.templateEK(ctx)
			if err != nil {
				return nil, err
			}
			keys = append(keys, *ek)
		}
		for i := range keys {
			keys[i].Certificate = certificateFor(keys[i].object.public, certificates)
		}
		return keys, nil
	})
}

func (a *attachment) persistentEKs(ctx context.Context) ([]EndorsementKey, error) {
	handles, err := a.handles(firstPersistent)
	if err != nil {
		return nil, err
	}
	var keys []EndorsementKey
	for _, h := range handles {
		if h < firstEKHandle || h > lastEKHandle {
			continue
		}
		o, err := a.readPersistent(ctx, h)
		if err != nil {
			return nil, err
		}
		if checkEKAttributes(o.public) != nil {
			continue
		}
		keys = append(keys, endorsementKey(o))
	}
	return keys, nil
}

func endorsementKey(o *object) EndorsementKey {
	return EndorsementKey{
		Algorithm: algorithmName(o.public),
		Handle:    uint32(o.persistent),
		Public:    tpm2.Marshal(*o.public),
		object:    o,
	}
}

func algorithmName(public *tpm2.TPMTPublic) string {
	if rsa, err := public.Parameters.RSADetail(); err == nil && public.Type == tpm2.TPMAlgRSA {
		switch rsa.KeyBits {
		case 2048:
			return "rsa-2048"
		case 3072:
			return "rsa-3072"
		case 4096:
			return "rsa-4096"
		}
		return "rsa"
	}
	if ecc, err := public.Parameters.ECCDetail(); err == nil && public.Type == tpm2.TPMAlgECC {
		switch ecc.CurveID {
		case tpm2.TPMECCNistP256:
			return "ecc-p256"
		case tpm2.TPMECCNistP384:
			return "ecc-p384"
		}
		return "ecc"
	}
	return "other"
}

// templateEK makes the endorsement key of the default template (EK Credential
// Profile, B.3.4: template L-2).
func (a *attachment) templateEK(ctx context.Context) (*EndorsementKey, error) {
	t := tpm2.ECCEKTemplate
	o := &object{hierarchy: tpm2.TPMRHEndorsement, template: &t}
	l, err := a.slots.lease(ctx, 0, o)
	if err != nil {
		return nil, err
	}
	l.release()
	if err := a.slots.forget(o); err != nil {
		return nil, err
	}
	ek := endorsementKey(o)
	return &ek, nil
}

// ekCertificates reads the certificates in the range of NV indices where they
// are kept. What is no certificate there (templates, nonces) is passed over.
func (a *attachment) ekCertificates() ([]*x509.Certificate, error) {
	indices, err := a.handles(firstNV)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for _, index := range indices {
		if index < firstEKCertificate || index > lastEKCertificate {
			continue
		}
		content, err := a.readNV(index)
		if err != nil {
			return nil, err
		}
		if c := parseNVCertificate(content); c != nil {
			list = append(list, c)
		}
	}
	return list, nil
}

// parseNVCertificate reads the certificate that an index begins with; makers
// fill the rest of the index with padding.
func parseNVCertificate(content []byte) *x509.Certificate {
	in := cryptobyte.String(content)
	var der cryptobyte.String
	if !in.ReadASN1Element(&der, cbasn1.SEQUENCE) {
		return nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return c
}

func certificateFor(public *tpm2.TPMTPublic, list []*x509.Certificate) []byte {
	key, err := anyPublicKey(public)
	if err != nil {
		return nil
	}
	for _, c := range list {
		if k, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(key) {
			return c.Raw
		}
	}
	return nil
}

// nvChunk is read at a time; every TPM has a buffer for it.
const nvChunk = 512

// readNV reads an NV index that anybody may read (Part 3, 31.13).
func (a *attachment) readNV(index tpm2.TPMHandle) ([]byte, error) {
	public, err := run(a, tpm2.NVReadPublic{NVIndex: index})
	if err != nil {
		return nil, notFound(err)
	}
	info, err := public.NVPublic.Contents()
	if err != nil {
		return nil, a.malformed("TPM2_NV_ReadPublic", "%v", err)
	}
	if info.DataSize > maxCertificate {
		return nil, nil
	}
	h := tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)}
	owner := h
	if !info.Attributes.AuthRead {
		owner = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	}
	var content []byte
	for len(content) < int(info.DataSize) {
		rsp, err := run(a, tpm2.NVRead{
			AuthHandle: owner,
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(nvChunk, info.DataSize-uint16(len(content))),
			Offset:     uint16(len(content)),
		})
		if err != nil {
			return nil, err
		}
		if len(rsp.Data.Buffer) == 0 || len(rsp.Data.Buffer) > nvChunk {
			return nil, a.malformed("TPM2_NV_Read", "%d octets", len(rsp.Data.Buffer))
		}
		content = append(content, rsp.Data.Buffer...)
	}
	return content, nil
}

// ActivateCredential answers a verifier's challenge: it returns the secret of
// the credential if the endorsement key and the attestation key are both in
// this TPM (Part 3, 12.5).
func (d *Device) ActivateCredential(ctx context.Context, ek *EndorsementKey, ak *Key, c *Credential) ([]byte, error) {
	if ek == nil || ek.object == nil {
		return nil, d.inputError(ErrKeyUse, "the endorsement key is not one of EndorsementKeys")
	}
	byPolicy := !ek.object.public.ObjectAttributes.UserWithAuth
	if byPolicy && !bytes.Equal(ek.object.public.AuthPolicy.Buffer, tpm2.ECCEKTemplate.AuthPolicy.Buffer) {
		return nil, d.inputError(ErrKeyUse, "the endorsement key has another policy than PolicySecret(TPM_RH_ENDORSEMENT)")
	}
	blob, secret := bytes.Clone(c.Blob), bytes.Clone(c.Secret)
	return perform(ctx, d, func(ctx context.Context, a *attachment) ([]byte, error) {
		// The policy session first: who has it may wait for one for HMAC, not the
		// other way round.
		ekSession, done, err := a.authorizeEK(ctx, byPolicy)
		if err != nil {
			return nil, err
		}
		defer done()
		sessions, giveBack, err := a.borrow(ctx, 1)
		if err != nil {
			return nil, err
		}
		defer giveBack()
		l, err := a.slots.lease(ctx, 0, ak.object, ek.object)
		if err != nil {
			return nil, err
		}
		defer l.release()
		rsp, err := run(a, tpm2.ActivateCredential{
			ActivateHandle: l.authHandle(0, sessions[0].with(ak.auth.Bytes(), inOut)),
			KeyHandle:      l.authHandle(1, ekSession),
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
		})
		if err != nil {
			return nil, credentialError(err)
		}
		return rsp.CertInfo.Buffer, nil
	})
}

// authorizeEK authorizes the use of an endorsement key: by an empty value, or
// by knowing that of the endorsement hierarchy, which is empty too.
func (a *attachment) authorizeEK(ctx context.Context, byPolicy bool) (tpm2.Session, func(), error) {
	if !byPolicy {
		return tpm2.PasswordAuth(nil), func() {}, nil
	}
	s, giveBack, err := a.borrowPolicy(ctx)
	if err != nil {
		return nil, nil, err
	}
	_, err = run(a, tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: s.handle,
		NonceTPM:      tpm2.TPM2BNonce{Buffer: s.nonceTPM},
	})
	if err != nil {
		giveBack()
		return nil, nil, hierarchyError(err)
	}
	return s.with(nil, plain), giveBack, nil
}

// ErrCredential is returned for a credential that was not made for this
// endorsement key and this attestation key.
var ErrCredential = errors.New("the credential is not for these keys")

func credentialError(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.RC == 0 || e.Class != ClassInput {
		return err
	}
	wrong := *e
	wrong.Err = fmt.Errorf("%w: %w", ErrCredential, e.RC)
	return &wrong
}
