package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"time"
)

// An order says which of two documents about the same is newer: the time that
// its issuer wrote into it (iat, thisUpdate), then its CRL number, then when it
// was fetched. Compared octet by octet, so that a database can do it. nil is
// unknown, and older than all.
type order []byte

const numberSize = 32 // octets of a CRL number that count; RFC 5280 has at most 20

func orderOf(issued time.Time, number *big.Int, fetched time.Time) order {
	o := make(order, 8+numberSize+8)
	binary.BigEndian.PutUint64(o, uint64(max(issued.UnixMicro(), 0)))
	if number != nil && number.Sign() > 0 {
		if number.BitLen() > 8*numberSize {
			copy(o[8:], bytes.Repeat([]byte{0xff}, numberSize))
		} else {
			number.FillBytes(o[8 : 8+numberSize])
		}
	}
	binary.BigEndian.PutUint64(o[8+numberSize:], uint64(max(fetched.UnixMicro(), 0)))
	return o
}

// compare is negative if o is older than p.
func (o order) compare(p order) int { return bytes.Compare(o, p) }

// A subject is what an answer is about, in every document that may have one: a
// certificate, or an entry of a status list.
type subject [sha256.Size]byte

func certSubject(ca *x509.Certificate, serial *big.Int) subject {
	return sha256.Sum256([]byte("certificate\x00" + caID(ca) + "\x00" + serial.Text(16)))
}

func listSubject(uri string, index int64) subject {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("status list\x00"+uri+"\x00"), uint64(index)))
}
