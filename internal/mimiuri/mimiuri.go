// Package mimiuri is the canonical form of a mimi: URI: the names of
// providers, users, clients, rooms and groups in MIMI.
//
// No draft registers the scheme or gives it a syntax
// (draft-ietf-mimi-protocol-06 and draft-mahy-mimi-identity-05 use it by
// example), so this package fixes one form and refuses every other. Nothing
// is ever normalised: two URIs name the same thing when their octets are
// equal, and a URI with a second spelling is an error.
//
// The package is the primitive that package mimi and the credential formats
// share; users of the module meet it as mimi.URI.
package mimiuri

import (
	"fmt"
	"strings"
)

// MaxLen is the most octets that a URI may have.
const MaxLen = 1024

const scheme = "mimi://"

// A Kind is what a URI names. Its value is the first path segment, or 0 for a
// bare provider.
type Kind byte

// The kinds (draft-ietf-mimi-protocol-06; p and t are of
// draft-mahy-mimi-identity-05 only).
const (
	Provider  Kind = 0   // mimi://a.example
	User      Kind = 'u' // mimi://a.example/u/alice
	Pseudonym Kind = 'p' // mimi://a.example/p/5fd1
	Client    Kind = 'd' // mimi://a.example/d/alice/phone
	Room      Kind = 'r' // mimi://a.example/r/clubhouse
	Group     Kind = 'g' // mimi://a.example/g/clubhouse
	Team      Kind = 't' // mimi://a.example/t/sales
)

var kindNames = map[Kind]string{
	Provider: "provider", User: "user", Pseudonym: "pseudonym", Client: "client",
	Room: "room", Group: "group", Team: "team",
}

// String returns the kind in words.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %q", string(rune(k)))
}

// A URI is a canonical mimi: URI. URIs are comparable with ==, which compares
// their octets. The zero URI names nothing.
type URI struct {
	s    string // the whole, canonical
	host int    // end of the host in s
}

// An Error says why a string is not a canonical mimi: URI.
type Error struct {
	Offset int    // of the first octet that is wrong
	Reason string // what is wrong and what is wanted
}

func (e *Error) Error() string {
	return fmt.Sprintf("not a canonical mimi: URI at octet %d: %s", e.Offset, e.Reason)
}

func fail(offset int, format string, args ...any) (URI, error) {
	return URI{}, &Error{Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// Parse returns the URI that s is. A string that is not in canonical form is
// refused, even where another form of it would do.
func Parse(s string) (URI, error) {
	if len(s) > MaxLen {
		return fail(MaxLen, "%d octets, want at most %d", len(s), MaxLen)
	}
	if !strings.HasPrefix(s, scheme) {
		return fail(0, "want the prefix %q in lower case", scheme)
	}
	end := len(s)
	if i := strings.IndexByte(s[len(scheme):], '/'); i >= 0 {
		end = len(scheme) + i
	}
	if at, reason := checkHost(s[len(scheme):end]); reason != "" {
		return fail(len(scheme)+at, "%s", reason)
	}
	if at, reason := checkPath(s[end:]); reason != "" {
		return fail(end+at, "%s", reason)
	}
	return URI{s: s, host: end}, nil
}

// New returns the URI of a kind at a host. The segments are plain text: what
// may not stand in a path segment is percent-encoded. For Provider there are
// no segments, for every other Kind at least one.
func New(host string, kind Kind, segments ...string) (URI, error) {
	var b strings.Builder
	b.WriteString(scheme + host)
	if kind != Provider {
		b.WriteByte('/')
		b.WriteByte(byte(kind))
	}
	for _, s := range segments {
		b.WriteByte('/')
		escape(&b, s, segmentChar)
	}
	return Parse(b.String())
}

// MustParse is Parse for constants; it panics on an error.
func MustParse(s string) URI {
	u, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// String returns the URI's octets.
func (u URI) String() string { return u.s }

// IsZero reports whether u names nothing.
func (u URI) IsZero() bool { return u.s == "" }

// Host returns the DNS name of the provider.
func (u URI) Host() string {
	if u.s == "" {
		return ""
	}
	return u.s[len(scheme):u.host]
}

// Kind returns what u names.
func (u URI) Kind() Kind {
	if u.host == len(u.s) {
		return Provider
	}
	return Kind(u.s[u.host+1])
}

// Provider returns the URI of the provider that u belongs to.
func (u URI) Provider() URI { return URI{s: u.s[:u.host], host: u.host} }

// Path returns the path without its leading slash, still percent-encoded; it
// is empty for a provider. Trust grants are matched against it.
func (u URI) Path() string {
	if u.host == len(u.s) {
		return ""
	}
	return u.s[u.host+1:]
}

// Segments returns the path segments after the kind, percent-decoded.
func (u URI) Segments() []string {
	parts := strings.Split(u.Path(), "/")[1:]
	for i, p := range parts {
		parts[i] = unescape(p)
	}
	return parts
}

// ClientOwner returns the user mimi://h/u/<user> of a client URI of the form
// mimi://h/d/<user>/<client>, and false for any other URI. A client URI of
// one segment does not reveal its user.
func (u URI) ClientOwner() (URI, bool) {
	if u.Kind() != Client || strings.Count(u.Path(), "/") != 2 {
		return URI{}, false
	}
	user := strings.Split(u.Path(), "/")[1]
	return URI{s: u.s[:u.host] + "/u/" + user, host: u.host}, true
}

// PathSegment returns u as one segment of an HTTP path: RFC 6570 level 1
// expansion, in which everything but unreserved characters is
// percent-encoded.
func (u URI) PathSegment() string {
	var b strings.Builder
	escape(&b, u.s, unreserved)
	return b.String()
}

// FromPathSegment is the inverse of PathSegment. The segment must be as it
// stood in the request line (http.Request.URL.EscapedPath), and must be the
// form that PathSegment writes.
func FromPathSegment(segment string) (URI, error) {
	if len(segment) > 3*MaxLen {
		return fail(0, "path segment of %d octets", len(segment))
	}
	u, err := Parse(unescape(segment))
	if err != nil {
		return URI{}, err
	}
	if u.PathSegment() != segment {
		return fail(0, "path segment is not the simple expansion of the URI it encodes")
	}
	return u, nil
}

// MarshalText returns the URI's octets; the zero URI is empty text.
func (u URI) MarshalText() ([]byte, error) { return []byte(u.s), nil }

// UnmarshalText is Parse, and the zero URI for empty text.
func (u *URI) UnmarshalText(text []byte) (err error) {
	*u = URI{}
	if len(text) > 0 {
		*u, err = Parse(string(text))
	}
	return err
}
