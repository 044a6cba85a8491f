package mimi

import "github.com/privyseal/privyseal/internal/mimiuri"

// A URI is a mimi: URI in canonical form. draft-ietf-mimi-protocol-06 uses such
// URIs and gives no syntax, so this form is ours: lower-case scheme and host of
// A-labels, no user information, port, query or fragment, a kind of u, p, d, r,
// g or t followed by at least one segment, no needless percent-encoding, at
// most 1024 octets. URIs are comparable with ==. Input that is not canonical
// is refused, never repaired.
type URI = mimiuri.URI

// A URIError says why a string is not a canonical mimi: URI.
type URIError = mimiuri.Error

// A Kind is what a URI names.
type Kind = mimiuri.Kind

// The kinds of URI.
const (
	KindProvider  = mimiuri.Provider  // mimi://a.example
	KindUser      = mimiuri.User      // mimi://a.example/u/alice
	KindPseudonym = mimiuri.Pseudonym // mimi://a.example/p/5fd1
	KindClient    = mimiuri.Client    // mimi://a.example/d/alice/phone
	KindRoom      = mimiuri.Room      // mimi://a.example/r/clubhouse
	KindGroup     = mimiuri.Group     // mimi://a.example/g/clubhouse
	KindTeam      = mimiuri.Team      // mimi://a.example/t/sales
)

// MaxURI is the most octets that a URI may have.
const MaxURI = mimiuri.MaxLen

// ParseURI returns the URI that s is, or a *URIError.
func ParseURI(s string) (URI, error) { return mimiuri.Parse(s) }

// NewURI returns the URI of a kind at a host, percent-encoding the plain
// segments where a path must.
func NewURI(host string, kind Kind, segments ...string) (URI, error) {
	return mimiuri.New(host, kind, segments...)
}

// URIFromPathSegment returns the URI in one segment of an HTTP path, which
// must be exactly what URI.PathSegment writes (RFC 6570 simple expansion).
func URIFromPathSegment(segment string) (URI, error) { return mimiuri.FromPathSegment(segment) }
