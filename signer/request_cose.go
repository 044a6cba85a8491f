package signer

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/credentials"
)

// SigStructure is RFC 9052 section 4.4 for COSE_Sign1:
//
//	Sig_structure = [
//	    context : "Signature1",
//	    body_protected : empty_or_serialized_map,
//	    external_aad : bstr,
//	    payload : bstr
//	]
type SigStructure struct {
	_           struct{} `cbor:",toarray"`
	Context     string
	Protected   []byte
	ExternalAAD []byte
	Payload     []byte
}

// A COSEInput is a Sig_structure with what its protected header says.
type COSEInput struct {
	SigStructure
	Alg int64
	Typ string // RFC 9596: media type without "application/", or from the CoAP content format
}

var cosePrefix = []byte("\x84\x6aSignature1")

// Labels of the COSE header (RFC 9052 section 3.1, RFC 9596) and CoAP content
// formats that stand for a media type.
const (
	coseAlg = 1
	coseTyp = 16
)

var coapFormats = map[uint64]string{61: "cwt", 293: "sd-cwt", 294: "kb+cwt"}

var (
	coseDec = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		IntDec: cbor.IntDecConvertNone, MaxNestedLevels: 32, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode())
	coseEnc = must(cbor.CoreDetEncOptions().EncMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are constant
	}
	return v
}

// COSERequest builds the Request for a COSE_Sign1 with this protected header,
// as it is encoded in the message, and this payload.
func COSERequest(protected, externalAAD, payload []byte) (*Request, error) {
	b, err := coseEnc.Marshal(&SigStructure{Context: "Signature1", Protected: nonNil(protected),
		ExternalAAD: nonNil(externalAAD), Payload: nonNil(payload)})
	if err != nil {
		return nil, err
	}
	return ParseRequest(b)
}

// nonNil keeps nil from being encoded as null.
func nonNil(b []byte) []byte { return append([]byte{}, b...) }

func parseCOSE(b []byte) (*Request, error) {
	in := &COSEInput{}
	if err := coseDec.Unmarshal(b, &in.SigStructure); err != nil {
		return nil, refuse(ShapeCOSE, "not a Sig_structure: %w", err)
	}
	again, err := coseEnc.Marshal(&in.SigStructure)
	if err != nil || !bytes.Equal(again, b) {
		return nil, refuse(ShapeCOSE, "the Sig_structure is not in its deterministic form")
	}
	if err := in.readHeader(); err != nil {
		return nil, refuse(ShapeCOSE, "protected header: %w", err)
	}
	return &Request{shape: ShapeCOSE, typ: in.Typ, parsed: in, suits: in.suits}, nil
}

func (in *COSEInput) readHeader() error {
	var h map[any]cbor.RawMessage
	if err := coseDec.Unmarshal(in.Protected, &h); err != nil {
		return err
	}
	alg, ok := h[uint64(coseAlg)]
	if !ok {
		return errors.New("alg (1) is missing")
	}
	if err := coseDec.Unmarshal(alg, &in.Alg); err != nil {
		return fmt.Errorf("alg (1) is not an integer: %w", err)
	}
	typ, ok := h[uint64(coseTyp)]
	if !ok {
		return nil
	}
	return in.readTyp(typ)
}

func (in *COSEInput) readTyp(raw cbor.RawMessage) error {
	var v any
	if err := coseDec.Unmarshal(raw, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		in.Typ = mediaType(v)
		return nil
	case uint64:
		if name, ok := coapFormats[v]; ok {
			in.Typ = name
			return nil
		}
		return fmt.Errorf("typ (16) is the unknown content format %d", v)
	}
	return errors.New("typ (16) is neither text nor an unsigned integer")
}

func (in *COSEInput) suits(s *credentials.Scheme, _ crypto.PublicKey) error {
	if !s.AcceptsCOSE(in.Alg) {
		return fmt.Errorf("the protected header says alg %d and the key is for %d", in.Alg, s.COSE)
	}
	return nil
}
