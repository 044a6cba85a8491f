package content

import (
	"errors"
	"math"

	"github.com/privyseal/privyseal/internal/dcbor"
)

// Parse decodes a message. It takes only the deterministic encoding of a
// message that obeys every limit of the draft, and nothing after it.
func Parse(encoded []byte) (*Message, error) {
	v, err := dcbor.Limits{Size: MaxMessage, Deterministic: true}.Decode(encoded)
	if err != nil {
		return nil, &Error{Code: syntaxCode(err), Detail: err.Error(), Err: err}
	}
	items, err := arrayOf(v, "message", 7)
	if err != nil {
		return nil, err
	}
	m := new(Message)
	p := parser{}
	copy(m.Salt[:], p.octets(items[0], "salt", CodeSalt, SaltSize, SaltSize))
	m.Replaces = p.messageID(items[1], "replaces")
	m.TopicID = p.octets(items[2], "topicId", CodeTopicID, 0, MaxTopicID)
	m.Expires = p.expiration(items[3])
	m.InReplyTo = p.messageID(items[4], "inReplyTo")
	if p.err == nil {
		m.Extensions, p.err = parseExtensions(items[5])
	}
	m.Body = p.part(items[6], "nestedPart", 1)
	if p.err != nil {
		return nil, p.err
	}
	return m, nil
}

func syntaxCode(err error) Code {
	switch {
	case errors.Is(err, dcbor.ErrTooLarge), errors.Is(err, dcbor.ErrTooDeep):
		return CodeTooLarge
	case errors.Is(err, dcbor.ErrNotDeterministic), errors.Is(err, dcbor.ErrIndefinite):
		return CodeNotDeterministic
	}
	return CodeMalformed
}

func arrayOf(v dcbor.Value, where string, n int) ([]dcbor.Value, error) {
	items, ok := v.Elements()
	if !ok {
		return nil, refuse(CodeShape, where, "%s, want an array", v.Kind())
	}
	if len(items) != n {
		return nil, refuse(CodeShape, where, "array of %d items, want %d", len(items), n)
	}
	return items, nil
}

// A parser keeps the first error, so that fields can be read in a row.
type parser struct {
	err   error
	parts int
}

func (p *parser) fail(code Code, where, format string, args ...any) {
	if p.err == nil {
		p.err = refuse(code, where, format, args...)
	}
}

func (p *parser) octets(v dcbor.Value, where string, code Code, least, most int) []byte {
	b, ok := v.Bytes()
	if !ok {
		p.fail(CodeShape, where, "%s, want bytes", v.Kind())
	} else if len(b) < least || len(b) > most {
		p.fail(code, where, "%d octets, want %d to %d", len(b), least, most)
	}
	return b
}

func (p *parser) text(v dcbor.Value, where string) string {
	s, ok := v.Text()
	if !ok {
		p.fail(CodeShape, where, "%s, want text", v.Kind())
	}
	return s
}

func (p *parser) uint(v dcbor.Value, where string, code Code, most uint64) uint64 {
	n, ok := v.Uint()
	if !ok {
		p.fail(CodeShape, where, "%s, want an unsigned integer", v.Kind())
	} else if n > most {
		p.fail(code, where, "%d, want at most %d", n, most)
	}
	return n
}

func (p *parser) messageID(v dcbor.Value, where string) *MessageID {
	if v.IsSimple(22) {
		return nil
	}
	b := p.octets(v, where, CodeMessageID, MessageIDSize, MessageIDSize)
	if p.err != nil {
		return nil
	}
	id := MessageID(b)
	if id[0] != hashSHA256 {
		p.fail(CodeHashAlgorithm, where, "message ID of hash algorithm %d, want %d (SHA-256)", id[0], hashSHA256)
	}
	return &id
}

func (p *parser) expiration(v dcbor.Value) *Expiration {
	if v.IsSimple(22) || p.err != nil {
		return nil
	}
	items, err := arrayOf(v, "expires", 2)
	if err != nil {
		p.err = err
		return nil
	}
	relative, ok := items[0].Bool()
	if !ok {
		p.fail(CodeShape, "expires.relative", "%s, want true or false", items[0].Kind())
	}
	return &Expiration{Relative: relative, Time: uint32(p.uint(items[1], "expires.time", CodeExpires, math.MaxUint32))}
}

