package ohttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	hubohttp "github.com/privyseal/privyseal/mimi/hub/ohttp"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

// askGateway has a gateway that fetches from any host open a sealed request for
// https://HOST/x, and returns the refusal that is sealed for who asked.
func askGateway(t *testing.T, cfg safehttp.Config, host string) error {
	t.Helper()
	proxy, err := asset.NewProxy(asset.ProxyConfig{Dir: t.TempDir(), MaxSize: func() int64 { return 1 << 20 }, Hosts: func(string) bool { return true }, Client: safehttp.New(cfg)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ohttp.NewKeys(bytes.Repeat([]byte{7}, 32), time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Current()
	if err != nil {
		t.Fatal(err)
	}
	gateway := hubohttp.NewGateway(keys, proxy, 0)
	p, err := ohttp.Do(t.Context(), key.Config, func(ctx context.Context, sealed []byte) ([]byte, error) {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(sealed))
		r.Header.Set("Content-Type", ohttp.MediaTypeRequest)
		w := httptest.NewRecorder()
		err := gateway.Serve(w, r)
		return w.Body.Bytes(), err
	}, &bhttp.Request{Method: "GET", Scheme: "https", Authority: host, Path: "/x"})
	switch {
	case err != nil:
		return err
	case p.Status != http.StatusOK:
		return problem.New(p.Status, "inside", "%s", p.Content)
	}
	return nil
}

// A sealed request leads the gateway nowhere inside.
func TestGatewayLeadsNobodyInside(t *testing.T) {
	safehttptest.InsideIsRefused(t, safehttptest.Surface{
		Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
			return askGateway(t, safehttp.Config{Resolver: s.Names, Allow: s.Allow, Timeout: time.Minute}, host)
		},
		Refused: func(err error) bool {
			p := problem.Of(err)
			return p.Status == http.StatusBadRequest || p.Status == http.StatusForbidden || strings.Contains(err.Error(), "bhttp")
		},
	})
}

func TestGatewaySurvivesHosts(t *testing.T) {
	n := peertest.New(t)
	cert := n.Certificate(t, "assets.h.example")
	safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		s := safehttptest.Home(t)
		return askGateway(t, safehttp.Config{Resolver: s.Names, Allow: s.Allow, Roots: n.Roots, Timeout: bound}, "assets.h.example:"+port)
	})
}

// tableRelay is a relay to h.example, at an address of this machine, that
// connects as serve does.
func tableRelay(t *testing.T, n *peertest.Net, s safehttptest.Setting, home string, bound time.Duration) *hubohttp.Relay {
	t.Helper()
	cert := n.Certificate(t, "b.example")
	d := safehttp.Dialer(s.Allow, time.Minute)
	d.Resolver = s.Names
	c, err := peer.NewClient(peer.ClientConfig{
		Domain: "b.example", Certificate: func() (*tls.Certificate, error) { return &cert, nil }, Roots: func() *x509.CertPool { return n.Roots }, StreamTime: bound,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "h.example:443" && home != "" {
				return new(net.Dialer).DialContext(ctx, network, home)
			}
			return d.DialContext(ctx, network, addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return hubohttp.NewRelay(c, func(string) bool { return true })
}

func relayed(relay *hubohttp.Relay, gateway string) error {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("sealed"))
	r.Header.Set("Content-Type", ohttp.MediaTypeRequest)
	w := httptest.NewRecorder()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("broken off: %v", p)
			}
		}()
		return relay.Serve(w, r, gateway)
	}()
	return err
}

// A relay that passes on to every gateway still goes nowhere inside: not by the
// name of a gateway, and not by its directory.
func TestRelayLeadsNobodyInside(t *testing.T) {
	n := peertest.New(t)
	t.Run("directory", func(t *testing.T) {
		safehttptest.InsideIsRefused(t, safehttptest.Surface{
			Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
				home := n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, `{"ohttpGateway": %q}`, "https://"+host+"/x")
				}), "h.example")
				return relayed(tableRelay(t, n, s, home, 0), "h.example")
			},
			Refused: func(err error) bool { return problem.Of(err).Status == http.StatusBadGateway },
		})
	})
	t.Run("names", func(t *testing.T) {
		relay := tableRelay(t, n, safehttptest.Setting{Names: safehttptest.Home(t).Names}, "", 0)
		for _, name := range append(append([]string(nil), safehttptest.Hosts...), safehttptest.Malformed...) {
			name = strings.ReplaceAll(name, "HOST", "b.example")
			for what, err := range map[string]error{"POST": relayed(relay, name), "GET": relay.ServeKeys(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), name)} {
				if p := new(problem.Problem); !errors.As(err, &p) || p.Status != http.StatusBadGateway || strings.Contains(p.Detail, "127.0.0.1") {
					t.Errorf("%s %q: %v", what, name, err)
				}
			}
		}
	})
}

// What a gateway answers in the place of a sealed answer is passed to nobody.
func TestRelaySurvivesGateways(t *testing.T) {
	n := peertest.New(t)
	cert := n.Certificate(t, "h.example")
	here := safehttptest.Home(t)
	safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
		home := n.ServeAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"ohttpGateway": %q}`, "https://"+strings.Replace(addr, "127.0.0.1", "h.example", 1)+"/x")
		}), cert)
		return relayed(tableRelay(t, n, here, home, bound), "h.example")
	})
}
