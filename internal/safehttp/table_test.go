package safehttp_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
)

// The client alone, and its dialer, are held to the table that all surfaces on
// top of them are held to.
func TestTableOfAddresses(t *testing.T) {
	refused := func(err error) bool {
		r := safehttp.ReasonOf(err)
		return r == safehttp.BadAddress || r == safehttp.BadURL
	}
	t.Run("client", func(t *testing.T) {
		safehttptest.InsideIsRefused(t, safehttptest.Surface{Refused: refused, Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
			c := safehttp.New(safehttp.Config{Resolver: s.Names, Allow: s.Allow, Timeout: time.Minute})
			defer c.Close()
			_, err := c.Do(t.Context(), safehttp.Request{URL: "https://" + host + "/x"})
			return err
		}})
	})
}

func TestTableOfAnswers(t *testing.T) {
	ca := safehttptest.NewAuthority(t)
	cert := ca.Certificate(t, "host.example")
	safehttptest.AnswersAreSurvived(t, &cert, func(t *testing.T, addr string, bound time.Duration) error {
		s := safehttptest.Home(t)
		c := safehttp.New(safehttp.Config{Resolver: s.Names, Allow: s.Allow, Roots: ca.Roots, Timeout: bound})
		defer c.Close()
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Do(context.Background(), safehttp.Request{URL: "https://host.example:" + port + "/x", Gzip: true, Redirects: 3, Accept: []string{"application/json"}})
		return err
	})
}
