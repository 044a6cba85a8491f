package safehttp_test

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
)

// TestRebinding has a name that resolves to an allowed address first and to
// another one when the connection is made again: the second is refused, since
// the address is judged at the connection.
func TestRebinding(t *testing.T) {
	var asked atomic.Int32
	allowed, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	resolver := safehttptest.NameServer(t, func() netip.Addr {
		if asked.Add(1) == 1 {
			return allowed
		}
		return other
	})
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("here")) }, func(c *safehttp.Config) {
		c.Resolver, c.Allow, c.Timeout = resolver, []netip.Prefix{netip.PrefixFrom(allowed, 32)}, 5*time.Second
	})
	r := safehttp.Request{URL: "https://example.com:" + portOf(s.URL) + "/"}
	if got, err := c.Do(context.Background(), r); err != nil || string(got.Body) != "here" {
		t.Fatalf("%v %v", got, err)
	}
	c.Close() // the next fetch connects again
	_, err := c.Do(context.Background(), r)
	wantReason(t, "rebound to another address", err, safehttp.BadAddress)
	if asked.Load() < 2 {
		t.Error("the name was not looked up again")
	}
}

// TestNameOfPrivateAddress has a public name with a private address.
func TestNameOfPrivateAddress(t *testing.T) {
	resolver := safehttptest.NameServer(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") })
	s, c := serve(t, func(http.ResponseWriter, *http.Request) {}, func(c *safehttp.Config) { c.Resolver, c.Allow = resolver, nil })
	_, err := c.Do(context.Background(), safehttp.Request{URL: "https://example.com:" + portOf(s.URL)})
	wantReason(t, "private", err, safehttp.BadAddress)
}
