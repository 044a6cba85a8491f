package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/publish"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/daemon"
	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/signer"
)

// An EnrolSection lets devices that were invited enrol over HTTPS, below
// issuer.url. issuer.attestation says which TPMs are believed.
type EnrolSection struct {
	// Listener is where it is served, with TLS. Required.
	Listener string `json:"listener"`
	// CA is the one of issuer.cas that issues certificates; default the only
	// one.
	CA string `json:"ca,omitempty"`
	// Appliances are files with the public keys, PEM or JWK, of appliances
	// whose statements about keys in their tokens are believed.
	Appliances []string `json:"appliances,omitempty"`
}

func (e *EnrolSection) check(s *ServeConfig) error {
	const at = "serve.issuer.enrol.listener"
	if e == nil {
		return nil
	}
	if err := s.checkListener(at, e.Listener); err != nil {
		return err
	}
	if s.Listeners[e.Listener].Plain {
		return configErrorf(at, "%q is plain, and codes to enrol are secret", e.Listener)
	}
	return nil
}

// An enrolment enrols devices with the keys of the issuer. It implements
// enrol.Issuer.
type enrolment struct {
	wiring   *wiring
	issuance *issuance
	section  *EnrolSection
	ca       signer.KeyID // "" without a CA
	log      *slog.Logger
	service  *enrol.Service
	handler  http.Handler
	est      string // path
	estServe http.Handler
	opened   atomic.Pointer[openedCA]
	asked    atomic.Int64 // when its file was, Unix nanoseconds
}

// An openedCA is an issuing CA and the file that described it.
type openedCA struct {
	issuer *certs.Issuer
	chain  []*x509.Certificate
	file   os.FileInfo
}

// newEnrolment returns nil where there is no section.
func (w *wiring) newEnrolment(ctx context.Context, s *EnrolSection, i *issuance, log *slog.Logger) (_ *enrolment, err error) {
	if s == nil {
		return nil, nil
	}
	if i.section.URL == "" {
		return nil, configErrorf("issuer.url", "is required to enrol devices")
	}
	e := &enrolment{wiring: w, issuance: i, section: s, log: log}
	if e.ca, err = s.caKey(i.section); err != nil {
		return nil, err
	}
	c := enrol.Config{Issuer: e, Audience: i.section.URL, Report: e.report}
	if c.TPMs, err = w.endorser(); err != nil {
		return nil, err
	}
	if c.Appliances, err = w.applianceKeys(s.Appliances); err != nil {
		return nil, err
	}
	if c.Invitations, err = enrol.NewStore(ctx, i.book, nil); err != nil {
		return nil, err
	}
	if e.ca != "" {
		c.CACerts = e.chain
	}
	if e.service, err = enrol.New(c); err != nil {
		return nil, err
	}
	at, err := url.Parse(i.section.URL)
	if err != nil {
		return nil, configErrorf("issuer.url", "%w", err)
	}
	e.handler, e.est = e.service.Handler(e.path()), enrol.ESTPath(at)
	e.estServe = e.service.EST(e.est)
	return e, nil
}

// chain returns the certificates of the CA.
func (e *enrolment) chain(ctx context.Context) ([]*x509.Certificate, error) {
	ca, err := e.openCA(ctx)
	if err != nil {
		return nil, err
	}
	return ca.chain, nil
}

// path is that of the issuer's URL.
func (e *enrolment) path() string { return publish.PathOf(e.issuance.section.URL) }

func (e *enrolment) mounts() []daemon.Mount {
	if e == nil {
		return nil
	}
	return []daemon.Mount{
		{Listener: e.section.Listener, Pattern: e.path() + "/enrol/", Handler: e.handler},
		{Listener: e.section.Listener, Pattern: e.est + "/", Handler: e.estServe},
	}
}

// report logs an attempt that failed. Anybody can make one without a code, which
// is not to fill the log.
func (e *enrolment) report(err error) {
	level := slog.LevelWarn
	refused, ok := errors.AsType[*enrol.Error](err)
	if p, isProblem := errors.AsType[*problems.Problem](err); ok && (refused.Reason == enrol.ReasonCode || refused.Reason == enrol.ReasonSession) || isProblem && p.Status < http.StatusInternalServerError {
		level = slog.LevelDebug
	}
	e.log.Log(context.Background(), level, "enrolment failed", "err", err)
}

