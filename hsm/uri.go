package hsm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits on a URI; they are arbitrary and far above what tokens allow.
const (
	maxURI      = 4096
	maxURIValue = 1024
)

// A URI names tokens and objects as RFC 7512 section 2.3 does. An empty field
// is an attribute that the URI does not have, which matches everything.
type URI struct {
	// Path attributes that choose a token.
	Token        string // CK_TOKEN_INFO label
	Serial       string // CK_TOKEN_INFO serialNumber
	Manufacturer string // CK_TOKEN_INFO manufacturerID
	Model        string // CK_TOKEN_INFO model

	// Path attributes that choose a slot.
	SlotID           *uint  // CK_SLOT_ID
	SlotDescription  string // CK_SLOT_INFO slotDescription
	SlotManufacturer string // CK_SLOT_INFO manufacturerID

	// Path attributes that describe the module.
	LibraryDescription  string // CK_INFO libraryDescription
	LibraryManufacturer string // CK_INFO manufacturerID
	LibraryVersion      string // CK_INFO libraryVersion, "major.minor" or "major"

	// Path attributes that choose an object.
	ID     []byte // CKA_ID
	Object string // CKA_LABEL
	Type   string // CKA_CLASS: cert, data, private, public, secret-key

	// Query attributes.
	ModulePath string
	ModuleName string
	PINSource  string
}

// ErrURI is found in every error of ParseURI.
var ErrURI = errors.New("bad pkcs11 URI")

// ErrPINValue refuses a URI that carries a PIN.
var ErrPINValue = errors.New("pin-value is refused because URIs end up in logs and process lists: put the PIN in a file that only you can read and name it with pin-source=file:/path")

// uriAttribute ties a name of RFC 7512 section 2.3 to its field.
type uriAttribute struct {
	name  string
	query bool
	field func(*URI) *string
}

// uriAttributes are the string attributes in the order in which they are
// written. The attributes id and slot-id have their own code.
var uriAttributes = []uriAttribute{
	{"library-description", false, func(u *URI) *string { return &u.LibraryDescription }},
	{"library-manufacturer", false, func(u *URI) *string { return &u.LibraryManufacturer }},
	{"library-version", false, func(u *URI) *string { return &u.LibraryVersion }},
	{"slot-description", false, func(u *URI) *string { return &u.SlotDescription }},
	{"slot-manufacturer", false, func(u *URI) *string { return &u.SlotManufacturer }},
	{"model", false, func(u *URI) *string { return &u.Model }},
	{"manufacturer", false, func(u *URI) *string { return &u.Manufacturer }},
	{"serial", false, func(u *URI) *string { return &u.Serial }},
	{"token", false, func(u *URI) *string { return &u.Token }},
	{"object", false, func(u *URI) *string { return &u.Object }},
	{"type", false, func(u *URI) *string { return &u.Type }},
	{"module-path", true, func(u *URI) *string { return &u.ModulePath }},
	{"module-name", true, func(u *URI) *string { return &u.ModuleName }},
	{"pin-source", true, func(u *URI) *string { return &u.PINSource }},
}

// ParseURI reads a URI strictly: the scheme in lower case or not, no unknown
// and no repeated attribute, no empty value, percent-encoding where RFC 7512
// asks for it. Its error never repeats a value, which may be a PIN.
func ParseURI(s string) (URI, error) {
	var u URI
	if len(s) > maxURI {
		return URI{}, uriError("", "longer than %d bytes", maxURI)
	}
	if len(s) < 7 || !strings.EqualFold(s[:7], "pkcs11:") {
		return URI{}, uriError("", "does not begin with pkcs11:")
	}
	path, query, hasQuery := strings.Cut(s[7:], "?")
	seen := make(map[string]bool)
	if err := u.parseAttributes(path, ";", false, seen); err != nil {
		return URI{}, err
	}
	if hasQuery && query == "" {
		return URI{}, uriError("", "empty query")
	}
	if err := u.parseAttributes(query, "&", true, seen); err != nil {
		return URI{}, err
	}
	return u, nil
}

func (u *URI) parseAttributes(s, separator string, query bool, seen map[string]bool) error {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, separator) {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case name == "pin-value":
			return fmt.Errorf("%w: %w", ErrURI, ErrPINValue)
		case !ok || name == "":
			return uriError("", "an attribute is not written name=value")
		case seen[name]:
			return uriError(name, "given twice")
		}
		decoded, err := percentDecode(value, query)
		if err != nil {
			return uriError(name, "%s", err)
		}
		if err := u.set(name, decoded, query); err != nil {
			return err
		}
		seen[name] = true
	}
	return nil
}