// cardinalities gives the length of a NestedPart for each cardinality.
var cardinalities = map[uint64]int{nullPart: 3, singlePart: 5, externalPart: 15, multiPart: 5}

func (p *parser) part(v dcbor.Value, where string, depth int) NestedPart {
	if p.err != nil {
		return NestedPart{}
	}
	if p.parts++; p.parts > MaxParts {
		p.fail(CodePartCount, where, "more than %d parts", MaxParts)
	}
	if depth > MaxPartDepth {
		p.fail(CodePartDepth, where, "more than %d levels of parts", MaxPartDepth)
	}
	items, ok := v.Elements()
	if !ok || len(items) < 3 {
		p.fail(CodeShape, where, "%s, want an array of at least 3 items", v.Kind())
	}
	if p.err != nil {
		return NestedPart{}
	}
	part := NestedPart{
		Disposition: Disposition(p.uint(items[0], where+".disposition", CodeDisposition, math.MaxUint8)),
		Language:    p.text(items[1], where+".language"),
	}
	cardinality := p.uint(items[2], where+".cardinality", CodeCardinality, multiPart)
	if want := cardinalities[cardinality]; p.err == nil && len(items) != want {
		p.fail(CodeShape, where, "array of %d items for cardinality %d, want %d", len(items), cardinality, want)
	}
	if p.err != nil {
		return NestedPart{}
	}
	part.Content = p.content(cardinality, items[3:], where, depth)
	return part
}

func (p *parser) content(cardinality uint64, items []dcbor.Value, where string, depth int) Content {
	switch cardinality {
	case singlePart:
		return &SinglePart{
			ContentType: p.text(items[0], where+".contentType"),
			Content:     p.octets(items[1], where+".content", CodeShape, 0, MaxMessage),
		}
	case externalPart:
		return p.external(items, where)
	case multiPart:
		return p.multi(items, where, depth)
	}
	return NullPart{}
}

func (p *parser) external(items []dcbor.Value, where string) *ExternalPart {
	octets := func(i int, name string) []byte { return p.octets(items[i], where+"."+name, CodeShape, 0, MaxMessage) }
	return &ExternalPart{
		ContentType: p.text(items[0], where+".contentType"),
		URL:         p.text(items[1], where+".url"),
		Expires:     uint32(p.uint(items[2], where+".expires", CodeRange, math.MaxUint32)),
		Size:        p.uint(items[3], where+".size", CodeRange, math.MaxUint64),
		EncAlg:      uint16(p.uint(items[4], where+".encAlg", CodeRange, math.MaxUint16)),
		Key:         octets(5, "key"),
		Nonce:       octets(6, "nonce"),
		AAD:         octets(7, "aad"),
		HashAlg:     uint8(p.uint(items[8], where+".hashAlg", CodeRange, math.MaxUint8)),
		ContentHash: octets(9, "contentHash"),
		Description: p.text(items[10], where+".description"),
		Filename:    p.text(items[11], where+".filename"),
	}
}

func (p *parser) multi(items []dcbor.Value, where string, depth int) *MultiPart {
	m := &MultiPart{Semantics: PartSemantics(p.uint(items[0], where+".partSemantics", CodePartSemantics, uint64(ProcessAll)))}
	parts, ok := items[1].Elements()
	if !ok {
		p.fail(CodeShape, where+".parts", "%s, want an array", items[1].Kind())
	} else if len(parts) < 2 {
		p.fail(CodePartCount, where+".parts", "%d parts, want at least 2", len(parts))
	} else if len(parts) > MaxParts {
		p.fail(CodePartCount, where+".parts", "more than %d parts", MaxParts)
	}
	if p.err != nil {
		return m
	}
	m.Parts = make([]NestedPart, len(parts))
	for i, v := range parts {
		m.Parts[i] = p.part(v, partName(where, i), depth+1)
	}
	return m
}
