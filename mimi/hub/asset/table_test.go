package asset_test

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

// tableProxy is a proxy that fetches from any host, so that nothing but the
// table is between it and what is inside.
func tableProxy(t *testing.T, cfg safehttp.Config) *asset.Proxy {
	t.Helper()
	p, err := asset.NewProxy(asset.ProxyConfig{
		Dir: t.TempDir(), MaxSize: func() int64 { return 1 << 20 }, Hosts: func(string) bool { return true }, Client: safehttp.New(cfg),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// proxyDownload leads nobody inside, whichever hosts the operator lists.
func TestProxyLeadsNobodyInside(t *testing.T) {
	safehttptest.InsideIsRefused(t, safehttptest.Surface{
		Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
			_, err := serve(tableProxy(t, safehttp.Config{Resolver: s.Names, Allow: s.Allow, Timeout: time.Minute}), "https://"+host+"/x", nil)
			return err
		},
		Refused: func(err error) bool {
			p := problem.Of(err)
			return p.Status == http.StatusBadRequest && p.Code == "url" || p.Status == http.StatusForbidden && p.Code == "asset-host"
		},
	})
}

func TestProxySurvivesHosts(t *testing.T) {
	n := peertest.New(t)
	cert := n.Certificate(t, "assets.b.example")
	safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		s := safehttptest.Home(t)
		p := tableProxy(t, safehttp.Config{Resolver: s.Names, Allow: s.Allow, Roots: n.Roots, Timeout: bound})
		_, err = serve(p, "https://assets.b.example:"+port+"/x", nil)
		if pr := problem.Of(err); err != nil && pr.Status != http.StatusBadGateway && pr.Status != http.StatusGatewayTimeout {
			t.Errorf("who asks is told %v", err)
		}
		return err
	})
}
