package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// The commands of every signature, MAC and key agreement are written and read
// here octet by octet, from the tables of Part 3. go-tpm does the same by
// reflection, at many times the cost of everything else in this package
// (docs/decisions/0031); the commands that are sent seldom go through it, see
// run. An answer is read strictly: each length exact, nothing left over.

// exchange sends a command that has one handle, authorized by one session, and
// returns the parameters of the answer, decrypted if the session hides them.
func (a *attachment) exchange(cc tpm2.TPMCC, h tpm2.AuthHandle, parms []byte) (cryptobyte.String, error) {
	answer, err := a.exchangeSealed(cc, h, parms)
	if err != nil {
		return nil, commandError(commandName(cc), a.address, err)
	}
	return answer, nil
}

func (a *attachment) exchangeSealed(cc tpm2.TPMCC, h tpm2.AuthHandle, parms []byte) ([]byte, error) {
	command, err := authorizedCommand(cc, h, parms)
	if err != nil {
		return nil, err
	}
	answer, err := a.transport.Send(command)
	if err != nil {
		return nil, err
	}
	return openAnswer(cc, h, answer)
}

// request sends a command without a session, all of whose octets after the
// header are parms, and returns those after the header of the answer.
func (a *attachment) request(cc tpm2.TPMCC, parms []byte) (cryptobyte.String, error) {
	command := appendHeader(make([]byte, 0, headerSize+len(parms)), tpm2.TPMSTNoSessions, headerSize+len(parms), cc)
	answer, err := a.transport.Send(append(command, parms...))
	if err == nil {
		answer, err = answerBody(answer, tpm2.TPMSTNoSessions)
	}
	if err != nil {
		return nil, commandError(commandName(cc), a.address, err)
	}
	return answer, nil
}

// appendHeader appends the header of a command.
//
//	struct {
//	    TPMI_ST_COMMAND_TAG  tag;
//	    UINT32               commandSize;  /* the header included */
//	    TPM_CC               commandCode;
//	};                                     /* Part 1, 18.2 */
func appendHeader(b []byte, tag tpm2.TPMST, size int, cc tpm2.TPMCC) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(tag))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return binary.BigEndian.AppendUint32(b, uint32(cc))
}

// append2B appends octets with their length in front: a TPM2B (Part 2, 10.4).
func append2B(b, content []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(content)))
	return append(b, content...)
}

// authorizedCommand writes a command with one handle and one session. parms is
// left as it is, for the command may be repeated.
//
//	struct {
//	    TPM_HANDLE         handle;
//	    UINT32             authorizationSize;
//	    TPMS_AUTH_COMMAND  authorization;      /* Part 2, 10.13.2 */
//	    BYTE               parameters[];
//	};                                         /* after the header; Part 1, 18.1 and 18.6 */
func authorizedCommand(cc tpm2.TPMCC, h tpm2.AuthHandle, parms []byte) ([]byte, error) {
	if err := h.Auth.NewNonceCaller(); err != nil {
		return nil, err
	}
	if h.Auth.IsDecryption() {
		parms = append(make([]byte, 0, len(parms)), parms...)
		first, err := first2B(parms)
		if err != nil {
			return nil, err
		}
		if err := h.Auth.Encrypt(first); err != nil {
			return nil, err
		}
	}
	auth, err := h.Auth.Authorize(cc, parms, nil, []tpm2.TPM2BName{h.Name}, 0)
	if err != nil {
		return nil, err
	}
	authSize := 4 + 2 + len(auth.Nonce.Buffer) + 1 + 2 + len(auth.Authorization.Buffer)
	size := headerSize + 4 + 4 + authSize + len(parms)
	b := appendHeader(make([]byte, 0, size), tpm2.TPMSTSessions, size, cc)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Handle))
	b = binary.BigEndian.AppendUint32(b, uint32(authSize))
	b = binary.BigEndian.AppendUint32(b, uint32(auth.Handle))
	b = append2B(b, auth.Nonce.Buffer)
	b = append(b, attributeBits(auth.Attributes))
	b = append2B(b, auth.Authorization.Buffer)
	return append(b, parms...), nil
}

