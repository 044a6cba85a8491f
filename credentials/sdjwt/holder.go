package sdjwt

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// A Credential is an SD-JWT in the hands of its holder, with all Disclosures.
type Credential struct {
	token  *Token
	hash   *hashAlg
	claims Claims
	all    []*disclosure
}

// Receive is what a holder does with a credential that an issuer hands over
// (RFC 9901 section 7.2): everything but key binding is verified by the
// policy; a token with a KB-JWT is refused; if own is not nil, cnf must confirm
// it. Digests without a Disclosure are no fault: they may be decoys.
func (v *Verifier) Receive(ctx context.Context, token string, own crypto.PublicKey) (*Credential, error) {
	t, err := v.parse(token)
	if err != nil {
		return nil, err
	}
	if t.kb != "" {
		return nil, malformed("", "an issuer hands over an SD-JWT without KB-JWT")
	}
	asHolder := &Verifier{v.policy}
	asHolder.policy.KeyBinding, asHolder.policy.AnyAudience = KeyBindingNotRequired, true
	if _, err := asHolder.VerifyToken(ctx, t, Expect{}); err != nil {
		return nil, err
	}
	c, err := open(t, v.policy.Limits)
	if err != nil || own == nil {
		return c, err
	}
	_, _, err = v.holderKey(c.claims.object, own)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// OpenCredential reads a credential that Receive accepted before. It checks
// the form and the Disclosures but no signature.
func OpenCredential(token string, limits Limits) (*Credential, error) {
	t, err := Parse(token, limits)
	if err != nil {
		return nil, err
	}
	if t.kb != "" {
		return nil, malformed("", "a presentation, not a credential: it has a KB-JWT")
	}
	return open(t, limits.withDefaults())
}

func open(t *Token, limits Limits) (*Credential, error) {
	j, err := jose.ParseCompact(t.jwt, limits.Depth)
	if err != nil {
		return nil, joseError("issuer JWT", err)
	}
	payload, err := parsePayload(j.Payload, limits.Depth)
	if err != nil {
		return nil, joseError("payload", err)
	}
	h, err := hashOf(payload)
	if err != nil {
		return nil, err
	}
	u := &unredactor{depth: limits.Depth, trace: true}
	all, err := u.parseDisclosures(t, h)
	if err != nil {
		return nil, err
	}
	claims, err := u.run(payload, all)
	if err != nil {
		return nil, err
	}
	return &Credential{t, h, Claims{claims}, all}, nil
}

// Claims returns the claims with everything disclosed.
func (c *Credential) Claims() Claims { return c.claims }

// String returns the credential as it was handed over, all Disclosures
// included. It is for the holder's own storage.
func (c *Credential) String() string { return c.token.String() }

// Disclosable returns the path of each claim that the holder may withhold, in
// the order of the Disclosures.
func (c *Credential) Disclosable() []Path {
	paths := make([]Path, len(c.all))
	for i, d := range c.all {
		paths[i] = slices.Clone(d.path)
	}
	return paths
}

// A Presentation says what to show to whom.
type Presentation struct {
	// Disclose names the claims to show, by paths into Credential.Claims. What
	// a claim stands in is disclosed with it; what is redacted inside it only
	// if it is named too.
	Disclose    []Path
	DiscloseAll bool

	Key      crypto.Signer // the confirmation key; nil for a presentation without KB-JWT
	Audience string        // of the KB-JWT: the verifier
	Nonce    string        // from the verifier, or NewNonce where there is no challenge
	IssuedAt time.Time     // default now
	Expires  time.Time     // exp of the KB-JWT, if not zero
}

// NewNonce returns 128 random bits in base64url.
func NewNonce() string {
	var b [16]byte
	rand.Read(b[:]) // which never fails, crypto/rand says
	return jose.EncodeBase64(b[:])
}

// Present returns the presentation. ctx reaches a key that has SignContext.
func (c *Credential) Present(ctx context.Context, p Presentation) (*Token, error) {
	disclosures, err := c.choose(p)
	if err != nil {
		return nil, err
	}
	t := newToken(c.token.jwt, disclosures, "")
	if p.Key == nil {
		return t, nil
	}
	if t.kb, err = c.keyBinding(ctx, t, p); err != nil {
		return nil, err
	}
	return t, nil
}

// choose returns the Disclosures of the named claims and of what they stand in.
func (c *Credential) choose(p Presentation) ([]string, error) {
	if p.DiscloseAll {
		return c.token.Disclosures(), nil
	}
	byPath := make(map[string]*disclosure, len(c.all))
	for _, d := range c.all {
		byPath[d.path.String()] = d
	}
	chosen := make(map[*disclosure]bool)
	for _, asked := range p.Disclose {
		found := expand(c.claims.object, asked, nil)
		if len(found) == 0 {
			return nil, fmt.Errorf("sdjwt: the credential has no claim at %s", asked)
		}
		for _, path := range found {
			for n := range path {
				if d := byPath[path[:n+1].String()]; d != nil {
					chosen[d] = true
				}
			}
		}
	}
	var texts []string
	for _, d := range c.all {
		if chosen[d] {
			texts = append(texts, d.text)
		}
	}
	return texts, nil
}

// expand returns the concrete paths of the claims below v that a path with nil
// steps names.
func expand(v any, rest, done Path) []Path {
	if len(rest) == 0 {
		return []Path{slices.Clone(done)}
	}
	if rest[0] != nil {
		next, ok := lookup(v, rest[:1])
		if !ok {
			return nil
		}
		return expand(next, rest[1:], append(done, rest[0]))
	}
	var all []Path
	list, _ := v.([]any)
	for i, e := range list {
		all = append(all, expand(e, rest[1:], append(done, i))...)
	}
	return all
}

// keyBinding makes the KB-JWT (RFC 9901 section 4.3) for the SD-JWT t.
func (c *Credential) keyBinding(ctx context.Context, t *Token, p Presentation) (string, error) {
	if p.Audience == "" || p.Nonce == "" {
		return "", errors.New("sdjwt: a KB-JWT needs an Audience and a Nonce")
	}
	value, _ := c.claims.object.Get("cnf")
	cnf, err := credentials.JWTCnfRFC7800(value)
	if err != nil {
		return "", err
	}
	if err := cnf.MatchKey(p.Key.Public()); err != nil {
		return "", err
	}
	scheme, err := credentials.SchemeOf(p.Key.Public())
	if err != nil {
		return "", fmt.Errorf("sdjwt: %w", err)
	}
	if p.IssuedAt.IsZero() {
		p.IssuedAt = time.Now()
	}
	header := new(jose.Object).Add("alg", scheme.JOSE).Add("typ", typeKB)
	payload := new(jose.Object).Add("iat", number(p.IssuedAt)).Add("aud", p.Audience).
		Add("nonce", p.Nonce).Add("sd_hash", c.hash.digest([]byte(t.prefix)))
	if !p.Expires.IsZero() {
		payload.Add("exp", number(p.Expires))
	}
	jwt, err := jose.Sign(ctx, scheme, p.Key, jose.AppendJSON(nil, header), jose.AppendJSON(nil, payload))
	if err != nil {
		return "", fmt.Errorf("sdjwt: signing the KB-JWT: %w", err)
	}
	return jwt, nil
}

func number(t time.Time) json.Number { return json.Number(strconv.FormatInt(t.Unix(), 10)) }