// caKey returns the key of the CA that issues certificates.
func (s *EnrolSection) caKey(i *IssuerSection) (signer.KeyID, error) {
	name, names := s.CA, slices.Sorted(maps.Keys(i.CAs))
	switch {
	case name == "" && len(names) == 0:
		return "", nil
	case name == "" && len(names) == 1:
		name = names[0]
	case name == "":
		return "", configErrorf("serve.issuer.enrol.ca", "is required: one of %s", strings.Join(names, ", "))
	}
	if i.CAs[name] == nil {
		return "", configErrorf("serve.issuer.enrol.ca", "%q is not one of issuer.cas", name)
	}
	return i.CAs[name].Key, nil
}

// endorser returns who judges TPMs; nil where none is believed.
func (w *wiring) endorser() (enrol.Endorser, error) {
	p, err := loadEKPolicy(w.config)
	if errors.Is(err, errNoEKs) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (w *wiring) applianceKeys(files []string) (keys []crypto.PublicKey, err error) {
	for _, name := range files {
		pub, err := readPublicKey(resolve(w.config.dir, name))
		if err != nil {
			return nil, fmt.Errorf("serve.issuer.enrol.appliances: %s: %w", name, err)
		}
		keys = append(keys, pub)
	}
	return keys, nil
}

// Issue implements enrol.Issuer.
func (e *enrolment) Issue(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
	p := possession{request: o.Request, names: o.Names, nonce: o.Nonce, level: o.Level, evidence: o.Evidence, along: o.Spend}
	order := &issueOptions{kind: string(o.Type), lifetime: o.Lifetime, iss: e.issuance.section.URL}
	made, err := e.issue(ctx, o.Type, order, p)
	if err != nil {
		return nil, err
	}
	e.log.Info("a device enrolled", "credential", made.ID, "type", made.Type, "client", made.Client, "attestation", made.Level)
	return &enrol.Issued{ID: made.ID, Type: made.Type, Credential: made.Credential, Attestation: made.Level, NotAfter: made.NotAfter, Chain: made.chain}, nil
}

func (e *enrolment) issue(ctx context.Context, t registry.Type, o *issueOptions, p possession) (*issued, error) {
	book := e.issuance.book
	switch t {
	case registry.SDJWT:
		return e.wiring.token(ctx, book, o, p, t, signSDJWT)
	case registry.SDCWT:
		return textSDCWT(e.wiring.token(ctx, book, o, p, t, signSDCWT))
	}
	if e.ca == "" {
		return nil, errors.New("a certificate was invited for and issuer.cas has no CA")
	}
	ca, err := e.openCA(ctx)
	if err != nil {
		return nil, err
	}
	made, err := ca.certify(ctx, o, p)
	if errors.Is(err, errRotated) { // within caStays: nothing was signed
		e.asked.Store(0)
		if ca, err = e.openCA(ctx); err != nil {
			return nil, err
		}
		made, err = ca.certify(ctx, o, p)
	}
	return made, err
}

// caStays is how long the CA's file is not asked again.
const caStays = time.Second

// openCA returns the CA as its file described it within caStays: it is opened again
// when the file was replaced, as it is after a rotation of its key.
func (e *enrolment) openCA(ctx context.Context) (*openedCA, error) {
	ca, now := e.opened.Load(), time.Now().UnixNano()
	if age := now - e.asked.Load(); ca != nil && age >= 0 && age < int64(caStays) {
		return ca, nil
	}
	file, err := os.Stat(caPath(e.wiring.config, e.ca))
	if err == nil && ca != nil && os.SameFile(ca.file, file) && ca.file.ModTime().Equal(file.ModTime()) && ca.file.Size() == file.Size() {
		e.asked.Store(now)
		return ca, nil
	}
	issuer, chain, openErr := e.wiring.openIssuer(ctx, e.ca, e.issuance.book)
	if openErr != nil {
		return nil, openErr
	}
	ca = &openedCA{issuer, chain, file}
	if err == nil {
		e.opened.Store(ca)
		e.asked.Store(now)
	}
	return ca, nil
}
