package bhttp

import "encoding/binary"

// appendInt appends a variable-length integer (RFC 9000 section 16).
func appendInt(b []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(b, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(v)|1<<14)
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(v)|2<<30)
	case v < 1<<62:
		return binary.BigEndian.AppendUint64(b, v|3<<62)
	}
	panic("bhttp: integer of more than 62 bits")
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(appendInt(b, uint64(len(s))), s...)
}

func appendFields(b []byte, fields []Field) ([]byte, error) {
	var lines []byte
	if len(fields) > MaxFields {
		return nil, malformed("%d fields, want at most %d", len(fields), MaxFields)
	}
	for _, f := range fields {
		if err := checkField(f); err != nil {
			return nil, err
		}
		lines = appendBytes(appendBytes(lines, f.Name), f.Value)
	}
	return appendBytes(b, lines), nil
}

// appendRest appends the sections after the control data, without those at the
// end that are empty.
func appendRest(b []byte, header []Field, content []byte, trailer []Field) ([]byte, error) {
	if len(header)+len(content)+len(trailer) == 0 {
		return b, nil
	}
	b, err := appendFields(b, header)
	if err != nil || len(content)+len(trailer) == 0 {
		return b, err
	}
	b = appendBytes(b, content)
	if len(trailer) == 0 {
		return b, nil
	}
	return appendFields(b, trailer)
}

// Marshal returns the request's encoding with known lengths.
func (r *Request) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := appendInt(nil, knownRequest)
	for _, s := range []string{r.Method, r.Scheme, r.Authority, r.Path} {
		b = appendBytes(b, s)
	}
	return appendRest(b, r.Header, r.Content, r.Trailer)
}

// Marshal returns the response's encoding with known lengths.
func (r *Response) Marshal() ([]byte, error) {
	if !final(uint64(r.Status)) {
		return nil, malformed("status %d", r.Status)
	}
	b := appendInt(appendInt(nil, knownResponse), uint64(r.Status))
	return appendRest(b, r.Header, r.Content, r.Trailer)
}

// Pad appends zeros, which decoders ignore, until the message has size octets.
// A message with omitted sections must not be padded as it is: the first zeros
// would be read as those sections, empty, which is what they are.
func Pad(message []byte, size int) []byte {
	if n := size - len(message); n > 0 {
		return append(message, make([]byte, n)...)
	}
	return message
}
