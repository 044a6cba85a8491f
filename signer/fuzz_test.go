package signer_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

// FuzzParseRequest feeds the classifier. What it accepts it must keep octet
// for octet, classify the same way again, and be able to rebuild where the
// shape has a builder; what it refuses it must refuse with a Refusal.
func FuzzParseRequest(f *testing.F) {
	for _, octets := range samples(f) {
		f.Add(octets)
		f.Add(octets[:len(octets)/2])
	}
	for _, c := range mlsContents {
		r, err := signer.MLSRequest(c.label, c.content)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Octets())
	}
	f.Add((&signer.SelfTest{Key: "k", Version: 1, Purpose: signer.PurposeTLS, Device: "soft"}).Octets())
	f.Add([]byte("\x40\x40MLS 1.0 "))
	f.Add([]byte{0x30, 0x80, 0x00, 0x00})
	f.Add(jwsOctets(`{"alg":"ES256"}`, `{"a":[{"b":null}]}`))
	f.Fuzz(func(t *testing.T, octets []byte) {
		r, err := signer.ParseRequest(octets)
		if err != nil {
			refused := new(signer.Refusal)
			if !errors.As(err, &refused) || refused.Reason == "" || r != nil {
				t.Fatalf("refused with %T: %v", err, err)
			}
			return
		}
		if !bytes.Equal(r.Octets(), octets) || r.Shape() == signer.ShapeDigest || r.Shape() == signer.ShapeUnknown {
			t.Fatalf("kept % x as %s", r.Octets(), r.Shape())
		}
		for _, p := range signer.Purposes() {
			p.Permits(r.Shape(), r.Type())
		}
		if again := rebuild(r); again != nil && !bytes.Equal(again, octets) {
			t.Fatalf("rebuilt as % x from % x", again, octets)
		}
	})
}

// rebuild encodes the parsed fields again, where a builder exists.
func rebuild(r *signer.Request) []byte {
	var again *signer.Request
	var err error
	switch c := r.Parsed().(type) {
	case *signer.MLSContent:
		again, err = signer.MLSRequest(c.Label, c.Content)
	case *signer.JWSInput:
		again, err = signer.JWSRequest([]byte(c.Header), []byte(c.Payload))
	case *signer.COSEInput:
		again, err = signer.COSERequest(c.Protected, c.ExternalAAD, c.Payload)
	default:
		return nil
	}
	if err != nil {
		return []byte(err.Error())
	}
	return again.Octets()
}
