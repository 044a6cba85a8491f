package mls

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Bounds of media types.
const (
	maxMediaTypes      = 256 // in a list
	maxMediaParameters = 16
	maxMediaType       = 1024 // octets of its encoding
)

// A MediaParameter is one parameter of a MediaType (section 5.2.2). Its value
// has neither quotation marks nor escapes.
//
//	struct {
//	    opaque parameter_name<V>;
//	    opaque parameter_value<V>;
//	} Parameter;
type MediaParameter struct{ Name, Value string }

// A MediaType is an IANA media type (section 5.2.2).
//
//	struct {
//	    opaque type<V>;
//	    Parameter parameters<V>;
//	} MediaType;
type MediaType struct {
	Type       string // "top/sub"; empty: the group's first
	Parameters []MediaParameter
}

func (m *MediaType) marshal(b *tlsvec.Builder) {
	b.String(m.Type)
	b.Nested(func(b *tlsvec.Builder) {
		for _, p := range m.Parameters {
			b.String(p.Name)
			b.String(p.Value)
		}
	})
}

func (m *MediaType) unmarshal(r *tlsvec.Reader) {
	start := r.Pos()
	m.Type, m.Parameters = string(r.Vector()), nil
	r.Each(func(r *tlsvec.Reader) {
		if len(m.Parameters) == maxMediaParameters {
			r.Fail("media type has too many parameters")
			return
		}
		m.Parameters = append(m.Parameters, MediaParameter{string(r.Vector()), string(r.Vector())})
	})
	switch {
	case r.Err() != nil:
	case r.Pos()-start > maxMediaType:
		r.Fail("media type is too long")
	case m.Type == "" && len(m.Parameters) > 0:
		r.Fail("empty media type has parameters")
	case m.Type != "" && strings.Count(m.Type, "/") != 1:
		r.Fail("media type is not of the form top/sub")
	}
}

// Equal compares type and parameter names without regard to case, parameters
// in any order, and values exactly but for that of charset.
func (m *MediaType) Equal(other *MediaType) bool {
	if !strings.EqualFold(m.Type, other.Type) || len(m.Parameters) != len(other.Parameters) {
		return false
	}
	return slices.Equal(m.normalParameters(), other.normalParameters())
}

func (m *MediaType) normalParameters() []MediaParameter {
	out := slices.Clone(m.Parameters)
	for i := range out {
		if out[i].Name = strings.ToLower(out[i].Name); out[i].Name == "charset" {
			out[i].Value = strings.ToLower(out[i].Value)
		}
	}
	slices.SortFunc(out, func(a, b MediaParameter) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// A MediaTypeList is the value of content_media_types (section 5.2): in a
// LeafNode what its client can receive, in the GroupContext what all members
// must be able to.
//
//	struct {
//	    MediaType media_type_list<V>;
//	} MediaTypeList;
type MediaTypeList []MediaType

// Bytes returns the encoding.
func (l MediaTypeList) Bytes() []byte { return encode(&l) }

// ParseMediaTypeList reads a list, which has at least one entry.
func ParseMediaTypeList(b []byte) (MediaTypeList, error) {
	var l MediaTypeList
	if err := parse("MediaTypeList", b, &l); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *MediaTypeList) marshal(b *tlsvec.Builder) {
	b.Nested(func(b *tlsvec.Builder) {
		for i := range *l {
			(*l)[i].marshal(b)
		}
	})
}

func (l *MediaTypeList) unmarshal(r *tlsvec.Reader) {
	*l = nil
	r.Each(func(r *tlsvec.Reader) {
		var m MediaType
		if m.unmarshal(r); r.Err() == nil && m.Type == "" {
			r.Fail("media type list has an empty type")
		}
		if *l = append(*l, m); len(*l) > maxMediaTypes {
			r.Fail("media type list is too long")
		}
	})
	if r.Err() == nil && len(*l) == 0 {
		r.Fail("media type list is empty")
	}
}

func (l MediaTypeList) contains(m *MediaType) bool {
	return slices.ContainsFunc(l, func(o MediaType) bool { return m.Equal(&o) })
}

// An ApplicationFraming is the application data of a group whose GroupContext
// has content_media_types (section 5.2.4).
//
//	struct {
//	    MediaType media_type;
//	    opaque inner_application_content<V>;
//	} ApplicationFraming;
type ApplicationFraming struct {
	MediaType MediaType
	Content   []byte
}

// Bytes returns the encoding.
func (f *ApplicationFraming) Bytes() []byte { return encode(f) }

// ParseApplicationFraming decodes application data.
func ParseApplicationFraming(b []byte) (*ApplicationFraming, error) {
	f := new(ApplicationFraming)
	if err := parse("ApplicationFraming", b, f); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *ApplicationFraming) marshal(b *tlsvec.Builder) {
	f.MediaType.marshal(b)
	b.Vector(f.Content)
}

func (f *ApplicationFraming) unmarshal(r *tlsvec.Reader) {
	f.MediaType.unmarshal(r)
	f.Content = r.Vector()
}

// ContentMediaTypes are the media types that all members must be able to
// receive. If it is not nil, application data is an ApplicationFraming.
func (e Extensions) ContentMediaTypes() (MediaTypeList, error) {
	d, err := e.AppData()
	if err != nil {
		return nil, err
	}
	data, ok := d.Find(ComponentContentMediaTypes)
	if !ok {
		return nil, nil
	}
	list, err := ParseMediaTypeList(data)
	if err != nil {
		return nil, brokenBy(RuleComponentValue, err, "content_media_types")
	}
	return list, nil
}

// openFraming decodes application data where the group frames it, and gives
// an empty media type the group's first.
func openFraming(media MediaTypeList, data []byte) (*ApplicationFraming, error) {
	if media == nil {
		return nil, nil
	}
	f := new(ApplicationFraming)
	if err := decode("ApplicationFraming", data, f); err != nil {
		return nil, brokenBy(RuleApplicationFraming, err, "application_data")
	}
	if f.MediaType.Type == "" {
		f.MediaType = media[0]
	}
	return f, nil
}

var errNoFraming = errors.New("mls: the group does not frame application data; its GroupContext has no content_media_types")

// SendContent sends content with its media type, in a group whose
// GroupContext has content_media_types. The type of content that has the
// group's first is left out.
func (g *Group) SendContent(ctx context.Context, f *ApplicationFraming, authenticatedData []byte) ([]byte, error) {
	media, err := g.public.media()
	if err != nil {
		return nil, err
	}
	if media == nil {
		return nil, errNoFraming
	}
	out := *f
	if bytes.Equal(encode(&out.MediaType), encode(&media[0])) {
		out.MediaType = MediaType{}
	}
	return g.Send(ctx, out.Bytes(), authenticatedData)
}

// checkContent checks application data that is about to be sent.
func (g *Group) checkContent(data []byte) error {
	media, err := g.public.media()
	if err != nil {
		return err
	}
	_, err = openFraming(media, data)
	return err
}
