// Package bhttp is Binary HTTP (RFC 9292): one whole request or response in
// octets, as Oblivious HTTP carries it.
//
// Both framings are read, known-length and indeterminate-length, with padding,
// truncation, informational responses and trailers; the known-length framing is
// written. What is read is bounded by the octets that it is read from, and by
// MaxFields.
package bhttp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// MaxFields is the most field lines of a section.
const MaxFields = 128

const maxInformational = 16

// The framing indicators (section 3.3).
const (
	knownRequest          = 0
	knownResponse         = 1
	indeterminateRequest  = 2
	indeterminateResponse = 3
)

// A Field is one field line. Names are in lower case.
type Field struct {
	Name, Value string
}

// A Request is a request.
type Request struct {
	Method, Scheme, Authority, Path string
	Header                          []Field
	Content                         []byte
	Trailer                         []Field
}

// A Response is a final response. Informational responses are not kept.
type Response struct {
	Status  int
	Header  []Field
	Content []byte
	Trailer []Field
}

// ErrMalformed is found in every error of this package.
var ErrMalformed = errors.New("bhttp: malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Get returns the value of the first field with a name in lower case.
func (r *Response) Get(name string) string {
	for _, f := range r.Header {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// forbidden are fields that a binary message has no place for: they are about a
// connection (section 3.6, RFC 9110 section 7.6.1).
var forbidden = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "transfer-encoding": true, "upgrade": true, "te": true, "trailer": true,
}

func checkField(f Field) error {
	if f.Name == "" || strings.ToLower(f.Name) != f.Name || !token(f.Name) || forbidden[f.Name] {
		return malformed("field name %q", f.Name)
	}
	if strings.ContainsAny(f.Value, "\r\n\x00") || strings.Trim(f.Value, " \t") != f.Value {
		return malformed("value of field %q", f.Name)
	}
	return nil
}

func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func (r *Request) check() error {
	if !token(r.Method) {
		return malformed("method %q", r.Method)
	}
	for _, s := range []string{r.Scheme, r.Authority, r.Path} {
		for i := 0; i < len(s); i++ {
			if s[i] <= ' ' || s[i] == 0x7f {
				return malformed("control data with an octet 0x%02x", s[i])
			}
		}
	}
	return nil
}

// URL returns the URL of the request's target, of which the authority must be
// in the control data.
func (r *Request) URL() string { return r.Scheme + "://" + r.Authority + r.Path }

// Final reports whether a status ends a message.
func final(status uint64) bool { return status >= http.StatusOK && status <= 599 }
