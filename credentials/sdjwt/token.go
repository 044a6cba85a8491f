package sdjwt

import (
	"errors"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// A Token is an SD-JWT or SD-JWT+KB that was taken apart (RFC 9901 section 4).
// Nothing in it is verified.
//
//	SD-JWT    = JWT "~" *(DISCLOSURE "~")
//	SD-JWT-KB = SD-JWT KB-JWT
type Token struct {
	jwt         string   // the Issuer-signed JWT
	disclosures []string // as transported
	kb          string   // the KB-JWT, or ""
	prefix      string   // everything up to and including the last tilde
}

func malformed(where, format string, args ...any) error {
	return credentials.Errorf(credentials.CodeMalformed, where, format, args...)
}

// joseError gives an error of internal/jose its code.
func joseError(where string, err error) error {
	code := credentials.CodeMalformed
	switch {
	case errors.Is(err, jose.ErrDepth):
		code = credentials.CodeDepth
	case errors.Is(err, jose.ErrCritical):
		code = credentials.CodeCrit
	}
	return credentials.Errorf(code, where, "%w", err)
}

// Parse takes the compact serialization apart. It looks at the outer form
// only: sizes, tildes, and that no part is empty.
func Parse(s string, limits Limits) (*Token, error) {
	l := limits.withDefaults()
	if len(s) > l.Octets {
		return nil, malformed("", "token of %d octets, at most %d are read", len(s), l.Octets)
	}
	end := strings.LastIndexByte(s, '~')
	if end < 0 {
		return nil, malformed("", "no tilde: an SD-JWT ends in one, an SD-JWT+KB has one before the KB-JWT")
	}
	if n := strings.Count(s, "~") - 1; n > l.Disclosures {
		return nil, malformed("", "%d Disclosures, at most %d are read", n, l.Disclosures)
	}
	parts := strings.Split(s[:end], "~")
	t := &Token{jwt: parts[0], disclosures: parts[1:], kb: s[end+1:], prefix: s[:end+1]}
	for i, d := range t.disclosures {
		if d == "" {
			return nil, malformed(disclosureName(i), "empty")
		}
	}
	return t, nil
}

// String returns the compact serialization, which is what was parsed.
func (t *Token) String() string { return t.prefix + t.kb }

// HasKeyBinding reports whether there is a KB-JWT, whatever it may be worth.
func (t *Token) HasKeyBinding() bool { return t.kb != "" }

// IssuerJWT returns the Issuer-signed JWT.
func (t *Token) IssuerJWT() string { return t.jwt }

// Disclosures returns the Disclosures as transported.
func (t *Token) Disclosures() []string { return append([]string(nil), t.disclosures...) }

// KeyBindingJWT returns the KB-JWT, or "".
func (t *Token) KeyBindingJWT() string { return t.kb }

// newToken assembles a Token.
func newToken(jwt string, disclosures []string, kb string) *Token {
	size := len(jwt) + 1
	for _, d := range disclosures {
		size += len(d) + 1
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(jwt)
	b.WriteByte('~')
	for _, d := range disclosures {
		b.WriteString(d)
		b.WriteByte('~')
	}
	return &Token{jwt: jwt, disclosures: disclosures, kb: kb, prefix: b.String()}
}
