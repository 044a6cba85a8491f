package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
	"github.com/privyseal/privyseal/signer/rpc"
	signservice "github.com/privyseal/privyseal/signer/service"
)

// A SignerSection is the signing service. Its listener asks for the
// certificates of callers by itself and has no client_ca.
type SignerSection struct {
	// Listener is where it is served. Required.
	Listener string `json:"listener"`
	// CallerCA is the key, of purpose x509-ca, that signs the certificates of
	// callers. Required.
	CallerCA signer.KeyID `json:"caller_ca"`
	// CertificateLifetime is how long those are good; default 168h.
	CertificateLifetime Duration `json:"certificate_lifetime,omitzero"`
	// Policy is the file of the rules; see: privyseal help policy test.
	// Without it a key signs all that its purpose permits.
	Policy string `json:"policy,omitempty"`
	// Devices are where callers may have keys made, the default first; by
	// default all devices, the default device first.
	Devices []string `json:"devices,omitempty"`
	// Budgets bound requests per second. Without them there is no bound.
	Budgets BudgetSection `json:"budgets,omitzero"`
	// Queue bounds what waits before each device.
	Queue QueueSection `json:"queue,omitzero"`
	// MaxRequests bounds the requests at once; default 1024.
	MaxRequests int `json:"max_requests,omitempty"`
}

// A BudgetSection bounds requests.
type BudgetSection struct {
	Tenant  RateSection            `json:"tenant,omitzero"`
	Caller  RateSection            `json:"caller,omitzero"`
	Key     RateSection            `json:"key,omitzero"`
	Tenants map[string]RateSection `json:"tenants,omitempty"` // those that differ from tenant
}

// A RateSection is a rate with what may come at once.
type RateSection struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst,omitempty"` // default per_second
}

// A QueueSection is what admit.Options are.
type QueueSection struct {
	Inside  int      `json:"inside,omitempty"`  // at a device at once, at most; default 32
	Waiting int      `json:"waiting,omitempty"` // of one tenant; default 256
	MaxWait Duration `json:"max_wait,omitzero"` // default 250ms
}

func (r RateSection) rate() admit.Rate { return admit.Rate{PerSecond: r.PerSecond, Burst: r.Burst} }

func (b BudgetSection) rates() admit.Rates {
	out := admit.Rates{Tenant: b.Tenant.rate(), Caller: b.Caller.rate(), Key: b.Key.rate(), Tenants: make(map[string]admit.Rate)}
	for name, r := range b.Tenants {
		out.Tenants[name] = r.rate()
	}
	return out
}

func (s *SignerSection) check(c *ServeConfig) error {
	const at = "serve.signer"
	if s == nil {
		return nil
	}
	if err := c.checkListener(at+".listener", s.Listener); err != nil {
		return err
	}
	if l := c.Listeners[s.Listener]; l.Plain || l.ClientCA != "" {
		return configErrorf(at+".listener", "listener %s must have TLS and no client_ca: callers have certificates of caller_ca", s.Listener)
	}
	if _, err := signer.ParseKeyID(string(s.CallerCA)); err != nil {
		return configErrorf(at+".caller_ca", "%w", err)
	}
	if s.Queue.Inside < 0 || s.Queue.Waiting < 0 || s.MaxRequests < 0 {
		return configErrorf(at, "bounds cannot be negative")
	}
	rates := []RateSection{s.Budgets.Tenant, s.Budgets.Caller, s.Budgets.Key}
	for name, r := range s.Budgets.Tenants {
		if err := access.CheckTenant(name); err != nil {
			return configErrorf(at+".budgets.tenants", "%w", err)
		}
		rates = append(rates, r)
	}
	if slices.ContainsFunc(rates, func(r RateSection) bool { return r.PerSecond < 0 || r.Burst < 0 }) {
		return configErrorf(at+".budgets", "rates cannot be negative")
	}
	return nil
}

// signerParts are the signing service with what it stands on.
type signerParts struct {
	journal   *journal.Journal
	access    *access.Store
	service   *signservice.Service
	authority *access.Authority
}

