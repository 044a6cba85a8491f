package trust_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/mimiuri"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
)

// A domain is the web server of acme.example: real HTTPS with a certificate of a
// local CA, at a private address. Every other name resolves there too.
type domain struct {
	*site
	iss  string
	port uint16
}

func newDomain(t *testing.T, names ...string) *domain {
	t.Helper()
	ck := &clock{}
	ck.at.Store(time.Now().UnixNano())
	caKey, key := newKey(t), newKey(t)
	ca := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, caKey.Public(), nil, caKey)
	cert := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public(), ca, caKey)
	s := &site{pages: map[string]http.HandlerFunc{}, hits: map[string]int{}, dir: t.TempDir()}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.route))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused
	s.StartTLS()
	t.Cleanup(s.Close)
	writeFile(t, s.dir, "ca.pem", pemOf(ca))
	return &domain{site: s, iss: "https://" + names[0], port: uint16(s.Listener.Addr().(*net.TCPAddr).Port)}
}

// open opens a configuration that believes domains.
func (d *domain) open(t *testing.T, ck *clock, change func(object)) *trust.List {
	t.Helper()
	c := config(object{"allow_private": []string{"127.0.0.1/32"}, "ca_file": filepath.Join(d.dir, "ca.pem"), "timeout_s": 5})
	c["auto_domain"] = true
	if change != nil {
		change(c)
	}
	resolver := safehttptest.NameServer(t, func() netip.Addr { return netip.MustParseAddr("127.0.0.1") })
	l, err := trust.OpenAt(write(t, t.TempDir(), c), trust.Options{Now: ck.now}, resolver, d.port)
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

const metadata = "/.well-known/jwt-vc-issuer"

// describe serves the metadata of the issuer.
func (d *domain) describe(t *testing.T, m object) {
	t.Helper()
	text, err := json.Marshal(m)
	must(t, err)
	d.serve(metadata, "application/json", text)
}

func keySet(t *testing.T, i *issuer) (set any) {
	t.Helper()
	must(t, json.Unmarshal(jwks(t, i), &set))
	return set
}

// TestAutoDomainDiscovery believes an issuer that nothing but its domain is
// known of, by its metadata, its keys and its status list.
func TestAutoDomainDiscovery(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	d := newDomain(t, "acme.example")
	i := newIssuer(t, ck, d.iss)
	i.status = object{"status_list": object{"idx": 3, "uri": d.iss + "/status/1"}}
	list, err := statuslist.NewList(1, 64)
	must(t, err)
	must(t, list.Set(4, statuslist.Invalid))
	lst, err := list.Compress()
	must(t, err)
	token := &statuslist.Token{Subject: d.iss + "/status/1", IssuedAt: ck.now(), Expires: ck.now().Add(time.Hour), TTL: time.Minute, Bits: 1, Compressed: lst}
	signed, err := token.Sign(t.Context(), statuslist.JWT, i.key, []byte(i.kid))
	must(t, err)
	d.serve("/status/1", statuslist.MediaTypeJWT, signed)
	d.serve("/keys", "application/jwk-set+json", jwks(t, i))
	for name, m := range map[string]object{
		"keys in the metadata": {"issuer": d.iss, "jwks": keySet(t, i)},
		"keys at a URL":        {"issuer": d.iss, "jwks_uri": d.iss + "/keys"},
	} {
		t.Run(name, func(t *testing.T) {
			d.describe(t, m)
			l := d.open(t, ck, nil)
			e, err := check(t, l, i.jwt(holder), holder)
			must(t, err)
			wantStatus(t, "good", l, e, ck.now(), trust.Good, "")
			for text, want := range map[string]bool{
				client: true, user: true, "mimi://acme.example/p/x": true, "mimi://acme.example/r/room": false, "mimi://acme.example": false,
				"mimi://sub.acme.example/u/alice": false, "mimi://globex.example/u/alice": false,
			} {
				u, err := mimiuri.Parse(text)
				must(t, err)
				if got := e.Issuer.Allows(trust.RoleClient, u); got != want {
					t.Errorf("the domain may name %s: %v", text, got)
				}
			}
			i.status = object{"status_list": object{"idx": 4, "uri": d.iss + "/status/1"}}
			e, err = check(t, l, i.jwt(holder), holder)
			must(t, err)
			wantStatus(t, "revoked", l, e, ck.now(), trust.Revoked, credentials.CodeRevoked)
			i.status = object{"status_list": object{"idx": 3, "uri": "https://other.example/status/1"}}
			e, err = check(t, l, i.jwt(holder), holder)
			must(t, err)
			wantStatus(t, "list of another domain", l, e, ck.now(), trust.Invalid, credentials.CodeStatusURI)
			i.status = object{"status_list": object{"idx": 3, "uri": d.iss + "/status/1"}}
			// For another domain nothing is believed, whoever serves its metadata.
			_, err = check(t, l, newIssuer(t, ck, "https://globex.example").jwt(holder), holder)
			wantCode(t, "another domain", err, credentials.CodeIssuerKey)
		})
	}
}

func TestAutoDomainRefusals(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	for _, c := range []struct {
		name  string
		want  credentials.Code
		setup func(t *testing.T, d *domain, i *issuer)
		trust func(object)
		hits  map[string]int // at most; of what is not listed, any
	}{
		{name: "no metadata", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) { d.handle(metadata, nil) }},
		{name: "metadata of another issuer", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": "https://globex.example", "jwks": keySet(t, i)})
		}},
		{name: "issuer with a slash more", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss + "/", "jwks": keySet(t, i)})
		}},
		{name: "no issuer", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) { d.describe(t, object{"jwks": keySet(t, i)}) }},
		{name: "keys twice", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss, "jwks": keySet(t, i), "jwks_uri": d.iss + "/keys"})
		}},
		{name: "no keys", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) { d.describe(t, object{"issuer": d.iss}) }},
		{name: "keys of another", want: credentials.CodeIssuerSignature, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss, "jwks": keySet(t, newIssuer(t, ck, d.iss))})
		}},
		{name: "no JSON", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) { d.serve(metadata, "application/json", []byte("{")) }},
		{name: "HTML", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			text, err := json.Marshal(object{"issuer": d.iss, "jwks": keySet(t, i)})
			must(t, err)
			d.serve(metadata, "text/html", text)
		}},
		{name: "redirect to a private address", want: credentials.CodeIssuerKey, hits: map[string]int{"/private": 0}, setup: func(t *testing.T, d *domain, i *issuer) {
			d.handle(metadata, http.RedirectHandler("https://127.0.0.2/private", http.StatusFound).ServeHTTP)
		}},
		{name: "redirect on the host", want: credentials.CodeIssuerKey, hits: map[string]int{"/elsewhere": 0}, setup: func(t *testing.T, d *domain, i *issuer) {
			d.handle(metadata, http.RedirectHandler("/elsewhere", http.StatusMovedPermanently).ServeHTTP)
		}},
		{name: "keys at a private address", want: credentials.CodeIssuerKey, hits: map[string]int{"/keys": 0}, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss, "jwks_uri": fmt.Sprintf("https://127.0.0.2:%d/keys", d.port)})
		}},
		{name: "keys over plain HTTP", want: credentials.CodeIssuerKey, hits: map[string]int{"/keys": 0}, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss, "jwks_uri": "http://acme.example/keys"})
		}},
		{name: "oversized", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			d.describe(t, object{"issuer": d.iss, "jwks": keySet(t, i), "fill": strings.Repeat("x", 256<<10)})
		}},
		{name: "endless", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			d.handle(metadata, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			})
		}},
		{name: "too many keys", want: credentials.CodeIssuerKey, setup: func(t *testing.T, d *domain, i *issuer) {
			all := make([]*issuer, 65)
			for n := range all {
				all[n] = newIssuer(t, ck, d.iss)
				all[n].kid = fmt.Sprint(n)
			}
			var set any
			must(t, json.Unmarshal(jwks(t, all...), &set))
			d.describe(t, object{"issuer": d.iss, "jwks": set})
		}},
		{name: "slow", want: credentials.CodeIssuerKey, trust: func(c object) { c["fetch"].(object)["timeout_s"] = 1 }, setup: func(t *testing.T, d *domain, i *issuer) {
			d.handle(metadata, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(`{"issuer":`))
				w.(http.Flusher).Flush()
				<-r.Context().Done() // the client's patience ends first
			})
		}},
		{name: "private address that is not permitted", want: credentials.CodeIssuerKey, hits: map[string]int{metadata: 0},
			trust: func(c object) { delete(c["fetch"].(object), "allow_private") }},
		{name: "server that the authorities do not know", want: credentials.CodeIssuerKey, hits: map[string]int{metadata: 0},
			trust: func(c object) { delete(c["fetch"].(object), "ca_file") }},
		{name: "switched off", want: credentials.CodeIssuerUnknown, hits: map[string]int{metadata: 0}, trust: func(c object) { c["auto_domain"] = false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDomain(t, "acme.example")
			i := newIssuer(t, ck, d.iss)
			d.describe(t, object{"issuer": d.iss, "jwks": keySet(t, i)})
			if c.setup != nil {
				c.setup(t, d, i)
			}
			l := d.open(t, ck, c.trust)
			_, err := check(t, l, i.jwt(holder), holder)
			wantCode(t, c.name, err, c.want)
			for path, most := range c.hits {
				if n := d.count(path); n > most {
					t.Errorf("%d requests for %s", n, path)
				}
			}
		})
	}
	// A certificate for another name.
	d := newDomain(t, "globex.example")
	i := newIssuer(t, ck, "https://acme.example")
	d.describe(t, object{"issuer": i.iss, "jwks": keySet(t, i)})
	_, err := check(t, d.open(t, ck, nil), i.jwt(holder), holder)
	wantCode(t, "certificate of another host", err, credentials.CodeIssuerKey)
}

// What a hostile domain costs is borne once: while it fails it is asked once.
func TestAutoDomainSingleFlight(t *testing.T) {
	ck, holder := newClock(), newKey(t)
	d := newDomain(t, "acme.example")
	d.serve(metadata, "text/html", nil)
	l := d.open(t, ck, nil)
	token := newIssuer(t, ck, d.iss).jwt(holder)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := check(t, l, token, holder)
			wantCode(t, "failing", err, credentials.CodeIssuerKey)
		})
	}
	wg.Wait()
	if n := d.count(metadata); n != 1 {
		t.Errorf("%d requests", n)
	}
}
