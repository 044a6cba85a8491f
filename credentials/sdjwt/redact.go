package sdjwt

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"sync"

	"github.com/privyseal/privyseal/internal/jose"
)

// A Decoy asks for digests without a Disclosure beside the redacted claims of
// one object or array, to hide how many there are (RFC 9901 section 4.2.5).
type Decoy struct {
	At    Path // of the object or array; nil for the claims set itself
	Count int
}

// A plan says what is redacted at and below one place of a claims set. Built
// once, it lets a single walk do the work.
type plan struct {
	redact  bool
	decoys  int
	each    *plan // for every element of an array
	members map[string]*plan
	at      map[int]*plan // elements
	matched bool          // the place exists
	asked   Path          // the path that led here, for messages
}

// planFor returns the plan of the whole claims set.
func (r *redactor) planFor(redact []Path, decoys []Decoy) (*plan, error) {
	root := &r.root
	root.matched = true
	if root.members == nil {
		root.members = make(map[string]*plan, len(redact))
	}
	r.plans = slices.Grow(r.plans[:0], len(redact))[:len(redact)]
	fresh := r.plans
	for _, p := range redact {
		at, err := root.descend(p, &fresh)
		if err != nil {
			return nil, err
		}
		at.redact = true
	}
	for _, d := range decoys {
		at, err := root.descend(d.At, &fresh)
		if err != nil {
			return nil, err
		}
		if d.Count < 0 {
			return nil, fmt.Errorf("sdjwt: %d decoys at %s", d.Count, d.At)
		}
		at.decoys += d.Count
	}
	return root, nil
}

// plans are made together, one for each path at least.
type plans []plan

func (f *plans) take() *plan {
	if len(*f) == 0 {
		*f = make(plans, 8)
	}
	p := &(*f)[0]
	*f = (*f)[1:]
	return p
}

// descend returns the plan at a path, and takes it from fresh if need be.
func (p *plan) descend(path Path, fresh *plans) (*plan, error) {
	for i, step := range path {
		next := p.next(step)
		if next == nil {
			next = fresh.take()
			next.asked = path[:i+1]
			if err := p.put(step, next); err != nil {
				return nil, fmt.Errorf("sdjwt: step %d of the path %s: %w", i+1, path, err)
			}
		}
		p = next
	}
	return p, nil
}

// next returns the plan one step below, or nil.
func (p *plan) next(step any) *plan {
	switch step := step.(type) {
	case nil:
		return p.each
	case string:
		return p.members[step]
	case int:
		return p.at[step]
	}
	return nil
}

func (p *plan) put(step any, next *plan) error {
	switch step := step.(type) {
	case nil:
		p.each = next
	case string:
		if p.members == nil {
			p.members = make(map[string]*plan)
		}
		p.members[step] = next
	case int:
		if p.at == nil {
			p.at = make(map[int]*plan)
		}
		p.at[step] = next
	default:
		return fmt.Errorf("%T is neither string nor int nor nil", step)
	}
	return nil
}

// below returns the plans one step below by their steps.
func (p *plan) below() iter.Seq2[any, *plan] {
	return func(yield func(any, *plan) bool) {
		if p.each != nil && !yield(nil, p.each) {
			return
		}
		for step, next := range p.members {
			if !yield(step, next) {
				return
			}
		}
		for step, next := range p.at {
			if !yield(step, next) {
				return
			}
		}
	}
}

// unmatched returns a path that names nothing in the claims, or nil.
func (p *plan) unmatched() Path {
	if !p.matched {
		return p.asked
	}
	for _, next := range p.below() {
		if miss := next.unmatched(); miss != nil {
			return miss
		}
	}
	return nil
}

// A redactor replaces claims by digests, from the bottom up (RFC 9901 section
// 4.2): the value in a Disclosure may itself have redacted parts.
//
// One redactor serves many tokens, one after the other, since its memory is much
// of what they cost.
type redactor struct {
	hash   *hashAlg
	salts  saltSource
	writer disclosureWriter
	order  []digestAt // of the objects that are being redacted
	root   plan
	plans  plans // most of those below root
}

var redactors = sync.Pool{New: func() any { return new(redactor) }}

// release forgets the token and keeps the memory.
func (r *redactor) release() {
	const most = 1 << 18
	r.salts.reset()
	w := &r.writer
	for _, b := range []*[]byte{&w.json, &w.text, &w.digests} {
		if *b = (*b)[:0]; cap(*b) > most {
			*b = nil
		}
	}
	if w.ends, r.order = w.ends[:0], r.order[:0]; cap(w.ends)+cap(r.order) > most {
		w.ends, r.order = nil, nil
	}
	clear(r.plans)
	clear(r.root.members)
	r.root = plan{members: r.root.members}
	if len(r.plans) > 1<<10 {
		r.plans, r.root.members = nil, nil
	}
	redactors.Put(r)
}

