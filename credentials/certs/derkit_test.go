package certs_test

import (
	"encoding/asn1"
	"math/big"
	"slices"
	"time"
)

// The functions below write DER, right or wrong, octet for octet.

func tlv(tag byte, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	head := []byte{tag}
	switch n := len(content); {
	case n < 0x80:
		head = append(head, byte(n))
	case n < 0x100:
		head = append(head, 0x81, byte(n))
	case n < 0x10000:
		head = append(head, 0x82, byte(n>>8), byte(n))
	default:
		head = append(head, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(head, content...)
}

func derSeq(parts ...[]byte) []byte         { return tlv(0x30, parts...) }
func derSet(parts ...[]byte) []byte         { return tlv(0x31, parts...) }
func derOctets(parts ...[]byte) []byte      { return tlv(0x04, parts...) }
func derBits(b []byte) []byte               { return tlv(0x03, []byte{0}, b) }
func derEnum(n byte) []byte                 { return tlv(0x0a, []byte{n}) }
func derBool(b byte) []byte                 { return tlv(0x01, []byte{b}) }
func derNull() []byte                       { return []byte{5, 0} }
func derCtx(n byte, parts ...[]byte) []byte { return tlv(0xa0|n, parts...) }

func derInt(n int64) []byte {
	b, err := asn1.Marshal(big.NewInt(n))
	if err != nil {
		panic(err)
	}
	return b
}

func derBig(n *big.Int) []byte {
	b, err := asn1.Marshal(n)
	if err != nil {
		panic(err)
	}
	return b
}

func derOID(id ...int) []byte {
	b, err := asn1.Marshal(asn1.ObjectIdentifier(id))
	if err != nil {
		panic(err)
	}
	return b
}

func derUTC(t time.Time) []byte { return tlv(0x17, []byte(t.UTC().Format("060102150405Z"))) }

func derGeneralized(t time.Time) []byte { return tlv(0x18, []byte(t.UTC().Format("20060102150405Z"))) }

// derExt is an extension that is not critical.
func derExt(id []byte, value []byte) []byte { return derSeq(id, derOctets(value)) }

func derCritical(id []byte, value []byte) []byte { return derSeq(id, derBool(0xff), derOctets(value)) }
