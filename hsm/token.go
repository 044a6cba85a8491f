package hsm

import (
	"context"
	"fmt"
)

// A Token is a token that the driver is logged in to.
type Token struct {
	config  Config
	backend tokenBackend
	uri     URI
}

// URI is the URI by which the token was opened.
func (t *Token) URI() URI { return t.uri }

// Close waits for the calls in flight and logs out.
func (t *Token) Close(ctx context.Context) error { return t.backend.close(ctx) }

// Info asks the token about itself.
func (t *Token) Info(ctx context.Context) (TokenInfo, error) {
	h, err := t.backend.health(ctx)
	return h.Token, err
}

// Health looks at the token: whether it is there, logged in, and still shows
// keys. What can be repaired is repaired on the way.
func (t *Token) Health(ctx context.Context) (Health, error) { return t.backend.health(ctx) }

// Generate makes a key. A key that lacks attributes which the configuration
// does not admit is destroyed and refused.
func (t *Token) Generate(ctx context.Context, spec KeySpec) (KeyInfo, error) {
	if err := spec.check(); err != nil {
		return KeyInfo{}, err
	}
	return t.backend.generate(ctx, spec)
}

// Keys lists all private and secret keys on the token, those that cannot be
// used included.
func (t *Token) Keys(ctx context.Context) ([]KeyInfo, error) { return t.backend.keys(ctx) }

// Find gives the one key that the URI names by id or object. Attributes of the
// token in the URI must be those of this token.
func (t *Token) Find(ctx context.Context, u URI) (KeyInfo, error) {
	if !u.NamesObject() {
		return KeyInfo{}, fmt.Errorf("%w: one of id or object is required", ErrURI)
	}
	if err := t.checkToken(ctx, u); err != nil {
		return KeyInfo{}, err
	}
	found, err := t.backend.find(ctx, u)
	if err != nil {
		return KeyInfo{}, err
	}
	switch len(found) {
	case 0:
		return KeyInfo{}, fmt.Errorf("%w: %s", ErrKeyNotFound, u)
	case 1:
		return found[0], nil
	}
	return KeyInfo{}, fmt.Errorf("%w: %s fits %d keys; give id, object and type", ErrAmbiguous, u, len(found))
}

// checkToken refuses a URI that names another token.
func (t *Token) checkToken(ctx context.Context, u URI) error {
	if only := u.TokenOnly().String(); only == "pkcs11:" || only == t.uri.String() {
		return nil
	}
	info, err := t.Info(ctx)
	if err != nil {
		return err
	}
	if !u.MatchesToken(info) {
		return fmt.Errorf("%w: %s is not on token %q serial %s", ErrKeyNotFound, u, info.Label, info.Serial)
	}
	return nil
}

// Destroy removes the key that the URI names, and its public half. The URI must
// have both id and object, so that a slip does not hit another key.
func (t *Token) Destroy(ctx context.Context, u URI) error {
	if len(u.ID) == 0 || u.Object == "" {
		return fmt.Errorf("%w: destroying a key needs both id and object", ErrURI)
	}
	k, err := t.Find(ctx, u)
	if err != nil {
		return err
	}
	return t.backend.destroy(ctx, &k)
}

// KeyURI is the full URI of a key on this token.
func (t *Token) KeyURI(k KeyInfo) URI {
	u, o := t.uri, k.URI()
	u.ID, u.Object, u.Type = o.ID, o.Object, o.Type
	return u
}

// usable finds a key for a use and refuses one that is weak or made for another.
func (t *Token) usable(ctx context.Context, u URI, use Use) (*KeyInfo, error) {
	k, err := t.Find(ctx, u)
	if err != nil {
		return nil, err
	}
	return &k, t.admit(k, use)
}

func (t *Token) admit(k KeyInfo, use Use) error {
	switch {
	case k.Problem != "":
		return fmt.Errorf("%w: key %s: %s", ErrUnsupported, k.name(), k.Problem)
	case !k.Allows(use):
		return fmt.Errorf("%w: key %s is a %s key for %v, not for %q", ErrKeyUse, k.name(), k.Type, k.Uses(), use)
	case !t.config.admits(k.Weak):
		return weakKeyError(k)
	}
	return nil
}

// Signer gives the signing key that the URI names.
func (t *Token) Signer(ctx context.Context, u URI) (*Key, error) {
	info, err := t.usable(ctx, u, UseSign)
	if err != nil {
		return nil, err
	}
	return newKey(t, info)
}

// Agreement gives the ECDH key that the URI names.
func (t *Token) Agreement(ctx context.Context, u URI) (*AgreementKey, error) {
	info, err := t.usable(ctx, u, UseAgree)
	if err != nil {
		return nil, err
	}
	return newAgreementKey(t, info)
}

// MAC gives the HMAC key that the URI names.
func (t *Token) MAC(ctx context.Context, u URI) (*MACKey, error) {
	info, err := t.usable(ctx, u, UseMAC)
	if err != nil {
		return nil, err
	}
	return &MACKey{token: t, info: info}, nil
}
