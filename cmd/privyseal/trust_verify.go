package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// trustedVerify returns how "credential verify" judges where a trust
// configuration is at hand and no issuer was named by hand; nil otherwise.
func (a *app) trustedVerify(_ context.Context, o *verifyOptions) (func(context.Context, *verifyOptions, []byte) (*acceptance, error), error) {
	byHand := len(o.anchors) > 0 || len(o.issuerKeys) > 0 || o.iss != ""
	switch {
	case o.trust == "" && byHand:
		return nil, nil
	case byHand:
		return nil, usageError{errors.New("--trust says whom to believe, and goes without --anchor, --issuer-key and --iss")}
	}
	path := o.trust
	if path == "" {
		c, err := a.loadConfig()
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, nil // the other flags will be asked for
		case err != nil:
			return nil, err
		case c.Trust == "":
			return nil, nil
		}
		path = resolve(c.dir, c.Trust)
	}
	if o.status.given() {
		return nil, usageError{errors.New("the trust configuration says how revocation is learned: --crl, --status-list, --status-key and --ignore-status go with --anchor or --issuer-key")}
	}
	return func(ctx context.Context, o *verifyOptions, text []byte) (*acceptance, error) {
		l, err := a.openTrust(ctx, path)
		if err != nil {
			return nil, err
		}
		defer l.close()
		return o.verifyTrusted(ctx, l.List, text)
	}, nil
}

// verifyTrusted has the evaluator of hubs and clients judge a presentation, and
// then holds it to the nonce.
func (o *verifyOptions) verifyTrusted(ctx context.Context, l *trust.List, text []byte) (*acceptance, error) {
	shown, err := o.parseShown(text)
	if err != nil {
		return nil, err
	}
	q := identity.Question{AnyKey: true, Acting: true, At: o.now, Credential: shown.credential, Expect: identity.Expected{Pseudonyms: true}}
	if holder, err := o.expectHolder(); err != nil {
		return nil, err
	} else if holder != nil {
		if err := setLeaf(&q, holder); err != nil {
			return nil, err
		}
	}
	if room, err := mimi.ParseURI(o.audience); err == nil {
		q.Room = room
	}
	opts := identity.EvaluatorOptions{}
	if o.audience != "" {
		opts.Audiences = []string{o.audience}
	}
	v, err := identity.NewEvaluator(l, opts).Evaluate(ctx, q)
	if err != nil {
		return nil, err
	}
	id := v.Identity
	out := &acceptance{
		Accepted: true, Type: o.kind, Client: id.Client.String(), User: id.User.String(), Issuer: id.Issuer,
		Bound: !o.noKeyBinding, NotBefore: id.NotBefore, NotAfter: id.NotAfter,
	}
	return out, o.checkShown(shown, out)
}

// A shownCredential is a presentation taken apart.
type shownCredential struct {
	credential mls.Credential
	leaf       *x509.Certificate // of x509
	proof      []byte            // its PKCS#10 request, or nil
	token      *sdjwt.Token      // of sd-jwt
	kbt        []byte            // of sd-cwt
}

func (o *verifyOptions) parseShown(text []byte) (s *shownCredential, err error) {
	s = &shownCredential{}
	switch o.kind {
	case typeX509:
		return s, s.parseX509(text)
	case typeMLS:
		if !o.noKeyBinding {
			return nil, usageError{errors.New("--type mls: the credential of a leaf is not made for a verifier's nonce; give --no-key-binding, and the leaf's key as --holder-key")}
		}
		s.credential, err = parseCredential(typeMLS, text)
		return s, err
	}
	if o.noKeyBinding {
		return nil, usageError{errors.New("--no-key-binding: the trust configuration believes a token only from its holder")}
	}
	if o.kind == typeSDCWT {
		s.credential, err = parseCredential(typeSDCWT, text)
		s.kbt = s.credential.Body
		return s, err
	}
	if s.token, err = sdjwt.Parse(strings.TrimSpace(string(text)), sdjwt.Limits{}); err != nil {
		return nil, err
	}
	s.credential, err = parseCredential(typeSDJWT, text)
	return s, err
}

