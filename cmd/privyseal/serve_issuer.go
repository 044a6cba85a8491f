package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/credentials/publish"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/daemon"
)

// An IssuerServeSection serves what verifiers fetch from the issuer that the
// configuration describes: CRLs, OCSP, status lists, keys, CA certificates.
type IssuerServeSection struct {
	// Listener is where it is served. It may be plain: all of it is public and
	// signed. Required.
	Listener string `json:"listener"`
	// Enrol lets devices that were invited get a credential; see privyseal
	// credential invite.
	Enrol *EnrolSection `json:"enrol,omitempty"`
}

func (i *IssuerServeSection) check(s *ServeConfig) error {
	if i == nil {
		return nil
	}
	if err := s.checkListener("serve.issuer.listener", i.Listener); err != nil {
		return err
	}
	return i.Enrol.check(s)
}

// The issuer component publishes revocations and serves what is published.
type issuerComponent struct {
	issuance *issuance
	listener string
	handler  http.Handler
	enrol    *enrolment // nil where nobody enrols
	deps     deps
}

func newIssuerComponent(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	if s.Issuer == nil {
		return nil, nil
	}
	if w.config.Issuer == nil {
		return nil, configErrorf("issuer", "is required to serve an issuer; see: privyseal help config")
	}
	book, err := registry.Open(ctx, w.config.databaseSource(issuerPart))
	if err != nil {
		return nil, err
	}
	i, err := w.openIssuance(ctx, book)
	if err != nil {
		return nil, errors.Join(err, book.Close())
	}
	c := &issuerComponent{issuance: i, listener: s.Issuer.Listener, deps: d}
	if c.enrol, err = w.newEnrolment(ctx, s.Issuer.Enrol, i, d.log); err != nil {
		return nil, errors.Join(err, book.Close())
	}
	c.handler, err = publish.New(i.served(func(err error) { d.log.Error("cannot serve what is published", "err", err) }))
	if err != nil {
		return nil, errors.Join(err, book.Close())
	}
	if err := c.watch(); err != nil {
		return nil, errors.Join(err, book.Close())
	}
	return c, nil
}

// Mounts has everything below / of its listener.
func (c *issuerComponent) Mounts() []daemon.Mount {
	mounts := []daemon.Mount{
		{Listener: c.listener, Pattern: "/ca/", Handler: c.handler},
		{Listener: c.listener, Pattern: "/ocsp/", Handler: c.handler, Path: publish.KeepSlashes},
	}
	if url := c.issuance.section.URL; url != "" {
		path := publish.PathOf(url)
		mounts = append(mounts,
			daemon.Mount{Listener: c.listener, Pattern: "/.well-known/jwt-vc-issuer" + path, Handler: c.handler},
			daemon.Mount{Listener: c.listener, Pattern: path + "/jwks.json", Handler: c.handler},
			daemon.Mount{Listener: c.listener, Pattern: path + "/keys.cbor", Handler: c.handler},
			daemon.Mount{Listener: c.listener, Pattern: path + "/status", Handler: c.handler},
			daemon.Mount{Listener: c.listener, Pattern: path + "/status/", Handler: c.handler})
	}
	return append(mounts, c.enrol.mounts()...)
}

// Run publishes until ctx ends, and closes the book.
func (c *issuerComponent) Run(ctx context.Context) error {
	c.issuance.publisher.Run(ctx)
	return c.issuance.book.Close()
}

// Health says whether the database answers and every revocation is published
// in time.
func (c *issuerComponent) Health(ctx context.Context) []daemon.Check {
	check := daemon.Check{Name: "revocations", Status: daemon.Up}
	bound := c.issuance.publisher.Bound
	if bound == 0 {
		bound = registry.DefaultBound
	}
	switch lag, err := c.issuance.publisher.Lag(ctx); {
	case err != nil:
		check.Status, check.Detail, check.Critical = daemon.Down, err.Error(), true
	case lag > bound:
		check.Status = daemon.Degraded
		check.Detail = fmt.Sprintf("a revocation has waited for %v to be published, the bound is %v", lag.Round(time.Second), bound)
		check.Remedy = "see the log: a key, its device or the database fails"
	}
	return []daemon.Check{check}
}

// Reload has nothing to read: keys and CAs are settings of a start.
func (c *issuerComponent) Reload(context.Context) (func(), error) { return nil, nil }
