package sdcwt

import (
	"context"
	"crypto"
	"crypto/rand"
	"io"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A Presentation says what one verifier is told. It is made anew for every
// verifier.
type Presentation struct {
	Audience string // of the verifier

	// IssuedAt is now. It may be zero only with a CWTID, for a holder without a
	// clock.
	IssuedAt  time.Time
	NotBefore time.Time // left out if zero
	Expires   time.Time // left out if zero
	CWTID     []byte    // cti, left out if nil
	Nonce     []byte    // cnonce that the verifier gave, left out if nil

	// Disclose says which disclosures the verifier gets. Nil discloses nothing.
	// Decoys are never presented.
	Disclose func(*Disclosure) bool

	// Encrypt returns the key under which a disclosure is encrypted, or nil to
	// leave it in the clear. It may be nil.
	Encrypt func(*Disclosure) *DisclosureKey

	Rand io.Reader // of nonces, crypto/rand if nil
}

// All discloses everything.
func All(*Disclosure) bool { return true }

// Keys returns a function for Disclose that chooses the top-level claims with
// the given keys, each with everything that is inside it.
func Keys(keys ...any) func(*Disclosure) bool {
	want := make([]any, len(keys))
	for i, k := range keys {
		if v, err := dcbor.FromNative(k); err == nil {
			want[i] = keyOf(v)
		}
	}
	return func(d *Disclosure) bool { return len(d.path) > 0 && slices.Contains(want, d.path[0]) }
}

// Present makes a Key Binding Token: c with the chosen disclosures, signed with
// the confirmation key (section 8).
func (c *Credential) Present(ctx context.Context, key crypto.Signer, p Presentation) ([]byte, error) {
	if err := c.matches(key.Public()); err != nil {
		return nil, err
	}
	if p.Rand == nil {
		p.Rand = rand.Reader
	}
	payload, err := p.payload(c)
	if err != nil {
		return nil, err
	}
	unprotected, err := c.choose(&p)
	if err != nil {
		return nil, err
	}
	protected := dcbor.NewMap(
		dcbor.NewInt(cose.HeaderKCWT), dcbor.Verbatim(c.token.sign1.WithUnprotected(unprotected)),
		dcbor.NewInt(cose.HeaderTyp), dcbor.NewInt(contentFormatKBT))
	return cose.Sign(ctx, key, protected, dcbor.NewMap(), dcbor.Encode(payload))
}

// payload returns the claims of the KBT, once they are what a verifier wants.
func (p *Presentation) payload(c *Credential) (dcbor.Value, error) {
	if p.Audience == "" || p.IssuedAt.IsZero() && p.CWTID == nil {
		return dcbor.Value{}, credentials.Errorf(credentials.CodeKBTClaims, "presentation", "an audience, and a time of issue or a CWTID, are needed")
	}
	pairs := []dcbor.Value{dcbor.NewInt(ClaimAudience), dcbor.NewText(p.Audience)}
	for _, t := range []struct {
		key int64
		at  time.Time
	}{{ClaimExpires, p.Expires}, {ClaimNotBefore, p.NotBefore}, {ClaimIssuedAt, p.IssuedAt}} {
		if !t.at.IsZero() {
			pairs = append(pairs, dcbor.NewInt(t.key), dcbor.NewInt(t.at.Unix()))
		}
	}
	for _, b := range []struct {
		key   int64
		value []byte
	}{{ClaimCWTID, p.CWTID}, {ClaimCNonce, p.Nonce}} {
		if b.value != nil {
			pairs = append(pairs, dcbor.NewInt(b.key), dcbor.NewBytes(b.value))
		}
	}
	payload := dcbor.NewMap(pairs...)
	return payload, checkPresentation(payload, c)
}

func checkPresentation(payload dcbor.Value, c *Credential) error {
	k := &kbt{payload: payload, token: c.token}
	if err := k.claims(); err != nil {
		return err
	}
	life, err := lifetimeOf(payload.GetInt, "presentation")
	if err != nil {
		return err
	}
	cwt, err := lifetimeOf(c.token.claim, "claims")
	if err != nil {
		return err
	}
	if !life.order() || !life.inside(cwt) {
		return credentials.Errorf(credentials.CodeKBTTime, "presentation", "it would be valid when the SD-CWT is not")
	}
	return nil
}

// choose returns the SD-CWT's unprotected header for the verifier: what was
// there, with the chosen disclosures octet for octet as issued.
func (c *Credential) choose(p *Presentation) (dcbor.Value, error) {
	var header, clear, sealed []dcbor.Value
	for label, value := range c.token.sign1.Unprotected.Pairs() {
		if !label.IsInt(headerSDClaims) && !label.IsInt(headerSDEncrypted) {
			header = append(header, label, dcbor.Verbatim(value.Raw()))
		}
	}
	for _, d := range c.disclosures {
		if !p.discloses(d) {
			continue
		}
		if d.above != nil && !p.discloses(d.above) {
			return dcbor.Value{}, credentials.Errorf(credentials.CodeDisclosureUnmatched, "presentation", "%v has no place unless %v is disclosed too", d.path, d.above.path)
		}
		key := p.encrypts(d)
		if key == nil {
			clear = append(clear, dcbor.Verbatim(d.item))
			continue
		}
		e, err := key.seal(p.Rand, c.token.aead, d.item)
		if err != nil {
			return e, err
		}
		sealed = append(sealed, e)
	}
	if clear != nil {
		header = append(header, dcbor.NewInt(headerSDClaims), dcbor.NewArray(clear...))
	}
	if sealed != nil {
		header = append(header, dcbor.NewInt(headerSDEncrypted), dcbor.NewArray(sealed...))
	}
	return dcbor.NewMap(header...), nil
}

func (p *Presentation) discloses(d *Disclosure) bool {
	return p.Disclose != nil && !d.IsDecoy() && p.Disclose(d)
}

func (p *Presentation) encrypts(d *Disclosure) *DisclosureKey {
	if p.Encrypt == nil {
		return nil
	}
	return p.Encrypt(d)
}
