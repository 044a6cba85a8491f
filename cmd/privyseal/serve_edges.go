package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/ohttp"
	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	"github.com/privyseal/privyseal/mimi/hub/consent"
	"github.com/privyseal/privyseal/mimi/hub/directory"
	"github.com/privyseal/privyseal/mimi/hub/limit"
	hubohttp "github.com/privyseal/privyseal/mimi/hub/ohttp"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/policy"
)

const (
	assetsPath    = "/assets/"
	sweepInterval = time.Hour
	ohttpRotation = 24 * time.Hour
	ohttpSecret   = 32
)

// The edges of a provider are what it does beside keeping rooms.
type edges struct {
	config *EdgesSection
	domain string
	log    *slog.Logger
	peers  *peer.Client      // nil: the provider is alone
	rooms  *provider.Service // set before anything is served

	guard     *limit.Guard
	claims    *limit.Claims
	consent   *consent.Service
	directory *directory.Directory
	assets    *asset.Store // nil without the section
	assetsURL string       // under which ours are
	proxy     *asset.Proxy
	gateway   *hubohttp.Gateway
	relay     *hubohttp.Relay
}

// openEdges opens all of them, or none.
func openEdges(ctx context.Context, c *Config, p *ProviderSection, peers *peer.Client, log *slog.Logger) (*edges, error) {
	e := &edges{config: &p.EdgesSection, domain: p.Domain, log: log, peers: peers, guard: limit.NewGuard(p.Limits.rates(), nil)}
	for _, open := range []func(context.Context, *Config) error{e.openClaims, e.openConsent, e.openDirectory} {
		if err := open(ctx, c); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	if err := e.openAssets(ctx, c, p.host()); err != nil {
		return nil, errors.Join(err, e.close())
	}
	if err := e.openOHTTP(c); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *edges) openClaims(ctx context.Context, c *Config) (err error) {
	e.claims, err = limit.OpenClaims(ctx, c.databaseSource("limit"), e.config.Limits.Claims.quotas(), sqldb.Options{})
	return err
}

func (e *edges) openConsent(ctx context.Context, c *Config) (err error) {
	e.consent, err = consent.Open(ctx, c.databaseSource("consent"), consent.Config{
		Serves:        func(domain string) bool { return domain == e.domain },
		UserExists:    func(ctx context.Context, user mimi.URI) (bool, error) { return e.rooms.UserExists(ctx, user) },
		RevealUnknown: e.config.Consent.RevealUnknown, TellRevocations: e.config.Consent.TellRevocations,
		Ask: e.guard.Ask, Default: e.unasked, Log: e.log,
	}, sqldb.Options{})
	return err
}

// unasked reports who may add our users where these have said nothing.
func (e *edges) unasked(scope mimi.ConsentScope) bool {
	switch e.config.Consent.Unasked {
	case "all":
		return true
	case "none":
		return false
	}
	return scope.RequesterURI.Host() == e.domain
}

func (e *edges) openDirectory(ctx context.Context, c *Config) (err error) {
	var rules directory.Policy
	if list := e.config.Directory.Providers; len(list) > 0 {
		rules.Asks = func(domain string) bool { return domain == e.domain || slices.Contains(list, domain) }
	}
	e.directory, err = directory.Open(ctx, c.databaseSource("directory"), rules, sqldb.Options{})
	return err
}

func (e *edges) openAssets(ctx context.Context, c *Config, host string) (err error) {
	a := e.config.Assets
	if a == nil {
		return nil
	}
	folder := filepath.Join(c.stateDir(), "assets")
	if a.Folder != "" {
		folder = resolve(c.dir, a.Folder)
	}
	e.assets, err = asset.OpenStore(ctx, c.databaseSource("asset"), asset.StoreConfig{
		Dir: folder, BaseURL: a.baseURL(host), MaxSize: a.MaxSize, Quota: a.Quota, Lifetime: time.Duration(a.Lifetime),
		Policy: func(ctx context.Context, user, room mimi.URI) (*policy.AssetPolicy, error) {
			return e.rooms.AssetPolicy(ctx, user, room)
		},
	}, sqldb.Options{})
	if err != nil {
		return err
	}
	e.assetsURL = a.baseURL(host)
	cfg, err := a.proxyConfig(c.dir, filepath.Join(c.stateDir(), "asset-cache"), a.baseURL(host))
	if err != nil {
		return err
	}
	e.proxy, err = asset.NewProxy(cfg)
	return err
}

func (e *edges) openOHTTP(c *Config) error {
	o := e.config.OHTTP
	if o == nil {
		return nil
	}
	secret, err := o.secret(c.dir)
	if err != nil {
		return err
	}
	rotate := ohttpRotation
	if o.Rotate > 0 {
		rotate = time.Duration(o.Rotate)
	}
	keys, err := ohttp.NewKeys(secret, rotate, nil)
	if err != nil {
		return err
	}
	e.gateway = hubohttp.NewGateway(keys, e.proxy, o.MaxSize)
	e.relay = hubohttp.NewRelay(e.peers, func(provider string) bool { return slices.Contains(o.Gateways, provider) })
	return nil
}

// secret reads the secret of the gateway's keys, or returns nil for one that the
// process makes.
func (o *OHTTPSection) secret(dir string) ([]byte, error) {
	if o.SecretFile == "" {
		return nil, nil
	}
	path := resolve(dir, o.SecretFile)
	b, err := readPrivate(path, ohttpSecret)
	if err == nil && len(b) != ohttpSecret {
		err = fmt.Errorf("%s has %d octets; a secret has %d", path, len(b), ohttpSecret)
	}
	return b, err
}

func (e *edges) close() error {
	var errs []error
	if e.claims != nil {
		errs = append(errs, e.claims.Close())
	}
	if e.consent != nil {
		errs = append(errs, e.consent.Close())
	}
	if e.directory != nil {
		errs = append(errs, e.directory.Close())
	}
	if e.assets != nil {
		errs = append(errs, e.assets.Close())
	}
	return errors.Join(errs...)
}

// run tells others of consents, and sweeps, until ctx ends.
func (e *edges) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { e.consent.Run(ctx, e) })
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
			e.log.Error("sweeping failed and is tried again", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
}

