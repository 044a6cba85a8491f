package enrol_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/certsonly"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/problem"
)

// An estServer serves EST for a world.
type estServer struct {
	*world
	server *httptest.Server
	client *enrol.Client
}

func newEST(t *testing.T, source string) *estServer {
	t.Helper()
	w := newWorld(t, source, 0)
	w.CACerts = func(context.Context) ([]*x509.Certificate, error) {
		return []*x509.Certificate{w.ca.Certificate()}, nil
	}
	e := &estServer{world: w, server: httptest.NewTLSServer(w.EST(enrol.PathEST + "/acme"))}
	t.Cleanup(e.server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(e.server.Certificate())
	var err error
	e.client, err = enrol.NewClient(e.server.URL+"/acme", pool)
	must(t, err)
	t.Cleanup(e.client.Close)
	return e
}

// plain invites without attestation.
func (e *estServer) plain() string {
	e.t.Helper()
	code, _, err := e.store.Invite(e.t.Context(), enrol.Invitation{Names: names(e.t), Type: registry.X509, Lifetime: time.Hour, Unattested: true}, 0)
	must(e.t, err)
	return code.Reveal()
}

func (e *estServer) records() []*registry.Record {
	e.t.Helper()
	all, _, err := e.book.List(e.t.Context(), registry.Filter{Kind: certs.KindDevice}, registry.Page{})
	must(e.t, err)
	return all
}

// TestSimpleEnrols runs on both engines: many devices try one code at once, one
// gets a certificate, and the book has that one and no intent of the others.
func TestSimpleEnrols(t *testing.T) {
	for name, source := range map[string]func(testing.TB) string{
		"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "issuer.db") },
		"PostgreSQL": pgtest.Database,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEST(t, source(t))
			code := e.plain()
			var issued atomic.Pointer[enrol.Issued]
			var work sync.WaitGroup
			for range 6 {
				request, err := certs.CreateRequest(rand.Reader, newKey(t), names(t), nil)
				must(t, err)
				work.Go(func() {
					made, err := e.client.Simple(context.Background(), code, request)
					if err == nil && !issued.CompareAndSwap(nil, made) {
						t.Error("two certificates on one code")
					}
					if err != nil && problem.Of(err).Code != "enrol-code" {
						t.Error(err)
					}
				})
			}
			work.Wait()
			made, all := issued.Load(), e.records()
			if made == nil || len(all) != 1 || all[0].Unfinished() || string(all[0].ID) != made.ID || all[0].Client != laptop || all[0].Level != "none" {
				t.Fatalf("issued %+v, the book has %+v", made, all)
			}
			if len(made.Chain) != 2 || strings.Count(made.Credential, "BEGIN CERTIFICATE") != 2 {
				t.Errorf("a chain of %d, as %s", len(made.Chain), made.Credential)
			}
			leaf, err := x509.ParseCertificate(made.Chain[0])
			must(t, err)
			must(t, leaf.CheckSignatureFrom(e.ca.Certificate()))
		})
	}
}

// TestSimpleRefused sends what must not be signed. Nothing is written down, and
// the code is good afterwards.
func TestSimpleRefused(t *testing.T) {
	e := newEST(t, filepath.Join(t.TempDir(), "issuer.db"))
	code, key := e.plain(), newKey(t)
	good, err := certs.CreateRequest(rand.Reader, key, names(t), nil)
	must(t, err)
	phone, err := certs.DeviceNames("mimi://acme.example/d/alice/phone", alice)
	must(t, err)
	other, err := certs.CreateRequest(rand.Reader, key, phone, nil)
	must(t, err)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	body := base64.StdEncoding.EncodeToString(good)
	for name, c := range map[string]struct {
		method, op, code, contentType, body string
		status                              int
		problem                             string
	}{
		"no code":      {"POST", "simpleenroll", "", "application/pkcs10", body, 401, "unauthenticated"},
		"wrong code":   {"POST", "simpleenroll", enrol.NewCode().Reveal(), "application/pkcs10", body, 403, "enrol-code"},
		"no such code": {"POST", "simpleenroll", "secret", "application/pkcs10", body, 403, "enrol-code"},
		"attested":     {"POST", "simpleenroll", e.invite(), "application/pkcs10", body, 403, "enrol-level"},
		"other names":  {"POST", "simpleenroll", code, "application/pkcs10", base64.StdEncoding.EncodeToString(other), 403, "enrol-request"},
		"forged":       {"POST", "simpleenroll", code, "application/pkcs10", base64.StdEncoding.EncodeToString(forged), 403, "enrol-request"},
		"cut":          {"POST", "simplereenroll", code, "application/pkcs10", base64.StdEncoding.EncodeToString(good[:200]), 403, "enrol-request"},
		"no base64":    {"POST", "simpleenroll", code, "application/pkcs10", string(good), 400, "malformed"},
		"large":        {"POST", "simpleenroll", code, "application/pkcs10", strings.Repeat("A", 33<<10), 413, "too-large"},
		"other type":   {"POST", "simpleenroll", code, "application/json", body, 415, "media-type"},
		"GET":          {"GET", "simpleenroll", code, "application/pkcs10", "", 405, "method"},
		"POST cacerts": {"POST", "cacerts", "", "application/pkcs10", body, 405, "method"},
		"fullcmc":      {"POST", "fullcmc", code, "application/pkcs10", body, 404, "not-found"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, e.server.URL+enrol.PathEST+"/acme/"+c.op, strings.NewReader(c.body))
			must(t, err)
			req.Header.Set("Content-Type", c.contentType)
			if c.code != "" {
				req.SetBasicAuth("device", c.code)
			}
			resp, err := e.server.Client().Do(req)
			must(t, err)
			defer resp.Body.Close()
			if p := problem.Read(resp, time.Now()); p.Status != c.status || p.Code != c.problem {
				t.Errorf("%v, want %d %s", p, c.status, c.problem)
			}
			if asks := resp.Header.Get("WWW-Authenticate"); (asks != "") != (c.status == 401) {
				t.Errorf("status %d asks for %q", c.status, asks)
			}
		})
	}
	if all := e.records(); len(all) != 0 {
		t.Errorf("written down: %+v", all)
	}
	_, err = e.client.Simple(t.Context(), code, good)
	must(t, err)
}

