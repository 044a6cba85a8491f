package daemon_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
)

// A ca issues the certificates of a test.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

func newCA(t *testing.T, name string) *ca {
	t.Helper()
	c := &ca{t: t}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.cert, c.key = c.issue(template)
	return c
}

func (c *ca) issue(template *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key
}

// client returns a client's certificate.
func (c *ca) client(name string) tls.Certificate {
	cert, key := c.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// write replaces the server's certificate and key in the folder.
func (c *ca) write(dir, name string) (certFile, keyFile string) {
	cert, key := c.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	c.writePEM(certFile, "CERTIFICATE", cert.Raw)
	c.writePEM(keyFile, "PRIVATE KEY", der)
	return certFile, keyFile
}

// writeRoot replaces the client authorities in the folder.
func (c *ca) writeRoot(dir string) string {
	path := filepath.Join(dir, "clients.pem")
	c.writePEM(path, "CERTIFICATE", c.cert.Raw)
	return path
}

func (c *ca) writePEM(path, kind string, der []byte) {
	c.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

func whoHandler(w http.ResponseWriter, r *http.Request) {
	name := "nobody"
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s over %s", name, r.Proto)
}

// TestTrustReload replaces the server's certificate and the client authorities
// while a client keeps its connection.
func TestTrustReload(t *testing.T) {
	dir := t.TempDir()
	server, oldClients, newClients := newCA(t, "server"), newCA(t, "old"), newCA(t, "new")
	certFile, keyFile := server.write(dir, "first")
	roots := oldClients.writeRoot(dir)
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/who", Handler: http.HandlerFunc(whoHandler)}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", Certificate: readPair(certFile, keyFile), ClientCA: readPool(roots)}},
		[]daemon.Named{{Name: "svc", Component: s}}, nil)
	client := func(cert tls.Certificate, h2 bool) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.pool(), Certificates: []tls.Certificate{cert}}, ForceAttemptHTTP2: h2}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	get := func(c *http.Client) (string, string) {
		res, err := c.Get("https://" + r.addr["api"] + "/who")
		if err != nil {
			return "", err.Error()
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.TLS.PeerCertificates[0].Subject.CommonName, strings.TrimSpace(string(b))
	}
	alice1, alice2 := client(oldClients.client("alice"), false), client(oldClients.client("alice"), true)
	bob := client(newClients.client("bob"), true)
	for c, want := range map[*http.Client]string{alice1: "alice over HTTP/1.1", alice2: "alice over HTTP/2.0"} {
		if by, got := get(c); got != want || by != "first" {
			t.Fatalf("got %q from %q", got, by)
		}
	}
	if _, got := get(bob); strings.Contains(got, "bob") {
		t.Fatalf("a client of a foreign authority: %q", got)
	}
	if err := os.WriteFile(roots, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.write(dir, "second")
	if err := r.daemon.Reload(t.Context()); err == nil {
		t.Fatal("reloaded a file that holds no certificate")
	}
	if by, got := get(client(oldClients.client("alice"), true)); got != "alice over HTTP/2.0" || by != "first" {
		t.Fatalf("after the failed reload: %q from %q", got, by)
	}
	newClients.writeRoot(dir)
	if err := r.daemon.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*http.Client{alice1, alice2} {
		if _, got := get(c); got != "the client certificate is not admitted any more" {
			t.Errorf("on the old connection: %q", got)
		}
		if _, got := get(c); strings.Contains(got, "alice") {
			t.Errorf("on a new connection: %q", got)
		}
	}
	if by, got := get(bob); got != "bob over HTTP/2.0" || by != "second" {
		t.Errorf("the new client: %q from %q", got, by)
	}
}

func TestOptionalClient(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, "both")
	certFile, keyFile := c.write(dir, "server")
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/who", Handler: http.HandlerFunc(whoHandler)}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", Certificate: readPair(certFile, keyFile), ClientCA: readPool(c.writeRoot(dir)), OptionalClient: true}},
		[]daemon.Named{{Name: "svc", Component: s}}, nil)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool()}}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("https://" + r.addr["api"] + "/who")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "nobody over HTTP/1.1" {
		t.Errorf("got %q", b)
	}
}

// TestConnectionLimit opens more connections than there is room for: the one
// that is idle longest goes.
func TestConnectionLimit(t *testing.T) {
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/x", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", MaxConnections: 3}}, []daemon.Named{{Name: "svc", Component: s}}, nil)
	open := make([]net.Conn, 5)
	request := func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for i := range open {
		c, err := net.Dial("tcp", r.addr["api"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if open[i] = c; request(c) != nil {
			t.Fatalf("connection %d got no answer", i)
		}
	}
	for i, c := range open {
		if err := request(c); (err != nil) != (i < 2) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestStalledConnections fills a listener with connections that ask for much and
// read nothing: one of them makes room for who comes.
func TestStalledConnections(t *testing.T) {
	s := &service{mounts: []daemon.Mount{
		{Listener: "api", Pattern: "/much", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 64<<20)) })},
		{Listener: "api", Pattern: "/x", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})},
	}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", MaxConnections: 3, BodyTime: 300 * time.Millisecond}}, []daemon.Named{{Name: "svc", Component: s}}, nil)
	for range 3 {
		c, err := net.Dial("tcp", r.addr["api"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, 100)); err != nil { // it is being answered
			t.Fatal(err)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := client.Get("http://" + r.addr["api"] + "/x")
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("connections that do not move keep others out: %v", err)
		}
	}
}

