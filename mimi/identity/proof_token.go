package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// audiences are the names that a key binding may be made for, beside those of
// the issuer's entry: the room, its group, its hub and our own provider. They
// only limit where the holder meant to be seen; that the token is for the
// leaf's key, which signed the leaf, is what stops a copy.
func (x *examination) audiences() []string {
	all := slices.Clone(x.e.opts.Audiences)
	if room := x.q.Room; !room.IsZero() {
		all = append(all, room.String(), room.Provider().String())
		if name, ok := strings.CutPrefix(room.Path(), "r/"); ok {
			all = append(all, room.Provider().String()+"/g/"+name)
		}
	}
	if own := x.e.opts.Provider; !own.IsZero() {
		all = append(all, own.String())
	}
	return all
}

// checkAudience refuses a key binding for a provider that the issuer may speak
// for, but that is neither ours nor the holder's.
func (x *examination) checkAudience(where, aud string, id *Identity) error {
	for _, ours := range x.audiences() {
		if aud == ours {
			return nil
		}
	}
	u, err := mimi.ParseURI(aud)
	if err != nil || u.Kind() != mimi.KindProvider || u == id.Provider() {
		return nil // a configured name, or the holder's own provider
	}
	return credentials.Errorf(credentials.CodeAudience, where, "it is made for %s, which is neither ours nor the provider of %s", u, id.Client)
}

// holder returns what a token is checked against.
func (x *examination) holder(body []byte, key []byte, scheme *credentials.Scheme) (trust.TokenCheck, error) {
	if scheme == nil {
		return trust.TokenCheck{Token: body, Audiences: x.audiences()}, nil
	}
	pub, err := scheme.ParseMLSPublicKey(key)
	if err != nil {
		return trust.TokenCheck{}, credentials.Errorf(credentials.CodeCnfLeafMismatch, "signature key", "no key of %s: %w", scheme, err)
	}
	return trust.TokenCheck{Token: body, HolderKey: pub, Audiences: x.audiences()}, nil
}

func (x *examination) sdjwt(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme, p *proof) (*part, error) {
	text, err := mlscred.ParseSDJWT(c.Body)
	if err != nil {
		return nil, err
	}
	x.trace.pass(ruleFraming)
	check, err := x.holder([]byte(text), key, scheme)
	if err != nil {
		return nil, err
	}
	ev, err := x.snapshot.SDJWT(ctx, check)
	if err != nil {
		return nil, err
	}
	x.trace.verified(ev)
	claims, err := policy.NewJWT(uint16(c.Type), ev.SDJWT.Issuer, ev.SDJWT.Claims.JSON())
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "claims", "%w", err)
	}
	p.add(ev)
	p.claims = append(p.claims, claims)
	id, named := FromSDJWT(ev.SDJWT, issuerOf(ev.Issuer))
	subject, _ := ev.SDJWT.Claims.Text("sub")
	return x.named(ev, id, named, subject, ev.SDJWT.KeyBinding.Audience)
}

func (x *examination) sdcwt(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme, p *proof) (*part, error) {
	check, err := x.holder(c.Body, key, scheme)
	if err != nil {
		return nil, err
	}
	ev, err := x.snapshot.SDCWT(ctx, check)
	if err != nil {
		return nil, err
	}
	x.trace.pass(ruleFraming)
	x.trace.verified(ev)
	claims, err := policy.NewCWT(uint16(c.Type), ev.SDCWT.Issuer, ev.SDCWT.Claims.CBOR())
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "claims", "%w", err)
	}
	p.add(ev)
	p.claims = append(p.claims, claims)
	id, named := FromSDCWT(ev.SDCWT, issuerOf(ev.Issuer))
	subject, _ := ev.SDCWT.Claims.Text(2)
	return x.named(ev, id, named, subject, ev.SDCWT.KeyBinding.Audience)
}

// named completes the part of a token: whom it names, or that it names nobody
// and carries claims about the subject only.
func (x *examination) named(ev *trust.Evidence, id *Identity, err error, subject, aud string) (*part, error) {
	if credentials.CodeOf(err) == credentials.CodeIdentityMissing || isThumbprintSubject(err, subject) {
		return &part{Judged: Judged{Subject: subject}, err: err}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := x.checkAudience("key binding", aud, id); err != nil {
		return nil, err
	}
	x.trace.named(ev.Issuer, id)
	return &part{Judged: Judged{Identity: id, Subject: subject}}, nil
}

// isThumbprintSubject reports whether a token names nobody because its subject
// is a key.
func isThumbprintSubject(err error, subject string) bool {
	return credentials.CodeOf(err) == credentials.CodeIdentityMalformed && strings.HasPrefix(subject, thumbprintURN)
}