// value returns v with what its plan names replaced. v is used up.
func (r *redactor) value(v any, p *plan) (any, error) {
	if p == nil {
		return v, checkReserved(v)
	}
	p.matched = true
	switch v := v.(type) {
	case *jose.Object:
		return v, r.object(v, p)
	case []any:
		return r.array(v, p)
	}
	if p.decoys > 0 {
		return nil, fmt.Errorf("sdjwt: decoys at %s, which is neither object nor array", p.asked)
	}
	return v, nil
}

func (r *redactor) object(o *jose.Object, p *plan) error {
	from := len(r.order)
	kept := o.Members[:0]
	for _, m := range o.Members {
		if reserved(m.Name) {
			return fmt.Errorf("sdjwt: a claim may not be called %q", m.Name)
		}
		below := p.members[m.Name]
		v, err := r.value(m.Value, below)
		if err != nil {
			return err
		}
		if below == nil || !below.redact {
			kept = append(kept, jose.Member{Name: m.Name, Value: v})
			continue
		}
		r.order = append(r.order, r.writer.property(r.hash, &r.salts, m.Name, v))
	}
	o.Members = kept
	for range p.decoys {
		r.order = append(r.order, r.decoy())
	}
	if len(r.order) > from { // sorted, which hides the order of the claims
		o.Members = append(o.Members, jose.Member{Name: keySD, Value: r.writer.sorted(r.hash, r.order[from:])})
		r.order = r.order[:from]
	}
	return nil
}

// decoy returns a digest that stands for nothing.
func (r *redactor) decoy() digestAt { return r.writer.digest(r.hash, r.salts.append(nil)) }

// dots returns what stands for a redacted element of an array.
func (r *redactor) dots(d digestAt) *jose.Object {
	return new(jose.Object).Add(keyDots, string(r.writer.of(r.hash, d)))
}

func (r *redactor) array(list []any, p *plan) (any, error) {
	out := make([]any, 0, len(list)+p.decoys)
	for i, e := range list {
		below := p.at[i]
		if below == nil {
			below = p.each
		} else if p.each != nil {
			below = below.merge(p.each)
		}
		v, err := r.value(e, below)
		if err != nil {
			return nil, err
		}
		if below != nil && below.redact {
			v = r.dots(r.writer.element(r.hash, &r.salts, v))
		}
		out = append(out, v)
	}
	if p.each != nil {
		p.each.matched = true // also of an empty array
	}
	for range p.decoys {
		at, err := rand.Int(rand.Reader, big.NewInt(int64(len(out)+1)))
		if err != nil {
			return nil, err
		}
		out = slices.Insert(out, int(at.Int64()), any(r.dots(r.decoy())))
	}
	return out, nil
}

// merge returns a plan that asks for what p and q ask for.
func (p *plan) merge(q *plan) *plan {
	p.matched, q.matched = true, true
	m := &plan{redact: p.redact || q.redact, decoys: p.decoys + q.decoys, asked: p.asked, matched: true}
	for _, from := range []*plan{p, q} {
		for step, next := range from.below() {
			if other := m.next(step); other != nil {
				next = other.merge(next)
			}
			m.put(step, next) // a step that is in a plan already
		}
	}
	return m
}

// checkReserved refuses the reserved names where nothing is redacted.
func checkReserved(v any) error {
	switch v := v.(type) {
	case *jose.Object:
		for _, m := range v.Members {
			if reserved(m.Name) {
				return fmt.Errorf("sdjwt: a claim may not be called %q", m.Name)
			}
			if err := checkReserved(m.Value); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := checkReserved(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// saltOctets is the entropy of a salt: the 128 bits of RFC 9901 section 9.3.
const saltOctets = 16

// A saltSource draws salts from crypto/rand, many at a time.
type saltSource struct {
	octets []byte
	fresh  []byte // those of octets that were not given out
	drawn  bool   // a salt was drawn
}

// draw draws n salts at once.
func (s *saltSource) draw(n int) {
	s.octets = slices.Grow(s.octets[:0], n*saltOctets)[:n*saltOctets]
	rand.Read(s.octets) // which never fails, crypto/rand says
	s.fresh = s.octets
}

func (s *saltSource) reset() {
	clear(s.octets)
	if cap(s.octets) > 1<<16 {
		s.octets = nil
	}
	s.fresh, s.drawn = nil, false
}

// append appends a salt in base64url that was never used before.
func (s *saltSource) append(b []byte) []byte {
	s.drawn = true
	if len(s.fresh) == 0 {
		s.draw(16)
	}
	b = base64.RawURLEncoding.AppendEncode(b, s.fresh[:saltOctets])
	s.fresh = s.fresh[saltOctets:]
	return b
}
