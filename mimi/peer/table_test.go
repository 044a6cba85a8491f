package peer_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

// dialClient is a client of a.example that dials as serve has it, for which
// h.example is at an address of this machine.
func dialClient(t *testing.T, n *peertest.Net, s safehttptest.Setting, home string, bound time.Duration) *peer.Client {
	t.Helper()
	cert := n.Certificate(t, "a.example")
	d := safehttp.Dialer(s.Allow, time.Minute)
	d.Resolver = s.Names
	c, err := peer.NewClient(peer.ClientConfig{
		Domain: "a.example", Certificate: func() (*tls.Certificate, error) { return &cert, nil }, Roots: func() *x509.CertPool { return n.Roots }, StreamTime: bound,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "h.example:443" {
				return new(net.Dialer).DialContext(ctx, network, home)
			}
			return d.DialContext(ctx, network, addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// directoryTo is the handler of a provider whose directory leads to a host.
func directoryTo(t *testing.T, host string) http.Handler {
	text, err := json.Marshal(map[string]string{string(peer.SubmitMessage): "https://" + host + "/x/{roomId}"})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != peer.DirectoryPath {
			t.Errorf("asked for %s", r.URL)
		}
		w.Write(text)
	})
}

// A provider's directory leads nobody inside.
func TestDirectoriesLeadNobodyInside(t *testing.T) {
	n := peertest.New(t)
	safehttptest.InsideIsRefused(t, safehttptest.Surface{
		Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
			c := dialClient(t, n, s, n.Serve(t, directoryTo(t, host), "h.example"), 0)
			_, err := c.Do(t.Context(), "h.example", peer.SubmitMessage, "mimi://h.example/r/x", nil)
			return err
		},
		Refused: func(err error) bool {
			return safehttp.ReasonOf(err) == safehttp.BadAddress || strings.Contains(err.Error(), "directory entry")
		},
	})
}

// A name of a provider leads nobody inside, if it is one at all.
func TestNamesOfNoProvider(t *testing.T) {
	n := peertest.New(t)
	c := dialClient(t, n, safehttptest.Setting{Names: safehttptest.Home(t).Names}, "", 0)
	for _, name := range append(append([]string(nil), safehttptest.Hosts...), safehttptest.Malformed...) {
		name = strings.ReplaceAll(name, "HOST", "b.example")
		_, err := c.Do(t.Context(), name, peer.SubmitMessage, "mimi://h.example/r/x", nil)
		if err == nil {
			t.Errorf("%q answered", name)
		}
		if u := new(peer.UnreachableError); errors.As(err, &u) && safehttp.ReasonOf(err) != safehttp.BadAddress && !strings.Contains(err.Error(), "no such host") {
			t.Errorf("%q was connected to: %v", name, err)
		}
	}
}

// What a provider answers is survived: to a call, and in the place of its
// directory.
func TestHostileProviders(t *testing.T) {
	n := peertest.New(t)
	cert := n.Certificate(t, "h.example")
	here := safehttptest.Home(t)
	call := func(t *testing.T, c *peer.Client) error {
		resp, err := c.Open(t.Context(), peer.Call{Provider: "h.example", Endpoint: peer.SubmitMessage, Value: peer.Value("x")})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		const most = 1 << 20
		b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
		if err == nil && (len(b) > most || strings.Contains(resp.Header.Get("Content-Encoding"), "gzip") || resp.Header.Get("Content-Encoding") != "") {
			err = errors.New("it is not an answer in clear of a bounded size")
		}
		return err
	}
	t.Run("directory", func(t *testing.T) {
		safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
			return call(t, dialClient(t, n, here, addr, bound))
		})
	})
	t.Run("answer", func(t *testing.T) {
		safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
			home := n.ServeAs(t, directoryTo(t, strings.Replace(addr, "127.0.0.1", "h.example", 1)), cert)
			return call(t, dialClient(t, n, here, home, bound))
		})
	})
}
