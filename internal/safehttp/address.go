package safehttp

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// special lists what lies in the address space of the public internet and is
// not public: RFC 6890 and the IANA special-purpose registries. Everything
// outside of 2000::/3 is refused without a line of its own.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

var globalUnicast = netip.MustParsePrefix("2000::/3")

// nat64 is the well-known prefix under which a network without IPv4 reaches
// IPv4 addresses (RFC 6052); the last four octets are one.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(all ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, s := range all {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Public reports whether a is an address of the public internet: not loopback,
// private, shared (CGNAT), link-local, multicast, reserved, for documentation
// or benchmarks, and no IPv4 address in an IPv6 disguise that hides one of
// those.
func Public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return false
	}
	if nat64.Contains(a) {
		b := a.As16()
		return Public(netip.AddrFrom4([4]byte(b[12:])))
	}
	if a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// mayDial judges the address that is about to be connected to.
func (c *Client) mayDial(network, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return &Error{Reason: BadAddress, Err: fmt.Errorf("address %q is not an IP address and a port", address)}
	}
	if len(c.config.Ports) > 0 && !slices.Contains(c.config.Ports, at.Port()) {
		return &Error{Reason: BadAddress, Err: fmt.Errorf("port %d is not one of %d", at.Port(), c.config.Ports)}
	}
	if Public(at.Addr()) || c.allowed(at.Addr()) {
		return nil
	}
	return &Error{Reason: BadAddress, Err: fmt.Errorf("%s is not a public address; allow its network in the configuration if it is meant", at.Addr())}
}

// allowed reports whether a network that is not public is configured. A
// mapped address is refused even then: no resolver has a reason for one.
func (c *Client) allowed(a netip.Addr) bool {
	return a.Zone() == "" && slices.ContainsFunc(c.config.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}
