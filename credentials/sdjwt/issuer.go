package sdjwt

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// neverRedacted are the top-level claims that an Issuer keeps in the open: they
// decide authenticity or validity (RFC 9901 section 9.7, SD-JWT VC).
var neverRedacted = []string{"iss", "aud", "exp", "nbf", "iat", "cnf", "sub", "status", "vct", "vct#integrity", "aka_vcts"}

// mayRedact are those of them that an issuer may hide all the same.
var mayRedact = []string{"sub", "iat"}

// An Issuer signs SD-JWTs with one key. It may be used by many goroutines at
// once if its key may.
type Issuer struct {
	Key          crypto.Signer
	Name         string   // iss; "" leaves it to the claims, or to Certificates
	Kid          string   // kid; "" for none
	Certificates [][]byte // x5c, DER, leaf first; nil for none
	Type         string   // typ; default TypeVC
	Hash         string   // _sd_alg; default DefaultHash
	MayRedact    []string // of "sub" and "iat": those that may be redacted
	Limits       Limits   // nothing larger is issued
}

// A Request describes one SD-JWT to issue.
type Request struct {
	Claims []byte // JSON object, without the claims that the fields below add

	Redact []Path  // what becomes selectively disclosable
	Decoys []Decoy // digests that stand for nothing

	Holder     crypto.PublicKey // becomes cnf; nil for a token without key binding
	Thumbprint bool             // cnf has only the key's thumbprint, jkt

	IssuedAt  time.Time // iat, if not zero
	NotBefore time.Time // nbf, if not zero
	Expires   time.Time // exp, if not zero
}

// Issue redacts, signs and returns the SD-JWT with all its Disclosures, which
// go to the holder and to nobody else.
func (i *Issuer) Issue(ctx context.Context, req Request) (*Token, error) {
	scheme, h, err := i.check(req)
	if err != nil {
		return nil, err
	}
	limits := i.Limits.withDefaults()
	claims, err := jose.ParseObject(string(req.Claims), limits.Depth)
	if err != nil {
		return nil, fmt.Errorf("sdjwt: claims: %w", err)
	}
	if err := i.complete(claims, req); err != nil {
		return nil, err
	}
	r := redactors.Get().(*redactor)
	defer r.release()
	r.hash = h
	if err := r.redact(claims, req); err != nil {
		return nil, err
	}
	disclosures := len(r.writer.ends)
	if disclosures > limits.Disclosures {
		return nil, fmt.Errorf("sdjwt: %d claims are redacted, at most %d may be", disclosures, limits.Disclosures)
	}
	payload := jose.AppendJSON(r.writer.json[:0], claims)
	r.writer.json = payload
	jwt, err := jose.SignOctets(ctx, scheme, i.Key, i.header(scheme), payload)
	if err != nil {
		return nil, fmt.Errorf("sdjwt: signing: %w", err)
	}
	t := r.writer.token(jwt)
	if n := len(t.prefix); n > limits.Octets {
		return nil, fmt.Errorf("sdjwt: the token has %d octets, at most %d may be issued", n, limits.Octets)
	}
	return t, nil
}

func (i *Issuer) check(req Request) (*credentials.Scheme, *hashAlg, error) {
	if i.Key == nil {
		return nil, nil, errors.New("sdjwt: an Issuer needs a Key")
	}
	scheme, err := credentials.SchemeOf(i.Key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("sdjwt: %w", err)
	}
	h := hashAlgs[i.Hash]
	if i.Hash == "" {
		h = hashAlgs[DefaultHash]
	}
	if h == nil {
		return nil, nil, fmt.Errorf("sdjwt: no hash %q; use %s", i.Hash, hashNames())
	}
	for _, name := range i.MayRedact {
		if !slices.Contains(mayRedact, name) {
			return nil, nil, fmt.Errorf("sdjwt: %q can never be redacted", name)
		}
	}
	for _, p := range req.Redact {
		if err := i.checkRedactable(p); err != nil {
			return nil, nil, err
		}
	}
	for _, d := range req.Decoys {
		if len(d.At) > 0 && slices.Contains(neverRedacted, nameOf(d.At[0])) && d.At[0] != "aud" {
			return nil, nil, fmt.Errorf("sdjwt: no decoys in %s", d.At)
		}
	}
	return scheme, h, nil
}

func nameOf(step any) string {
	s, _ := step.(string)
	return s
}

