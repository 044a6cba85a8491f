package sdcwt

import (
	"bytes"
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A claimsShape checks claims maps of an issued SD-CWT (section 5): types of
// keys, depth, and the two places where a hash may stand. One claimsShape
// serves all claims maps of a token, since no hash may occur twice in it.
type claimsShape struct {
	where  string
	size   int                 // octets of a hash
	hashes [][]byte            // all that were met
	seen   map[string]struct{} // the same, once distinct needs it
}

// newClaimsShape returns a claimsShape for about the given number of hashes.
func newClaimsShape(h Hash, about int) *claimsShape {
	return &claimsShape{where: "claims", size: h.size(), hashes: make([][]byte, 0, about)}
}

// claimsMap checks a top-level claims map.
func (c *claimsShape) claimsMap(v dcbor.Value) error {
	if v.Kind() != dcbor.Map {
		return credentials.Errorf(credentials.CodeMalformed, c.where, "the claims set is a %s, want a map", v.Kind())
	}
	before := len(c.hashes)
	if err := c.value(v, 0); err != nil {
		return err
	}
	if err := c.distinct(before); err != nil {
		return err
	}
	for _, key := range neverRedacted {
		if err := safe(v.GetInt(key), c.where); err != nil {
			return credentials.Errorf(credentials.CodeDisclosureForbiddenKey, c.where, "something is redacted inside claim %d", key)
		}
	}
	return nil
}

// disclosed checks the value of a disclosure, which stands at level.
func (c *claimsShape) disclosed(v dcbor.Value, level int) error {
	before := len(c.hashes)
	if err := c.value(v, level); err != nil {
		return err
	}
	return c.distinct(before)
}

// distinct refuses a hash, from the given index of hashes on, that stands in
// two places. All hashes of most tokens are in one claims map, in order; those
// are sorted, which needs no table.
func (c *claimsShape) distinct(from int) error {
	twice := false
	if from == 0 {
		slices.SortFunc(c.hashes, bytes.Compare)
		for i := 1; i < len(c.hashes); i++ {
			twice = twice || bytes.Equal(c.hashes[i-1], c.hashes[i])
		}
	} else if from < len(c.hashes) {
		if c.seen == nil {
			c.seen = make(map[string]struct{}, len(c.hashes))
			for _, h := range c.hashes[:from] {
				c.seen[string(h)] = struct{}{}
			}
		}
		for _, h := range c.hashes[from:] {
			if _, before := c.seen[string(h)]; before {
				twice = true
			}
			c.seen[string(h)] = struct{}{}
		}
	}
	if twice {
		return credentials.Errorf(credentials.CodeHashDuplicate, c.where, "a redacted claim hash stands in two places")
	}
	return nil
}

// value checks v, which stands at level. The caller makes sure that the hashes
// it met are distinct.
func (c *claimsShape) value(v dcbor.Value, level int) error {
	if err := c.level(level); err != nil {
		return err
	}
	switch v.Kind() {
	case dcbor.Map:
		return c.pairs(v, level+1)
	case dcbor.Array:
		elements, _ := v.Elements()
		for _, e := range elements {
			if err := c.element(e, level+1); err != nil {
				return err
			}
		}
	case dcbor.Tag:
		n, content, _ := v.Tagged()
		if reservedTag(n) {
			return credentials.Errorf(credentials.CodeHashShape, c.where, "tag %d outside its place", n)
		}
		return c.value(content, level+1)
	case dcbor.Simple:
		if v.IsSimple(simpleRedactedKeys) {
			return credentials.Errorf(credentials.CodeHashShape, c.where, "simple(59) as a value")
		}
	}
	return nil
}

func (c *claimsShape) level(level int) error {
	if level > maxDepth {
		return credentials.Errorf(credentials.CodeDepth, c.where, "deeper than %d levels", maxDepth)
	}
	return nil
}

func (c *claimsShape) pairs(m dcbor.Value, level int) error {
	for key, value := range m.Pairs() {
		if key.IsSimple(simpleRedactedKeys) {
			if err := c.redactedKeys(value, level); err != nil {
				return err
			}
			continue
		}
		if err := checkKey(key, c.where); err != nil {
			return err
		}
		if err := c.value(value, level); err != nil {
			return err
		}
	}
	return nil
}

// redactedKeys checks the value of simple(59): [ * bstr ].
func (c *claimsShape) redactedKeys(v dcbor.Value, level int) error {
	hashes, ok := v.Elements()
	if !ok {
		return credentials.Errorf(credentials.CodeHashShape, c.where, "simple(59) has a %s, want an array", v.Kind())
	}
	if err := c.level(level); err != nil {
		return err
	}
	for _, h := range hashes {
		if err := c.hash(h, level+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *claimsShape) element(v dcbor.Value, level int) error {
	if n, content, ok := v.Tagged(); ok && n == tagRedacted {
		return c.hash(content, level+1)
	}
	return c.value(v, level)
}

func (c *claimsShape) hash(v dcbor.Value, level int) error {
	if err := c.level(level); err != nil {
		return err
	}
	h, ok := v.Bytes()
	if !ok || len(h) != c.size {
		return credentials.Errorf(credentials.CodeHashShape, c.where, "a redacted claim hash is no byte string of %d octets", c.size)
	}
	c.hashes = append(c.hashes, h)
	return nil
}

// checkKey checks a map key that may stand in any CWT.
func checkKey(key dcbor.Value, where string) error {
	if key.IsInteger() || key.Kind() == dcbor.Text && key.Size() <= maxKeyText {
		return nil
	}
	return credentials.Errorf(credentials.CodeClaimsKey, where, "a map key is neither an integer nor text of at most %d octets", maxKeyText)
}

func reservedTag(n uint64) bool {
	return n == tagToBeRedacted || n == tagRedacted || n == tagToBeDecoy
}

// safe checks an item outside the claims maps, where nothing of SD-CWT's own
// may stand: safe_value of the draft's CDDL.
func safe(v dcbor.Value, where string) error {
	switch v.Kind() {
	case dcbor.Map:
		for key, value := range v.Pairs() {
			if err := checkKey(key, where); err != nil {
				return err
			}
			if err := safe(value, where); err != nil {
				return err
			}
		}
	case dcbor.Array:
		elements, _ := v.Elements()
		for _, e := range elements {
			if err := safe(e, where); err != nil {
				return err
			}
		}
	case dcbor.Tag:
		n, content, _ := v.Tagged()
		if reservedTag(n) {
			return credentials.Errorf(credentials.CodeClaimsKey, where, "tag %d outside the claims of an SD-CWT", n)
		}
		return safe(content, where)
	case dcbor.Simple:
		if v.IsSimple(simpleRedactedKeys) {
			return credentials.Errorf(credentials.CodeClaimsKey, where, "simple(59) outside the claims of an SD-CWT")
		}
	}
	return nil
}

// safeHeader checks a header map, except for the labels that have rules of
// their own.
func safeHeader(header dcbor.Value, where string, except ...int64) error {
	for label, value := range header.Pairs() {
		if err := checkKey(label, where); err != nil {
			return err
		}
		if n, ok := label.Int(); ok && slices.Contains(except, n) {
			continue
		}
		if err := safe(value, where); err != nil {
			return err
		}
	}
	return nil
}