// A body that goes on arriving takes longer than one that stops.
func TestSteadyBody(t *testing.T) {
	const size = 40 << 10
	got := make(chan int, 1)
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/x", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- len(b)
	})}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", BodyTime: 100 * time.Millisecond}}, []daemon.Named{{Name: "svc", Component: s}}, nil)
	body, w := io.Pipe()
	go func() {
		for n := 0; n < size; n += size / 10 {
			w.Write(make([]byte, size/10)) // a second's worth
			time.Sleep(50 * time.Millisecond)
		}
		w.Close()
	}()
	res, err := http.Post("http://"+r.addr["api"]+"/x", "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if n := <-got; n != size {
		t.Errorf("%d octets of a body that took half a second arrived, want %d", n, size)
	}
}

// TestSlowBody bounds how long a body may take, and not how long an answer may.
func TestSlowBody(t *testing.T) {
	got := make(chan error, 1)
	h := func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		time.Sleep(300 * time.Millisecond)
		got <- err
		fmt.Fprint(w, r.Context().Err() == nil)
	}
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/x", Handler: http.HandlerFunc(h)}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", BodyTime: 150 * time.Millisecond}}, []daemon.Named{{Name: "svc", Component: s}}, nil)
	res, err := http.Post("http://"+r.addr["api"]+"/x", "text/plain", strings.NewReader("quick"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "true" || <-got != nil {
		t.Errorf("a slow answer to a quick request: %q", b)
	}
	c, err := net.Dial("tcp", r.addr["api"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	select {
	case err := <-got:
		if err == nil {
			t.Error("half a body was taken for a whole one")
		}
	case <-time.After(10 * time.Second):
		t.Error("a body that does not come holds its request for ever")
	}
}

// TestSlowBodyHTTP2 has a body that does not come end its request, and the
// connection serve on.
func TestSlowBodyHTTP2(t *testing.T) {
	got := make(chan error, 1)
	h := func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
		if err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/x", Handler: http.HandlerFunc(h)}}}
	ca := newCA(t, "server")
	certFile, keyFile := ca.write(t.TempDir(), "one")
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", BodyTime: 150 * time.Millisecond, Certificate: readPair(certFile, keyFile)}},
		[]daemon.Named{{Name: "svc", Component: s}}, nil)
	dialled := 0
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	defer tr.CloseIdleConnections()
	for i, slow := range []bool{false, true, false} {
		var body io.Reader = strings.NewReader("quick")
		if slow {
			half, w := io.Pipe()
			defer w.Close()
			go io.WriteString(w, "abc")
			body = half
		}
		res, err := (&http.Client{Transport: tr}).Post("https://"+r.addr["api"]+"/x", "text/plain", body)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		res.Body.Close()
		if err := <-got; (err != nil) != slow || (res.StatusCode != http.StatusOK) != slow || res.ProtoMajor != 2 {
			t.Errorf("request %d: %v, %s %s", i, err, res.Proto, res.Status)
		}
	}
	if dialled != 1 {
		t.Errorf("%d connections, want 1", dialled)
	}
}

func TestUnixListener(t *testing.T) {
	dir, err := os.MkdirTemp("", "unix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address := "unix:" + filepath.Join(dir, "s")
	for range 2 { // the second finds the socket of the first
		r := start(t, []daemon.ListenerConfig{{Name: "local", Address: address}}, nil, nil)
		if _, err := daemon.Listen(t.Context(), daemon.ListenerConfig{Name: "again", Address: address}, discard); err == nil {
			t.Error("two listen on one socket")
		}
		r.stop()
		r.end()
	}
}

var discard = slog.New(slog.DiscardHandler)

// TestRefreshClients takes other client authorities alone, also where a reload
// that began before ends after it.
func TestRefreshClients(t *testing.T) {
	dir := t.TempDir()
	server, first, second := newCA(t, "server"), newCA(t, "first"), newCA(t, "second")
	certFile, keyFile := server.write(dir, "one")
	var l *daemon.Listener
	reads, known := 0, first.pool()
	pool := func(ctx context.Context) (*x509.CertPool, error) {
		reads++
		if reads != 3 {
			return known, nil
		}
		old := known // the reload's: it is overtaken
		known = second.pool()
		return old, l.RefreshClients(ctx)
	}
	s := &service{mounts: []daemon.Mount{{Listener: "api", Pattern: "/who", Handler: http.HandlerFunc(whoHandler)}}}
	r := start(t, []daemon.ListenerConfig{{Name: "api", Address: "127.0.0.1:0", Certificate: readPair(certFile, keyFile), ClientCA: pool}},
		[]daemon.Named{{Name: "svc", Component: s}}, func(c *daemon.Config) { l = c.Listeners[0] })
	get := func(cert tls.Certificate) (by, who string) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.pool(), Certificates: []tls.Certificate{cert}}}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("https://" + r.addr["api"] + "/who")
		if err != nil {
			return "", ""
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.TLS.PeerCertificates[0].Subject.CommonName, strings.TrimSpace(string(b))
	}
	server.write(dir, "two")
	if err := l.RefreshClients(t.Context()); err != nil {
		t.Fatal(err)
	}
	if by, who := get(first.client("alice")); by != "one" || !strings.HasPrefix(who, "alice") {
		t.Errorf("%q from %q: more than the client authorities were read", who, by)
	}
	if err := r.daemon.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if by, who := get(second.client("bob")); by != "two" || !strings.HasPrefix(who, "bob") {
		t.Errorf("%q from %q: the younger authorities were lost", who, by)
	}
	if _, who := get(first.client("alice")); who != "" {
		t.Errorf("%q came in by an authority that is gone", who)
	}
}
