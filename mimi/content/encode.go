package content

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// Encode returns m in deterministic CBOR. It refuses a message that Parse
// would refuse.
func (m *Message) Encode() ([]byte, error) {
	ext, err := m.Extensions.value()
	if err != nil {
		return nil, err
	}
	body, err := m.Body.value("nestedPart", 1)
	if err != nil {
		return nil, err
	}
	encoded := dcbor.Encode(dcbor.NewArray(
		dcbor.NewBytes(m.Salt[:]),
		m.Replaces.value(),
		dcbor.NewBytes(m.TopicID),
		m.Expires.value(),
		m.InReplyTo.value(),
		ext,
		body,
	))
	if _, err := Parse(encoded); err != nil {
		return nil, err
	}
	return encoded, nil
}

func (id *MessageID) value() dcbor.Value {
	if id == nil {
		return dcbor.NewNull()
	}
	return dcbor.NewBytes(id[:])
}

func (e *Expiration) value() dcbor.Value {
	if e == nil {
		return dcbor.NewNull()
	}
	return dcbor.NewArray(dcbor.NewBool(e.Relative), dcbor.NewUint(uint64(e.Time)))
}

func (p *NestedPart) value(where string, depth int) (dcbor.Value, error) {
	if depth > MaxPartDepth {
		return dcbor.Value{}, refuse(CodePartDepth, where, "more than %d levels of parts", MaxPartDepth)
	}
	if p.Content == nil {
		return dcbor.Value{}, refuse(CodeCardinality, where, "no content; a body without content is a NullPart")
	}
	items := []dcbor.Value{
		dcbor.NewUint(uint64(p.Disposition)),
		dcbor.NewText(p.Language),
		dcbor.NewUint(p.Content.cardinality()),
	}
	switch c := p.Content.(type) {
	case *SinglePart:
		items = append(items, dcbor.NewText(c.ContentType), dcbor.NewBytes(c.Content))
	case *ExternalPart:
		items = append(items, c.items()...)
	case *MultiPart:
		parts := make([]dcbor.Value, len(c.Parts))
		for i := range c.Parts {
			v, err := c.Parts[i].value(partName(where, i), depth+1)
			if err != nil {
				return dcbor.Value{}, err
			}
			parts[i] = v
		}
		items = append(items, dcbor.NewUint(uint64(c.Semantics)), dcbor.NewArray(parts...))
	}
	return dcbor.NewArray(items...), nil
}

func (c *ExternalPart) items() []dcbor.Value {
	return []dcbor.Value{
		dcbor.NewText(c.ContentType),
		dcbor.NewText(c.URL),
		dcbor.NewUint(uint64(c.Expires)),
		dcbor.NewUint(c.Size),
		dcbor.NewUint(uint64(c.EncAlg)),
		dcbor.NewBytes(c.Key),
		dcbor.NewBytes(c.Nonce),
		dcbor.NewBytes(c.AAD),
		dcbor.NewUint(uint64(c.HashAlg)),
		dcbor.NewBytes(c.ContentHash),
		dcbor.NewText(c.Description),
		dcbor.NewText(c.Filename),
	}
}

func partName(where string, i int) string { return fmt.Sprintf("%s.parts[%d]", where, i) }
