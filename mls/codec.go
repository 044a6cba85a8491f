package mls

import (
	"bytes"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Every structure of the wire has a marshal and an unmarshal method beside
// it. unmarshal aliases what it reads; the exported Parse functions copy
// their input once, so that callers may reuse theirs.

type marshaler interface{ marshal(*tlsvec.Builder) }

type unmarshaler interface{ unmarshal(*tlsvec.Reader) }

// A Struct is a structure of the wire: *GroupInfo, *Welcome, *KeyPackage,
// *PublicMessage, *RatchetTreeOption, *PartialGroupInfo and so on.
type Struct interface {
	marshaler
	unmarshaler
}

// Write appends a structure, for protocols whose messages contain those of
// MLS without a length.
func Write(b *tlsvec.Builder, m Struct) { m.marshal(b) }

// Read reads a structure that Write wrote. It aliases the Reader's input.
func Read(r *tlsvec.Reader, m Struct) { m.unmarshal(r) }

func encode(m marshaler) []byte {
	var b tlsvec.Builder
	m.marshal(&b)
	return b.Bytes()
}

// decode reads exactly one structure from b and aliases it.
func decode(name string, b []byte, m unmarshaler) error {
	r := tlsvec.NewReader(b)
	m.unmarshal(r)
	if err := r.Done(); err != nil {
		return &ParseError{name, err}
	}
	return nil
}

// parse is decode of a copy.
func parse(name string, b []byte, m unmarshaler) error {
	return decode(name, bytes.Clone(b), m)
}

// vectorSize is the length of opaque data<V> with its header.
func vectorSize(data []byte) int {
	var header [4]byte
	return len(tlsvec.AppendLength(header[:0], len(data))) + len(data)
}

// limitCount bounds how many elements of a vector are decoded. Small elements
// take more memory than octets, so a long message of them would be costly.
func limitCount(r *tlsvec.Reader, n, limit int) {
	if n > limit {
		r.Fail(fmt.Sprintf("more than %d elements", limit))
	}
}

func readVersion(r *tlsvec.Reader) ProtocolVersion {
	v := ProtocolVersion(r.Uint16())
	if r.Err() == nil && v != MLS10 {
		r.Fail(fmt.Sprintf("protocol version %d is unknown", v))
	}
	return v
}

func writeUint16s[T ~uint16](b *tlsvec.Builder, list []T) {
	b.Raw(tlsvec.AppendLength(nil, 2*len(list)))
	for _, v := range list {
		b.Uint16(uint16(v))
	}
}

func readUint16s[T ~uint16](r *tlsvec.Reader) []T {
	sub := r.Sub()
	list := make([]T, 0, sub.Len()/2)
	for !sub.Empty() {
		list = append(list, T(sub.Uint16()))
	}
	r.End(sub)
	return list
}
