package sdcwt

import (
	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A Disclosure is one Salted Disclosed Claim. In sd_claims it is a byte string
// around
//
//	[ salt bstr(16), value any, key int/tstr ]   a map entry: value before key
//	[ salt bstr(16), value any ]                 an array element
//	[ salt bstr(16) ]                            a decoy
type Disclosure struct {
	item  []byte // the byte string as it stands in sd_claims: what is hashed
	hash  []byte
	key   dcbor.Value // exists for a map entry
	value dcbor.Value // does not exist for a decoy
	path  []any
	above *Disclosure // in whose value the hash stands
	used  bool
	top   bool // its place is a top-level claims map
}

// parseDisclosures parses members of sd_claims.
func parseDisclosures(members []dcbor.Value, h Hash) ([]*Disclosure, error) {
	var arena dcbor.Arena // what is in it lives as long as the Disclosures
	together := make([]Disclosure, len(members))
	hashes := make([]byte, 0, len(members)*h.size())
	list := make([]*Disclosure, len(members))
	for i, m := range members {
		d := &together[i]
		if err := d.parse(&arena, m); err != nil {
			return nil, err
		}
		d.item = m.Raw()
		hashes = h.appendSum(hashes, d.item)
		d.hash = hashes[len(hashes)-h.size() : len(hashes) : len(hashes)]
		list[i] = d
	}
	return list, nil
}

// parse reads key and value of one member of sd_claims.
func (d *Disclosure) parse(arena *dcbor.Arena, member dcbor.Value) error {
	const where = "disclosure"
	content, ok := member.Bytes()
	if !ok {
		return credentials.Errorf(credentials.CodeDisclosureShape, where, "a %s, want a byte string", member.Kind())
	}
	v, err := dcbor.Limits{}.DecodeIn(arena, content)
	if err != nil {
		return credentials.Errorf(codeOfDecoding(err, credentials.CodeDisclosureShape), where, "%w", err)
	}
	parts, ok := v.Elements()
	if !ok || len(parts) < 1 || len(parts) > 3 {
		return credentials.Errorf(credentials.CodeDisclosureShape, where, "want an array of 1 to 3")
	}
	if salt, ok := parts[0].Bytes(); !ok || len(salt) != saltSize {
		return credentials.Errorf(credentials.CodeDisclosureShape, where, "the salt is no byte string of %d octets", saltSize)
	}
	if len(parts) > 1 {
		d.value = parts[1]
	}
	if len(parts) > 2 {
		d.key = parts[2]
		if checkKey(d.key, where) != nil {
			return credentials.Errorf(credentials.CodeDisclosureShape, where, "the claim key is neither an integer nor text of at most %d octets", maxKeyText)
		}
	}
	return nil
}

// IsDecoy reports whether there is only a salt in it.
func (d *Disclosure) IsDecoy() bool { return !d.value.Exists() }

// IsElement reports whether it discloses an array element.
func (d *Disclosure) IsElement() bool { return d.value.Exists() && !d.key.Exists() }

// Key returns the claim key, an int64 or a string; nil for an array element or
// a decoy.
func (d *Disclosure) Key() any {
	if !d.key.Exists() {
		return nil
	}
	return d.key.Native()
}

// Value returns the disclosed value among native Go values. It may have hashes
// of further redacted claims in it.
func (d *Disclosure) Value() any {
	if d.IsDecoy() {
		return nil
	}
	return d.value.Native()
}

// Hash returns the redacted claim hash.
func (d *Disclosure) Hash() []byte { return append([]byte(nil), d.hash...) }

// Path returns where in the claims set the disclosure belongs: claim keys, and
// for array elements their index in the issued array.
func (d *Disclosure) Path() []any { return append([]any(nil), d.path...) }

// Parent returns the disclosure that must be presented for this one to have a
// place, or nil.
func (d *Disclosure) Parent() *Disclosure { return d.above }

func codeOfDecoding(err error, otherwise credentials.Code) credentials.Code {
	if isTooDeep(err) {
		return credentials.CodeDepth
	}
	return otherwise
}
