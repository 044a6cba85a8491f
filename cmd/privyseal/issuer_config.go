package main

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// An IssuerSection is what we are as an issuer of credentials.
type IssuerSection struct {
	// URL is the iss of tokens. Status lists and keys are served below it.
	URL string `json:"url,omitempty"`
	// TokenKey signs SD-JWTs and SD-CWTs, StatusKey the status list.
	TokenKey  signer.KeyID `json:"token_key,omitempty"`
	StatusKey signer.KeyID `json:"status_key,omitempty"`
	// CAs are those whose revocations we publish, by their names in URLs.
	CAs map[string]*CASection `json:"cas,omitempty"`
	// CRLValidity is from thisUpdate to nextUpdate; default 24h.
	CRLValidity Duration `json:"crl_validity,omitzero"`
	// Bound is from a revocation to its publication; default 60s.
	Bound Duration `json:"bound,omitzero"`
	// Attestation says which TPMs are believed.
	Attestation *AttestationSection `json:"attestation,omitempty"`
	// History keeps every status list.
	History bool `json:"history,omitempty"`
}

// A CASection is one CA.
type CASection struct {
	Key signer.KeyID `json:"key"` // of purpose x509-ca, with a certificate
	// Presign is how many OCSP answers are signed ahead; default 1000.
	Presign int `json:"presign,omitempty"`
}

// defaultPresign is how many OCSP answers of a CA are signed ahead.
const defaultPresign = 1000

func (s *IssuerSection) check() error {
	if s == nil {
		return nil
	}
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return configErrorf("issuer.url", "%.100q is no https URL without query", s.URL)
		}
	}
	if (s.TokenKey != "" || s.StatusKey != "") && s.URL == "" {
		return configErrorf("issuer.url", "is required with token_key and status_key")
	}
	for at, id := range map[string]signer.KeyID{"issuer.token_key": s.TokenKey, "issuer.status_key": s.StatusKey} {
		if _, err := signer.ParseKeyID(string(id)); id != "" && err != nil {
			return configErrorf(at, "%w", err)
		}
	}
	if d := time.Duration(s.CRLValidity); d != 0 && d < time.Minute {
		return configErrorf("issuer.crl_validity", "less than a minute")
	}
	return s.checkCAs()
}

func (s *IssuerSection) checkCAs() error {
	for _, name := range slices.Sorted(maps.Keys(s.CAs)) {
		at, ca := "issuer.cas."+name, s.CAs[name]
		switch {
		case !deviceName.MatchString(name):
			return configErrorf("issuer.cas", "%q is no name; use 1 to 32 of a-z, 0-9 and '-'", name)
		case ca == nil:
			return configErrorf(at, "null")
		case ca.Presign < 0:
			return configErrorf(at+".presign", "cannot be negative")
		}
		if _, err := signer.ParseKeyID(string(ca.Key)); err != nil {
			return configErrorf(at+".key", "%w", err)
		}
	}
	return nil
}

// issuer returns the section, empty where there is none.
func (c *Config) issuer() *IssuerSection {
	if c.Issuer == nil {
		return new(IssuerSection)
	}
	return c.Issuer
}

// below returns a URL below that of the issuer.
func (s *IssuerSection) below(path string) string { return strings.TrimSuffix(s.URL, "/") + path }

// statusList is the URI of the status list.
func (s *IssuerSection) statusList() string { return s.below("/status/1") }