// first2B is the content of the TPM2B that parameters begin with, the part of
// them that a session hides (Part 1, 21.1).
func first2B(parms []byte) ([]byte, error) {
	var content cryptobyte.String
	if s := cryptobyte.String(parms); !s.ReadUint16LengthPrefixed(&content) {
		return nil, fmt.Errorf("%w: parameters of %d octets that begin with no TPM2B", ErrMalformed, len(parms))
	}
	return content, nil
}

// answerBody checks the header of an answer (see readAnswer) and returns what
// follows it. A response code other than success is the error.
func answerBody(answer []byte, want tpm2.TPMST) (cryptobyte.String, error) {
	s := cryptobyte.String(answer)
	var tag uint16
	var size, code uint32
	if !s.ReadUint16(&tag) || !s.ReadUint32(&size) || !s.ReadUint32(&code) || uint64(size) != uint64(len(answer)) {
		return nil, fmt.Errorf("%w: the size in the header is not that of %d octets", ErrMalformed, len(answer))
	}
	switch {
	case code != uint32(tpm2.TPMRCSuccess) && len(s) != 0:
		return nil, fmt.Errorf("%w: response code %#x with %d octets", ErrMalformed, code, size)
	case code != uint32(tpm2.TPMRCSuccess):
		return nil, tpm2.TPMRC(code)
	case tpm2.TPMST(tag) != want:
		return nil, fmt.Errorf("%w: tag %#04x where %#04x answers", ErrMalformed, tag, uint16(want))
	}
	return s, nil
}

// openAnswer has the session check an answer and reveal its first parameter.
func openAnswer(cc tpm2.TPMCC, h tpm2.AuthHandle, answer []byte) ([]byte, error) {
	parms, auth, err := splitAnswer(answer)
	if err != nil {
		return nil, err
	}
	if err := h.Auth.Validate(tpm2.TPMRCSuccess, cc, parms, []tpm2.TPM2BName{h.Name}, 0, auth); err != nil {
		return nil, err
	}
	if !h.Auth.IsEncryption() {
		return parms, nil
	}
	first, err := first2B(parms)
	if err != nil {
		return nil, err
	}
	return parms, h.Auth.Decrypt(first)
}

// splitAnswer reads an answer with no handle and one session.
//
//	struct {
//	    UINT32              parameterSize;
//	    BYTE                parameters[parameterSize];
//	    TPMS_AUTH_RESPONSE  authorization;              /* Part 2, 10.13.3 */
//	};                                                  /* after the header; Part 1, 18.1 and 18.8 */
//
//	struct {
//	    TPM2B_NONCE   nonce;
//	    TPMA_SESSION  sessionAttributes;
//	    TPM2B_AUTH    hmac;
//	} TPMS_AUTH_RESPONSE;
func splitAnswer(answer []byte) ([]byte, *tpm2.TPMSAuthResponse, error) {
	s, err := answerBody(answer, tpm2.TPMSTSessions)
	if err != nil {
		return nil, nil, err
	}
	var size uint32
	var parms []byte
	if !s.ReadUint32(&size) || uint64(size) > uint64(len(s)) || !s.ReadBytes(&parms, int(size)) {
		return nil, nil, fmt.Errorf("%w: parameters of %d octets in an answer of %d", ErrMalformed, size, len(answer))
	}
	var nonce, mac cryptobyte.String
	var attributes uint8
	if !s.ReadUint16LengthPrefixed(&nonce) || !s.ReadUint8(&attributes) || !s.ReadUint16LengthPrefixed(&mac) || !s.Empty() {
		return nil, nil, fmt.Errorf("%w: no authorization, or octets after it", ErrMalformed)
	}
	if attributes&reservedAttributes != 0 {
		return nil, nil, fmt.Errorf("%w: session attributes %#02x", ErrMalformed, attributes)
	}
	return parms, &tpm2.TPMSAuthResponse{
		Nonce:         tpm2.TPM2BNonce{Buffer: nonce},
		Attributes:    sessionAttributes(attributes),
		Authorization: tpm2.TPM2BData{Buffer: mac},
	}, nil
}
