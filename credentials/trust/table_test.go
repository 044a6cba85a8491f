package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
)

// A tableTrust has the trust configuration fetch, for the tables of safehttptest.
type tableTrust struct {
	ck     *clock
	ca     *safehttptest.Authority
	dir    string
	issuer *issuer
	cert   func(t *testing.T, crl, ocsp string) *x509.Certificate
}

func newTableTrust(t *testing.T) *tableTrust {
	ck := newClock()
	w := &tableTrust{ck: ck, ca: safehttptest.NewAuthority(t), dir: t.TempDir(), issuer: newIssuer(t, ck, "https://idp.example")}
	writeFile(t, w.dir, "ca.pem", w.ca.PEM)
	writeFile(t, w.dir, "keys.jwks", jwks(t, w.issuer))
	key := newKey(t)
	ca := certify(t, ck, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte("key of Acme"),
	}, key.Public(), nil, key)
	writeFile(t, w.dir, "anchor.pem", pemOf(ca))
	var uris []*url.URL
	for _, text := range []string{client, user} {
		u, err := url.Parse(text)
		must(t, err)
		uris = append(uris, u)
	}
	w.cert = func(t *testing.T, crl, ocsp string) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(2), URIs: uris, KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{certs.OIDIMURI}}
		if crl != "" {
			c.CRLDistributionPoints = []string{crl}
		}
		if ocsp != "" {
			c.OCSPServer = []string{ocsp}
		}
		return certify(t, ck, c, newKey(t).Public(), ca, key)
	}
	return w
}

// open opens a configuration of one issuer with its own constructor, on names
// and networks of a test.
func (w *tableTrust) open(t *testing.T, s safehttptest.Setting, bound time.Duration, issuer object) (*trust.List, error) {
	c := config(object{"allow_private": prefixes(s), "ca_file": filepath.Join(w.dir, "ca.pem")}, issuer)
	l, err := trust.OpenBounded(write(t, t.TempDir(), c), trust.Options{Now: w.ck.now, Rand: func() float64 { return 0.5 }}, s.Names, bound)
	if err == nil {
		t.Cleanup(l.Close)
	}
	return l, err
}

// token has an issuer's entry judge a token of it.
func (w *tableTrust) token(t *testing.T, s safehttptest.Setting, bound time.Duration, iss, status string, keys, revocation object) error {
	i := *w.issuer
	i.iss = iss
	if status != "" {
		i.status = object{"status_list": object{"idx": 1, "uri": status}}
	}
	e := entry("sd_jwt", iss, keys)
	if revocation != nil {
		e["revocation"] = revocation
	}
	l, err := w.open(t, s, bound, e)
	if err != nil {
		return err
	}
	holder := newKey(t)
	evidence, err := check(t, l, i.jwt(holder), holder)
	if err != nil {
		return err
	}
	return l.Snapshot().Status(t.Context(), evidence, w.ck.now()).Err
}

func (w *tableTrust) certificate(t *testing.T, s safehttptest.Setting, bound time.Duration, cert *x509.Certificate, revocation object) error {
	l, err := w.open(t, s, bound, object{
		"name": "acme", "type": "x509", "roles": []string{"client"}, "keys": object{"source": "anchors", "file": filepath.Join(w.dir, "anchor.pem")},
		"grants": clientGrant(), "revocation": revocation,
	})
	if err != nil {
		return err
	}
	evidence, err := l.Snapshot().Certificate(t.Context(), trust.CertificateCheck{Certificates: [][]byte{cert.Raw}})
	if err != nil {
		return err
	}
	return l.Snapshot().Status(t.Context(), evidence, w.ck.now()).Err
}

