package safehttp_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/privyseal/privyseal/internal/safehttp"
)

// nameServer answers each question for an IPv4 address with what answer says,
// and has no IPv6 addresses.
func nameServer(t *testing.T, answer func() netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type},
					Body:   &dnsmessage.AResource{A: answer().As4()},
				}}
			}
			out, err := m.Pack()
			if err != nil {
				return
			}
			conn.WriteTo(out, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestRebinding has a name that resolves to an allowed address first and to
// another one when the connection is made again: the second is refused, since
// the address is judged at the connection.
func TestRebinding(t *testing.T) {
	var asked atomic.Int32
	allowed, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	resolver := nameServer(t, func() netip.Addr {
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
	resolver := nameServer(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") })
	s, c := serve(t, func(http.ResponseWriter, *http.Request) {}, func(c *safehttp.Config) { c.Resolver, c.Allow = resolver, nil })
	_, err := c.Do(context.Background(), safehttp.Request{URL: "https://example.com:" + portOf(s.URL)})
	wantReason(t, "private", err, safehttp.BadAddress)
}