// checkRedactable keeps the claims of neverRedacted in the open, with all that
// is in them. Single entries of aud may be hidden.
func (i *Issuer) checkRedactable(p Path) error {
	if len(p) == 0 {
		return errors.New("sdjwt: an empty path cannot be redacted")
	}
	name := nameOf(p[0])
	if !slices.Contains(neverRedacted, name) || name == "aud" && len(p) > 1 {
		return nil
	}
	if slices.Contains(i.MayRedact, name) {
		return nil
	}
	return fmt.Errorf("sdjwt: %s decides about validity and must stay in the open", p)
}

// complete adds the registered claims of the request to the caller's.
func (i *Issuer) complete(claims *jose.Object, req Request) error {
	add := jose.Object{Members: make([]jose.Member, 0, 5)}
	if i.Name != "" {
		add.Add("iss", i.Name)
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"iat", req.IssuedAt}, {"nbf", req.NotBefore}, {"exp", req.Expires}} {
		if !t.at.IsZero() {
			add.Add(t.name, number(t.at))
		}
	}
	if req.Holder != nil {
		cnf, err := confirmation(req)
		if err != nil {
			return err
		}
		add.Add("cnf", cnf)
	}
	for _, m := range add.Members {
		if claims.Has(m.Name) {
			return fmt.Errorf("sdjwt: %q is in the claims and in the request", m.Name)
		}
	}
	if cnf, there := claims.Get("cnf"); there {
		if _, err := credentials.JWTCnfFrom(cnf); err != nil {
			return err
		}
	}
	claims.Members = slices.Insert(claims.Members, 0, add.Members...)
	return i.checkComplete(claims)
}

// confirmation returns the cnf claim for the holder's key.
func confirmation(req Request) (any, error) {
	if !req.Thumbprint {
		jwk, err := jose.FormatJWK(req.Holder)
		if err != nil {
			return nil, fmt.Errorf("sdjwt: holder key: %w", err)
		}
		return new(jose.Object).Add("jwk", jwk), nil
	}
	sum, err := jose.Thumbprint(req.Holder)
	if err != nil {
		return nil, fmt.Errorf("sdjwt: holder key: %w", err)
	}
	return new(jose.Object).Add("jkt", jose.EncodeBase64(sum)), nil
}

// checkComplete refuses claims that every verifier would refuse.
func (i *Issuer) checkComplete(claims *jose.Object) error {
	if i.typ() == TypeVC {
		if vct, _, _ := claims.Text("vct"); vct == "" {
			return errors.New(`sdjwt: an SD-JWT VC needs a "vct"`)
		}
	}
	exp, hasExp, err := numericDate(claims, "claims", "exp")
	if err != nil {
		return err
	}
	for _, name := range []string{"iat", "nbf"} {
		from, there, err := numericDate(claims, "claims", name)
		if err != nil {
			return err
		}
		if hasExp && there && exp <= from {
			return credentials.Errorf(credentials.CodeTimeOrder, "claims", "exp is not after %s", name)
		}
	}
	return nil
}

func (i *Issuer) typ() string {
	if i.Type == "" {
		return TypeVC
	}
	return i.Type
}

// redact redacts claims as req asks.
func (r *redactor) redact(claims *jose.Object, req Request) error {
	plan, err := r.planFor(req.Redact, req.Decoys)
	if err != nil {
		return err
	}
	if n := len(req.Redact); n > 0 {
		r.salts.draw(n)
	}
	if err := r.object(claims, plan); err != nil {
		return err
	}
	if miss := plan.unmatched(); miss != nil {
		return fmt.Errorf("sdjwt: the claims have nothing at %s", miss)
	}
	if r.salts.drawn {
		claims.Add(keySDAlg, r.hash.name)
	}
	return nil
}

// header returns the JSON of the protected header.
func (i *Issuer) header(s *credentials.Scheme) []byte {
	b := append(make([]byte, 0, 96), `{"alg":"`...)
	b = append(append(b, s.JOSE...), '"')
	if i.Kid != "" {
		b = jose.AppendString(append(b, `,"kid":`...), i.Kid)
	}
	b = jose.AppendString(append(b, `,"typ":`...), i.typ())
	if len(i.Certificates) > 0 {
		x5c := make([]any, len(i.Certificates))
		for n, der := range i.Certificates {
			x5c[n] = base64.StdEncoding.EncodeToString(der)
		}
		b = jose.AppendJSON(append(b, `,"x5c":`...), x5c)
	}
	return append(b, '}')
}
