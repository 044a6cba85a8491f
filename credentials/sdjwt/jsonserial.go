package sdjwt

import (
	"strings"

	"github.com/privyseal/privyseal/internal/jose"
)

// maxSerialDepth bounds what is nested in a JSON serialization: signatures, one
// of them, its header, and the disclosures, with room for unknown members.
const maxSerialDepth = 16

// ParseJSON takes apart a token in JWS JSON serialization (RFC 9901 section 8),
// general or flattened. Of several signatures the first one is used, which is
// where disclosures and kb_jwt must stand.
//
//	{"payload", "protected", "signature", "header": {"disclosures", "kb_jwt"}}
//	{"payload", "signatures": [{"protected", "signature", "header"}, ...]}
func ParseJSON(text []byte, limits Limits) (*Token, error) {
	const where = "JSON serialization"
	l := limits.withDefaults()
	if len(text) > l.Octets {
		return nil, malformed(where, "%d octets, at most %d are read", len(text), l.Octets)
	}
	outer, err := jose.ParseObject(string(text), maxSerialDepth)
	if err != nil {
		return nil, joseError(where, err)
	}
	signature, err := firstSignature(outer)
	if err != nil {
		return nil, err
	}
	var parts [3]string
	for i, name := range []string{"protected", "payload", "signature"} {
		from := signature
		if name == "payload" {
			from = outer
		}
		var ok bool
		if parts[i], _, ok = from.Text(name); !ok || parts[i] == "" || strings.ContainsAny(parts[i], ".~") {
			return nil, malformed(where, "%q is not base64url", name)
		}
	}
	disclosures, kb, err := unprotected(signature, parts[0])
	if err != nil {
		return nil, err
	}
	t := newToken(strings.Join(parts[:], "."), disclosures, kb)
	return Parse(t.String(), limits)
}

// firstSignature returns the object with the first signature: outer itself in
// the flattened form.
func firstSignature(outer *jose.Object) (*jose.Object, error) {
	const where = "JSON serialization"
	v, general := outer.Get("signatures")
	if !general {
		return outer, nil
	}
	list, _ := v.([]any)
	if len(list) == 0 || outer.Has("signature") || outer.Has("protected") || outer.Has("header") {
		return nil, malformed(where, "neither the general nor the flattened form")
	}
	for i, e := range list {
		o, ok := e.(*jose.Object)
		if !ok {
			return nil, malformed(where, "signature %d is not an object", i)
		}
		header, _ := o.Get("header")
		h, _ := header.(*jose.Object)
		if i > 0 && h != nil && (h.Has("disclosures") || h.Has("kb_jwt")) {
			return nil, malformed(where, "disclosures and kb_jwt belong to the first signature alone")
		}
	}
	return list[0].(*jose.Object), nil
}

// unprotected returns the two header parameters of RFC 9901 section 8.1.
// protected is the protected header in base64url.
func unprotected(signature *jose.Object, protected string) (disclosures []string, kb string, err error) {
	const where = "unprotected header"
	v, there := signature.Get("header")
	if !there {
		return nil, "", nil
	}
	h, ok := v.(*jose.Object)
	if !ok {
		return nil, "", malformed(where, "not an object")
	}
	if err := disjoint(h, protected); err != nil {
		return nil, "", err
	}
	v, there = h.Get("disclosures")
	list, ok := v.([]any)
	if there && !ok {
		return nil, "", malformed(where, "disclosures is not an array")
	}
	for i, e := range list {
		s, _ := e.(string)
		if s == "" || strings.Contains(s, "~") {
			return nil, "", malformed(disclosureName(i), "not base64url")
		}
		disclosures = append(disclosures, s)
	}
	kb, there, ok = h.Text("kb_jwt")
	if there && (!ok || kb == "" || strings.Contains(kb, "~")) {
		return nil, "", malformed(where, "kb_jwt is not a JWT")
	}
	return disclosures, kb, nil
}

// disjoint refuses a header parameter that is in both headers, of which one
// would have to be believed, and a crit that nobody signed (RFC 7515 sections
// 4.1.11, 5.2 step 4 and 7.2.1).
func disjoint(h *jose.Object, protected string) error {
	const where = "unprotected header"
	if h.Has("crit") {
		return malformed(where, "crit must be in the protected header")
	}
	text, err := jose.DecodeBase64(protected)
	if err != nil {
		return malformed("protected header", "not canonical unpadded base64url")
	}
	p, err := jose.ParseObject(string(text), maxSerialDepth)
	if err != nil {
		return joseError("protected header", err)
	}
	for _, m := range h.Members {
		if p.Has(m.Name) {
			return malformed(where, "%q is in the protected header too", m.Name)
		}
	}
	return nil
}

// MarshalJSON returns the token in flattened JWS JSON serialization.
func (t *Token) MarshalJSON() ([]byte, error) {
	parts := strings.Split(t.jwt, ".")
	if len(parts) != 3 {
		return nil, malformed("issuer JWT", "want three parts")
	}
	disclosures := make([]any, len(t.disclosures))
	for i, d := range t.disclosures {
		disclosures[i] = d
	}
	header := new(jose.Object).Add("disclosures", disclosures)
	if t.kb != "" {
		header.Add("kb_jwt", t.kb)
	}
	o := new(jose.Object).Add("payload", parts[1]).Add("protected", parts[0]).
		Add("signature", parts[2]).Add("header", header)
	return jose.AppendJSON(nil, o), nil
}
