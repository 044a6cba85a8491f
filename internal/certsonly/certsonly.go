// Package certsonly has certificates travel in a "certs-only" CMS SignedData (RFC
// 5272 section 4.1, RFC 5652 section 5.1): a bag that nobody has signed.
package certsonly

import (
	stdasn1 "encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The message:
//
//	ContentInfo ::= SEQUENCE {
//	     contentType OBJECT IDENTIFIER,          -- id-signedData
//	     content [0] EXPLICIT SEQUENCE {
//	          version INTEGER,                   -- 1
//	          digestAlgorithms SET OF …,         -- empty
//	          encapContentInfo SEQUENCE {
//	               eContentType OBJECT IDENTIFIER }, -- id-data
//	          certificates [0] IMPLICIT SET OF Certificate,
//	          crls [1] IMPLICIT … OPTIONAL,      -- not taken
//	          signerInfos SET OF … } }           -- empty
var (
	oidSignedData = stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = stdasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	tag0          = asn1.Tag(0).ContextSpecific().Constructed()
)

// Encode writes certificates, which are in DER, in their order.
func Encode(certificates [][]byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSignedData)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) })
				b.AddASN1(tag0, func(b *cryptobyte.Builder) {
					for _, c := range certificates {
						b.AddBytes(c)
					}
				})
				b.AddASN1(asn1.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	return b.Bytes()
}

// maxChain bounds the certificates of one message.
const maxChain = 10

var errCertsOnly = errors.New("not a certs-only SignedData (RFC 5272 section 4.1) in DER")

// Parse returns the certificates of a message, at most ten and at least one,
// which it does not parse.
func Parse(der []byte) (certificates [][]byte, err error) {
	in := cryptobyte.String(der)
	var info, outer, data, digests, content, bag, signers cryptobyte.String
	var kind, inner stdasn1.ObjectIdentifier
	var version int64
	ok := in.ReadASN1(&info, asn1.SEQUENCE) && in.Empty() &&
		info.ReadASN1ObjectIdentifier(&kind) && kind.Equal(oidSignedData) && info.ReadASN1(&outer, tag0) && info.Empty() &&
		outer.ReadASN1(&data, asn1.SEQUENCE) && outer.Empty() &&
		data.ReadASN1Integer(&version) && version == 1 && data.ReadASN1(&digests, asn1.SET) && digests.Empty() &&
		data.ReadASN1(&content, asn1.SEQUENCE) && content.ReadASN1ObjectIdentifier(&inner) && inner.Equal(oidData) && content.Empty() &&
		data.ReadASN1(&bag, tag0) && data.ReadASN1(&signers, asn1.SET) && signers.Empty() && data.Empty()
	if !ok {
		return nil, errCertsOnly
	}
	for !bag.Empty() {
		var c cryptobyte.String
		if !bag.ReadASN1Element(&c, asn1.SEQUENCE) {
			return nil, errCertsOnly
		}
		if certificates = append(certificates, c); len(certificates) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
	}
	if len(certificates) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certificates, nil
}
