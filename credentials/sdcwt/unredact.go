package sdcwt

import (
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// An opener puts disclosures into the places of their hashes and takes every
// other redaction away (section 7 and section 9 step 8).
type opener struct {
	byHash map[string]*Disclosure
	shape  *claimsShape
	closed int // hashes without a disclosure

	// Where the walk is, kept for a holder, who chooses by it.
	track bool
	above *Disclosure
	path  []any
}

func (o *opener) enter(key dcbor.Value) {
	if o.track {
		o.path = append(o.path, keyOf(key))
	}
}

func (o *opener) leave() {
	if o.track {
		o.path = o.path[:len(o.path)-1]
	}
}

func newOpener(t *token, disclosures []*Disclosure, track bool) (*opener, error) {
	o := &opener{byHash: make(map[string]*Disclosure, len(disclosures)), shape: t.shape, track: track}
	for _, d := range disclosures {
		if _, twice := o.byHash[string(d.hash)]; twice {
			return nil, credentials.Errorf(credentials.CodeDisclosureDuplicate, "disclosure", "the same disclosure is given twice")
		}
		o.byHash[string(d.hash)] = d
	}
	return o, nil
}

// finish reports a disclosure that found no place.
func (o *opener) finish() error {
	for _, d := range o.byHash {
		if !d.used {
			return credentials.Errorf(credentials.CodeDisclosureUnmatched, "disclosure", "no redacted claim has the hash %x", d.hash)
		}
	}
	return nil
}

// take returns the disclosure for a hash, or nil if there is none.
func (o *opener) take(hash dcbor.Value) *Disclosure {
	h, _ := hash.Bytes()
	d := o.byHash[string(h)]
	if d == nil {
		o.closed++
		return nil
	}
	d.used, d.above, d.path = true, o.above, slices.Clone(o.path)
	return d
}

// disclosed returns the opened value of d, which was put at level.
func (o *opener) disclosed(d *Disclosure, level int) (dcbor.Value, error) {
	if err := o.shape.disclosed(d.value, level); err != nil {
		return dcbor.Value{}, err
	}
	defer func(above *Disclosure) { o.above = above }(o.above)
	o.above = d
	return o.value(d.value, level)
}

// value returns v, which stands at level, without redactions. What has none in
// it is returned as it is.
func (o *opener) value(v dcbor.Value, level int) (dcbor.Value, error) {
	switch v.Kind() {
	case dcbor.Map:
		return o.claims(v, level+1, false)
	case dcbor.Array:
		return o.elements(v, level+1)
	case dcbor.Tag:
		n, content, _ := v.Tagged()
		opened, err := o.value(content, level+1)
		return dcbor.NewTag(n, opened), err
	}
	return v, nil
}

// claims opens a map whose values stand at level.
func (o *opener) claims(m dcbor.Value, level int, top bool) (dcbor.Value, error) {
	hashes, _ := m.Get(dcbor.NewSimple(simpleRedactedKeys)).Elements()
	pairs := make([]dcbor.Value, 0, 2*(m.Size()+len(hashes)))
	for key, value := range m.Pairs() {
		if key.IsSimple(simpleRedactedKeys) {
			continue
		}
		o.enter(key)
		opened, err := o.value(value, level)
		o.leave()
		if err != nil {
			return dcbor.Value{}, err
		}
		pairs = append(pairs, key, opened)
	}
	var keys map[string]struct{}
	for _, hash := range hashes {
		d := o.take(hash)
		if d == nil || d.IsDecoy() {
			continue
		}
		if keys == nil {
			keys = keySet(pairs, len(hashes))
		}
		key, opened, err := o.claim(d, keys, level, top)
		if err != nil {
			return dcbor.Value{}, err
		}
		pairs = append(pairs, key, opened)
	}
	return dcbor.NewMap(pairs...), nil
}

func keyOf(key dcbor.Value) any {
	if n, ok := key.Int(); ok {
		return n
	}
	return key.Native()
}

func keySet(pairs []dcbor.Value, more int) map[string]struct{} {
	keys := make(map[string]struct{}, len(pairs)/2+more)
	for i := 0; i < len(pairs); i += 2 {
		keys[string(dcbor.Encode(pairs[i]))] = struct{}{}
	}
	return keys
}

// claim opens one disclosed map entry. keys are those already in the map.
func (o *opener) claim(d *Disclosure, keys map[string]struct{}, level int, top bool) (key, value dcbor.Value, err error) {
	const where = "disclosure"
	if !d.key.Exists() {
		return key, value, credentials.Errorf(credentials.CodeDisclosureShape, where, "an array element in the place of a map entry")
	}
	if n, ok := d.key.Int(); ok && top && slices.Contains(neverRedacted, n) {
		return key, value, credentials.Errorf(credentials.CodeDisclosureForbiddenKey, where, "claim %d must never be redacted", n)
	}
	encoded := string(dcbor.Encode(d.key))
	if _, collides := keys[encoded]; collides {
		return key, value, credentials.Errorf(credentials.CodeDisclosureKeyCollision, where, "the map has the disclosed key already")
	}
	keys[encoded] = struct{}{}
	d.top = top
	o.enter(d.key)
	d.path = slices.Clone(o.path)
	value, err = o.disclosed(d, level)
	o.leave()
	return d.key, value, err
}

// elements opens an array whose elements stand at level.
func (o *opener) elements(a dcbor.Value, level int) (dcbor.Value, error) {
	from, _ := a.Elements()
	to := make([]dcbor.Value, 0, len(from))
	for i, e := range from {
		o.enter(dcbor.NewUint(uint64(i)))
		opened, err := o.element(e, level)
		o.leave()
		if err != nil {
			return dcbor.Value{}, err
		}
		if opened.Exists() {
			to = append(to, opened)
		}
	}
	return dcbor.NewArray(to...), nil
}

// element opens one array element. It returns the zero Value for one that
// stays closed.
func (o *opener) element(e dcbor.Value, level int) (dcbor.Value, error) {
	n, hash, ok := e.Tagged()
	if !ok || n != tagRedacted {
		return o.value(e, level)
	}
	d := o.take(hash)
	if d == nil || d.IsDecoy() {
		return dcbor.Value{}, nil
	}
	if d.key.Exists() {
		return dcbor.Value{}, credentials.Errorf(credentials.CodeDisclosureShape, "disclosure", "a map entry in the place of an array element")
	}
	return o.disclosed(d, level)
}

// An opened token has its redactions replaced or removed.
type opened struct {
	claims      ClaimsSet
	closed      int  // hashes that stayed closed
	topClosed   bool // some of them at the top level
	disclosures []*Disclosure
}

// open unredacts both claims maps and joins them (steps 15 and 16).
func (t *token) open(disclosures []*Disclosure, track bool) (*opened, error) {
	o, err := newOpener(t, disclosures, track)
	if err != nil {
		return nil, err
	}
	payload, topClosed, err := o.top(t.payload)
	if err != nil {
		return nil, err
	}
	header := dcbor.NewMap()
	if t.header.Exists() {
		var more bool
		if header, more, err = o.top(t.header); err != nil {
			return nil, err
		}
		topClosed = topClosed || more
	}
	if err := o.finish(); err != nil {
		return nil, err
	}
	joined, err := join(payload, header)
	if err != nil {
		return nil, err
	}
	return &opened{ClaimsSet{joined}, o.closed, topClosed, disclosures}, nil
}

func (o *opener) top(m dcbor.Value) (claims dcbor.Value, topClosed bool, err error) {
	hashes, _ := m.Get(dcbor.NewSimple(simpleRedactedKeys)).Elements()
	for _, h := range hashes {
		b, _ := h.Bytes()
		topClosed = topClosed || o.byHash[string(b)] == nil
	}
	claims, err = o.claims(m, 1, true)
	return claims, topClosed, err
}

// join adds the claims of the CWT Claims header to those of the payload.
func join(payload, header dcbor.Value) (dcbor.Value, error) {
	if header.Size() == 0 {
		return payload, nil
	}
	var all []dcbor.Value
	for key, value := range payload.Pairs() {
		all = append(all, key, value)
	}
	for key, value := range header.Pairs() {
		clear := payload.Get(key)
		if clear.Exists() && !clear.Equal(value) {
			return dcbor.Value{}, credentials.Errorf(credentials.CodeClaimsConflict, "claims", "payload and CWT Claims header differ in claim %v", key)
		}
		if !clear.Exists() {
			all = append(all, key, value)
		}
	}
	return dcbor.NewMap(all...), nil
}
