package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Defaults and bounds.
const (
	DefaultTimeout = 10 * time.Second
	DefaultBody    = 256 << 10 // octets
	MaxURL         = 2048
	maxHeader      = 32 << 10
	dialTimeout    = 5 * time.Second
)

// A Config is how a Client fetches. The zero value is strict.
type Config struct {
	// Allow lists networks beyond the public internet that may be connected
	// to, for a deployment inside one.
	Allow []netip.Prefix
	// Ports that are connected to; nil means any.
	Ports []uint16
	// Roots are the authorities for the server's certificate; nil means those
	// of the operating system.
	Roots *x509.CertPool
	// Timeout bounds a fetch from the first lookup to the last octet.
	Timeout time.Duration
	// Resolver looks names up; nil means that of the operating system.
	Resolver *net.Resolver
	// UserAgent is sent if not empty.
	UserAgent string
	// TestPort is connected to in the place of 443 if it is not zero: for tests
	// of URLs without a port, whose servers cannot have 443.
	TestPort uint16
}

// A Client fetches from URLs that are not trusted. It may be used
// concurrently.
type Client struct {
	config    Config
	transport *http.Transport
}

// New returns a Client.
func New(config Config) *Client {
	if config.Timeout <= 0 {
		config.Timeout = DefaultTimeout
	}
	c := &Client{config: config}
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: config.Resolver, Control: c.mayDial}
	c.transport = &http.Transport{
		DialContext:            config.dial(dialer),
		TLSClientConfig:        &tls.Config{RootCAs: config.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // inflation is ours, bounded
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
	}
	return c
}

func (c Config) dial(d *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	if c.TestPort == 0 {
		return d.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(address); err == nil && port == "443" {
			address = net.JoinHostPort(host, strconv.Itoa(int(c.TestPort)))
		}
		return d.DialContext(ctx, network, address)
	}
}

// Dialer returns a dialer that connects to public addresses and to those of the
// networks, and to nothing else, whatever a name resolves to. Its refusal is an
// *Error.
func Dialer(allow []netip.Prefix, timeout time.Duration) *net.Dialer {
	c := &Client{config: Config{Allow: allow}}
	return &net.Dialer{Timeout: timeout, Control: c.mayDial}
}

// Close closes connections that are kept for reuse.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// CheckURL reports whether a URL is one that is fetched: absolute https (or
// http with plain), with a host, without user information and fragment. The host
// is in ASCII, as RFC 3986 section 3.2.2 has it, and not an IPv4 address in
// another notation than that of four decimal numbers, which some resolvers take.
func CheckURL(text string, plain bool) (*url.URL, error) {
	if len(text) > MaxURL {
		return nil, refuse(BadURL, nil, "a URL of %d octets, want at most %d", len(text), MaxURL)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, refuse(BadURL, nil, "%w", err)
	}
	switch {
	case u.Scheme != "https" && !(plain && u.Scheme == "http"):
		return nil, refuse(BadURL, u, "scheme %q, want https", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return nil, refuse(BadURL, u, "no host")
	case u.User != nil:
		return nil, refuse(BadURL, u, "user information in the URL")
	case u.Fragment != "":
		return nil, refuse(BadURL, u, "a fragment in the URL")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return nil, refuse(BadURL, u, "a host that is not in ASCII")
	case oddNumber(u.Hostname()):
		return nil, refuse(BadURL, u, "a host that ends in a number and is no address")
	}
	return u, nil
}

// oddNumber reports whether a host ends in a number, of any base, and is no IP
// address as it should be written.
func oddNumber(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := labels[len(labels)-1]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil {
		return true
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// Fetch gets a URL and returns its body of at most limit octets and its
// Content-Type. It follows up to three redirects on the host, as a Token
// Status List asks for.
func (c *Client) Fetch(ctx context.Context, uri string, accept []string, limit int64) (body []byte, contentType string, err error) {
	r, err := c.Do(ctx, Request{URL: uri, Accept: accept, MaxBody: limit, Redirects: 3, Gzip: true})
	if err != nil {
		return nil, "", err
	}
	return r.Body, r.Header.Get("Content-Type"), nil
}
