package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	remote "github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
	"github.com/privyseal/privyseal/signer/rpc"
	signing "github.com/privyseal/privyseal/signer/service"
)

// demoPolicy lets a device sign what an MLS client signs, and nothing else.
const demoPolicy = `{
  "version": 1,
  "rules": [
    {"id": "mls-devices", "effect": "allow", "when": "key.purpose == 'mls-leaf' && (request.shape == 'mls' || request.shape == 'csr')"},
    {"id": "init-keys", "effect": "allow", "when": "key.purpose == 'mls-init' && request.operation == 'agree'"},
    {"id": "callers-ca", "effect": "allow", "when": "key.purpose == 'x509-ca'"}
  ]
}`

// An appliance is the signing service of the demonstration.
type appliance struct {
	service *signing.Service
	journal *journal.Journal
	access  *access.Store
	server  *http.Server
	url     string
	callers []*remote.Client
}

// startAppliance serves the keys of the token over mutual TLS, under a policy
// and with a journal.
func (d *demo) startAppliance(ctx context.Context) (err error) {
	a := new(appliance)
	d.appliance = a
	if a.journal, err = journal.Open(ctx, filepath.Join(d.dir, "journal.db"), nil); err != nil {
		return err
	}
	if a.access, err = access.Open(ctx, filepath.Join(d.dir, "access.db"), nil); err != nil {
		return err
	}
	rules, err := policy.Parse([]byte(demoPolicy))
	if err != nil {
		return err
	}
	a.service, err = signing.New(signing.Config{
		Keys: d.wiring.store, Ring: d.ring, Journal: a.journal, Policy: rules, Devices: []string{"softhsm"},
	})
	if err != nil {
		return err
	}
	if _, err := d.createKey(ctx, signer.NewKey{ID: "caller-ca", Purpose: signer.PurposeX509CA, Device: "softhsm"}); err != nil {
		return err
	}
	authority, err := access.NewAuthority(a.access, 0, func(ctx context.Context) (crypto.Signer, error) {
		return a.service.HouseSigner(ctx, "caller-ca", signer.PurposeX509CA, "caller-ca")
	})
	if err != nil {
		return err
	}
	cert, err := d.net.certificate("signer.example")
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	handler := rpc.NewHandler(rpc.Config{Service: a.service, Access: a.access, Authority: authority, Log: log})
	a.server = rpc.NewServer(handler, rpc.TLSConfig(func() (*tls.Certificate, error) { return &cert, nil }, authority.Pool), log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	a.url = "https://" + l.Addr().String()
	go a.server.ServeTLS(l, "", "")
	return nil
}

// enroll invites a caller and has it exchange its one-time token for a
// certificate.
func (d *demo) enroll(ctx context.Context, tenant, name string, grants ...string) (*remote.Client, error) {
	invitation := access.Invitation{Tenant: tenant, Name: name, Role: access.Admin}
	for _, s := range grants {
		g, err := access.ParseGrant(s)
		if err != nil {
			return nil, err
		}
		invitation.Grants = append(invitation.Grants, g)
	}
	token, _, err := d.appliance.access.Invite(ctx, invitation)
	if err != nil {
		return nil, err
	}
	anonymous, err := remote.New(remote.Config{Address: d.appliance.url, Roots: d.net.roots})
	if err != nil {
		return nil, err
	}
	defer anonymous.Close()
	dir := filepath.Join(d.dir, "caller-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	identity, err := remote.Enroll(ctx, anonymous, dir, token.Reveal())
	if err != nil {
		return nil, err
	}
	c, err := remote.New(remote.Config{Address: d.appliance.url, Roots: d.net.roots, Certificate: identity.Certificate})
	if err == nil {
		d.appliance.callers = append(d.appliance.callers, c)
	}
	return c, err
}

// openRemote is openPerson for a client whose keys are in the appliance.
func (d *demo) openRemote(ctx context.Context, name string) (*person, error) {
	if err := d.startAppliance(ctx); err != nil {
		return nil, err
	}
	const key = "cathy-watch"
	c, err := d.enroll(ctx, "c-example", "cathy", key+":sign", "init-*:agree")
	if err != nil {
		return nil, err
	}
	keys := remoteAgreements{c}
	if err := keys.create(ctx, key, signer.PurposeMLSLeaf); err != nil {
		return nil, err
	}
	s, err := c.Signer(context.WithoutCancel(ctx), key)
	if err != nil {
		return nil, err
	}
	p, err := d.join(ctx, name, client.Custody{Mode: client.Remote, Key: s, Agreements: keys})
	if err == nil {
		d.did("cathy/watch at c.example", "enrolled at the appliance by one-time token; every signature by policy, with a journal entry")
	}
	return p, err
}

// journalled tells what the journal has of the appliance's signatures.
func (d *demo) journalled(ctx context.Context) error {
	entries := 0
	_, err := d.appliance.journal.Verify(ctx, func(*journal.Entry) error { entries++; return nil })
	if err != nil {
		return err
	}
	unfinished, err := d.appliance.journal.Unfinished(ctx)
	if err != nil {
		return err
	}
	if entries == 0 || len(unfinished) > 0 {
		return fmt.Errorf("the journal has %d entries and %d unfinished", entries, len(unfinished))
	}
	d.did("what the appliance's keys did for Cathy", "%d entries in its journal, hash chain verified", entries)
	return nil
}

func (a *appliance) close() error {
	if a == nil {
		return nil
	}
	var errs []error
	for _, c := range a.callers {
		c.Close()
	}
	if a.server != nil {
		errs = append(errs, a.server.Close())
	}
	if a.access != nil {
		errs = append(errs, a.access.Close())
	}
	if a.journal != nil {
		errs = append(errs, a.journal.Close())
	}
	return errors.Join(errs...)
}
