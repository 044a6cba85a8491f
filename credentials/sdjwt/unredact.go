package sdjwt

import (
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// An unredactor puts disclosed claims back into a payload: rows 5 to 8 of the
// verification, RFC 9901 section 7.1 steps 3 to 5. One walk does the work of
// its steps (*) and (**): what a Disclosure brings in is walked in its turn.
type unredactor struct {
	byDigest  map[string]*disclosure
	seen      map[string]struct{} // every digest found so far
	permanent []string            // top-level claims that no Disclosure may bring in or alter
	depth     int
	hasSD     bool // an _sd was found

	trace bool        // keep path and parent of each disclosure
	at    Path        // where the walk is, when tracing
	from  *disclosure // in whose value it is
}

// parseDisclosures reads the Disclosures of a token and returns them by digest.
func (u *unredactor) parseDisclosures(t *Token, h *hashAlg) ([]*disclosure, error) {
	u.byDigest = make(map[string]*disclosure, len(t.disclosures))
	u.seen = make(map[string]struct{}, len(t.disclosures)+8)
	all := make([]*disclosure, len(t.disclosures))
	for i, text := range t.disclosures {
		d, err := parseDisclosure(i, text, u.depth)
		if err != nil {
			return nil, err
		}
		digest := h.digest([]byte(text))
		if u.byDigest[digest] != nil {
			return nil, credentials.Errorf(credentials.CodeDisclosureDuplicate, disclosureName(i), "the same Disclosure is there twice")
		}
		u.byDigest[digest], all[i] = d, d
	}
	return all, nil
}

// run returns the processed payload. payload is used up.
func (u *unredactor) run(payload *jose.Object, all []*disclosure) (*jose.Object, error) {
	if err := u.object(payload, "", 1); err != nil {
		return nil, err
	}
	for i, d := range all {
		if !d.used {
			return nil, credentials.Errorf(credentials.CodeDisclosureUnmatched, disclosureName(i), "no digest refers to it")
		}
	}
	return payload, nil
}

func whereTop(top string) string {
	if top == "" {
		return "payload"
	}
	return "payload." + top
}

// object unredacts an object in place. depth counts it: the payload itself is
// at 1. Below that, top is the top-level claim that it belongs to.
func (u *unredactor) object(o *jose.Object, top string, depth int) error {
	if depth > u.depth {
		return credentials.Errorf(credentials.CodeDepth, whereTop(top), "more than %d nested values", u.depth)
	}
	if o.Has(keyDots) {
		return credentials.Errorf(credentials.CodeHashShape, whereTop(top), `"..." may only stand alone in an element of an array, with one digest`)
	}
	if depth > 1 && o.Has(keySDAlg) {
		return credentials.Errorf(credentials.CodeSDAlg, whereTop(top), "_sd_alg below the top level")
	}
	given := len(o.Members)
	inserted, err := u.digests(o, top, depth)
	if err != nil {
		return err
	}
	if err := u.members(o, top, depth, given, inserted); err != nil {
		return err
	}
	o.Members = slices.DeleteFunc(o.Members, func(m jose.Member) bool {
		return m.Name == keySD || m.Name == keySDAlg
	})
	return nil
}

// digests appends the members that the _sd of o stands for, and returns their
// Disclosures in the same order.
func (u *unredactor) digests(o *jose.Object, top string, depth int) ([]*disclosure, error) {
	v, there := o.Get(keySD)
	if !there {
		return nil, nil
	}
	u.hasSD = true
	list, ok := v.([]any)
	if !ok {
		return nil, credentials.Errorf(credentials.CodeHashShape, whereTop(top), "_sd is not an array")
	}
	var inserted []*disclosure
	for _, e := range list {
		digest, ok := e.(string)
		if !ok {
			return nil, credentials.Errorf(credentials.CodeHashShape, whereTop(top), "_sd has an element that is not a string")
		}
		d, err := u.take(digest, top, false)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		if err := u.admit(o, d, top, depth); err != nil {
			return nil, err
		}
		o.Members = append(o.Members, jose.Member{Name: d.name, Value: d.value})
		inserted = append(inserted, d)
	}
	return inserted, nil
}

// take notes a digest and returns its Disclosure, or nil for one that is not
// there: undisclosed, or a decoy.
func (u *unredactor) take(digest, top string, element bool) (*disclosure, error) {
	if _, twice := u.seen[digest]; twice {
		return nil, credentials.Errorf(credentials.CodeHashDuplicate, whereTop(top), "a digest occurs twice")
	}
	u.seen[digest] = struct{}{}
	d := u.byDigest[digest]
	if d == nil {
		return nil, nil
	}
	if d.element != element {
		return nil, credentials.Errorf(credentials.CodeDisclosureShape, whereTop(top),
			"the Disclosure of a property stands for an array element, or the reverse")
	}
	if top != "" && top != "aud" && slices.Contains(u.permanent, top) {
		return nil, credentials.Errorf(credentials.CodeDisclosureForbiddenKey, whereTop(top), "nothing in this claim may be selectively disclosable")
	}
	d.used = true
	return d, nil
}

// admit checks the name that a Disclosure adds to o.
func (u *unredactor) admit(o *jose.Object, d *disclosure, top string, depth int) error {
	if reserved(d.name) {
		return credentials.Errorf(credentials.CodeDisclosureForbiddenKey, whereTop(top), "a Disclosure has the reserved name %q", d.name)
	}
	if depth == 1 && slices.Contains(u.permanent, d.name) {
		return credentials.Errorf(credentials.CodeDisclosureForbiddenKey, "payload", "%q may not be selectively disclosable", d.name)
	}
	if o.Has(d.name) {
		return credentials.Errorf(credentials.CodeDisclosureKeyCollision, whereTop(top), "a Disclosure has a name that is already there")
	}
	return nil
}

// members walks the members of o; those from index given on were inserted.
func (u *unredactor) members(o *jose.Object, top string, depth, given int, inserted []*disclosure) error {
	for i := range o.Members {
		m := &o.Members[i]
		if m.Name == keySD {
			continue
		}
		below := top
		if depth == 1 {
			below = m.Name
		}
		var d *disclosure
		if i >= given {
			d = inserted[i-given]
		}
		v, err := u.value(m.Value, m.Name, d, below, depth+1)
		if err != nil {
			return err
		}
		m.Value = v
	}
	return nil
}

// value walks the value at one step below; d is the Disclosure that brought it
// in, or nil.
func (u *unredactor) value(v any, step any, d *disclosure, top string, depth int) (any, error) {
	if !u.trace {
		return u.container(v, top, depth)
	}
	from := u.from
	u.at = append(u.at, step)
	if d != nil {
		d.path, d.parent, u.from = slices.Clone(u.at), from, d
	}
	v, err := u.container(v, top, depth)
	u.at, u.from = u.at[:len(u.at)-1], from
	return v, err
}

func (u *unredactor) container(v any, top string, depth int) (any, error) {
	switch v := v.(type) {
	case *jose.Object:
		return v, u.object(v, top, depth)
	case []any:
		return u.array(v, top, depth)
	}
	return v, nil
}

// array returns the array with its disclosed elements, and without those that
// are not.
func (u *unredactor) array(list []any, top string, depth int) (any, error) {
	if depth > u.depth {
		return nil, credentials.Errorf(credentials.CodeDepth, whereTop(top), "more than %d nested values", u.depth)
	}
	out := list[:0]
	for _, e := range list {
		digest, redacted, err := redactedElement(e, top)
		if err != nil {
			return nil, err
		}
		var d *disclosure
		if redacted {
			if d, err = u.take(digest, top, true); err != nil {
				return nil, err
			}
			if d == nil {
				continue
			}
			e = d.value
		}
		if e, err = u.value(e, len(out), d, top, depth+1); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// redactedElement returns the digest of {"...": digest}, and whether e is that.
func redactedElement(e any, top string) (digest string, redacted bool, err error) {
	o, ok := e.(*jose.Object)
	if !ok || len(o.Members) == 0 || !o.Has(keyDots) {
		return "", false, nil
	}
	digest, _, ok = o.Text(keyDots)
	if !ok || len(o.Members) != 1 {
		return "", false, credentials.Errorf(credentials.CodeHashShape, whereTop(top), `a redacted element is not {"...": digest}`)
	}
	return digest, true, nil
}