func (u *URI) set(name, value string, query bool) error {
	switch {
	case value == "":
		return uriError(name, "empty")
	case len(value) > maxURIValue:
		return uriError(name, "longer than %d bytes", maxURIValue)
	case name == "id" && !query:
		u.ID = []byte(value)
		return nil
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return uriError(name, "not UTF-8 text")
	case name == "slot-id" && !query:
		return u.setSlotID(value)
	}
	for _, a := range uriAttributes {
		if a.name != name {
			continue
		}
		if a.query != query {
			return uriError(name, "belongs %s the question mark", map[bool]string{true: "after", false: "before"}[a.query])
		}
		if err := checkURIValue(name, value); err != nil {
			return err
		}
		*a.field(u) = value
		return nil
	}
	return uriError("", "unknown attribute %q", truncate(name, 40))
}

func (u *URI) setSlotID(value string) error {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != value || uint64(uint(n)) != n {
		return uriError("slot-id", "not a decimal slot number")
	}
	id := uint(n)
	u.SlotID = &id
	return nil
}

func checkURIValue(name, value string) error {
	switch name {
	case "type":
		switch value {
		case "cert", "data", "private", "public", "secret-key":
			return nil
		}
		return uriError(name, "not one of cert, data, private, public, secret-key")
	case "library-version":
		major, minor, dotted := strings.Cut(value, ".")
		if !isByteNumber(major) || dotted && !isByteNumber(minor) {
			return uriError(name, "not written major.minor")
		}
	}
	return nil
}

func isByteNumber(s string) bool {
	n, err := strconv.ParseUint(s, 10, 8)
	return err == nil && strconv.FormatUint(n, 10) == s
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

// uriError names the attribute but never its value.
func uriError(attribute, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if attribute != "" {
		text = attribute + ": " + text
	}
	return fmt.Errorf("%w: %s", ErrURI, text)
}

// percentDecode reads *pk11-pchar or *pk11-qchar of RFC 7512 section 2.3.
func percentDecode(s string, query bool) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("a percent sign without two hexadecimal digits")
			}
			b, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errors.New("a percent sign without two hexadecimal digits")
			}
			out = append(out, b[0])
			i += 2
		case isURIChar(c, query):
			out = append(out, c)
		default:
			return "", fmt.Errorf("the character at offset %d must be percent-encoded", i)
		}
	}
	return string(out), nil
}

// isURIChar reports pk11-pchar (path) or pk11-qchar (query) without pct-encoded.
func isURIChar(c byte, query bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	case strings.IndexByte("-._~:[]@!$'()*+,=", c) >= 0:
		return true
	case c == '&':
		return !query
	case query:
		return c == '/' || c == '?' || c == '|'
	}
	return false
}

// String writes the URI in one fixed order of attributes; parsing the result
// gives the URI back.
func (u URI) String() string {
	var path, query []string
	for _, a := range uriAttributes {
		value := *a.field(&u)
		if value != "" && a.query {
			query = append(query, a.name+"="+percentEncode(value, true))
		} else if value != "" {
			path = append(path, a.name+"="+percentEncode(value, false))
		}
		switch a.name {
		case "slot-manufacturer":
			if u.SlotID != nil {
				path = append(path, "slot-id="+strconv.FormatUint(uint64(*u.SlotID), 10))
			}
		case "token":
			if len(u.ID) > 0 {
				path = append(path, "id="+percentEncodeAll(u.ID))
			}
		}
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

func percentEncode(s string, query bool) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; isURIChar(c, query) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// percentEncodeAll writes each byte of a CKA_ID encoded, printable or not, as
// RFC 7512 section 2.3 advises.
func percentEncodeAll(p []byte) string {
	var b strings.Builder
	for _, c := range p {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// NamesToken reports whether the URI says which token is meant: by label, by
// serial number or by slot number.
func (u URI) NamesToken() bool {
	return u.Token != "" || u.Serial != "" || u.SlotID != nil
}

// NamesObject reports whether the URI says which object is meant.
func (u URI) NamesObject() bool { return len(u.ID) > 0 || u.Object != "" }

// TokenOnly returns the URI without its object and query attributes.
func (u URI) TokenOnly() URI {
	u.ID, u.Object, u.Type = nil, "", ""
	u.ModulePath, u.ModuleName, u.PINSource = "", "", ""
	return u
}

// MarshalText writes the URI as String does.
func (u URI) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText parses a URI as ParseURI does.
func (u *URI) UnmarshalText(text []byte) error {
	parsed, err := ParseURI(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}
