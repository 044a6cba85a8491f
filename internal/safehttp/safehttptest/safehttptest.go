// Package safehttptest has what tests of fetches need: names that resolve to
// what the test wants, and the table of what a fetch may be led to and
// answered, which every surface that fetches is held to: [InsideIsRefused] and
// [AnswersAreSurvived].
package safehttptest

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// NameServer answers each question for an IPv4 address with what answer says,
// and has no IPv6 addresses.
func NameServer(tb testing.TB, answer func() netip.Addr) *net.Resolver {
	return Resolver(tb, func(_ string, v6 bool) []netip.Addr {
		if v6 {
			return nil
		}
		return []netip.Addr{answer()}
	})
}

// Resolver asks a name server of the test, which says of every name what answer
// says of it: once for its IPv4 addresses, and once for those of IPv6.
// Addresses of the other kind are left out.
func Resolver(tb testing.TB, answer func(name string, v6 bool) []netip.Addr) *net.Resolver {
	tb.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
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
			m.Answers = records(m.Questions[0], answer)
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

func records(q dnsmessage.Question, answer func(string, bool) []netip.Addr) (all []dnsmessage.Resource) {
	if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return nil
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
	for _, a := range answer(q.Name.String(), q.Type == dnsmessage.TypeAAAA) {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			all = append(all, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && !a.Is4():
			all = append(all, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return all
}
