package main

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	"github.com/privyseal/privyseal/mimi/hub/limit"
	"github.com/privyseal/privyseal/mimi/peer"
)

// An EdgesSection is what a provider does beside keeping rooms.
type EdgesSection struct {
	// Consent says who may add our users to rooms; Limits, how often others may
	// ask; Directory, who may search for our users.
	Consent   ConsentSection   `json:"consent,omitzero"`
	Limits    LimitsSection    `json:"limits,omitzero"`
	Directory DirectorySection `json:"directory,omitzero"`
	// Assets keeps the assets of our users, and fetches those of others for them.
	Assets *AssetsSection `json:"assets,omitempty"`
	// OHTTP is a gateway to the assets, and a relay to the gateways of others.
	// It needs Assets and Peers.
	OHTTP *OHTTPSection `json:"ohttp,omitempty"`
}

// A ConsentSection says who may add our users to rooms.
type ConsentSection struct {
	// Unasked is who may without the user's word: "own" for users of this
	// provider (default), "all" or "none".
	Unasked string `json:"unasked,omitempty"`
	// RevealUnknown answers 404 where a user does not exist; otherwise nobody
	// learns of it.
	RevealUnknown bool `json:"reveal_unknown,omitempty"`
	// TellRevocations tells other providers that a consent was taken back.
	TellRevocations bool `json:"tell_revocations,omitempty"`
}

// A LimitsSection changes what is let pass. What it leaves out is as in
// limit.DefaultRates and limit.DefaultQuotas.
type LimitsSection struct {
	// Endpoints are the calls of one provider, by the key of the directory.
	Endpoints map[peer.Endpoint]RateSection `json:"endpoints,omitempty"`
	// Requester is how often one user may ask about others, and Target how often
	// one user may be asked about.
	Requester *RateSection `json:"requester,omitempty"`
	Target    *RateSection `json:"target,omitempty"`
	// Assets is how often one client may upload and fetch assets.
	Assets *RateSection `json:"assets,omitempty"`
	// Claims are how many claims of KeyPackages pass in a time.
	Claims ClaimsSection `json:"claims,omitzero"`
}

// A ClaimsSection is how many claims of one user's KeyPackages pass in a Window
// (default 24h): by one requester for one room (20), by one provider (200), by
// anybody (1000).
type ClaimsSection struct {
	Window    Duration `json:"window,omitzero"`
	Requester int      `json:"requester,omitempty"`
	Provider  int      `json:"provider,omitempty"`
	All       int      `json:"all,omitempty"`
}

// A DirectorySection says which providers may search for our users.
type DirectorySection struct {
	Providers []string `json:"providers,omitempty"` // all by default
}

// An AssetsSection keeps and fetches assets.
type AssetsSection struct {
	// Listener serves downloads to everybody under /assets/; by default Peers,
	// or else Clients.
	Listener string `json:"listener,omitempty"`
	// BaseURL is what it is from outside; default https://HOST/assets/.
	BaseURL string `json:"base_url,omitempty"`
	// Folder has the files; default "assets" in the folder of the state. Nodes
	// of one database share it.
	Folder string `json:"folder,omitempty"`
	// MaxSize bounds one asset (default 104857600 octets), Quota all of one user
	// (default 1073741824), Lifetime how long they are kept (default 2160h).
	MaxSize  int64    `json:"max_size,omitempty"`
	Quota    int64    `json:"quota,omitempty"`
	Lifetime Duration `json:"lifetime,omitzero"`
	// Hosts are the hosts, exactly, from which we fetch for others and for our
	// clients, beside our own; Via are hosts whose provider is asked to fetch
	// instead (proxyDownload).
	Hosts []string          `json:"hosts,omitempty"`
	Via   map[string]string `json:"via,omitempty"`
	// CacheSize bounds what is kept of fetched assets, in octets.
	CacheSize int64 `json:"cache_size,omitempty"`
	// AllowPrivate lists networks, such as "10.0.0.0/8", beyond the public
	// internet; CAFile has the authorities of the hosts, PEM, instead of the
	// system's.
	AllowPrivate []string `json:"allow_private,omitempty"`
	CAFile       string   `json:"ca_file,omitempty"`
}

// An OHTTPSection runs Oblivious HTTP.
type OHTTPSection struct {
	// Gateways are the providers to whose gateways our relay passes on.
	Gateways []string `json:"gateways,omitempty"`
	// SecretFile has the secret of our gateway's keys, 32 octets, mode 0600, for
	// several nodes; without it each process makes one.
	SecretFile string `json:"secret_file,omitempty"`
	// Rotate is how long a key is in force; default 24h.
	Rotate Duration `json:"rotate,omitzero"`
	// MaxSize bounds an asset; default 16777216 octets.
	MaxSize int64 `json:"max_size,omitempty"`
}

func (e *EdgesSection) check(at string, s *ServeConfig, p *ProviderSection) error {
	if !slices.Contains([]string{"", "own", "all", "none"}, e.Consent.Unasked) {
		return configErrorf(at+".consent.unasked", "%q; use own, all or none", e.Consent.Unasked)
	}
	if err := e.Limits.check(at + ".limits"); err != nil {
		return err
	}
	if err := e.Assets.check(at+".assets", s); err != nil {
		return err
	}
	if err := checkProviders(at+".directory.providers", e.Directory.Providers); err != nil {
		return err
	}
	if e.OHTTP == nil {
		return nil
	}
	if err := checkProviders(at+".ohttp.gateways", e.OHTTP.Gateways); err != nil {
		return err
	}
	if e.Assets == nil || p.Peers == "" {
		return configErrorf(at+".ohttp", "needs assets and peers")
	}
	if e.OHTTP.MaxSize < 0 {
		return configErrorf(at+".ohttp.max_size", "cannot be negative")
	}
	return nil
}

