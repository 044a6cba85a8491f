package clientapi

import "github.com/privyseal/privyseal/internal/tlsvec"

// PathProfile is where users say what their provider's directory may tell of
// them: PUT sets a Profile in the place of the one before, GET returns it, and
// DELETE takes it back.
const PathProfile = Prefix + "/profile"

// Bounds of a profile. The directory has further rules.
const (
	maxProfileFields = 64
	maxProfileName   = 64
	maxProfileValue  = 16 << 10
)

// A ProfileField is one fact that a user tells the directory.
//
//	struct {
//	    uint8 source;          /* 1 handle, 7 oidcStdClaim, 8 vcardField */
//	    opaque name<V>;        /* of the claim or property; empty for a handle */
//	    opaque value<V>;
//	    uint8 searchable;      /* 0 or 1: others may find the user by it */
//	    uint8 disclosable;     /* 0 or 1: it is shown to those who have found the user */
//	} ProfileField;
type ProfileField struct {
	Source      uint8
	Name        string
	Value       string
	Searchable  bool
	Disclosable bool
}

// The sources of fields; those of OpenID Connect and vCard have the numbers of
// identifierQuery (draft-ietf-mimi-protocol-06 section 5.8).
const (
	ProfileHandle uint8 = 1
	ProfileOIDC   uint8 = 7
	ProfileVCard  uint8 = 8
)

// A Profile is all that a user tells the directory. What is neither searchable
// nor disclosable is told to nobody, and a user without a profile is not found.
//
//	struct {
//	    uint8 searchable_uri;  /* 0 or 1: the user's URI, and its name as a nick, are found */
//	    ProfileField fields<V>;
//	} Profile;
type Profile struct {
	SearchableURI bool
	Fields        []ProfileField
}

func appendBool(b *tlsvec.Builder, v bool) {
	if v {
		b.Uint8(1)
	} else {
		b.Uint8(0)
	}
}

func (p *Profile) append(b *tlsvec.Builder) {
	appendBool(b, p.SearchableURI)
	appendList(b, p.Fields, func(b *tlsvec.Builder, f ProfileField) {
		b.Uint8(f.Source)
		b.String(f.Name)
		b.String(f.Value)
		appendBool(b, f.Searchable)
		appendBool(b, f.Disclosable)
	})
}

func (p *Profile) read(r *tlsvec.Reader) {
	p.SearchableURI = readBool(r)
	p.Fields = readList(r, "fields", maxProfileFields, func(r *tlsvec.Reader) ProfileField {
		return ProfileField{
			Source: r.Uint8(), Name: string(readBounded(r, "name", maxProfileName)), Value: string(readBounded(r, "value", maxProfileValue)),
			Searchable: readBool(r), Disclosable: readBool(r),
		}
	})
}

// Marshal returns the profile's encoding.
func (p *Profile) Marshal() []byte { return marshal(p) }

// ParseProfile decodes a profile. Whether its fields are ones that a directory
// knows, the directory says.
func ParseProfile(b []byte) (*Profile, error) {
	p := new(Profile)
	return p, parse("Profile", b, p)
}
