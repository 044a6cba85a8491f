package mlscred

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"time"

	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// DefaultLifetime is that of the key binding: the credential in a leaf has to be
// made anew then, at the latest.
const DefaultLifetime = 30 * 24 * time.Hour

// A Binding says for what a credential is put into a leaf. The key is that of
// the leaf, which the credential confirms, or that of a CredentialBinding.
type Binding struct {
	Key      crypto.Signer
	Audience string // the room, the group or a provider, as a mimi: URI
	// Lifetime of the key binding, cut to that of the credential; 0 is
	// DefaultLifetime.
	Lifetime time.Duration
	Now      func() time.Time // time.Now if nil
}

func (b *Binding) times(credential time.Time) (from, until time.Time, err error) {
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	life := b.Lifetime
	if life == 0 {
		life = DefaultLifetime
	}
	from = now().Truncate(time.Second)
	until = from.Add(life)
	if !credential.IsZero() && credential.Before(until) {
		until = credential
	}
	if !until.After(from) {
		return from, until, errors.New("mlscred: the credential has ended; get a new one from its issuer")
	}
	return from, until, nil
}

// SDJWT returns the body of a credential of type sd_jwt: c with the claims at
// the paths in disclose, and a KB-JWT signed by the key. An ordinary JWT with a
// cnf is opened with sdjwt.OpenCredential(jwt + "~"). The nonce is random: what
// stops a replay is that cnf is the leaf's key.
func SDJWT(ctx context.Context, c *sdjwt.Credential, b Binding, compact bool, disclose ...sdjwt.Path) ([]byte, error) {
	from, until, err := b.times(jwtExpiry(c))
	if err != nil {
		return nil, err
	}
	t, err := c.Present(ctx, sdjwt.Presentation{Disclose: disclose, Key: b.Key, Audience: b.Audience, Nonce: sdjwt.NewNonce(), IssuedAt: from, Expires: until})
	if err != nil {
		return nil, err
	}
	return FormatSDJWT(t.String(), compact)
}

func jwtExpiry(c *sdjwt.Credential) time.Time {
	raw, ok := c.Claims().Get("exp")
	if !ok {
		return time.Time{}
	}
	var n float64
	if err := json.Unmarshal(raw, &n); err != nil || n < 0 || n > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// SDCWT returns the body of a credential of type sd_cwt: a KBT of c with the
// disclosures that disclose chooses. An ordinary CWT with a cnf does as well.
func SDCWT(ctx context.Context, c *sdcwt.Credential, b Binding, disclose func(*sdcwt.Disclosure) bool) ([]byte, error) {
	from, until, err := b.times(c.Claims().Date(sdcwt.ClaimExpires))
	if err != nil {
		return nil, err
	}
	return c.Present(ctx, b.Key, sdcwt.Presentation{Audience: b.Audience, IssuedAt: from, Expires: until, Disclose: disclose})
}
