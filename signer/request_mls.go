package signer

import (
	"bytes"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// MLSContent is RFC 9420 section 5.1.2:
//
//	struct {
//	    opaque label<V> = "MLS 1.0 " + Label;
//	    opaque content<V>;
//	} SignContent;
type MLSContent struct {
	Label   string // without "MLS 1.0 "; binary for a ComponentOperationLabel
	Content []byte
	Fields  *MLSFields // nil for a label whose content is not looked into
}

const (
	mlsPrefix   = "MLS 1.0 "
	maxMLSLabel = 255 // octets, prefix included
)

// looksLikeMLS reports whether b is a vector length and then "MLS 1.0 ". A
// label is short, so its length has one octet or two.
func looksLikeMLS(b []byte) bool {
	return len(b) > 1 && (bytes.HasPrefix(b[1:], []byte(mlsPrefix)) && b[0] < 0x40 ||
		b[0] == 0x40 && bytes.HasPrefix(b[2:], []byte(mlsPrefix)))
}

// MLSRequest builds the Request for SignWithLabel(., label, content).
func MLSRequest(label string, content []byte) (*Request, error) {
	if len(content) > MaxRequest {
		return nil, refuse(ShapeMLS, "a content of %d octets is too long", len(content))
	}
	if len(label) > maxMLSLabel {
		return nil, refuse(ShapeMLS, "a label of %d octets is too long", len(label))
	}
	b := tlsvec.NewBuilder(len(label) + len(content) + 16)
	b.String(mlsPrefix + label)
	b.Vector(content)
	return ParseRequest(b.Bytes())
}

func parseMLS(b []byte) (*Request, error) {
	r := tlsvec.NewReader(b)
	label, content := r.Vector(), r.Vector()
	if err := r.Done(); err != nil {
		return nil, refuse(ShapeMLS, "not a SignContent: %w", err)
	}
	if len(label) > maxMLSLabel || len(label) <= len(mlsPrefix) {
		return nil, refuse(ShapeMLS, "the label is not %q and 1 to %d further octets", mlsPrefix, maxMLSLabel-len(mlsPrefix))
	}
	c := &MLSContent{Label: string(label[len(mlsPrefix):]), Content: content}
	var err error
	if c.Fields, err = readMLSFields(c.Label, content); err != nil {
		return nil, refuse(ShapeMLS, "not a %s: %w", c.Label, err)
	}
	return &Request{shape: ShapeMLS, typ: c.Label, parsed: c}, nil
}
