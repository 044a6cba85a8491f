package sdcwt

import (
	"bytes"
	"io"
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A redactor replaces what is tagged To Be Redacted or To Be Decoy by hashes,
// children before parents (section 6.1, section 11).
type redactor struct {
	hash    Hash
	salts   []byte
	decoys  map[uint64]bool
	items   [][]byte // the disclosures, each the byte string item that is hashed
	scratch []byte
}

const whereClaims = "claims"

// redact returns the claims set with hashes, and the disclosures.
func redact(claims dcbor.Value, h Hash, rand io.Reader) (dcbor.Value, [][]byte, error) {
	if claims.Kind() != dcbor.Map {
		return dcbor.Value{}, nil, credentials.Errorf(credentials.CodeMalformed, whereClaims, "a %s, want a map", claims.Kind())
	}
	if err := checkNeverRedacted(claims); err != nil {
		return dcbor.Value{}, nil, err
	}
	r := &redactor{hash: h, decoys: make(map[uint64]bool)}
	n := countMarks(claims)
	r.salts = make([]byte, n*saltSize)
	r.items = make([][]byte, 0, n)
	if _, err := io.ReadFull(rand, r.salts); err != nil {
		return dcbor.Value{}, nil, err
	}
	v, err := r.claims(claims, 1)
	return v, r.items, err
}

// checkNeverRedacted refuses marks on or inside the claims that stand in the
// clear.
func checkNeverRedacted(claims dcbor.Value) error {
	for key, value := range claims.Pairs() {
		tag, inner, tagged := key.Tagged()
		if !tagged {
			inner = key
		}
		n, ok := inner.Int()
		if !ok || !slices.Contains(neverRedacted, n) || tagged && tag != tagToBeRedacted {
			continue
		}
		if tagged || safe(value, whereClaims) != nil {
			return credentials.Errorf(credentials.CodeDisclosureForbiddenKey, whereClaims, "claim %d must never be redacted", n)
		}
	}
	return nil
}

// countMarks returns how many salts are needed.
func countMarks(v dcbor.Value) (n int) {
	if tag, content, ok := v.Tagged(); ok {
		if tag == tagToBeRedacted || tag == tagToBeDecoy {
			n++
		}
		return n + countMarks(content)
	}
	for key, value := range v.Pairs() {
		n += countMarks(key) + countMarks(value)
	}
	elements, _ := v.Elements()
	for _, e := range elements {
		n += countMarks(e)
	}
	return n
}

// disclose salts parts, keeps the disclosure and returns its hash.
func (r *redactor) disclose(parts ...dcbor.Value) []byte {
	salt := r.salts[:saltSize]
	r.salts = r.salts[saltSize:]
	content := dcbor.AppendHead(r.scratch[:0], 0x80, uint64(len(parts)+1))
	content = dcbor.AppendBytes(content, salt)
	for _, p := range parts {
		content = p.Append(content)
	}
	r.scratch = content
	item := dcbor.WrapBytes(content)
	r.items = append(r.items, item)
	return r.hash.sum(item)
}

// value redacts inside v, which stands at level.
func (r *redactor) value(v dcbor.Value, level int) (dcbor.Value, error) {
	if level > maxDepth {
		return v, credentials.Errorf(credentials.CodeDepth, whereClaims, "deeper than %d levels", maxDepth)
	}
	switch v.Kind() {
	case dcbor.Map:
		return r.claims(v, level+1)
	case dcbor.Array:
		return r.elements(v, level+1)
	case dcbor.Tag:
		n, content, _ := v.Tagged()
		if reservedTag(n) {
			return v, credentials.Errorf(credentials.CodeHashShape, whereClaims, "tag %d outside its place", n)
		}
		inner, err := r.value(content, level+1)
		return dcbor.NewTag(n, inner), err
	}
	return v, nil
}

// claims redacts a map whose values stand at level.
func (r *redactor) claims(m dcbor.Value, level int) (dcbor.Value, error) {
	if err := noKeyTwice(m); err != nil {
		return m, err
	}
	pairs := make([]dcbor.Value, 0, 2*m.Size()+2)
	var hashes [][]byte
	for key, value := range m.Pairs() {
		tag, inner, tagged := key.Tagged()
		if tagged && tag == tagToBeDecoy {
			hash, err := r.decoy(inner, value.IsSimple(22))
			if err != nil {
				return m, err
			}
			hashes = append(hashes, hash)
			continue
		}
		if err := markedKey(key); err != nil {
			return m, err
		}
		redacted, err := r.value(value, level)
		if err != nil {
			return m, err
		}
		if tagged {
			hashes = append(hashes, r.disclose(redacted, inner))
			continue
		}
		pairs = append(pairs, key, redacted)
	}
	if hashes != nil {
		pairs = append(pairs, dcbor.NewSimple(simpleRedactedKeys), dcbor.NewArray(sorted(hashes)...))
	}
	return dcbor.NewMap(pairs...), nil
}

// noKeyTwice refuses a map with k and 58(k): they are duplicates.
func noKeyTwice(m dcbor.Value) error {
	var clear map[string]struct{}
	var scratch []byte
	for key := range m.Pairs() {
		tag, inner, tagged := key.Tagged()
		if !tagged || tag != tagToBeRedacted {
			continue
		}
		if clear == nil {
			clear = clearKeys(m)
		}
		scratch = inner.Append(scratch[:0])
		if _, twice := clear[string(scratch)]; twice {
			return credentials.Errorf(credentials.CodeMalformed, whereClaims, "a map has key %v and 58(%v)", inner, inner)
		}
	}
	return nil
}

// clearKeys returns the encodings of the keys that have no tag.
func clearKeys(m dcbor.Value) map[string]struct{} {
	keys := make(map[string]struct{})
	for key := range m.Pairs() {
		if key.Kind() != dcbor.Tag {
			keys[string(key.Append(nil))] = struct{}{}
		}
	}
	return keys
}

// markedKey checks a key k or 58(k).
func markedKey(key dcbor.Value) error {
	tag, inner, tagged := key.Tagged()
	if !tagged {
		return checkKey(key, whereClaims)
	}
	if tag != tagToBeRedacted {
		return credentials.Errorf(credentials.CodeClaimsKey, whereClaims, "tag %d on a map key", tag)
	}
	return checkKey(inner, whereClaims)
}

// sorted orders hashes bytewise, so that their order says nothing.
func sorted(hashes [][]byte) []dcbor.Value {
	slices.SortFunc(hashes, bytes.Compare)
	list := make([]dcbor.Value, len(hashes))
	for i, h := range hashes {
		list[i] = dcbor.NewBytes(h)
	}
	return list
}

// decoy makes the decoy that 62(number) asks for.
func (r *redactor) decoy(number dcbor.Value, valueOK bool) ([]byte, error) {
	n, ok := number.Uint()
	switch {
	case !ok || n == 0:
		return nil, credentials.Errorf(credentials.CodeClaimsKey, whereClaims, "tag 62 around %v, want a positive integer", number)
	case !valueOK:
		return nil, credentials.Errorf(credentials.CodeClaimType, whereClaims, "the value of 62(%d) is not null", n)
	case r.decoys[n]:
		return nil, credentials.Errorf(credentials.CodeMalformed, whereClaims, "62(%d) is used twice", n)
	}
	r.decoys[n] = true
	return r.disclose(), nil
}

// elements redacts an array whose elements stand at level.
func (r *redactor) elements(a dcbor.Value, level int) (dcbor.Value, error) {
	from, _ := a.Elements()
	to := make([]dcbor.Value, len(from))
	for i, e := range from {
		var err error
		if to[i], err = r.element(e, level); err != nil {
			return a, err
		}
	}
	return dcbor.NewArray(to...), nil
}

func (r *redactor) element(e dcbor.Value, level int) (dcbor.Value, error) {
	tag, content, ok := e.Tagged()
	switch {
	case ok && tag == tagToBeDecoy:
		hash, err := r.decoy(content, true)
		return dcbor.NewTag(tagRedacted, dcbor.NewBytes(hash)), err
	case ok && tag == tagToBeRedacted:
		redacted, err := r.value(content, level)
		if err != nil {
			return e, err
		}
		return dcbor.NewTag(tagRedacted, dcbor.NewBytes(r.disclose(redacted))), nil
	}
	return r.value(e, level)
}
