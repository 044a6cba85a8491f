package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// MAC computes HMAC-SHA256 over data in the TPM.
func (k *Key) MAC(ctx context.Context, data []byte) ([]byte, error) {
	if k.kind != MACSHA256 {
		return nil, k.d.inputError(ErrKeyUse, "a key of kind %v does not compute MACs", k.kind)
	}
	data = bytes.Clone(data) // the TPM may still read it when ctx has ended
	return withKeyAndSlots(ctx, k, inOut, sequenceSlot(data), func(a *attachment, h tpm2.AuthHandle) ([]byte, error) {
		mac, err := k.mac(a, h, data)
		if err == nil && len(mac) != sha256.Size {
			err = a.malformed("TPM2_HMAC", "a MAC of %d octets", len(mac))
		}
		return mac, err
	})
}

// sequenceSlot keeps a slot for the sequence object of a message that does not
// fit one command. A short one must not take it: MACs of three callers would
// then not be with a TPM of three slots at once, nor those of two.
func sequenceSlot(data []byte) func(*attachment) int {
	return func(a *attachment) int {
		if len(data) > a.limits.inputBuffer {
			return 1
		}
		return 0
	}
}

func (k *Key) mac(a *attachment, h tpm2.AuthHandle, data []byte) ([]byte, error) {
	if len(data) > a.limits.inputBuffer {
		return k.macSequence(a, h, data)
	}
	parms, err := a.exchange(tpm2.TPMCCHMAC, h, hmacParameters(data))
	if err != nil {
		return nil, err
	}
	mac, ok := readDigest(parms)
	if !ok {
		return nil, a.malformed("TPM2_HMAC", "not one TPM2B_DIGEST")
	}
	return mac, nil
}

// readDigest reads parameters that are one TPM2B_DIGEST (Part 2, 10.4.2).
func readDigest(parms cryptobyte.String) ([]byte, bool) {
	var digest cryptobyte.String
	ok := parms.ReadUint16LengthPrefixed(&digest) && parms.Empty()
	return digest, ok
}

// hmacParameters are those of TPM2_HMAC (Part 3, 15.4):
//
//	TPM2B_MAX_BUFFER  buffer;
//	TPMI_ALG_HASH+    hashAlg;
//
// The answer is a TPM2B_DIGEST, outHMAC.
func hmacParameters(data []byte) []byte {
	b := append2B(make([]byte, 0, 2+len(data)+2), data)
	return binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgSHA256))
}

// macSequence computes the MAC of data that does not fit one command (Part 1,
// 32.4: HMAC sequence). The sequence object gets an authorization value of its
// own for the time that it lives.
func (k *Key) macSequence(a *attachment, h tpm2.AuthHandle, data []byte) ([]byte, error) {
	auth := RandomAuth().Bytes()
	start, err := run(a, tpm2.HmacStart{
		Handle:  withDirection(h, in),
		Auth:    tpm2.TPM2BAuth{Buffer: auth},
		HashAlg: tpm2.TPMAlgSHA256,
	})
	if err != nil {
		return nil, err
	}
	sequence, err := a.transient("TPM2_HMAC_Start", start.SequenceHandle)
	if err != nil {
		return nil, err
	}
	mac, err := feed(a, sequenceHandle(h, sequence, auth), data)
	if err != nil {
		if flushErr := a.flush(sequence); flushErr != nil {
			return nil, flushErr
		}
		return nil, err
	}
	return mac, nil
}

func feed(a *attachment, h tpm2.AuthHandle, data []byte) ([]byte, error) {
	for len(data) > a.limits.inputBuffer {
		_, err := run(a, tpm2.SequenceUpdate{
			SequenceHandle: withDirection(h, in),
			Buffer:         tpm2.TPM2BMaxBuffer{Buffer: data[:a.limits.inputBuffer]},
		})
		if err != nil {
			return nil, err
		}
		data = data[a.limits.inputBuffer:]
	}
	rsp, err := run(a, tpm2.SequenceComplete{
		SequenceHandle: h,
		Buffer:         tpm2.TPM2BMaxBuffer{Buffer: data},
		Hierarchy:      tpm2.TPMRHNull,
	})
	if err != nil {
		return nil, err
	}
	return rsp.Result.Buffer, nil
}

// withDirection changes what the session hides; a response without a TPM2B in
// front cannot be encrypted.
func withDirection(h tpm2.AuthHandle, d direction) tpm2.AuthHandle {
	if u, ok := h.Auth.(*use); ok {
		h.Auth = u.s.with(u.auth, d)
	}
	return h
}

// sequenceHandle authorizes a sequence object in the session of the key. A
// policy session was the key's alone, so the value then goes as a password: it
// is of use to nobody, the sequence ends with this call.
func sequenceHandle(h tpm2.AuthHandle, sequence tpm2.TPMHandle, auth []byte) tpm2.AuthHandle {
	if u, ok := h.Auth.(*use); ok && !u.s.policy {
		return tpm2.AuthHandle{Handle: sequence, Auth: u.s.with(auth, inOut)}
	}
	return tpm2.AuthHandle{Handle: sequence, Auth: tpm2.PasswordAuth(auth)}
}
