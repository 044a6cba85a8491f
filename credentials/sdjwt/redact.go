package sdjwt

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"iter"
	"math/big"
	"slices"

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

func newPlan(redact []Path, decoys []Decoy) (*plan, error) {
	root := &plan{matched: true, members: make(map[string]*plan, len(redact))}
	fresh := make(plans, len(redact))
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
type redactor struct {
	hash        *hashAlg
	salts       saltSource
	writer      disclosureWriter
	disclosures []string
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
	digests := make([]string, 0, len(p.members)+p.decoys)
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
		text, digest := r.writer.property(r.hash, &r.salts, m.Name, v)
		r.disclosures = append(r.disclosures, text)
		digests = append(digests, digest)
	}
	o.Members = kept
	for range p.decoys {
		digests = append(digests, r.decoy())
	}
	if len(digests) > 0 {
		slices.Sort(digests) // which hides the order of the claims
		o.Members = append(o.Members, jose.Member{Name: keySD, Value: digests})
	}
	return nil
}

// decoy returns a digest that stands for nothing.
func (r *redactor) decoy() string { return r.writer.digest(r.hash, r.salts.append(nil)) }

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
			text, digest := r.writer.element(r.hash, &r.salts, v)
			r.disclosures = append(r.disclosures, text)
			v = new(jose.Object).Add(keyDots, digest)
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
		decoy := new(jose.Object).Add(keyDots, r.decoy())
		out = slices.Insert(out, int(at.Int64()), any(decoy))
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
	fresh []byte
	drawn bool // a salt was drawn
}

// append appends a salt in base64url that was never used before.
func (s *saltSource) append(b []byte) []byte {
	const batch = 16 * saltOctets
	s.drawn = true
	if len(s.fresh) == 0 {
		s.fresh = make([]byte, batch)
		rand.Read(s.fresh) // which never fails, crypto/rand says
	}
	b = base64.RawURLEncoding.AppendEncode(b, s.fresh[:saltOctets])
	clear(s.fresh[:saltOctets])
	s.fresh = s.fresh[saltOctets:]
	return b
}
