package jose

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Why ParseCompact and its methods refuse a JWS.
var (
	ErrMalformed = errors.New("not a JWS in compact serialization")
	ErrCritical  = errors.New("the header demands an extension that is not supported")
)

// Limits on the x5c header parameter.
const (
	maxCertificates      = 8
	maxCertificateOctets = 16 << 10
)

// A Scheme is what JOSE needs of a signature scheme; credentials.Scheme is one.
// Raw signatures are r and s of fixed length for ECDSA (RFC 7518 section 3.4).
type Scheme interface {
	SignRawContext(ctx context.Context, key crypto.Signer, message []byte) ([]byte, error)
	VerifyRaw(pub crypto.PublicKey, message, raw []byte) bool
}

// A Header is a protected JOSE header. Parameters beside the four that
// everyone reads stay in Params.
type Header struct {
	Alg    string
	Typ    string
	HasTyp bool
	Kid    string
	Params *Object
}

// A JWS is a parsed compact serialization (RFC 7515 section 7.1):
//
//	BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature)
//
// Nothing is verified yet.
type JWS struct {
	Header       Header
	Payload      string // decoded
	Signature    []byte
	SigningInput string // as received
}

// ParseCompact reads a JWS in compact serialization. The header must be an
// object with at most depth nested values.
func ParseCompact(s string, depth int) (*JWS, error) {
	header, rest, ok1 := strings.Cut(s, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.Contains(signature, ".") {
		return nil, fmt.Errorf("%w: want three parts", ErrMalformed)
	}
	j := &JWS{SigningInput: s[:len(header)+1+len(payload)]}
	text, err := part(header, "header")
	if err != nil {
		return nil, err
	}
	if j.Header, err = parseHeader(string(text), depth); err != nil {
		return nil, err
	}
	body, err := part(payload, "payload")
	if err != nil {
		return nil, err
	}
	j.Payload = string(body)
	j.Signature, err = part(signature, "signature")
	return j, err
}

func part(s, name string) ([]byte, error) {
	b, err := DecodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("%w: the %s is not canonical unpadded base64url", ErrMalformed, name)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: the %s is empty", ErrMalformed, name)
	}
	return b, nil
}

func parseHeader(text string, depth int) (Header, error) {
	o, err := ParseObject(text, depth)
	if err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	t := texts{o: o}
	h := Header{Alg: t.get("alg"), Typ: t.get("typ"), HasTyp: o.Has("typ"), Kid: t.get("kid"), Params: o}
	if t.err != nil {
		return Header{}, fmt.Errorf("%w: header: alg, typ and kid must be strings", ErrMalformed)
	}
	return h, nil
}

// CheckCritical returns ErrCritical if the header has a crit parameter: none
// of the extensions that it may name is supported here, and an empty or
// ill-formed one is forbidden (RFC 7515 section 4.1.11).
func (h *Header) CheckCritical() error {
	if h.Params.Has("crit") {
		return ErrCritical
	}
	return nil
}

// Certificates returns the DER certificates of the x5c parameter, leaf first
// (RFC 7515 section 4.1.6), or nil if there is none.
func (h *Header) Certificates() ([][]byte, error) {
	v, there := h.Params.Get("x5c")
	if !there {
		return nil, nil
	}
	elements, ok := v.([]any)
	if !ok || len(elements) == 0 || len(elements) > maxCertificates {
		return nil, fmt.Errorf("%w: x5c is not an array of 1 to %d certificates", ErrMalformed, maxCertificates)
	}
	chain := make([][]byte, len(elements))
	for i, e := range elements {
		s, _ := e.(string)
		der, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || strings.ContainsAny(s, "\r\n") || len(der) == 0 || len(der) > maxCertificateOctets {
			return nil, fmt.Errorf("%w: certificate %d of x5c is not base64 of 1 to %d octets", ErrMalformed, i, maxCertificateOctets)
		}
		chain[i] = der
	}
	return chain, nil
}

// Verify reports whether the signature is one of the received octets by pub.
// Whether scheme is right for the header's alg is for the caller to check.
func (j *JWS) Verify(scheme Scheme, pub crypto.PublicKey) bool {
	return scheme.VerifyRaw(pub, []byte(j.SigningInput), j.Signature)
}

// Sign returns the compact serialization of payload under the header, which is
// a JSON text. ctx reaches a key that waits on a device.
func Sign(ctx context.Context, scheme Scheme, key crypto.Signer, header, payload []byte) (string, error) {
	token, err := SignOctets(ctx, scheme, key, header, payload)
	return string(token), err
}

// SignOctets is Sign for a caller that makes a longer string of it.
func SignOctets(ctx context.Context, scheme Scheme, key crypto.Signer, header, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	enc := base64.RawURLEncoding
	size := enc.EncodedLen(len(header)) + enc.EncodedLen(len(payload)) + 2 + enc.EncodedLen(132)
	token := enc.AppendEncode(make([]byte, 0, size), header)
	token = enc.AppendEncode(append(token, '.'), payload)
	signature, err := scheme.SignRawContext(ctx, key, token)
	if err != nil {
		return nil, err
	}
	return enc.AppendEncode(append(token, '.'), signature), nil
}