func (s *shownCredential) parseX509(text []byte) error {
	blocks, err := pemBlocks(text)
	if err != nil {
		return err
	}
	var certificates []byte
	for _, b := range blocks {
		if b.Type == "CERTIFICATE REQUEST" && s.proof == nil {
			s.proof = b.Bytes
			continue
		}
		certificates = append(certificates, pem.EncodeToMemory(b)...)
	}
	chain, err := parseCertificates(certificates)
	if err != nil {
		return err
	}
	s.leaf = chain[0]
	s.credential, err = parseCredential(typeX509, certificates)
	return err
}

// checkShown wants the presentation to be for our nonce.
func (o *verifyOptions) checkShown(s *shownCredential, out *acceptance) (err error) {
	var holder crypto.PublicKey
	switch {
	case s.leaf != nil:
		if holder = s.leaf.PublicKey; !o.noKeyBinding {
			err = o.checkPossession(s.proof, holder)
		}
	case s.token != nil:
		holder, err = o.checkJWTNonce(s.token)
	case s.kbt != nil:
		holder, err = o.checkCWTNonce(s.kbt)
	default:
		holder, err = o.expectHolder()
	}
	if err != nil || holder == nil {
		return err
	}
	out.KID, err = signer.JWKThumbprint(holder)
	return err
}

func (o *verifyOptions) checkBinding(where, nonce, aud string) error {
	switch {
	case nonce != o.nonce:
		return credentials.Errorf(credentials.CodeNonce, where, "not the nonce that was given to the presenter")
	case aud != o.audience:
		return credentials.Errorf(credentials.CodeAudience, where, "it is for %.200q, and we are %q", aud, o.audience)
	}
	return nil
}

// checkJWTNonce reads the nonce and the audience of a KB-JWT that was
// verified, and returns the key that it was verified with, or nil.
func (o *verifyOptions) checkJWTNonce(t *sdjwt.Token) (crypto.PublicKey, error) {
	const depth = 16
	kb, err := jose.ParseCompact(t.KeyBindingJWT(), depth)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "KB-JWT", "%w", err)
	}
	claims, err := jose.ParseObject(kb.Payload, depth)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "KB-JWT", "%w", err)
	}
	nonce, _, _ := claims.Text("nonce")
	aud, _, _ := claims.Text("aud")
	if err := o.checkBinding("KB-JWT", nonce, aud); err != nil {
		return nil, err
	}
	c, err := sdjwt.OpenCredential(t.IssuerJWT()+"~", sdjwt.Limits{})
	if err != nil {
		return nil, err
	}
	cnf, _ := c.Claims().Get("cnf")
	confirmed, err := credentials.ParseJWTCnf(cnf)
	if err != nil {
		return nil, err
	}
	return confirmed.Key, nil
}

// checkCWTNonce is the same of a KBT.
func (o *verifyOptions) checkCWTNonce(token []byte) (crypto.PublicKey, error) {
	kbt, err := cose.DecodeSign1(token, dcbor.Limits{})
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "KBT", "%w", err)
	}
	claims, err := dcbor.Decode(kbt.Payload)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "KBT", "%w", err)
	}
	nonce, _ := claims.GetInt(sdcwt.ClaimCNonce).Bytes()
	aud, _ := claims.GetInt(sdcwt.ClaimAudience).Text()
	if err := o.checkBinding("KBT", string(nonce), aud); err != nil {
		return nil, err
	}
	c, err := sdcwt.ParseCredential(kbt.Protected.GetInt(cose.HeaderKCWT).Raw())
	if err != nil {
		return nil, err
	}
	confirmed, err := credentials.ParseCWTCnf(c.Claims().Raw(sdcwt.ClaimCnf))
	if err != nil || confirmed.Key == nil {
		return nil, err
	}
	return confirmed.Key.Public, nil
}
