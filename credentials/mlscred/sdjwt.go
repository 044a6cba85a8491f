package mlscred

import (
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Bounds of a credential.
const (
	MaxOctets      = 64 << 10
	MaxDisclosures = 256
)

const (
	classic   = 0
	compacted = 1
)

// ParseSDJWT returns the SD-JWT+KB of a credential of type sd_jwt in its compact
// serialization, which is what signatures and digests are about. It looks at the
// framing only.
func ParseSDJWT(body []byte) (string, error) {
	if len(body) > MaxOctets {
		return "", malformed("%d octets, at most %d are read", len(body), MaxOctets)
	}
	r := tlsvec.NewReader(body)
	text := ReadSDJWT(r)
	if err := r.Done(); err != nil {
		return "", malformed("%w", err)
	}
	return text, checkText(text)
}

// ReadSDJWT reads an SdJwt and returns it in its compact serialization, of
// which nothing is checked.
func ReadSDJWT(r *tlsvec.Reader) string {
	switch r.Uint8() {
	case classic:
		return string(r.Vector())
	case compacted:
		return expand(r)
	}
	r.Fail("compacted is neither 0 nor 1")
	return ""
}

func malformed(format string, args ...any) error {
	return credentials.Errorf(credentials.CodeMalformed, "sd_jwt", format, args...)
}

// expand writes the compacted form out :
// b64u(protected).b64u(payload).b64u(signature)~b64u(d1)~…~KB-JWT.
func expand(r *tlsvec.Reader) string {
	var b strings.Builder
	for i := range 3 {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(jose.EncodeBase64(r.Vector()))
	}
	b.WriteByte('~')
	n := 0
	r.Each(func(r *tlsvec.Reader) {
		b.WriteString(jose.EncodeBase64(r.Vector()))
		b.WriteByte('~')
		n++
	})
	b.Write(r.Vector())
	if n > MaxDisclosures {
		r.Fail("too many disclosures")
	}
	return b.String()
}

// checkText wants an SD-JWT with key binding, in ASCII.
func checkText(text string) error {
	jwt, _, tilde := strings.Cut(text, "~")
	kb := text[strings.LastIndexByte(text, '~')+1:]
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return malformed("octets that are not printable ASCII")
	case !tilde || strings.Count(jwt, ".") != 2:
		return malformed("no SD-JWT: three parts, then a tilde")
	case kb == "":
		return credentials.Errorf(credentials.CodeKBMissing, "sd_jwt", "an SD-JWT without key binding is nobody's")
	case strings.Count(kb, ".") != 2:
		return malformed("the KB-JWT has not three parts")
	}
	return nil
}

// FormatSDJWT returns the body of a credential of type sd_jwt. The compacted
// form is a fifth smaller; it is chosen only if it can be written out again to
// the same octets, and only if compact asks for it.
func FormatSDJWT(token string, compact bool) ([]byte, error) {
	if err := checkText(token); err != nil {
		return nil, err
	}
	if compact {
		body, ok := compactForm(token)
		if again, err := ParseSDJWT(body); ok && err == nil && again == token {
			return body, nil
		}
	}
	var b tlsvec.Builder
	b.Uint8(classic)
	b.String(token)
	if b.Len() > MaxOctets {
		return nil, malformed("%d octets, at most %d are read", b.Len(), MaxOctets)
	}
	return b.Bytes(), nil
}

func compactForm(token string) (body []byte, ok bool) {
	parts := strings.Split(token, "~")
	jwt, disclosures, kb := strings.Split(parts[0], "."), parts[1:len(parts)-1], parts[len(parts)-1]
	ok = true
	decode := func(b *tlsvec.Builder, part string) {
		octets, err := jose.DecodeBase64(part)
		ok = ok && err == nil
		b.Vector(octets)
	}
	var b tlsvec.Builder
	b.Uint8(compacted)
	for _, part := range jwt {
		decode(&b, part)
	}
	b.Nested(func(b *tlsvec.Builder) {
		for _, d := range disclosures {
			decode(b, d)
		}
	})
	b.String(kb)
	return b.Bytes(), ok
}
