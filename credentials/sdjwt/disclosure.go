package sdjwt

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// The member names that RFC 9901 reserves.
const (
	keySD    = "_sd"     // digests of an object's redacted members
	keySDAlg = "_sd_alg" // the hash, at the top level
	keyDots  = "..."     // the digest of a redacted array element
)

func reserved(name string) bool { return name == keySD || name == keyDots || name == keySDAlg }

// A disclosure is a parsed Disclosure (RFC 9901 section 4.2):
//
//	[salt, name, value]     an object property
//	[salt, value]           an array element
type disclosure struct {
	text    string // as transported
	name    string // of a property
	element bool
	value   any

	used   bool        // a digest referred to it
	path   Path        // where it belongs, when traced
	parent *disclosure // in whose value its digest stands, or nil
}

func disclosureName(i int) string { return fmt.Sprintf("disclosure %d", i+1) }

// parseDisclosure reads the i-th Disclosure of a token.
func parseDisclosure(i int, text string, depth int) (*disclosure, error) {
	raw, err := jose.DecodeBase64(text)
	if err != nil {
		return nil, malformed(disclosureName(i), "not canonical unpadded base64url")
	}
	v, err := jose.ParseJSON(string(raw), depth+2) // the outer array, and what stands for redacted claims
	if err != nil {
		return nil, joseError(disclosureName(i), err)
	}
	d := &disclosure{text: text}
	list, _ := v.([]any)
	ok := len(list) == 2 || len(list) == 3
	if ok {
		_, ok = list[0].(string)
		d.value = list[len(list)-1]
	}
	if ok && len(list) == 3 {
		d.name, ok = list[1].(string)
	}
	if !ok {
		return nil, credentials.Errorf(credentials.CodeDisclosureShape, disclosureName(i),
			"want [salt, name, value] or [salt, value] with the salt and the name as strings")
	}
	d.element = len(list) == 2
	return d, nil
}

// A disclosureWriter makes Disclosures, one after the other as a token has them,
// and keeps its buffers between tokens.
type disclosureWriter struct {
	json    []byte // of the last Disclosure
	text    []byte // Disclosures, each with a tilde after it
	ends    []int  // of the Disclosures in text, before the tildes
	digests []byte // in base64url, one after the other
}

// A digestAt is where in digests a digest begins, and the octets that tell it
// from most others.
type digestAt struct {
	first uint64
	at    int
}

// property makes the Disclosure of an object property and returns its digest.
func (w *disclosureWriter) property(h *hashAlg, salts *saltSource, name string, value any) digestAt {
	w.begin(salts)
	w.json = append(jose.AppendString(w.json, name), ',')
	return w.finish(h, value)
}

// element makes the Disclosure of an array element and returns its digest.
func (w *disclosureWriter) element(h *hashAlg, salts *saltSource, value any) digestAt {
	w.begin(salts)
	return w.finish(h, value)
}

func (w *disclosureWriter) begin(salts *saltSource) {
	w.json = append(salts.append(append(w.json[:0], '[', '"')), '"', ',')
}

func (w *disclosureWriter) finish(h *hashAlg, value any) digestAt {
	w.json = append(jose.AppendJSON(w.json, value), ']')
	start := len(w.text)
	w.text = base64.RawURLEncoding.AppendEncode(w.text, w.json)
	digest := w.digest(h, w.text[start:])
	w.ends = append(w.ends, len(w.text))
	w.text = append(w.text, '~')
	return digest
}

func (w *disclosureWriter) digest(h *hashAlg, text []byte) digestAt {
	start := len(w.digests)
	w.digests = h.appendDigest(w.digests, text)
	return digestAt{binary.BigEndian.Uint64(w.digests[start:]), start}
}

// of returns the base64url of a digest.
func (w *disclosureWriter) of(h *hashAlg, d digestAt) []byte {
	return w.digests[d.at : d.at+base64.RawURLEncoding.EncodedLen(h.size)]
}

// sorted returns the JSON array of the digests in the order of their text.
func (w *disclosureWriter) sorted(h *hashAlg, digests []digestAt) jose.Raw {
	slices.SortFunc(digests, func(a, b digestAt) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return bytes.Compare(w.of(h, a), w.of(h, b))
	})
	list := make(jose.Raw, 0, 2+len(digests)*(3+base64.RawURLEncoding.EncodedLen(h.size)))
	for i, d := range digests {
		if i > 0 {
			list = append(list, ',')
		} else {
			list = append(list, '[')
		}
		list = append(append(append(list, '"'), w.of(h, d)...), '"')
	}
	return append(list, ']')
}

// token returns the token with the Disclosures behind an Issuer-signed JWT.
func (w *disclosureWriter) token(jwt []byte) *Token {
	var b strings.Builder
	b.Grow(len(jwt) + 1 + len(w.text))
	b.Write(jwt)
	b.WriteByte('~')
	b.Write(w.text)
	t := &Token{disclosures: make([]string, len(w.ends)), prefix: b.String()}
	t.jwt = t.prefix[:len(jwt)]
	from := len(jwt) + 1
	for i, end := range w.ends {
		end += len(jwt) + 1
		t.disclosures[i] = t.prefix[from:end]
		from = end + 1
	}
	return t
}
