package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrDepth reports arrays and objects that are nested deeper than allowed.
var ErrDepth = errors.New("JSON is nested too deeply")

// A SyntaxError says where a JSON text breaks RFC 8259, or one of the further
// rules of ParseJSON.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("JSON at octet %d: %s", e.Offset, e.Msg) }

// ParseJSON reads one JSON text into nil, bool, json.Number, string, []any and
// *Object. Beyond RFC 8259 it refuses a member name that occurs twice in an
// object, text that is not UTF-8, an escaped surrogate without its partner,
// anything after the value, and more than depth nested arrays and objects.
// Strings of the result may share memory with text. The caller bounds the
// length of text; the result's size is proportional to it.
func ParseJSON(text string, depth int) (any, error) {
	d := decoder{text: text, room: depth}
	v, err := d.value()
	if err != nil {
		return nil, err
	}
	if d.space(); d.at < len(text) {
		return nil, d.fail("data after the value")
	}
	return v, nil
}

// ParseObject is ParseJSON for a text that must be an object.
func ParseObject(text string, depth int) (*Object, error) {
	v, err := ParseJSON(text, depth)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*Object)
	if !ok {
		return nil, &SyntaxError{0, "not an object"}
	}
	return o, nil
}

type decoder struct {
	text string
	at   int
	room int // how many more arrays and objects may be entered
}

func (d *decoder) fail(msg string) error { return &SyntaxError{d.at, msg} }

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next skips white space and returns the octet there, or 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) value() (any, error) {
	switch c := d.next(); c {
	case '{':
		return d.enter(d.object)
	case '[':
		return d.enter(d.array)
	case '"':
		return d.string()
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		if c == '-' || isDigit(c) {
			return d.number()
		}
		return nil, d.fail("no value")
	}
}

// enter reads the array or object whose opening bracket is next.
func (d *decoder) enter(read func() (any, error)) (any, error) {
	if d.room == 0 {
		return nil, fmt.Errorf("%w: octet %d", ErrDepth, d.at)
	}
	d.room--
	d.at++
	v, err := read()
	d.room++
	return v, err
}

func (d *decoder) word(w string) error {
	if !strings.HasPrefix(d.text[d.at:], w) {
		return d.fail("no value")
	}
	d.at += len(w)
	return nil
}

func (d *decoder) array() (any, error) {
	if d.next() == ']' {
		d.at++
		return []any{}, nil
	}
	elements := make([]any, 0, 4)
	for {
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
		if more, err := d.more(']'); !more {
			return elements, err
		}
	}
}

// more reads the comma before a further element, or the closing bracket.
func (d *decoder) more(closing byte) (bool, error) {
	switch d.next() {
	case ',':
		d.at++
		return true, nil
	case closing:
		d.at++
		return false, nil
	}
	return false, d.fail("no comma and no closing bracket")
}

func (d *decoder) object() (any, error) {
	o := new(Object)
	if d.next() == '}' {
		d.at++
		return o, nil
	}
	var names nameSet
	room := 4
	if d.at == 1 { // the whole text is this object
		room = min(strings.Count(d.text, ":")+8, 1<<9) // with what an issuer adds
	}
	for {
		name, err := d.name()
		if err != nil {
			return nil, err
		}
		if !names.add(o, name) {
			return nil, d.fail("a member name occurs twice in one object")
		}
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		if o.Members == nil {
			o.Members = make([]Member, 0, room)
		}
		o.Members = append(o.Members, Member{name, v})
		if more, err := d.more('}'); !more {
			return o, err
		}
	}
}

// name reads a member's name and the colon after it.
func (d *decoder) name() (string, error) {
	if d.next() != '"' {
		return "", d.fail("no member name")
	}
	name, err := d.string()
	if err != nil {
		return "", err
	}
	if d.next() != ':' {
		return "", d.fail("no colon after a member name")
	}
	d.at++
	return name, nil
}

// A nameSet finds names that occur twice. Few names are compared one by one;
// many, which may come from an attacker, go into a map.
type nameSet struct{ seen map[string]struct{} }

const fewNames = 24