// newSignerParts joins the service as the configuration says. It asks no device.
// The journal stays open when the parts are closed.
func newSignerParts(ctx context.Context, w *wiring, hooks signservice.Hooks) (p *signerParts, err error) {
	if w.config.Serve == nil || w.config.Serve.Signer == nil {
		return nil, configErrorf("serve.signer", "is missing: there is no signing service; see: privyseal help config")
	}
	s := w.config.Serve.Signer
	rules, err := s.loadPolicy(w.config)
	if err != nil {
		return nil, err
	}
	p = new(signerParts)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.journal, err = w.openJournal(ctx); err != nil {
		return p, err
	}
	if p.access, err = access.Open(ctx, w.config.databaseSource("access"), nil); err != nil {
		return p, err
	}
	gate := admit.Options{Inside: s.Queue.Inside, Waiting: s.Queue.Waiting, MaxWait: time.Duration(s.Queue.MaxWait)}
	p.service, err = signservice.New(signservice.Config{Keys: w.store, Ring: w.ring, Journal: p.journal, Policy: rules,
		Rates: s.Budgets.rates(), Gate: gate, Devices: s.devices(w.config), Hooks: hooks})
	if err != nil {
		return p, err
	}
	p.authority, err = access.NewAuthority(p.access, time.Duration(s.CertificateLifetime), func(ctx context.Context) (crypto.Signer, error) {
		return p.service.HouseSigner(ctx, s.CallerCA, signer.PurposeX509CA, "caller-ca")
	})
	return p, err
}

func (p *signerParts) Close() error {
	if p.access == nil {
		return nil
	}
	return p.access.Close()
}

func (s *SignerSection) loadPolicy(c *Config) (*policy.Policy, error) {
	if s.Policy == "" {
		return policy.AllowAll(), nil
	}
	return loadPolicy(resolve(c.dir, s.Policy))
}

func (s *SignerSection) devices(c *Config) []string {
	if len(s.Devices) > 0 {
		return s.Devices
	}
	var names []string
	for name := range c.Devices {
		names = append(names, name)
	}
	slices.Sort(names)
	if first, err := c.defaultDevice(); err == nil {
		names = append([]string{first}, slices.DeleteFunc(names, func(n string) bool { return n == first })...)
	}
	return names
}

// The signer component serves the API.
type signerComponent struct {
	*signerParts
	section *SignerSection
	config  *Config
	clients *ownClients
	log     *slog.Logger
}

func newSignerComponent(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	if s.Signer == nil {
		return nil, nil
	}
	parts, err := newSignerParts(ctx, w, signerHooks(d))
	if err != nil {
		return nil, err
	}
	d.metrics.Queues(parts.queues)
	own := &ownClients{pool: parts.authority.Pool}
	w.clientCA[s.Signer.Listener] = own
	c := &signerComponent{parts, s.Signer, w.config, own, d.log}
	parts.authority.OnNewRoot(c.refreshClients)
	return c, nil
}

// Mounts serves the API on its listener.
func (s *signerComponent) Mounts() []daemon.Mount {
	h := rpc.NewHandler(rpc.Config{Service: s.service, Access: s.access, Authority: s.authority, Log: s.log, Requests: s.section.MaxRequests})
	var mounts []daemon.Mount
	for _, p := range rpc.Paths() {
		mounts = append(mounts, daemon.Mount{Listener: s.section.Listener, Pattern: p, Handler: h})
	}
	return mounts
}

// clientsEvery is how soon a node knows the certificate of a CA's key that
// another node or command has used first.
const clientsEvery = time.Second

// Run follows the CA of callers until the end, and closes what is the service's
// own.
func (s *signerComponent) Run(ctx context.Context) error {
	t := time.NewTicker(clientsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Close()
		case <-t.C:
			s.refreshClients(ctx)
		}
	}
}

// refreshClients has the listener know the CA of callers as it is now. What it
// knew stays in use when the database is away.
func (s *signerComponent) refreshClients(ctx context.Context) {
	if err := s.clients.refresh(ctx); err != nil && ctx.Err() == nil {
		s.log.DebugContext(ctx, "the CA of callers was not read", "err", err)
	}
}

// Health asks the databases.
func (s *signerComponent) Health(ctx context.Context) []daemon.Check {
	check := func(name string, err error) daemon.Check {
		c := daemon.Check{Name: name, Status: daemon.Up, Critical: true}
		if err != nil {
			c.Status, c.Detail, c.Remedy = daemon.Down, err.Error(), "look at the database; until it answers nothing is signed"
		}
		return c
	}
	return []daemon.Check{check("journal", s.journal.Ping(ctx)), check("callers", s.access.Ping(ctx))}
}

// Reload reads the policy again.
func (s *signerComponent) Reload(context.Context) (func(), error) {
	p, err := s.section.loadPolicy(s.config)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return func() {
		if p.Version() != s.service.Policy().Version() {
			s.log.Info("another policy is in use", "version", p.Version(), "rules", p.Rules())
		}
		s.service.SetPolicy(p)
	}, nil
}
