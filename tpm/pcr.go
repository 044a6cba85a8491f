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

// pcrCount is the number of PCRs of a PC client TPM.
const pcrCount = 24

// A pcrSelection is a set of PCRs of the SHA-256 bank, in ascending order.
type pcrSelection []int

var errPCRs = errors.New("not a set of PCRs")

func newPCRSelection(pcrs []int) (pcrSelection, error) {
	s := slices.Clone(pcrs)
	slices.Sort(s)
	for i, p := range s {
		if p < 0 || p >= pcrCount {
			return nil, fmt.Errorf("%w: PCR %d; there are 0 to %d", errPCRs, p, pcrCount-1)
		}
		if i > 0 && s[i-1] == p {
			return nil, fmt.Errorf("%w: PCR %d twice", errPCRs, p)
		}
	}
	return s, nil
}

// tpml is the selection as go-tpm takes it.
func (s pcrSelection) tpml() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: s.mask()}}}
}

func (s pcrSelection) mask() []byte {
	mask := make([]byte, pcrCount/8)
	for _, p := range s {
		mask[p/8] |= 1 << (p % 8)
	}
	return mask
}

// appendTo appends the selection as the TPM takes it.
//
//	struct {
//	    UINT32              count;               /* 1 */
//	    struct {
//	        TPMI_ALG_HASH   hash;
//	        UINT8           sizeofSelect;
//	        BYTE            pcrSelect[sizeofSelect];
//	    } TPMS_PCR_SELECTION;                    /* Part 2, 10.6.2 */
//	} TPML_PCR_SELECTION;                        /* Part 2, 10.9.7 */
func (s pcrSelection) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgSHA256))
	b = append(b, pcrCount/8)
	return append(b, s.mask()...)
}

// parsePCRSelection reads a selection; it must be of the SHA-256 bank only.
func parsePCRSelection(l tpm2.TPMLPCRSelection) (pcrSelection, error) {
	if len(l.PCRSelections) != 1 || l.PCRSelections[0].Hash != tpm2.TPMAlgSHA256 {
		return nil, fmt.Errorf("%w: not the SHA-256 bank alone", errPCRs)
	}
	mask := l.PCRSelections[0].PCRSelect
	if len(mask) != pcrCount/8 {
		return nil, fmt.Errorf("%w: a mask of %d octets", errPCRs, len(mask))
	}
	var s pcrSelection
	for p := range pcrCount {
		if mask[p/8]&(1<<(p%8)) != 0 {
			s = append(s, p)
		}
	}
	return s, nil
}

// ReadPCRs returns the values of PCRs of the SHA-256 bank.
func (d *Device) ReadPCRs(ctx context.Context, pcrs ...int) (map[int][]byte, error) {
	s, err := newPCRSelection(pcrs)
	if err != nil {
		return nil, d.inputError(err, "")
	}
	return perform(ctx, d, func(_ context.Context, a *attachment) (map[int][]byte, error) {
		return a.readPCRs(s)
	})
}

// readPCRs reads the PCRs, eight at most per command, and begins again when
// they changed in between.
func (a *attachment) readPCRs(s pcrSelection) (map[int][]byte, error) {
	const tries = 5
	for range tries {
		values, stable, err := a.readPCRsOnce(s)
		if err != nil || stable {
			return values, err
		}
	}
	return nil, &Error{Command: "TPM2_PCR_Read", Address: a.address, Class: ClassRetry,
		Err: fmt.Errorf("the PCRs kept changing while they were read %d times", tries)}
}

func (a *attachment) readPCRsOnce(s pcrSelection) (values map[int][]byte, stable bool, err error) {
	values = make(map[int][]byte, len(s))
	var counter uint32
	for left := s; len(left) > 0; {
		rsp, err := run(a, tpm2.PCRRead{PCRSelectionIn: left[:min(len(left), 8)].tpml()})
		if err != nil {
			return nil, false, err
		}
		got, err := parsePCRSelection(rsp.PCRSelectionOut)
		if err != nil || len(got) == 0 || len(got) != len(rsp.PCRValues.Digests) || !slices.Equal(got, left[:min(len(got), len(left))]) {
			return nil, false, a.malformed("TPM2_PCR_Read", "not the PCRs that were asked for")
		}
		if len(left) == len(s) {
			counter = rsp.PCRUpdateCounter
		} else if counter != rsp.PCRUpdateCounter {
			return nil, false, nil
		}
		for i, p := range got {
			if len(rsp.PCRValues.Digests[i].Buffer) != sha256.Size {
				return nil, false, a.malformed("TPM2_PCR_Read", "PCR %d has %d octets", p, len(rsp.PCRValues.Digests[i].Buffer))
			}
			values[p] = rsp.PCRValues.Digests[i].Buffer
		}
		left = left[len(got):]
	}
	return values, true, nil
}

// digestPCRs is the digest of the selected PCRs in order (Part 1, 17.9.3 and
// TPMS_QUOTE_INFO).
func digestPCRs(s pcrSelection, values map[int][]byte) []byte {
	h := sha256.New()
	for _, p := range s {
		h.Write(values[p])
	}
	return h.Sum(nil)
}

// ExtendPCR extends a PCR of the SHA-256 bank with a digest.
func (d *Device) ExtendPCR(ctx context.Context, pcr int, digest [sha256.Size]byte) error {
	if _, err := newPCRSelection([]int{pcr}); err != nil {
		return d.inputError(err, "")
	}
	_, err := perform(ctx, d, func(_ context.Context, a *attachment) (struct{}, error) {
		_, err := run(a, tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
				{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]},
			}},
		})
		return struct{}{}, err
	})
	return err
}

// ResetPCR sets a PCR back to zero; the TPM permits it for 16 (debug) and 23
// (application) only.
func (d *Device) ResetPCR(ctx context.Context, pcr int) error {
	if _, err := newPCRSelection([]int{pcr}); err != nil {
		return d.inputError(err, "")
	}
	_, err := perform(ctx, d, func(_ context.Context, a *attachment) (struct{}, error) {
		_, err := run(a, tpm2.PCRReset{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		})
		return struct{}{}, err
	})
	return err
}