// add reports whether name is not yet a member of o.
func (n *nameSet) add(o *Object, name string) bool {
	if len(o.Members) < fewNames {
		return !o.Has(name)
	}
	if n.seen == nil {
		n.seen = make(map[string]struct{}, max(4*fewNames, cap(o.Members)))
		for i := range o.Members {
			n.seen[o.Members[i].Name] = struct{}{}
		}
	}
	if _, twice := n.seen[name]; twice {
		return false
	}
	n.seen[name] = struct{}{}
	return true
}

// string reads the string whose opening quotation mark is next. One without
// escapes is cut out of the text.
func (d *decoder) string() (string, error) {
	d.at++
	start, ascii := d.at, true
	for ; d.at < len(d.text); d.at++ {
		switch c := d.text[d.at]; {
		case c == '"':
			s := d.text[start:d.at]
			if !ascii && !utf8.ValidString(s) {
				return "", d.fail("string is not UTF-8")
			}
			d.at++
			return s, nil
		case c == '\\':
			return d.escaped(start)
		case c < 0x20:
			return "", d.fail("control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", d.fail("string does not end")
}

// escaped reads the rest of a string that began at start and has an escape
// where the decoder stands.
func (d *decoder) escaped(start int) (string, error) {
	b := append(make([]byte, 0, 2*(d.at-start)+16), d.text[start:d.at]...)
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			if !utf8.Valid(b) {
				return "", d.fail("string is not UTF-8")
			}
			d.at++
			return string(b), nil
		case c == '\\':
			var err error
			if b, err = d.escape(b); err != nil {
				return "", err
			}
		case c < 0x20:
			return "", d.fail("control character in a string")
		default:
			b = append(b, c)
			d.at++
		}
	}
	return "", d.fail("string does not end")
}

// escape appends the character of the escape that is next.
func (d *decoder) escape(b []byte) ([]byte, error) {
	if d.at+1 >= len(d.text) {
		return nil, d.fail("string does not end")
	}
	c := d.text[d.at+1]
	if c == 'u' {
		return d.unicode(b)
	}
	i := strings.IndexByte(`"\/bfnrt`, c)
	if i < 0 {
		return nil, d.fail("unknown escape")
	}
	d.at += 2
	return append(b, "\"\\/\b\f\n\r\t"[i]), nil
}

// unicode appends the character of the \u escape, or of the two, that are next.
func (d *decoder) unicode(b []byte) ([]byte, error) {
	r, ok := d.hex4(d.at)
	if !ok {
		return nil, d.fail(`\u without four hexadecimal digits`)
	}
	d.at += 6
	if utf16.IsSurrogate(r) {
		low, ok := d.hex4(d.at)
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return nil, d.fail("surrogate without its partner")
		}
		d.at += 6
	}
	return utf8.AppendRune(b, r), nil
}

func (d *decoder) hex4(at int) (rune, bool) {
	if at+6 > len(d.text) || d.text[at] != '\\' || d.text[at+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(d.text[at+2:at+6], 16, 16)
	return rune(n), err == nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// digits skips digits and returns how many there were.
func (d *decoder) digits() int {
	start := d.at
	for d.at < len(d.text) && isDigit(d.text[d.at]) {
		d.at++
	}
	return d.at - start
}

// skip skips one octet if it is one of set.
func (d *decoder) skip(set string) bool {
	if d.at < len(d.text) && strings.IndexByte(set, d.text[d.at]) >= 0 {
		d.at++
		return true
	}
	return false
}

func (d *decoder) number() (any, error) {
	start := d.at
	d.skip("-")
	zero := d.at < len(d.text) && d.text[d.at] == '0'
	if n := d.digits(); n == 0 || zero && n > 1 {
		return nil, d.fail("bad number")
	}
	if d.skip(".") && d.digits() == 0 {
		return nil, d.fail("bad fraction of a number")
	}
	if d.skip("eE") {
		d.skip("+-")
		if d.digits() == 0 {
			return nil, d.fail("bad exponent of a number")
		}
	}
	return json.Number(d.text[start:d.at]), nil
}
