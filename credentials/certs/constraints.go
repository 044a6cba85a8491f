package certs

import (
	"crypto/x509"
	"net/url"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/credentials"
)

// checkPermitted applies the URI name constraints of a CA to a host, by
// RFC 5280 section 4.2.1.10: "host.example" is that host and no other,
// ".example" is every proper subdomain of it and not the domain itself.
// (Package x509 of Go 1.26 takes the first form for subdomains too.)
func checkPermitted(ca *x509.Certificate, host, where string) error {
	matches := func(constraint string) bool { return hostMatches(constraint, host) }
	if slices.ContainsFunc(ca.ExcludedURIDomains, matches) {
		return credentials.Errorf(credentials.CodeNameConstraint, where, "%.100q is excluded by the CA certificate", host)
	}
	if len(ca.PermittedURIDomains) > 0 && !slices.ContainsFunc(ca.PermittedURIDomains, matches) {
		return credentials.Errorf(credentials.CodeNameConstraint, where, "%.100q is not a host that the CA certificate permits", host)
	}
	return nil
}

func hostMatches(constraint, host string) bool {
	constraint, host = strings.ToLower(constraint), strings.ToLower(host)
	if strings.HasPrefix(constraint, ".") {
		return len(host) > len(constraint) && strings.HasSuffix(host, constraint)
	}
	return constraint == host
}

// checkURIConstraints applies the constraints of a CA to the URIs of a
// certificate below it. A URI without a host, or with an IP address, fails any
// constraint (RFC 5280).
func checkURIConstraints(ca *x509.Certificate, uris []string, where string) error {
	if len(ca.PermittedURIDomains)+len(ca.ExcludedURIDomains) == 0 {
		return nil
	}
	for _, s := range uris {
		host, ok := uriHost(s)
		if !ok {
			return credentials.Errorf(credentials.CodeNameConstraint, where, "%.100q has no DNS name that the CA's constraints could permit", s)
		}
		if err := checkPermitted(ca, host, where); err != nil {
			return err
		}
	}
	return nil
}

func uriHost(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil {
		return "", false
	}
	host := u.Hostname()
	if host == "" || strings.Contains(host, ":") || strings.Trim(host, "0123456789.") == "" {
		return "", false
	}
	return host, true
}

// needsFullPathRules reports whether a path uses name constraints or policy
// rules that only package x509 knows, beside the URI constraints that are
// applied here.
func needsFullPathRules(path []*x509.Certificate) bool {
	for _, c := range path[1:] {
		if len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+
			len(c.PermittedIPRanges)+len(c.ExcludedIPRanges) > 0 {
			return true
		}
	}
	for _, c := range path {
		for _, ext := range c.Extensions {
			if ext.Id.Equal(oidPolicyMappings) || ext.Id.Equal(oidPolicyConstraints) || ext.Id.Equal(oidInhibitAnyPolicy) {
				return true
			}
		}
	}
	return false
}
