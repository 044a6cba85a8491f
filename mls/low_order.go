package mls

import (
	"encoding/hex"
	"errors"
)

var errLowOrder = errors.New("mls: X25519 public key of low order, with which no secret can be shared")

// lowOrderPoints are the u-coordinates of Curve25519 and its twist whose
// order divides eight, little-endian (RFC 7748, section 6.1, asks to refuse
// the shared secret that they give). A member with such a key could not be
// encrypted to, and so would keep everybody else from committing.
var lowOrderPoints = func() map[[32]byte]bool {
	set := map[[32]byte]bool{}
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p-1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			panic("mls: low-order points: " + err.Error())
		}
		set[[32]byte(b)] = true
	}
	return set
}()

func lowOrder(b []byte) bool {
	if len(b) != 32 {
		return false
	}
	p := [32]byte(b)
	p[31] &= 0x7f // X25519 ignores the highest bit
	return lowOrderPoints[p]
}
