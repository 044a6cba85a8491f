package signer

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// JWSInput is the JWS Signing Input of RFC 7515 section 5.1,
// BASE64URL(header) "." BASE64URL(payload), taken apart.
type JWSInput struct {
	Alg     string
	Typ     string // without a leading "application/", lower case
	Header  string // JSON object
	Payload string // JSON object
}

const (
	jwsPrefix    = "eyJ"
	maxJSONDepth = 32
)

// JWSRequest builds the Request for a compact JWS with these two JSON objects.
func JWSRequest(header, payload []byte) (*Request, error) {
	return ParseRequest([]byte(jose.EncodeBase64(header) + "." + jose.EncodeBase64(payload)))
}

func parseJWS(b []byte) (*Request, error) {
	head, body, ok := bytes.Cut(b, []byte("."))
	if !ok {
		return nil, refuse(ShapeJWS, "there is no dot between header and payload")
	}
	in := &JWSInput{}
	var header *jose.Object
	var err error
	if in.Header, header, err = decodeObject(head); err != nil {
		return nil, refuse(ShapeJWS, "header: %w", err)
	}
	if in.Payload, _, err = decodeObject(body); err != nil {
		return nil, refuse(ShapeJWS, "payload: %w", err)
	}
	if err := in.readHeader(header); err != nil {
		return nil, refuse(ShapeJWS, "header: %w", err)
	}
	return &Request{shape: ShapeJWS, typ: in.Typ, parsed: in, suits: in.suits}, nil
}

// readHeader takes what policy needs from the header, and refuses what would
// change the meaning of the octets.
func (in *JWSInput) readHeader(h *jose.Object) error {
	for _, name := range []string{"b64", "crit", "zip", "enc"} {
		if h.Has(name) {
			return fmt.Errorf("member %q is not for a plain JWS", name)
		}
	}
	alg, _, ok := h.Text("alg")
	if !ok || alg == "" {
		return errors.New(`"alg" is not a string`)
	}
	typ, _, ok := h.Text("typ")
	if !ok {
		return errors.New(`"typ" is not a string`)
	}
	in.Alg, in.Typ = alg, mediaType(typ)
	return nil
}

// mediaType returns a media type without its "application/" (RFC 7515 section
// 4.1.9), in lower case: media types compare without case.
func mediaType(s string) string {
	return strings.TrimPrefix(strings.ToLower(s), "application/")
}

func (in *JWSInput) suits(s *credentials.Scheme, _ crypto.PublicKey) error {
	if !s.AcceptsJOSE(in.Alg) {
		return fmt.Errorf("the header says alg %q and the key is for %s", clip(in.Alg), s.JOSE)
	}
	return nil
}

// decodeObject decodes canonical unpadded base64url of one JSON object that
// has no member twice.
func decodeObject(b []byte) (string, *jose.Object, error) {
	octets, err := jose.DecodeBase64(string(b))
	if err != nil {
		return "", nil, err
	}
	text := string(octets)
	o, err := jose.ParseObject(text, maxJSONDepth)
	return text, o, err
}
