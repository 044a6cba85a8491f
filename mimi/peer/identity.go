package peer

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
)

// fromLocal is the local part of From (section 5).
const fromLocal = "mimi@"

// names reports whether a certificate has a domain among its dNSNames. A
// wildcard names no provider: it would let one tenant of a domain speak for
// every other.
func names(cert *x509.Certificate, domain string) bool {
	return slices.ContainsFunc(cert.DNSNames, func(n string) bool { return strings.EqualFold(n, domain) })
}

// checkDomain reports whether a domain is one that a mimi URI can have.
func checkDomain(domain string) error {
	u, err := mimi.ParseURI("mimi://" + domain)
	if err != nil {
		return err
	}
	if u.Kind() != mimi.KindProvider {
		return errors.New("not a domain")
	}
	return nil
}

// A Peer is the provider on the other side of a call, authenticated.
type Peer struct {
	Domain string
}

// SpeaksFor refuses, with 403, a URI that is not of the peer's domain. A peer
// may say nothing about the users of another provider.
func (p Peer) SpeaksFor(uris ...mimi.URI) error {
	for _, u := range uris {
		if u.Host() != p.Domain {
			return problem.New(http.StatusForbidden, "foreign-user", "%s speaks for its own domain, not for %s", p.Domain, u)
		}
	}
	return nil
}

// hostName returns a Host header without its port.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}
