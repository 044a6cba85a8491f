package mimi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// Limits of room metadata that we take from outside, in octets and entries.
const (
	maxMetadataText  = 4096
	maxDescription   = 64 << 10
	maxDescriptions  = 64
	maxMediaType     = 255
	maxLanguageTag   = 255
	maxRoomAvatarURI = 2048
)

// A RichDescription describes the room in one media type and language.
//
//	struct {
//	    opaque media_type<V>;
//	    opaque language_tag<V>;
//	    opaque description_content<V>;
//	} RichDescription;
type RichDescription struct {
	MediaType   string // empty for text/plain;charset=utf-8
	LanguageTag string
	Content     []byte
}

// RoomMetaData is the value of component room_metadata (0x0023), and its
// update: a commit replaces it whole, at most once.
//
//	struct {
//	    Uri room_uri;
//	    UTF8String room_name;
//	    RichDescription room_descriptions<V>;
//	    Uri room_avatar;
//	    UTF8String room_subject;
//	    UTF8String room_mood;
//	} RoomMetaData;
type RoomMetaData struct {
	RoomURI          URI
	RoomName         string
	RoomDescriptions []RichDescription
	RoomAvatar       string // an https URI, or empty
	RoomSubject      string
	RoomMood         string
}

// Marshal returns the metadata's encoding.
func (m *RoomMetaData) Marshal() []byte {
	b := new(tlsvec.Builder)
	b.String(m.RoomURI.String())
	b.String(m.RoomName)
	b.Nested(func(b *tlsvec.Builder) {
		for _, d := range m.RoomDescriptions {
			b.String(d.MediaType)
			b.String(d.LanguageTag)
			b.Vector(d.Content)
		}
	})
	b.String(m.RoomAvatar)
	b.String(m.RoomSubject)
	b.String(m.RoomMood)
	return b.Bytes()
}

// ParseRoomMetaData decodes room metadata.
func ParseRoomMetaData(data []byte) (*RoomMetaData, error) {
	r := tlsvec.NewReader(data)
	m := &RoomMetaData{RoomURI: readURI(r, KindRoom), RoomName: readText(r, maxMetadataText)}
	r.Each(func(r *tlsvec.Reader) {
		m.RoomDescriptions = append(m.RoomDescriptions, readDescription(r))
		if len(m.RoomDescriptions) > maxDescriptions {
			r.Fail(fmt.Sprintf("more than %d descriptions", maxDescriptions))
		}
	})
	m.RoomAvatar = readText(r, maxRoomAvatarURI)
	if err := checkAvatar(m.RoomAvatar); err != nil {
		r.Fail(err.Error())
	}
	m.RoomSubject = readText(r, maxMetadataText)
	m.RoomMood = readText(r, maxMetadataText)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("mimi: RoomMetaData: %w", err)
	}
	return m, nil
}

func readDescription(r *tlsvec.Reader) RichDescription {
	d := RichDescription{MediaType: readText(r, maxMediaType), LanguageTag: readText(r, maxLanguageTag), Content: r.Vector()}
	if len(d.Content) > maxDescription {
		r.Fail(fmt.Sprintf("description of %d octets, want at most %d", len(d.Content), maxDescription))
	}
	return d
}

// readText reads a UTF8String: valid UTF-8 without NUL.
func readText(r *tlsvec.Reader, most int) string {
	b := r.Vector()
	switch {
	case len(b) > most:
		r.Fail(fmt.Sprintf("text of %d octets, want at most %d", len(b), most))
	case !utf8.Valid(b):
		r.Fail("text is not UTF-8")
	case strings.IndexByte(string(b), 0) >= 0:
		r.Fail("text holds a NUL")
	}
	return string(b)
}

func checkAvatar(s string) error {
	if s == "" {
		return nil
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New("room avatar is not at an https URI")
	}
	return nil
}

// A MetadataField is one part of the metadata that a role may be allowed to
// change by itself.
type MetadataField string

// The fields, in the order of the struct. The room's URI never changes.
const (
	FieldRoomURI      MetadataField = "room_uri"
	FieldName         MetadataField = "room_name"
	FieldDescriptions MetadataField = "room_descriptions"
	FieldAvatar       MetadataField = "room_avatar"
	FieldSubject      MetadataField = "room_subject"
	FieldMood         MetadataField = "room_mood"
)

// Changes returns the fields in which next differs from m.
func (m *RoomMetaData) Changes(next *RoomMetaData) []MetadataField {
	var changed []MetadataField
	for _, f := range []struct {
		field MetadataField
		same  bool
	}{
		{FieldRoomURI, m.RoomURI == next.RoomURI},
		{FieldName, m.RoomName == next.RoomName},
		{FieldDescriptions, sameDescriptions(m.RoomDescriptions, next.RoomDescriptions)},
		{FieldAvatar, m.RoomAvatar == next.RoomAvatar},
		{FieldSubject, m.RoomSubject == next.RoomSubject},
		{FieldMood, m.RoomMood == next.RoomMood},
	} {
		if !f.same {
			changed = append(changed, f.field)
		}
	}
	return changed
}

func sameDescriptions(a, b []RichDescription) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].MediaType != b[i].MediaType || a[i].LanguageTag != b[i].LanguageTag || string(a[i].Content) != string(b[i].Content) {
			return false
		}
	}
	return true
}
