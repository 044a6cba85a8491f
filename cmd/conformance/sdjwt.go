package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

func runSDJWT(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runCorpus("sdjwt", args, judgeSDJWT, stdin, stdout, stderr)
}

// maxCorpusToken bounds a token that is judged by the specification alone.
const maxCorpusToken = 1 << 20

// corpusDepth bounds what is nested in it; RFC 9901 has no bound.
const corpusDepth = 1 << 8

// An sdjwtCase is a case of an SD-JWT corpus.
type sdjwtCase struct {
	token, nonce, aud, level string
	requireKB, vc            bool
	now                      time.Time
	claims                   json.RawMessage
}

func readSDJWT(c *corpusCase) (s sdjwtCase, err error) {
	if s.token, err = c.serialization("token"); err != nil {
		return s, err
	}
	for name, to := range map[string]*string{"nonce": &s.nonce, "aud": &s.aud, "level": &s.level} {
		if *to, err = c.text(name); err != nil {
			return s, err
		}
	}
	for name, to := range map[string]*bool{"require_kb": &s.requireKB, "vc": &s.vc} {
		if *to, err = c.boolean(name); err != nil {
			return s, err
		}
	}
	// A case that does not say whether key binding is required, but names what
	// a KB-JWT must answer to, has it checked where there is one.
	if _, stated := c.raw("require_kb"); !stated && (s.nonce != "" || s.aud != "") {
		t, err := sdjwt.Parse(s.token, sdjwt.Limits{Octets: maxCorpusToken})
		s.requireKB = err == nil && t.HasKeyBinding()
	}
	s.now, err = c.now()
	s.claims, _ = c.raw("claims")
	return s, err
}

// serialization returns a text, or the JSON of an object: a token in JSON
// serialization is one.
func (c *corpusCase) serialization(name string) (string, error) {
	if v, ok := c.raw(name); ok && v[0] == '{' {
		return string(v), nil
	}
	return c.text(name)
}

func judgeSDJWT(c *corpusCase) error {
	s, err := readSDJWT(c)
	if err != nil {
		return err
	}
	keys, err := sdjwtKeys(c)
	if err != nil {
		return err
	}
	v, err := sdjwt.NewVerifier(s.policy(keys))
	if err != nil {
		return &errCase{err}
	}
	got, err := v.Verify(context.Background(), s.token, sdjwt.Expect{Nonce: s.nonce})
	if err != nil {
		return err
	}
	if s.claims != nil && !got.Claims.Equal(s.claims) {
		return &errClaims{string(got.Claims.JSON())}
	}
	return nil
}

// sdjwtKeys returns the issuer's key. A key of a kind that we do not have is
// refused as an algorithm.
func sdjwtKeys(c *corpusCase) (sdjwt.IssuerKeys, error) {
	jwk, err := c.key("issuer_jwk")
	if err != nil {
		return nil, err
	}
	pub, _, err := credentials.ParseJWK(publicPart(jwk))
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeAlg, "issuer_jwk", "%w", err)
	}
	return sdjwt.StaticKeys{{Public: pub}}, nil
}

// publicPart takes the private members out of a corpus' key.
func publicPart(jwk json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(jwk, &members) != nil || members["d"] == nil {
		return jwk
	}
	delete(members, "d")
	public, err := json.Marshal(members)
	if err != nil {
		return jwk
	}
	return public
}

// The claims of RFC 9901 section 9.7.
var rfc9901Permanent = []string{"iss", "aud", "exp", "nbf", "cnf"}

// policy returns the verifier of a case. A case of level "must" is judged by
// what RFC 9901 and SD-JWT VC themselves demand: any typ where SD-JWT VC does
// not fix it, clocks without tolerance, larger limits. "should" adds the list
// of RFC 9901 section 9.7, and any other level is judged with the rulings that
// are this module's defaults.
func (s *sdjwtCase) policy(keys sdjwt.IssuerKeys) sdjwt.Policy {
	p := sdjwt.Policy{
		Issuers: keys, VC: s.vc, AnyType: !s.vc,
		IgnoreStatus: true, // a status list is a subject of its own
		AnyNonce:     s.nonce == "",
		Now:          func() time.Time { return s.now },
	}
	if !s.requireKB {
		p.KeyBinding = sdjwt.KeyBindingNotRequired
	}
	if p.AnyAudience = s.aud == ""; !p.AnyAudience {
		p.Audiences = []string{s.aud}
	}
	switch strings.ToLower(s.level) {
	case "", "must":
		p.Permanent, p.LooseCnf, p.IssuedAhead = []string{}, true, true
		p.Skew, p.KBSkew = sdjwt.Exactly, sdjwt.DefaultSkew
		p.Limits = sdjwt.Limits{Octets: maxCorpusToken, Disclosures: 1 << 12, Depth: corpusDepth}
	case "should":
		p.Permanent, p.LooseCnf, p.IssuedAhead = rfc9901Permanent, true, true
		p.Skew, p.KBSkew = sdjwt.Exactly, sdjwt.DefaultSkew
	}
	return p
}
