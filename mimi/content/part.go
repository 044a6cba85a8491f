package content

import (
	"iter"
	"strconv"
	"strings"
)

// Walk yields every part with its part index: zero-based, depth first, a
// MultiPart before its parts.
func (p *NestedPart) Walk() iter.Seq2[int, *NestedPart] {
	return func(yield func(int, *NestedPart) bool) {
		index := 0
		p.walk(&index, yield)
	}
}

func (p *NestedPart) walk(index *int, yield func(int, *NestedPart) bool) bool {
	if !yield(*index, p) {
		return false
	}
	*index++
	if multi, ok := p.Content.(*MultiPart); ok {
		for i := range multi.Parts {
			if !multi.Parts[i].walk(index, yield) {
				return false
			}
		}
	}
	return true
}

// Part returns the part with an index, or nil.
func (p *NestedPart) Part(index int) *NestedPart {
	for i, part := range p.Walk() {
		if i == index {
			return part
		}
	}
	return nil
}

// CID returns the content ID URI (RFC 2392) by which one part of a message
// refers to another.
func CID(index int) string { return "cid:" + strconv.Itoa(index) + "@local.invalid" }

// ResolveCID returns the part that a content ID URI in this body refers to, or
// nil: only a SinglePart or an ExternalPart may be referred to.
func (p *NestedPart) ResolveCID(uri string) *NestedPart {
	digits, ok := strings.CutPrefix(uri, "cid:")
	if !ok {
		return nil
	}
	digits, ok = strings.CutSuffix(digits, "@local.invalid")
	index, err := strconv.Atoi(digits)
	if !ok || err != nil || index < 0 || CID(index) != uri {
		return nil
	}
	part := p.Part(index)
	if part == nil {
		return nil
	}
	switch part.Content.(type) {
	case *SinglePart, *ExternalPart:
		return part
	}
	return nil
}

// IsNull reports whether the body is absent.
func (p *NestedPart) IsNull() bool {
	_, ok := p.Content.(NullPart)
	return ok
}
