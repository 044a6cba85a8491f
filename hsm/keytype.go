package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"

	"github.com/miekg/pkcs11"
)

// A KeyType is the kind of a key: its curve, or HMAC-SHA256.
type KeyType string

// The types that the driver makes and uses.
const (
	P256       KeyType = "P-256"
	P384       KeyType = "P-384"
	P521       KeyType = "P-521"
	Ed25519    KeyType = "Ed25519"
	X25519     KeyType = "X25519"
	HMACSHA256 KeyType = "HMAC-SHA256"
)

// KeyTypes lists all types in the order of their preference.
var KeyTypes = []KeyType{P256, P384, P521, Ed25519, X25519, HMACSHA256}

// A Use is what a key may do; a key made by this package does one thing.
type Use string

// The uses.
const (
	UseSign  Use = "sign"  // CKA_SIGN of a private key
	UseAgree Use = "agree" // CKA_DERIVE of a private key
	UseMAC   Use = "mac"   // CKA_SIGN of a secret key
)

// Uses lists the uses that a key of the type can be made for.
func (t KeyType) Uses() []Use {
	switch t {
	case P256, P384, P521:
		return []Use{UseSign, UseAgree}
	case Ed25519:
		return []Use{UseSign}
	case X25519:
		return []Use{UseAgree}
	case HMACSHA256:
		return []Use{UseMAC}
	}
	return nil
}

// curve holds what PKCS#11 needs to know about one curve.
type curve struct {
	keyType KeyType
	oid     []byte         // CKA_EC_PARAMS, a DER OBJECT IDENTIFIER
	name    string         // the same as a curveName, for Edwards and Montgomery
	nist    elliptic.Curve // nil for Edwards and Montgomery
	ecdh    ecdh.Curve
	size    int // bytes of a coordinate
	point   int // bytes of the public point
}

var curves = []*curve{
	{P256, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, "", elliptic.P256(), ecdh.P256(), 32, 65},
	{P384, []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}, "", elliptic.P384(), ecdh.P384(), 48, 97},
	{P521, []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23}, "", elliptic.P521(), ecdh.P521(), 66, 133},
	{Ed25519, []byte{0x06, 0x03, 0x2b, 0x65, 0x70}, "edwards25519", nil, nil, 32, 32},
	{X25519, []byte{0x06, 0x03, 0x2b, 0x65, 0x6e}, "curve25519", nil, ecdh.X25519(), 32, 32},
}

func curveOf(t KeyType) *curve {
	for _, c := range curves {
		if c.keyType == t {
			return c
		}
	}
	return nil
}

// curveFromParams reads CKA_EC_PARAMS: an OBJECT IDENTIFIER, or a
// PrintableString with the curve's name.
func curveFromParams(params []byte) *curve {
	for _, c := range curves {
		if bytes.Equal(params, c.oid) {
			return c
		}
		if c.name != "" && len(params) > 2 && params[0] == 0x13 && int(params[1]) == len(params)-2 && string(params[2:]) == c.name {
			return c
		}
	}
	return nil
}

// parsePoint reads CKA_EC_POINT: a DER OCTET STRING around the point or, from
// modules that keep to an older text, the bare point. The point must be on the
// curve.
func (c *curve) parsePoint(value []byte) ([]byte, error) {
	point := value
	if len(value) != c.point {
		inner, err := octetString(value)
		if err != nil {
			return nil, err
		}
		point = inner
	}
	if len(point) != c.point {
		return nil, fmt.Errorf("%w: %s with %d bytes", ErrBadPoint, c.keyType, len(point))
	}
	if _, err := c.publicKey(point); err != nil {
		return nil, err
	}
	return point, nil
}

// octetString unwraps a DER OCTET STRING shorter than 256 bytes.
func octetString(der []byte) ([]byte, error) {
	bad := fmt.Errorf("%w: not a DER OCTET STRING", ErrBadPoint)
	if len(der) < 2 || der[0] != 0x04 {
		return nil, bad
	}
	n, rest := int(der[1]), der[2:]
	if der[1] == 0x81 {
		if len(der) < 3 || der[2] < 0x80 {
			return nil, bad
		}
		n, rest = int(der[2]), der[3:]
	} else if der[1] > 0x7f {
		return nil, bad
	}
	if len(rest) != n {
		return nil, bad
	}
	return rest, nil
}

// publicKey gives the point as the standard library's type: *ecdsa.PublicKey,
// ed25519.PublicKey or, for X25519, *ecdh.PublicKey.
func (c *curve) publicKey(point []byte) (crypto.PublicKey, error) {
	switch {
	case c.nist != nil:
		pub, err := ecdsa.ParseUncompressedPublicKey(c.nist, point)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrBadPoint, c.keyType, err)
		}
		return pub, nil
	case len(point) != c.point:
		return nil, fmt.Errorf("%w: %s with %d bytes", ErrBadPoint, c.keyType, len(point))
	case c.ecdh != nil:
		return c.ecdhKey(point)
	}
	return ed25519.PublicKey(bytes.Clone(point)), nil
}

func (c *curve) ecdhKey(point []byte) (*ecdh.PublicKey, error) {
	pub, err := c.ecdh.NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadPoint, c.keyType, err)
	}
	return pub, nil
}

// signMechanism is the mechanism that signs with a key of the type.
func (t KeyType) signMechanism() uint {
	switch t {
	case Ed25519:
		return ckmEdDSA
	case HMACSHA256:
		return pkcs11.CKM_SHA256_HMAC
	}
	return pkcs11.CKM_ECDSA
}

// outputLength is how long the result of an operation is.
func (t KeyType) outputLength(op operation) int {
	c := curveOf(t)
	switch {
	case c == nil:
		return 32 // HMAC-SHA256
	case op == opDerive:
		return c.size
	}
	return 2 * c.size // r and s side by side; R and S for Ed25519
}

// generator says how a token makes a key of one type.
type generator struct {
	mechanism uint
	keyType   uint // CKA_KEY_TYPE
}

// generatorFor chooses the mechanism that makes keys of the type, given the
// mechanisms the token has. SoftHSM has no CKM_EC_MONTGOMERY_KEY_PAIR_GEN and
// makes X25519 keys as Edwards keys.
func generatorFor(t KeyType, has map[uint]bool) (generator, bool) {
	switch t {
	case P256, P384, P521:
		return generator{pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKK_EC}, has[pkcs11.CKM_EC_KEY_PAIR_GEN]
	case Ed25519:
		return generator{ckmECEdwardsKeyPairGen, ckkECEdwards}, has[ckmECEdwardsKeyPairGen] && has[ckmEdDSA]
	case X25519:
		if has[ckmECMontgomeryKeyPairGen] {
			return generator{ckmECMontgomeryKeyPairGen, ckkECMontgomery}, has[pkcs11.CKM_ECDH1_DERIVE]
		}
		return generator{ckmECEdwardsKeyPairGen, ckkECEdwards}, has[ckmECEdwardsKeyPairGen] && has[pkcs11.CKM_ECDH1_DERIVE]
	case HMACSHA256:
		return generator{pkcs11.CKM_GENERIC_SECRET_KEY_GEN, pkcs11.CKK_GENERIC_SECRET},
			has[pkcs11.CKM_GENERIC_SECRET_KEY_GEN] && has[pkcs11.CKM_SHA256_HMAC]
	}
	return generator{}, false
}
