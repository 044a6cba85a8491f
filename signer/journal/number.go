package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
)

// A Number is an epoch, a date in Unix seconds, a size or a CRL number: 20
// octets, as many as RFC 5280 section 5.2.3 allows, the first one weighs most.
type Number [20]byte

// Uint returns n as a Number.
func Uint(n uint64) (v Number) {
	binary.BigEndian.PutUint64(v[len(v)-8:], n)
	return v
}

// bigNumber returns n as a Number.
func bigNumber(n *big.Int) (v Number, err error) {
	if n.Sign() < 0 || n.BitLen() > 8*len(v) {
		return v, fmt.Errorf("the number is negative or has more than %d octets", len(v))
	}
	n.FillBytes(v[:])
	return v, nil
}

// Compare returns -1, 0 or 1 as n is less than, equal to or more than m.
func (n Number) Compare(m Number) int { return bytes.Compare(n[:], m[:]) }

// String returns n in decimal.
func (n Number) String() string { return new(big.Int).SetBytes(n[:]).String() }