// surfaces are all ways in which the trust configuration fetches from a host.
func (w *tableTrust) surfaces() map[string]func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
	fileKeys := object{"source": "jwks_file", "file": filepath.Join(w.dir, "keys.jwks")}
	const iss = "https://idp.example"
	type where = func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error
	configured := func(kind string) where {
		return func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			return w.certificate(t, s, bound, w.cert(t, "", ""), object{"mode": "hard", "methods": []string{kind}, kind: []string{"https://" + host + "/x"}})
		}
	}
	return map[string]where{
		"jwks_uri": func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			return w.token(t, s, bound, iss, "", object{"source": "jwks_uri", "uri": "https://" + host + "/jwks"}, nil)
		},
		"jwt-vc-issuer": func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			return w.token(t, s, bound, "https://"+host, "", object{"source": "jwt_vc_issuer"}, nil)
		},
		"status list": func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			uri := "https://" + host + "/status/1"
			return w.token(t, s, bound, iss, uri, fileKeys, object{"mode": "hard", "methods": []string{"status_list"}, "status_prefixes": []string{uri}})
		},
		"crl":  configured("crl"),
		"ocsp": configured("ocsp"),
		"crl of the certificate": func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			return w.certificate(t, s, bound, w.cert(t, "https://"+host+"/x", ""), object{"mode": "hard", "methods": []string{"crl"}, "follow_certificates": true})
		},
		"ocsp of the certificate, in plain": func(t *testing.T, s safehttptest.Setting, bound time.Duration, host string) error {
			return w.certificate(t, s, bound, w.cert(t, "", "http://"+host+"/x"), object{"mode": "hard", "methods": []string{"ocsp"}, "follow_certificates": true})
		},
	}
}

// Nothing that the trust configuration, a token or a certificate names leads
// inside.
func TestTrustLeadsNobodyInside(t *testing.T) {
	w := newTableTrust(t)
	for name, fetch := range w.surfaces() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			safehttptest.InsideIsRefused(t, safehttptest.Surface{
				Fetch: func(t *testing.T, s safehttptest.Setting, host string) error { return fetch(t, s, time.Minute, host) },
				Refused: func(err error) bool {
					r := safehttp.ReasonOf(err)
					return r == safehttp.BadAddress || r == safehttp.BadURL || errors.As(err, new(*trust.ConfigError)) || credentials.CodeOf(err) == credentials.CodeMalformed
				},
			})
		})
	}
}

// A key set that an issuer's metadata names is no way in either. The issuer is
// on a network that is open, and inside is another.
func TestMetadataLeadsNobodyInside(t *testing.T) {
	w := newTableTrust(t)
	cert := w.ca.Certificate(t, "idp.example")
	safehttptest.InsideIsRefused(t, safehttptest.Surface{
		Fetch: func(t *testing.T, s safehttptest.Setting, host string) error {
			text, err := json.Marshal(object{"issuer": "https://idp.example", "jwks_uri": "https://" + host + "/jwks"})
			must(t, err)
			home := safehttptest.NewServer(t, "127.9.9.9", &cert, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				rw.Write(text)
			}))
			s = s.With(t, "idp.example", netip.MustParseAddr("127.9.9.9"))
			c := config(object{"allow_private": prefixes(s), "ca_file": filepath.Join(w.dir, "ca.pem")}, entry("sd_jwt", "https://idp.example", object{"source": "jwt_vc_issuer"}))
			l, err := trust.OpenAt(write(t, t.TempDir(), c), trust.Options{Now: w.ck.now}, s.Names, home.Port(t))
			must(t, err)
			defer l.Close()
			holder := newKey(t)
			_, err = check(t, l, w.issuer.jwt(holder), holder)
			return err
		},
		Refused: func(err error) bool {
			r := safehttp.ReasonOf(err)
			return r == safehttp.BadAddress || r == safehttp.BadURL
		},
	})
}

func prefixes(s safehttptest.Setting) []string {
	out := []string{}
	for _, p := range s.Allow {
		out = append(out, p.String())
	}
	return out
}

// What the servers of issuers answer is survived.
func TestTrustSurvivesServers(t *testing.T) {
	w := newTableTrust(t)
	cert := w.ca.Certificate(t, "host.example")
	here := safehttptest.Home(t)
	for name, fetch := range w.surfaces() {
		server := &cert
		if name == "ocsp of the certificate, in plain" {
			server = nil
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			safehttptest.AnswersAreSurvived(t, server, func(t *testing.T, addr string, bound time.Duration) error {
				_, port, err := net.SplitHostPort(addr)
				must(t, err)
				return fetch(t, here, bound, "host.example:"+port)
			})
		})
	}
}
