package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

// statusOptions say how "credential verify" learns of a revocation: from files,
// which were fetched from the issuer.
type statusOptions struct {
	crls   []string
	list   string
	keys   []string
	ignore bool

	files  [][]byte
	token  []byte
	public statuslist.StaticKeys
	now    time.Time
	said   string
}

// maxStatusFile bounds a CRL or a status list.
const maxStatusFile = certs.MaxCRL

// given reports whether any of the flags is there.
func (s *statusOptions) given() bool {
	return s.crls != nil || s.list != "" || s.keys != nil || s.ignore
}

func (s *statusOptions) read(o *verifyOptions) error {
	s.now, s.said = o.now, "not checked"
	for _, name := range s.crls {
		b, err := readBounded(name, maxStatusFile)
		if err != nil {
			return err
		}
		s.files = append(s.files, b)
	}
	if s.list == "" {
		return nil
	}
	if s.ignore {
		return usageError{errors.New("give either --status-list or --ignore-status")}
	}
	keys := s.keys
	if len(keys) == 0 {
		keys = o.issuerKeys
	}
	for _, name := range keys {
		pub, err := readPublicKey(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.public = append(s.public, pub)
	}
	var err error
	s.token, err = readBounded(s.list, maxStatusFile)
	if isJWT(s.token) { // a CWT may end in an octet that would be white space
		s.token = bytes.TrimSpace(s.token)
	}
	return err
}

// isJWT tells a JWT from a CWT by how every JWS begins: {" in base64url.
func isJWT(token []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(token, " \t\r\n"), []byte("eyJ"))
}

// x509 judges each certificate of a path by the CRL of its issuer.
func (s *statusOptions) x509() func(context.Context, *certs.Result, *x509.Certificate, *x509.Certificate) error {
	if len(s.files) == 0 {
		return nil
	}
	return func(ctx context.Context, r *certs.Result, cert, issuer *x509.Certificate) error {
		if cert.IsCA && len(cert.CRLDistributionPoints) == 0 {
			return nil // it says nowhere how its revocation is learned
		}
		lists := certs.CRLs{At: s.now, Skew: credentialSkew}
		var missing error
		for _, b := range s.files {
			c, err := certs.ParseCRL(b, issuer, nil)
			if err != nil {
				missing = err
				continue
			}
			lists.Lists = append(lists.Lists, c)
		}
		if err := lists.Revocation(ctx, r, cert, issuer); err != nil {
			if len(lists.Lists) == 0 && missing != nil {
				return missing
			}
			return err
		}
		s.said = "not revoked"
		return nil
	}
}

// credentialSkew is by what clocks may differ.
const credentialSkew = 2 * time.Minute

// judge asks the list for one reference.
func (s *statusOptions) judge(ctx context.Context, ref statuslist.Reference) error {
	if s.token == nil {
		return credentials.Errorf(credentials.CodeStatusUnavailable, "status", "give --status-list with what %s serves, or --ignore-status", ref.URI)
	}
	c := statuslist.Checker{
		Rules:    statuslist.Rules{Keys: s.public, Now: func() time.Time { return s.now }, Skew: credentialSkew},
		Fetcher:  fileFetcher(s.token),
		Prefixes: []string{ref.URI},
	}
	if err := c.Check(ctx, ref); err != nil {
		return err
	}
	s.said = "valid"
	return nil
}

// A fileFetcher is a list that was fetched before.
type fileFetcher []byte

func (f fileFetcher) Fetch(context.Context, string, []string, int64) ([]byte, string, error) {
	if isJWT(f) {
		return f, statuslist.MediaTypeJWT, nil
	}
	return f, statuslist.MediaTypeCWT, nil
}

func (s *statusOptions) jwt() func(context.Context, sdjwt.StatusReference) error {
	return func(ctx context.Context, claim sdjwt.StatusReference) error {
		if s.ignore {
			return nil
		}
		ref, err := statuslist.ParseReferenceJSON(claim.Status)
		if err != nil {
			return err
		}
		return s.judge(ctx, ref)
	}
}

func (s *statusOptions) cwt() func(context.Context, []byte) error {
	return func(ctx context.Context, claim []byte) error {
		if s.ignore || claim == nil {
			return nil
		}
		ref, err := statuslist.ParseReferenceCBOR(claim)
		if err != nil {
			return err
		}
		return s.judge(ctx, ref)
	}
}

// levelName leaves "none" out, which no credential says.
func levelName(l credentials.AttestationLevel) string {
	if l == credentials.AttestationNone {
		return ""
	}
	return l.String()
}
