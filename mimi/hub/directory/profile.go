package directory

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/privyseal/privyseal/mimi"
)

// A Source is the vocabulary of a field. Those that a profile discloses have
// the numbers of mimi.FieldSource.
type Source uint8

// The sources.
const (
	Handle       Source = 1 // a URI by which the user is known; never disclosed as a field
	userPart     Source = 2 // of the user's URI; derived
	OIDCStdClaim Source = Source(mimi.FieldOIDCStdClaim)
	VCard        Source = Source(mimi.FieldVCard)
)

const (
	maxFields     = 64
	maxValue      = 16 << 10
	maxSearchable = 1024 // octets of a value that may be searched
)

// A Field is one fact of a profile.
type Field struct {
	Source      Source
	Name        string // of the claim or the property; empty for Handle
	Value       string
	Searchable  bool
	Disclosable bool
}

// A Profile is what a user tells the directory.
type Profile struct {
	User   mimi.URI
	Fields []Field
	// SearchableURI lets the user's own URI be found as a handle, and its user
	// part as a nick name.
	SearchableURI bool
}

// oidcClaims are the standard claims (OpenID Connect Core section 5.1) that are
// single texts.
var oidcClaims = set("sub name given_name family_name middle_name nickname preferred_username profile picture website " +
	"email gender birthdate zoneinfo locale phone_number")

// vcardProperties are those of RFC 6350 section 6 that are about a person.
var vcardProperties = set("FN N NICKNAME BDAY ANNIVERSARY GENDER ADR TEL EMAIL IMPP LANG TZ GEO TITLE ROLE ORG RELATED CATEGORIES NOTE URL")

func set(words string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// known reports whether a field is of its vocabulary. Names of vCard properties
// are compared in upper case.
func known(s Source, name string) bool {
	switch s {
	case Handle, userPart:
		return name == ""
	case OIDCStdClaim:
		return oidcClaims[name]
	case VCard:
		return vcardProperties[name]
	}
	return false
}

func (p *Profile) check() error {
	if k := p.User.Kind(); p.User.IsZero() || k != mimi.KindUser && k != mimi.KindPseudonym {
		return fmt.Errorf("directory: %q is not a user", p.User)
	}
	if len(p.Fields) > maxFields {
		return fmt.Errorf("directory: profile of %d fields, want at most %d", len(p.Fields), maxFields)
	}
	for _, f := range p.Fields {
		if err := f.check(); err != nil {
			return fmt.Errorf("directory: field %q: %w", f.Name, err)
		}
	}
	return nil
}

func (f *Field) check() error {
	switch {
	case f.Source == userPart || !known(f.Source, f.Name):
		return fmt.Errorf("unknown in source %d", f.Source)
	case f.Source == Handle && f.Disclosable:
		return fmt.Errorf("a handle is not disclosed as a field")
	case f.Value == "" || len(f.Value) > maxValue || f.Searchable && len(f.Value) > maxSearchable:
		return fmt.Errorf("value of %d octets, want 1 to %d, and %d where it is searchable", len(f.Value), maxValue, maxSearchable)
	case !text(f.Value):
		return fmt.Errorf("not UTF-8 text")
	}
	return nil
}

// text reports whether a database takes the value as text.
func text(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// fold maps each character to the least of those that differ from it in case
// alone (Unicode simple folding).
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for n := unicode.SimpleFold(r); n != r; n = unicode.SimpleFold(n) {
			least = min(least, n)
		}
		return least
	}, s)
}

const gramLength = 3

// grams returns the distinct runs of three runes of a folded value.
func grams(folded string) []string {
	runes := []rune(folded)
	seen := make(map[string]bool)
	var list []string
	for i := 0; i+gramLength <= len(runes); i++ {
		if g := string(runes[i : i+gramLength]); !seen[g] {
			seen[g] = true
			list = append(list, g)
		}
	}
	return list
}

// terms returns what of the profile may be found.
func (p *Profile) terms() []Field {
	var list []Field
	if p.SearchableURI {
		segments := p.User.Segments()
		list = append(list, Field{Source: Handle, Value: p.User.String()})
		if part := segments[len(segments)-1]; text(part) {
			list = append(list, Field{Source: userPart, Value: part})
		}
	}
	for _, f := range p.Fields {
		if f.Searchable {
			list = append(list, f)
		}
	}
	return list
}
