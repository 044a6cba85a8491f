package sdcwt

import (
	"bytes"
	"context"
	"crypto"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A Holder checks an SD-CWT on receipt (section 6.2).
type Holder struct {
	Issuers IssuerKeys
	Key     crypto.PublicKey // ours, which cnf must be for; nil leaves cnf as it is

	Issuer   string   // that iss must be, if not ""
	Subject  string   // that sub must be, if not ""
	Audience []string // acceptable values of aud, if it is there
	CNonce   []byte   // that we sent to the issuer; nil if we sent none

	Now            func() time.Time
	Skew           time.Duration
	AnyAudience    bool // accept every aud
	Types          func(mediaType string) bool
	Profile        *Profile
	MaxDisclosures int

	// Acceptable judges all claims as the holder's own policy does: whether what
	// is not redacted may be seen by every verifier, whether there are enough
	// decoys, whether the values are right. It may be nil.
	Acceptable func(clear, all ClaimsSet, decoys int) error
}

func (h *Holder) verifier() *Verifier {
	v := &Verifier{
		Issuers: h.Issuers, Audience: h.Audience, Now: h.Now, Skew: h.Skew, Types: h.Types,
		Profile: h.Profile, MaxDisclosures: h.MaxDisclosures, ConfirmationKey: h.Key,
	}
	if h.AnyAudience {
		v.AcceptAudience = func(string) bool { return true }
	}
	return v
}

// Accept checks sdcwt and returns it as a Credential that can be presented. A
// token in which a hash has no disclosure, or a disclosure no hash, is refused.
func (h *Holder) Accept(ctx context.Context, sdcwt []byte) (*Credential, error) {
	v := h.verifier()
	t, out, err := v.verifyIssued(ctx, sdcwt)
	if err != nil {
		return nil, err
	}
	if err := h.expected(t); err != nil {
		return nil, err
	}
	if err := v.finish(ctx, t, out, true); err != nil {
		return nil, err
	}
	if sub, _ := out.Claims.Text(ClaimSubject); h.Subject != "" && sub != h.Subject {
		return nil, credentials.Errorf(credentials.CodeIdentityMismatch, "claims", "sub is not the expected subject")
	}
	c, err := ParseCredential(sdcwt)
	if err != nil {
		return nil, err
	}
	c.claims = out.Claims
	if err := h.acceptable(c); err != nil {
		return nil, err
	}
	return c, nil
}

func (h *Holder) expected(t *token) error {
	if iss, _ := t.claim(ClaimIssuer).Text(); h.Issuer != "" && iss != h.Issuer {
		return credentials.Errorf(credentials.CodeIssuerUnknown, "claims", "iss is not the expected issuer")
	}
	nonce := t.claim(ClaimCNonce)
	got, _ := nonce.Bytes()
	if (nonce.Exists() || h.CNonce != nil) && !bytes.Equal(got, h.CNonce) {
		return credentials.Errorf(credentials.CodeNonce, "claims", "cnonce is not the one that was sent to the issuer")
	}
	return nil
}

func (h *Holder) acceptable(c *Credential) error {
	if h.Acceptable == nil {
		return nil
	}
	clear, err := c.token.fresh().open(nil, false)
	if err != nil {
		return err
	}
	decoys := 0
	for _, d := range c.disclosures {
		if d.IsDecoy() {
			decoys++
		}
	}
	return h.Acceptable(clear.claims, c.claims, decoys)
}

// A Credential is an SD-CWT in its holder's hands, with all disclosures.
type Credential struct {
	octets      []byte
	token       *token
	disclosures []*Disclosure
	claims      ClaimsSet
}

// ParseCredential parses an SD-CWT that a Holder has accepted before, such as
// one that was stored. It checks shape and disclosures, and no signature.
func ParseCredential(sdcwt []byte) (*Credential, error) {
	limits := limitsOf(0)
	octets := bytes.Clone(sdcwt)
	s, err := cose.DecodeSign1(octets, limits)
	if err != nil {
		return nil, malformed("SD-CWT", err)
	}
	t, err := parseToken(s, limits, holdable)
	if err != nil {
		return nil, err
	}
	v := Verifier{MaxDisclosures: len(octets)}
	o, err := v.open(context.Background(), t, true)
	if err != nil {
		return nil, err
	}
	return &Credential{octets, t, o.disclosures, o.claims}, nil
}

// fresh returns t ready to be opened once more.
func (t *token) fresh() *token {
	again := *t
	again.shape = newClaimsShape(t.hash, len(t.disclosures))
	return &again
}

// Octets returns the SD-CWT as the issuer gave it.
func (c *Credential) Octets() []byte { return bytes.Clone(c.octets) }

// Claims returns the claims set with everything disclosed.
func (c *Credential) Claims() ClaimsSet { return c.claims }

// Disclosures returns the disclosures in the order of the token, decoys
// included.
func (c *Credential) Disclosures() []*Disclosure {
	return append([]*Disclosure(nil), c.disclosures...)
}

// Confirmation returns the key of cnf, or nil if there is only a thumbprint.
func (c *Credential) Confirmation() crypto.PublicKey {
	cnf, err := credentials.CWTCnfFrom(c.token.claim(ClaimCnf))
	if err != nil || cnf.Key == nil {
		return nil
	}
	return cnf.Key.Public
}

// Encryption returns the algorithm in which disclosures are encrypted.
func (c *Credential) Encryption() AEAD { return c.token.aead }

func (c *Credential) matches(pub crypto.PublicKey) error {
	cnf, err := credentials.CWTCnfFrom(c.token.claim(ClaimCnf))
	if err != nil {
		return err
	}
	return cnf.MatchKey(pub)
}

// holdable reports whether a token beside an SD-CWT can be presented: one with
// the suffix of its type, or an ordinary CWT, which a verifier may take.
func holdable(typ dcbor.Value) bool {
	name, _ := typ.Text()
	return !typ.Exists() || typ.IsInt(contentFormatCWT) || name == mediaTypeCWT || holdableSuffix(typ)
}

// holdableSuffix reports whether a type has the suffix of an SD-CWT's.
func holdableSuffix(typ dcbor.Value) bool {
	name, _ := typ.Text()
	return strings.HasSuffix(name, suffixSDCWT)
}
