package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// trustedVerify returns how "credential verify" judges where a trust
// configuration is at hand and no issuer was named by hand; nil otherwise.
func (a *app) trustedVerify(_ context.Context, o *verifyOptions) (func(context.Context, *verifyOptions, []byte) (*acceptance, error), error) {
	if o.trust == "" && (len(o.anchors) > 0 || len(o.issuerKeys) > 0 || o.iss != "") {
		return nil, nil
	}
	path := o.trust
	if path == "" {
		c, err := a.loadConfig()
		if err != nil || c.Trust == "" {
			return nil, nil // the other flags will be asked for
		}
		path = resolve(c.dir, c.Trust)
	}
	return func(ctx context.Context, o *verifyOptions, text []byte) (*acceptance, error) {
		l, err := a.openTrust(path, trust.Options{})
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return o.verifyTrusted(ctx, l, text)
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
	kb         string            // the KB-JWT
	token      *sdjwt.Token
}

func (o *verifyOptions) parseShown(text []byte) (*shownCredential, error) {
	s := &shownCredential{}
	if o.kind == typeX509 {
		return s, s.parseX509(text)
	}
	var err error
	if s.token, err = sdjwt.Parse(strings.TrimSpace(string(text)), sdjwt.Limits{}); err != nil {
		return nil, err
	}
	if s.kb = s.token.KeyBindingJWT(); o.noKeyBinding {
		return nil, usageError{errors.New("--no-key-binding: the trust configuration believes a token only from its holder")}
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
	if s.leaf != nil {
		if out.KID, err = signer.JWKThumbprint(s.leaf.PublicKey); err != nil || o.noKeyBinding {
			return err
		}
		return o.checkPossession(s.proof, s.leaf.PublicKey)
	}
	return o.checkTokenNonce(s, out)
}

// checkTokenNonce reads the nonce and the audience of a KB-JWT that was
// verified, and the key that it was verified with.
func (o *verifyOptions) checkTokenNonce(s *shownCredential, out *acceptance) error {
	const depth = 16
	kb, err := jose.ParseCompact(s.kb, depth)
	if err != nil {
		return credentials.Errorf(credentials.CodeMalformed, "KB-JWT", "%w", err)
	}
	claims, err := jose.ParseObject(kb.Payload, depth)
	if err != nil {
		return credentials.Errorf(credentials.CodeMalformed, "KB-JWT", "%w", err)
	}
	if nonce, _, _ := claims.Text("nonce"); nonce != o.nonce {
		return credentials.Errorf(credentials.CodeNonce, "KB-JWT", "not the nonce that was given to the presenter")
	}
	if aud, _, _ := claims.Text("aud"); aud != o.audience {
		return credentials.Errorf(credentials.CodeAudience, "KB-JWT", "it is for %.200q, and we are %q", aud, o.audience)
	}
	c, err := sdjwt.OpenCredential(s.token.IssuerJWT()+"~", sdjwt.Limits{})
	if err != nil {
		return err
	}
	cnf, _ := c.Claims().Get("cnf")
	confirmed, err := credentials.ParseJWTCnf(cnf)
	if err != nil || confirmed.Key == nil {
		return err
	}
	out.KID, err = signer.JWKThumbprint(confirmed.Key)
	return err
}
