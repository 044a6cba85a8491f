package policy

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// A Claim is what a credential must say, exactly.
//
//	struct {
//	  /* MLS Credential Type of the "claim"  */
//	  CredentialType credential_type;
//	  /* the binary representation of an X.509 OID, a JWT claim name  */
//	  /* string, or the CBOR map claim key in a CWT (an int or tstr)  */
//	  opaque id<V>;
//	} ClaimId;
//
//	struct {
//	  ClaimId claim_id;
//	  opaque claim_value<V>;
//	} Claim;
type Claim struct {
	CredentialType uint16
	ID             []byte
	Value          []byte
}

// A PreAuthRoleEntry gives a role to whoever has all the claims.
//
//	struct {
//	  Claim claimset<V>;
//	  Role target_role;
//	} PreAuthRoleEntry;
//
// The draft carries a whole role. Only its index counts: what the role may do
// is looked up in the room's roles_list when the entry is consulted.
type PreAuthRoleEntry struct {
	Claimset   []Claim
	TargetRole Role
}

// PreAuthData is the value and the update of component preauth_list (0x0026,
// section 4). The first entry that matches decides.
//
//	struct {
//	  PreAuthRoleEntry preauthorized_entries<V>;
//	} PreAuthData;
type PreAuthData struct {
	PreauthorizedEntries []PreAuthRoleEntry
}

func appendClaim(b *tlsvec.Builder, c Claim) {
	b.Uint16(c.CredentialType)
	b.Vector(c.ID)
	b.Vector(c.Value)
}

func readClaim(r *tlsvec.Reader) Claim {
	return Claim{r.Uint16(), readOpaque(r, maxClaimID), readOpaque(r, maxClaimLen)}
}

func appendEntry(b *tlsvec.Builder, e PreAuthRoleEntry) {
	appendList(b, e.Claimset, appendClaim)
	appendRole(b, e.TargetRole)
}

func readEntry(r *tlsvec.Reader) PreAuthRoleEntry {
	return PreAuthRoleEntry{readList(r, maxClaims, readClaim), readRole(r)}
}

// Marshal returns the list's encoding.
func (d *PreAuthData) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) { appendList(b, d.PreauthorizedEntries, appendEntry) })
}

// ParsePreAuthData decodes a preauthorisation list. An entry without claims,
// which everybody would match, is refused, and so is one that gives role 0 or 1.
func ParsePreAuthData(data []byte) (*PreAuthData, error) {
	return parse("PreAuthData", data, func(r *tlsvec.Reader) PreAuthData {
		return PreAuthData{readList(r, maxEntries, readEntry)}
	}, (*PreAuthData).check)
}

func (d *PreAuthData) check() error {
	for i := range d.PreauthorizedEntries {
		e := &d.PreauthorizedEntries[i]
		if len(e.Claimset) == 0 {
			return invalid("entry %d has no claims and would match everybody", i)
		}
		if e.TargetRole.Index == mimi.RoleNone || e.TargetRole.Index == mimi.RoleBanned {
			return invalid("entry %d gives role %d", i, e.TargetRole.Index)
		}
		for _, c := range e.Claimset {
			if len(c.ID) == 0 {
				return invalid("entry %d has a claim without a name", i)
			}
		}
		if err := checkRole(&e.TargetRole); err != nil {
			return invalid("entry %d: %v", i, err)
		}
	}
	return nil
}

// A Credential is one credential of an actor that has been verified: its
// signatures, its validity and status, and that its issuer is believed for the
// name it gives. NewX509, NewJWT and NewCWT make one from what the verifiers of
// the credentials packages return.
type Credential interface {
	// CredentialType is the MLS credential type.
	CredentialType() uint16
	// Issuer names who vouches for the claims. It is for records; no claim of
	// the draft can ask for it other than as a claim of the token.
	Issuer() string
	// Has reports whether the credential says exactly value under id.
	Has(id, value []byte) bool
}

// Match returns the first entry that the credentials match, or -1. Every claim
// of an entry must be met, if need be by different credentials of one
// multi-credential. No credentials match nothing.
func (d *PreAuthData) Match(credentials []Credential) int {
	for i := range d.PreauthorizedEntries {
		if d.PreauthorizedEntries[i].matches(credentials) {
			return i
		}
	}
	return -1
}

func (e *PreAuthRoleEntry) matches(credentials []Credential) bool {
	for _, claim := range e.Claimset {
		if !claim.metBy(credentials) {
			return false
		}
	}
	return len(e.Claimset) > 0
}

func (c *Claim) metBy(credentials []Credential) bool {
	for _, held := range credentials {
		if held.CredentialType() == c.CredentialType && held.Has(c.ID, c.Value) {
			return true
		}
	}
	return false
}
