package sdcwt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A redactor replaces what is tagged To Be Redacted or To Be Decoy by hashes,
// children before parents (section 6.1, section 11). One redactor serves many
// tokens, one after the other, since its memory is most of what they cost.
type redactor struct {
	hash    Hash
	decoys  map[uint64]bool
	arena   dcbor.Arena
	drawn   []byte   // salts
	salts   []byte   // those of drawn that are not used yet
	hashes  []byte   // one after the other
	order   []hashAt // those of the maps that are being redacted
	salted  []byte   // sd_claims: an array of byte strings, each hashed as it is
	count   int      // of its members
	scratch []byte
}

var redactors = sync.Pool{New: func() any { return new(redactor) }}

// release forgets the token and keeps the memory.
func (r *redactor) release() {
	const most = 1 << 18
	clear(r.drawn)
	r.arena.Reset()
	r.decoys, r.salts, r.count, r.order = nil, nil, 0, r.order[:0]
	for _, b := range []*[]byte{&r.drawn, &r.hashes, &r.salted, &r.scratch} {
		if *b = (*b)[:0]; cap(*b) > most {
			*b = nil
		}
	}
	redactors.Put(r)
}

const whereClaims = "claims"

// A hashAt is where in hashes a hash begins, and the octets that tell it from
// most others.
type hashAt struct {
	first uint64
	at    int
}

// redact returns the claims set with hashes, and keeps the disclosures.
func (r *redactor) redact(claims dcbor.Value, rand io.Reader) (dcbor.Value, error) {
	if claims.Kind() != dcbor.Map {
		return dcbor.Value{}, credentials.Errorf(credentials.CodeMalformed, whereClaims, "a %s, want a map", claims.Kind())
	}
	if err := checkNeverRedacted(claims); err != nil {
		return dcbor.Value{}, err
	}
	n := countMarks(&claims)
	r.drawn = slices.Grow(r.drawn[:0], n*saltSize)[:n*saltSize]
	r.salts = r.drawn
	r.hashes = slices.Grow(r.hashes[:0], n*r.hash.size()) // which stay where they are
	r.salted = dcbor.AppendHead(r.salted[:0], 0x80, uint64(n))
	if _, err := io.ReadFull(rand, r.salts); err != nil {
		return dcbor.Value{}, err
	}
	v, err := r.claims(claims, 1)
	if err == nil && r.count != n {
		return v, errors.New("sdcwt: a mark was passed over")
	}
	return v, err
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
func countMarks(v *dcbor.Value) (n int) {
	if tag, _, ok := v.Tagged(); ok && (tag == tagToBeRedacted || tag == tagToBeDecoy) {
		n++
	}
	for i := range v.Inside() {
		n += countMarks(&v.Inside()[i])
	}
	return n
}

// disclose salts parts, keeps the disclosure and returns its hash.
func (r *redactor) disclose(parts ...dcbor.Value) hashAt {
	salt := r.salts[:saltSize]
	r.salts = r.salts[saltSize:]
	content := dcbor.AppendHead(r.scratch[:0], 0x80, uint64(len(parts)+1))
	content = dcbor.AppendBytes(content, salt)
	for _, p := range parts {
		content = p.Append(content)
	}
	r.scratch = content
	item := len(r.salted)
	r.salted = dcbor.AppendBytes(r.salted, content)
	r.count++
	hash := len(r.hashes)
	r.hashes = r.hash.appendSum(r.hashes, r.salted[item:])
	return hashAt{binary.BigEndian.Uint64(r.hashes[hash:]), hash}
}

// bytes returns the hash as a Value.
func (r *redactor) bytes(h hashAt) dcbor.Value { return dcbor.NewBytes(r.hashOf(h)) }

func (r *redactor) hashOf(h hashAt) []byte { return r.hashes[h.at : h.at+r.hash.size()] }

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
		return r.arena.Tag(n, inner), err
	case dcbor.Simple:
		if v.IsSimple(simpleRedactedKeys) {
			return v, credentials.Errorf(credentials.CodeHashShape, whereClaims, "simple(59) as a value")
		}
	}
	return v, nil
}