func (e *edges) sweep(ctx context.Context) error {
	err := e.claims.Sweep(ctx)
	if e.assets == nil {
		return err
	}
	_, sweepErr := e.assets.Sweep(ctx)
	return errors.Join(err, sweepErr)
}

// Allowed implements provider.Consent.
func (e *edges) Allowed(ctx context.Context, requester, target, room mimi.URI) (bool, error) {
	v, err := e.consent.May(ctx, mimi.ConsentScope{RequesterURI: requester, TargetURI: target, RoomID: room})
	return v == consent.Given && err == nil, err
}

// KeyMaterial implements provider.Limiter.
func (e *edges) KeyMaterial(ctx context.Context, provider string, scope mimi.ConsentScope) error {
	if err := e.guard.Ask(scope.RequesterURI, scope.TargetURI); err != nil {
		return err
	}
	return e.claims.Take(ctx, provider, scope)
}

// Send implements consent.Courier.
func (e *edges) Send(ctx context.Context, provider string, entry *mimi.ConsentEntry) error {
	if e.peers == nil {
		return errAlone
	}
	return consent.SendTo(ctx, e.peers, provider, entry)
}

// Notify implements consent.Courier.
func (e *edges) Notify(ctx context.Context, user mimi.URI, entry *mimi.ConsentEntry) error {
	return e.rooms.TellConsent(ctx, user, entry)
}

// errAlone answers what needs another provider where there is none.
var errAlone = problems.New(http.StatusForbidden, "refused", "this provider speaks to no other")

// endpoints are those for other providers.
func (e *edges) endpoints() []peer.Endpoint {
	list := []peer.Endpoint{peer.RequestConsent, peer.UpdateConsent, peer.IdentifierQuery}
	if e.proxy != nil {
		list = append(list, peer.ProxyDownload)
	}
	if e.gateway != nil {
		list = append(list, peer.OHTTPGateway, peer.OHTTPRelay)
	}
	return list
}

func (e *edges) routes(s *peer.Server) {
	e.consent.Routes(s)
	e.directory.Routes(s)
	if e.proxy != nil {
		e.proxy.Routes(s)
	}
	if e.gateway != nil {
		e.gateway.Routes(s)
		e.relay.Routes(s)
	}
}

// mounts are the downloads, which are for everybody who knows a name.
func (e *edges) mounts(p *ProviderSection) []daemon.Mount {
	if e.assets == nil {
		return nil
	}
	on := e.config.Assets.Listener
	if on == "" {
		on = p.Peers
	}
	if on == "" {
		on = p.Clients
	}
	return []daemon.Mount{{Listener: on, Pattern: assetsPath, Handler: e.assets.Handler(assetsPath)}}
}