// checkProviders refuses what is no name of a provider, and would fit none.
func checkProviders(at string, names []string) error {
	for i, name := range names {
		if _, err := mimi.NewURI(name, mimi.KindProvider); err != nil {
			return configErrorf(fmt.Sprintf("%s[%d]", at, i), "%w", err)
		}
	}
	return nil
}

func (l *LimitsSection) check(at string) error {
	known := limit.DefaultRates().Peer
	for _, e := range slices.Sorted(maps.Keys(l.Endpoints)) {
		if _, ok := known[e]; !ok {
			return configErrorf(at+".endpoints", "there is no endpoint %q", e)
		}
		if err := l.Endpoints[e].checkAsked(at + ".endpoints." + string(e)); err != nil {
			return err
		}
	}
	for name, r := range map[string]*RateSection{"requester": l.Requester, "target": l.Target, "assets": l.Assets} {
		if r == nil {
			continue
		}
		if err := r.checkAsked(at + "." + name); err != nil {
			return err
		}
	}
	if c := l.Claims; c.Requester < 0 || c.Provider < 0 || c.All < 0 {
		return configErrorf(at+".claims", "cannot be negative")
	}
	return nil
}

// checkAsked refuses a rate that lets nothing pass, or, as zeros would,
// everything.
func (r RateSection) checkAsked(at string) error {
	if !(r.PerSecond > 0) || r.Burst < 0 {
		return configErrorf(at, "needs per_second above 0, and a burst that is not negative")
	}
	return nil
}

// asked is the rate of calls, of which one passes at once at least.
func (r RateSection) asked() limit.Rate {
	if r.Burst > 0 {
		return limit.Rate{PerSecond: r.PerSecond, Burst: float64(r.Burst)}
	}
	return limit.Rate{PerSecond: r.PerSecond, Burst: max(r.PerSecond, 1)}
}

func (a *AssetsSection) check(at string, s *ServeConfig) error {
	if a == nil {
		return nil
	}
	if a.Listener != "" {
		if err := s.checkListener(at+".listener", a.Listener); err != nil {
			return err
		}
	}
	if a.MaxSize < 0 || a.Quota < 0 || a.CacheSize < 0 {
		return configErrorf(at, "sizes cannot be negative")
	}
	if _, err := a.networks(); err != nil {
		return configErrorf(at+".allow_private", "%w", err)
	}
	for _, host := range slices.Sorted(maps.Keys(a.Via)) {
		if _, err := mimi.NewURI(a.Via[host], mimi.KindProvider); err != nil {
			return configErrorf(at+".via."+host, "%w", err)
		}
	}
	if a.BaseURL == "" {
		return nil
	}
	if u, err := url.Parse(a.BaseURL); err != nil || u.Scheme != "https" || u.Host == "" || u.Path == "" || u.Path[len(u.Path)-1] != '/' {
		return configErrorf(at+".base_url", "%q; use https://HOST/PATH/", a.BaseURL)
	}
	return nil
}

func (a *AssetsSection) networks() ([]netip.Prefix, error) { return parseNetworks(a.AllowPrivate) }

func parseNetworks(texts []string) (list []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// rates are the defaults with what the configuration changes.
func (l *LimitsSection) rates() limit.Rates {
	r := limit.DefaultRates()
	for e, s := range l.Endpoints {
		r.Peer[e] = s.asked()
	}
	if l.Requester != nil {
		r.Requester = l.Requester.asked()
	}
	if l.Target != nil {
		r.Target = l.Target.asked()
	}
	if l.Assets != nil {
		r.Assets = l.Assets.asked()
	}
	return r
}

func (c *ClaimsSection) quotas() limit.Quotas {
	q := limit.DefaultQuotas()
	if c.Window > 0 {
		q.Window = time.Duration(c.Window)
	}
	for _, n := range []struct {
		to   *int
		from int
	}{{&q.Scope, c.Requester}, {&q.Peer, c.Provider}, {&q.Target, c.All}} {
		if n.from > 0 {
			*n.to = n.from
		}
	}
	return q
}

// defaultMaxAsset is that of asset.StoreConfig.
const defaultMaxAsset = 100 << 20

func (a *AssetsSection) maxSize() int64 {
	if a.MaxSize > 0 {
		return a.MaxSize
	}
	return defaultMaxAsset
}

// baseURL is where our own assets are, from outside.
func (a *AssetsSection) baseURL(host string) string {
	if a.BaseURL != "" {
		return a.BaseURL
	}
	return "https://" + host + assetsPath
}

// proxyConfig fetches from the hosts that are named, and from our own.
func (a *AssetsSection) proxyConfig(dir, cache, own string) (asset.ProxyConfig, error) {
	networks, err := a.networks()
	if err != nil {
		return asset.ProxyConfig{}, err
	}
	base, err := url.Parse(own)
	if err != nil {
		return asset.ProxyConfig{}, err
	}
	hosts := append(slices.Clone(a.Hosts), base.Host)
	c := asset.ProxyConfig{
		Dir: cache, Hosts: func(h string) bool { return slices.Contains(hosts, h) }, MaxSize: a.maxSize,
		CacheSize: a.CacheSize, Allow: networks,
	}
	if a.CAFile != "" {
		c.Roots, err = daemon.ReadPool(resolve(dir, a.CAFile))
	}
	return c, err
}
