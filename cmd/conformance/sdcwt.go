package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
)

func runSDCWT(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runCorpus("sdcwt", args, judgeSDCWT, stdin, stdout, stderr)
}

// corpusDisclosures bounds the disclosures of a token. The draft names no
// bound; the size of a token is one already.
const corpusDisclosures = 1 << 14

// anyIssuer says that one key is every issuer's, since a corpus names only the
// key.
type anyIssuer struct{ key crypto.PublicKey }

func (a anyIssuer) IssuerKeys(context.Context, sdcwt.IssuerID) ([]crypto.PublicKey, error) {
	return []crypto.PublicKey{a.key}, nil
}

// An sdcwtCase is a case of an SD-CWT corpus.
type sdcwtCase struct {
	token, cnonce, claims []byte
	hasClaims             bool
	kind, aud             string
	holder                bool
	issuer                sdcwt.IssuerKeys
	now                   func() time.Time
	maxAge                time.Duration
}

func judgeSDCWT(c *corpusCase) error {
	s, err := readSDCWTCase(c)
	if err != nil {
		return err
	}
	claims, err := s.judge()
	if err != nil {
		return err
	}
	if got := claims.CBOR(); s.hasClaims && !bytes.Equal(got, s.claims) {
		return &errClaims{fmt.Sprintf("claims %x", got)}
	}
	return nil
}

func readSDCWTCase(c *corpusCase) (*sdcwtCase, error) {
	var s sdcwtCase
	var there bool
	var err, err2 error
	s.kind, err = c.text("kind")
	s.aud, err2 = c.text("aud")
	err = errors.Join(err, err2)
	s.holder, err2 = c.boolean("holder")
	err = errors.Join(err, err2)
	if s.token, there, err2 = c.hex("token"); err2 == nil && !there {
		err2 = &errCase{errors.New(`no member "token"`)}
	}
	err = errors.Join(err, err2)
	s.cnonce, _, err2 = c.hex("cnonce")
	err = errors.Join(err, err2)
	s.claims, s.hasClaims, err2 = c.hex("claims")
	err = errors.Join(err, err2)
	key, err2 := c.publicKey("issuer_jwk")
	err = errors.Join(err, err2)
	now, err2 := c.now()
	age, _, err3 := c.number("max_age")
	s.issuer, s.maxAge = anyIssuer{key}, time.Duration(age*float64(time.Second))
	s.now = func() time.Time { return now }
	return &s, errors.Join(err, err2, err3)
}

// judge asks a verifier of the draft, or a holder, without any profile.
func (s *sdcwtCase) judge() (sdcwt.ClaimsSet, error) {
	ctx := context.Background()
	anyType := func(string) bool { return true }
	if s.holder && s.kind == "sd-cwt" {
		h := &sdcwt.Holder{Issuers: s.issuer, CNonce: s.cnonce, Now: s.now, Types: anyType, MaxDisclosures: corpusDisclosures, AnyAudience: s.aud == ""}
		if s.aud != "" {
			h.Audience = []string{s.aud}
		}
		c, err := h.Accept(ctx, s.token)
		if err != nil {
			return sdcwt.ClaimsSet{}, err
		}
		return c.Claims(), nil
	}
	v := &sdcwt.Verifier{
		Issuers: s.issuer, Now: s.now, MaxAge: s.maxAge, Nonce: s.cnonce, Types: anyType, MaxDisclosures: corpusDisclosures,
		AcceptAudience: func(aud string) bool { return s.aud == "" || s.aud == aud },
	}
	verify := v.Verify
	if s.kind == "sd-cwt" {
		verify = v.VerifyIssued
	}
	out, err := verify(ctx, s.token)
	if err != nil {
		return sdcwt.ClaimsSet{}, err
	}
	return out.Claims, nil
}

// hex returns a member with octets in hex, and whether it is there.
func (c *corpusCase) hex(name string) ([]byte, bool, error) {
	text, err := c.text(name)
	if _, there := c.raw(name); err != nil || !there {
		return nil, false, err
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, true, &errCase{fmt.Errorf("member %q: %w", name, err)}
	}
	return b, true, nil
}

// publicKey returns the key of a JWK member. A key of a kind that we do not
// have is refused as an algorithm.
func (c *corpusCase) publicKey(name string) (crypto.PublicKey, error) {
	jwk, err := c.key(name)
	if err != nil {
		return nil, err
	}
	pub, _, err := credentials.ParseJWK(publicPart(jwk))
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeAlg, name, "%w", err)
	}
	return pub, nil
}