// claims redacts a map whose values stand at level.
func (r *redactor) claims(m dcbor.Value, level int) (dcbor.Value, error) {
	clear := 0
	for key := range m.Pairs() {
		if key.Kind() != dcbor.Tag {
			clear++
		}
	}
	pairs := r.arena.Make(2 * (clear + 1))[:0] // with simple(59)
	from := len(r.order)
	for key, value := range m.Pairs() {
		tag, inner, tagged := key.Tagged()
		if tagged && tag == tagToBeDecoy {
			hash, err := r.decoy(inner, value.IsSimple(22))
			if err != nil {
				return m, err
			}
			r.order = append(r.order, hash)
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
			r.order = append(r.order, r.disclose(redacted, inner))
			continue
		}
		pairs = append(pairs, key, redacted)
	}
	if err := noKeyTwice(m, dcbor.NewMap(pairs...)); err != nil {
		return m, err
	}
	if len(r.order) > from {
		pairs = append(pairs, dcbor.NewSimple(simpleRedactedKeys), r.sorted(r.order[from:]))
		r.order = r.order[:from]
	}
	return dcbor.NewMap(pairs...), nil
}

// noKeyTwice refuses a map with k and 58(k): they are duplicates. clear has the
// keys without a mark.
func noKeyTwice(m, clear dcbor.Value) error {
	const few = 24 // are compared one by one
	var keys map[string]struct{}
	if clear.Size() > few {
		keys = keysOf(clear)
	}
	for key := range m.Pairs() {
		tag, inner, tagged := key.Tagged()
		if !tagged || tag != tagToBeRedacted {
			continue
		}
		twice := false
		if keys == nil {
			twice = clear.Get(inner).Exists()
		} else {
			_, twice = keys[string(dcbor.Encode(inner))]
		}
		if twice {
			return credentials.Errorf(credentials.CodeMalformed, whereClaims, "a map has key %v and 58(%v)", inner, inner)
		}
	}
	return nil
}

// keysOf returns the encodings of the keys of a map.
func keysOf(m dcbor.Value) map[string]struct{} {
	keys := make(map[string]struct{}, m.Size())
	for key := range m.Pairs() {
		keys[string(dcbor.Encode(key))] = struct{}{}
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
func (r *redactor) sorted(hashes []hashAt) dcbor.Value {
	slices.SortFunc(hashes, func(a, b hashAt) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return bytes.Compare(r.hashOf(a), r.hashOf(b))
	})
	list := r.arena.Make(len(hashes))
	for i, h := range hashes {
		list[i] = r.bytes(h)
	}
	return dcbor.NewArray(list...)
}

// decoy makes the decoy that 62(number) asks for.
func (r *redactor) decoy(number dcbor.Value, valueOK bool) (hashAt, error) {
	n, ok := number.Uint()
	switch {
	case !ok || n == 0:
		return hashAt{}, credentials.Errorf(credentials.CodeClaimsKey, whereClaims, "tag 62 around %v, want a positive integer", number)
	case !valueOK:
		return hashAt{}, credentials.Errorf(credentials.CodeClaimType, whereClaims, "the value of 62(%d) is not null", n)
	case r.decoys[n]:
		return hashAt{}, credentials.Errorf(credentials.CodeMalformed, whereClaims, "62(%d) is used twice", n)
	}
	if r.decoys == nil {
		r.decoys = make(map[uint64]bool)
	}
	r.decoys[n] = true
	return r.disclose(), nil
}

// elements redacts an array whose elements stand at level.
func (r *redactor) elements(a dcbor.Value, level int) (dcbor.Value, error) {
	from, _ := a.Elements()
	to := r.arena.Make(len(from))
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
		if err != nil {
			return e, err
		}
		return r.arena.Tag(tagRedacted, r.bytes(hash)), nil
	case ok && tag == tagToBeRedacted:
		redacted, err := r.value(content, level)
		if err != nil {
			return e, err
		}
		return r.arena.Tag(tagRedacted, r.bytes(r.disclose(redacted))), nil
	}
	return r.value(e, level)
}