// TestESTSpeaksWithOthers has openssl make the request and read the answers, and
// curl send it.
func TestESTSpeaksWithOthers(t *testing.T) {
	e := newEST(t, filepath.Join(t.TempDir(), "issuer.db"))
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "server.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.server.Certificate().Raw}), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "password"), fmt.Appendf(nil, "user = \"laptop:%s\"\n", e.plain()), 0o600))
	run := func(command string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", command)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "EST="+e.server.URL+enrol.PathEST+"/acme")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	run(`openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj / -addext 'subjectAltName=critical,URI:` + laptop + `,URI:` + alice + `' -outform DER -out req.der`)
	run(`openssl base64 -in req.der -out req.b64`)
	run(`curl -sS --fail-with-body --cacert server.pem -o cacerts.b64 $EST/cacerts`)
	run(`curl -sS --fail-with-body --cacert server.pem -K password -H 'Content-Type: application/pkcs10' --data-binary @req.b64 -o certs.b64 $EST/simpleenroll`)
	for _, name := range []string{"cacerts", "certs"} {
		run(`openssl base64 -d -A -in ` + name + `.b64 -out ` + name + `.der && openssl pkcs7 -inform DER -in ` + name + `.der -print_certs -out ` + name + `.pem`)
	}
	if out := run(`openssl verify -partial_chain -CAfile cacerts.pem certs.pem`); !strings.Contains(out, "OK") {
		t.Error(out)
	}
	if out := run(`openssl x509 -in certs.pem -noout -ext subjectAltName`); !strings.Contains(out, laptop) || !strings.Contains(out, alice) {
		t.Error(out)
	}
	if run(`openssl x509 -in certs.pem -noout -pubkey`) != run(`openssl pkey -in key.pem -pubout`) {
		t.Error("the certificate is for another key")
	}
}

// TestClientRefusesAnswers has a server answer what no issuer answers.
func TestClientRefusesAnswers(t *testing.T) {
	e := newEST(t, filepath.Join(t.TempDir(), "issuer.db"))
	request, err := certs.CreateRequest(rand.Reader, newKey(t), names(t), nil)
	must(t, err)
	ca := e.ca.Certificate().Raw
	bag := func(all ...[]byte) string {
		der, err := certsonly.Encode(all)
		must(t, err)
		return base64.StdEncoding.EncodeToString(der)
	}
	for name, c := range map[string]struct{ contentType, body, want string }{
		"another key":  {"application/pkcs7-mime", bag(ca), "another key"},
		"no bag":       {"application/pkcs7-mime", base64.StdEncoding.EncodeToString(ca), "certs-only"},
		"empty":        {"application/pkcs7-mime", bag(), "no certificate"},
		"no cert":      {"application/pkcs7-mime", bag([]byte{0x30, 0}), "x509"},
		"too many":     {"application/pkcs7-mime", bag(ca, ca, ca, ca, ca, ca, ca, ca, ca, ca, ca), "more than 10"},
		"no base64":    {"application/pkcs7-mime", "*", "illegal base64"},
		"large":        {"application/pkcs7-mime", strings.Repeat(" ", 2<<20), "more than"},
		"another type": {"text/html", bag(ca), "no application/pkcs7-mime"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				io.WriteString(w, c.body)
			}))
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(server.Certificate())
			client, err := enrol.NewClient(server.URL, pool)
			must(t, err)
			defer client.Close()
			if _, err := client.Simple(t.Context(), "code", request); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	chain, err := e.client.CACerts(t.Context())
	if err != nil || len(chain) != 1 || !bytes.Equal(chain[0].Raw, ca) {
		t.Errorf("CA certificates: %v, %v", chain, err)
	}
}

func TestESTPath(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://a.example": "", "https://a.example/": "", "https://a.example/acme": "/acme", "https://a.example/acme/": "/acme",
		"https://a.example/x/y": "", "https://a.example/cacerts": "", "https://a.example/simpleenroll": "",
	} {
		u, err := url.Parse(issuer)
		must(t, err)
		if got := enrol.ESTPath(u); got != enrol.PathEST+want {
			t.Errorf("%s: %s, want %s", issuer, got, enrol.PathEST+want)
		}
	}
}
