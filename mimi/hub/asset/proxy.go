package asset

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/mimi/peer"
)

const (
	fetchTime    = 30 * time.Second
	maxRedirects = 3
)

// ProxyConfig is how a Proxy behaves.
type ProxyConfig struct {
	Dir string // of the cache; made with mode 0700
	// Hosts reports whether assets are fetched from a host: the exact name,
	// with a port if it is not 443.
	Hosts func(host string) bool
	// MaxSize returns the most octets of an asset, which is the most that any
	// room's asset policy allows.
	MaxSize    func() int64
	CacheSize  int64         // octets of all that is kept; 0 means 1 GiB
	CacheCount int           // assets that are kept; 0 means 10,000
	CacheTime  time.Duration // for which an asset is kept; 0 means 24 hours
	// Allow and Roots are for a deployment whose asset hosts are not on the
	// public internet; see safehttp.Config.
	Allow []netip.Prefix
	Roots *x509.CertPool
	// Client fetches; nil makes one of Allow and Roots.
	Client *safehttp.Client
}

// A Proxy fetches assets for others.
type Proxy struct {
	cfg   ProxyConfig
	http  *safehttp.Client
	cache *cache
}

// NewProxy returns a proxy. What a cache in the folder has is forgotten.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = 1 << 30
	}
	if cfg.CacheCount <= 0 {
		cfg.CacheCount = 10_000
	}
	if cfg.CacheTime <= 0 {
		cfg.CacheTime = 24 * time.Hour
	}
	if cfg.Client == nil {
		cfg.Client = safehttp.New(safehttp.Config{Allow: cfg.Allow, Roots: cfg.Roots, Timeout: fetchTime})
	}
	c, err := newCache(cfg.Dir, cfg.CacheSize, cfg.CacheCount, cfg.CacheTime)
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	return &Proxy{cfg: cfg, http: cfg.Client, cache: c}, nil
}

// Routes serves proxyDownload.
func (p *Proxy) Routes(server *peer.Server) {
	server.HandleStream(peer.ProxyDownload, func(w http.ResponseWriter, r *peer.Request) error {
		return p.Serve(w, r.HTTP, r.Variable)
	})
}

// check judges a URL before anything is done with it.
func (p *Proxy) check(target string) (*url.URL, error) {
	u, err := safehttp.CheckURL(target, false)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "url", "the URL is not one that is fetched: %w", err)
	}
	if !p.cfg.Hosts(u.Host) {
		return nil, problem.New(http.StatusForbidden, "asset-host", "%q is not a host of assets", u.Host)
	}
	return u, nil
}

// Serve answers with the asset at a URL, from the cache or fetched. Nothing of
// the request but a range goes into the fetch, not even that: the asset is
// fetched whole.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, target string) error {
	u, err := p.check(target)
	if err != nil {
		return err
	}
	f, err := p.open(r.Context(), u)
	if err != nil {
		return err
	}
	defer f.release()
	return serveFile(w, r, f.path, problem.New(http.StatusNotFound, "not-found", "no such asset"))
}

// Fetch returns the asset at a URL, of at most so many octets, as Serve does.
func (p *Proxy) Fetch(ctx context.Context, target string, most int64) ([]byte, error) {
	u, err := p.check(target)
	if err != nil {
		return nil, err
	}
	f, err := p.open(ctx, u)
	if err != nil {
		return nil, err
	}
	defer f.release()
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	if info.Size() > most {
		return nil, problem.New(http.StatusBadGateway, "asset-size", "the asset has more than %d octets", most)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("asset: %w", err)
	}
	return b, nil
}

func (p *Proxy) open(ctx context.Context, u *url.URL) (*open, error) {
	return p.cache.get(ctx, u.String(), func(ctx context.Context, into io.Writer) (time.Duration, error) {
		return p.fetch(ctx, u, into)
	})
}

// fetch writes the asset and returns for how long the host lets it be kept.
func (p *Proxy) fetch(ctx context.Context, u *url.URL, into io.Writer) (keep time.Duration, err error) {
	s, err := p.http.Open(ctx, safehttp.Request{URL: u.String(), MaxBody: p.cfg.MaxSize(), Redirects: maxRedirects})
	if err != nil {
		return 0, upstream(err)
	}
	defer s.Close()
	disk := &diskWriter{w: into}
	if _, err := io.Copy(disk, s); err != nil {
		if disk.err != nil {
			return 0, fmt.Errorf("asset: %w", disk.err)
		}
		return 0, upstream(err)
	}
	return p.keep(s.Header), nil
}

// upstream turns the failure of a fetch into the answer to who asked. It tells
// no address, and nothing of what the host answered but 404 and 410.
func upstream(err error) error {
	var e *safehttp.Error
	if !errors.As(err, &e) {
		return problem.New(http.StatusBadGateway, "upstream", "the host of the asset failed")
	}
	switch {
	case e.Reason == safehttp.BadAddress:
		return problem.New(http.StatusForbidden, "asset-host", "the host of the asset is not at a public address")
	case e.Reason == safehttp.TooLarge:
		return problem.New(http.StatusBadGateway, "asset-size", "the asset is larger than any room allows")
	case e.Reason == safehttp.Timeout:
		return problem.New(http.StatusGatewayTimeout, "upstream", "the host of the asset was too slow")
	case e.Reason == safehttp.BadStatus && (e.Status == http.StatusNotFound || e.Status == http.StatusGone):
		return problem.New(e.Status, "not-found", "the host has no such asset")
	}
	return problem.New(http.StatusBadGateway, "upstream", "the host of the asset failed (%s)", e.Reason)
}
