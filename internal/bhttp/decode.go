package bhttp

import "encoding/binary"

// A reader takes a message apart. After the first error it yields nothing.
type reader struct {
	b             []byte
	err           error
	indeterminate bool
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformed(format, args...)
	}
	r.b = nil
}

func (r *reader) int() uint64 {
	if len(r.b) == 0 {
		r.fail("it ends within an integer")
		return 0
	}
	n := 1 << (r.b[0] >> 6)
	if len(r.b) < n {
		r.fail("it ends within an integer")
		return 0
	}
	var full [8]byte
	copy(full[8-n:], r.b[:n])
	full[8-n] &= 0x3f
	r.b = r.b[n:]
	return binary.BigEndian.Uint64(full[:])
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("it ends within %d octets", n)
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte { return r.take(r.int()) }

// ended reports whether the sections from here on were omitted, which stands
// for empty ones (section 3.8).
func (r *reader) ended() bool { return r.err != nil || len(r.b) == 0 }

// line reads one field line. The name's length was read.
func (r *reader) line(nameLength uint64) Field {
	f := Field{Name: string(r.take(nameLength)), Value: string(r.bytes())}
	if r.err == nil {
		if err := checkField(f); err != nil {
			r.err, r.b = err, nil
		}
	}
	return f
}

func (r *reader) fields() []Field {
	if r.ended() {
		return nil
	}
	if r.indeterminate {
		return r.lines(func() uint64 { return r.int() })
	}
	section := &reader{b: r.bytes()}
	fields := section.lines(func() uint64 {
		if section.ended() {
			return 0
		}
		n := section.int()
		if n == 0 {
			section.fail("a field without a name")
		}
		return n
	})
	if r.err == nil {
		r.err = section.err
	}
	return fields
}

// lines reads field lines until the length of a name is 0.
func (r *reader) lines(next func() uint64) (fields []Field) {
	for n := next(); n > 0 && r.err == nil; n = next() {
		if len(fields) == MaxFields {
			r.fail("more than %d fields", MaxFields)
			return nil
		}
		fields = append(fields, r.line(n))
	}
	return fields
}

func (r *reader) content() []byte {
	if r.ended() {
		return nil
	}
	if !r.indeterminate {
		return r.bytes()
	}
	var content []byte
	for n := r.int(); n > 0 && r.err == nil; n = r.int() {
		content = append(content, r.take(n)...)
	}
	return content
}

// done checks that the rest is padding.
func (r *reader) done() error {
	for _, c := range r.b {
		if c != 0 {
			r.fail("what follows it is not padding")
			break
		}
	}
	return r.err
}

// ParseRequest decodes a request. The content is not copied where it stands in
// one piece.
func ParseRequest(b []byte) (*Request, error) {
	r := &reader{b: b}
	switch f := r.int(); f {
	case knownRequest:
	case indeterminateRequest:
		r.indeterminate = true
	default:
		r.fail("framing indicator %d is not of a request", f)
	}
	q := &Request{Method: string(r.bytes()), Scheme: string(r.bytes()), Authority: string(r.bytes()), Path: string(r.bytes())}
	q.Header, q.Content, q.Trailer = r.fields(), r.content(), r.fields()
	if err := r.done(); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	return q, nil
}

// ParseResponse decodes a response, past its informational ones. The content is
// not copied where it stands in one piece.
func ParseResponse(b []byte) (*Response, error) {
	r := &reader{b: b}
	switch f := r.int(); f {
	case knownResponse:
	case indeterminateResponse:
		r.indeterminate = true
	default:
		r.fail("framing indicator %d is not of a response", f)
	}
	status := r.int()
	for n := 0; status >= 100 && status < 200 && r.err == nil; status = r.int() {
		if n++; n > maxInformational {
			r.fail("more than %d informational responses", maxInformational)
		}
		r.fields()
	}
	if r.err == nil && !final(status) {
		r.fail("status %d", status)
	}
	p := &Response{Status: int(status)}
	p.Header, p.Content, p.Trailer = r.fields(), r.content(), r.fields()
	if err := r.done(); err != nil {
		return nil, err
	}
	return p, nil
}
