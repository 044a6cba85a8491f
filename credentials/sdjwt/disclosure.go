package sdjwt

import (
	"crypto/sha512"
	"encoding/base64"
	"fmt"
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

// A disclosureWriter makes Disclosures; it keeps its buffers between them. Its
// strings are cut out of one text, since a token has hundreds of them.
type disclosureWriter struct {
	json, ascii []byte
	text        strings.Builder
}

// property returns the Disclosure of an object property and its digest.
func (w *disclosureWriter) property(h *hashAlg, salts *saltSource, name string, value any) (text, digest string) {
	w.begin(salts)
	w.json = append(jose.AppendString(w.json, name), ',')
	return w.finish(h, value)
}

// element returns the Disclosure of an array element and its digest.
func (w *disclosureWriter) element(h *hashAlg, salts *saltSource, value any) (text, digest string) {
	w.begin(salts)
	return w.finish(h, value)
}

func (w *disclosureWriter) begin(salts *saltSource) {
	w.json = append(salts.append(append(w.json[:0], '[', '"')), '"', ',')
}

func (w *disclosureWriter) finish(h *hashAlg, value any) (text, digest string) {
	w.json = append(jose.AppendJSON(w.json, value), ']')
	w.ascii = base64.RawURLEncoding.AppendEncode(w.ascii[:0], w.json)
	return w.keep(w.ascii), w.digest(h, w.ascii)
}

func (w *disclosureWriter) digest(h *hashAlg, text []byte) string {
	var out [(sha512.Size*8 + 5) / 6]byte
	return w.keep(h.appendDigest(out[:0], text))
}

// keep returns b as a string. What the Builder has handed out stays as it is
// when it grows.
func (w *disclosureWriter) keep(b []byte) string {
	start := w.text.Len()
	w.text.Write(b)
	return w.text.String()[start:]
}
