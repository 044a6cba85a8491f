package hsm

import (
	"bytes"
	"fmt"
	"strings"
)

// MatchesToken reports whether a token, its slot and its module have all that
// the URI asks of them.
func (u URI) MatchesToken(t TokenInfo) bool {
	return same(u.Token, t.Label) &&
		same(u.Serial, t.Serial) &&
		same(u.Manufacturer, t.Manufacturer) &&
		same(u.Model, t.Model) &&
		(u.SlotID == nil || *u.SlotID == t.Slot) &&
		same(u.SlotDescription, t.SlotDescription) &&
		same(u.SlotManufacturer, t.SlotManufacturer) &&
		same(u.LibraryDescription, t.Module.Description) &&
		same(u.LibraryManufacturer, t.Module.Manufacturer) &&
		u.matchesVersion(t.Module)
}

func (u URI) matchesVersion(m ModuleInfo) bool {
	if u.LibraryVersion == "" {
		return true
	}
	want := u.LibraryVersion
	if !strings.Contains(want, ".") {
		want += ".0" // RFC 7512 section 2.3: a missing minor version is zero
	}
	return want == m.Version
}

// MatchesKey reports whether a key has the id, the label and the class that the
// URI asks for. A private key also answers to the name of its public half.
func (u URI) MatchesKey(k KeyInfo) bool {
	if len(u.ID) > 0 && !bytes.Equal(u.ID, k.ID) || !same(u.Object, k.Label) {
		return false
	}
	switch u.Type {
	case "":
		return true
	case "private", "public":
		return k.Class == ClassPrivate
	case "secret-key":
		return k.Class == ClassSecret
	}
	return false
}

func same(want, have string) bool { return want == "" || want == have }

// chooseToken finds the one token that the URI means.
func chooseToken(u URI, tokens []TokenInfo) (TokenInfo, error) {
	if !u.NamesToken() {
		return TokenInfo{}, fmt.Errorf("%w: one of token, serial or slot-id is required", ErrURI)
	}
	var found []TokenInfo
	for _, t := range tokens {
		if t.Initialized && u.MatchesToken(t) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return TokenInfo{}, fmt.Errorf("%w: %s (the module shows %s)", ErrTokenGone, u.TokenOnly(), describeTokens(tokens))
	case 1:
		return found[0], nil
	}
	return TokenInfo{}, fmt.Errorf("%w: %s fits %s; add serial=", ErrAmbiguous, u.TokenOnly(), describeTokens(found))
}

// describeTokens lists labels and serials for an error message.
func describeTokens(tokens []TokenInfo) string {
	const most = 5
	var names []string
	for _, t := range tokens {
		if t.Initialized {
			names = append(names, fmt.Sprintf("%q serial %s", t.Label, t.Serial))
		}
	}
	if len(names) == 0 {
		return "no token"
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}
