package sdcwt

import (
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A Profile adds requirements to those of the draft. It never relaxes one.
type Profile struct {
	Required []int64 // claims that must be there after unredaction
	Clear    []int64 // claims that must not be redacted
	VCT      []any   // allowed vct, integers or strings; nil allows all
	WholeKey bool    // cnf must have the whole key, not its thumbprint
	CWTID    int     // octets that cti has at least
}

// DeviceProfile is that of the credentials that Privyseal issues to devices: a
// subject in the clear, a lifetime, a random cti and the whole key in cnf.
// Status is never redactable in any SD-CWT.
func DeviceProfile() *Profile {
	return &Profile{
		Required: []int64{ClaimIssuer, ClaimSubject, ClaimExpires, ClaimIssuedAt, ClaimCWTID, ClaimCnf},
		Clear:    []int64{ClaimSubject, ClaimVCT},
		WholeKey: true,
		CWTID:    16,
	}
}

// clear checks what the profile asks of the issued claims, before unredaction.
func (p *Profile) clear(t *token) error {
	if p == nil {
		return nil
	}
	for _, key := range p.Required {
		if slices.Contains(p.Clear, key) && !t.claim(key).Exists() {
			return credentials.Errorf(credentials.CodeClaimMissing, "claims", "the profile wants claim %d in the clear", key)
		}
	}
	if p.WholeKey && !t.claim(ClaimCnf).GetInt(1).Exists() {
		return credentials.Errorf(credentials.CodeCnfUnsupported, "cnf", "the profile wants the whole key")
	}
	return nil
}

// validated checks the claims set that came out of the unredaction.
func (p *Profile) validated(o *opened) error {
	if p == nil {
		return nil
	}
	for _, key := range p.Required {
		if !o.claims.Has(key) {
			return credentials.Errorf(credentials.CodeClaimMissing, "claims", "the profile wants claim %d", key)
		}
	}
	for _, d := range o.disclosures {
		if n, ok := d.key.Int(); ok && d.top && slices.Contains(p.Clear, n) {
			return credentials.Errorf(credentials.CodeDisclosureForbiddenKey, "claims", "the profile wants claim %d in the clear", n)
		}
	}
	if id, _ := o.claims.lookup(ClaimCWTID).Bytes(); len(id) < p.CWTID {
		return credentials.Errorf(credentials.CodeClaimType, "claims", "cti has %d octets, the profile wants %d", len(id), p.CWTID)
	}
	return p.vct(o.claims.lookup(ClaimVCT))
}

func (p *Profile) vct(v dcbor.Value) error {
	if p.VCT == nil {
		return nil
	}
	for _, allowed := range p.VCT {
		if a, err := dcbor.FromNative(allowed); err == nil && a.Equal(v) {
			return nil
		}
	}
	return credentials.Errorf(credentials.CodePolicy, "claims", "vct %v is not among those allowed", v)
}

// checkVCT checks the type of vct: an integer or text (section 13).
func checkVCT(v dcbor.Value) error {
	if v.Exists() && !v.IsInteger() && v.Kind() != dcbor.Text {
		return credentials.Errorf(credentials.CodeClaimType, "claims", "vct is a %s, want an integer or text", v.Kind())
	}
	return nil
}
