package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
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
	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// A served process runs in this one, on real devices.
type served struct {
	t      testing.TB
	addr   map[string]string
	daemon *daemon.Daemon
	stop   context.CancelFunc
	done   chan error
}

// serveTest runs the configuration's services until the test ends.
func serveTest(t testing.TB, w *wiring) *served {
	t.Helper()
	return serveFile(t, w, nil)
}

// serveFile is serveTest with what is to be read as the configuration file when
// the process reloads.
func serveFile(t testing.TB, w *wiring, reread func() (*Config, error)) *served {
	t.Helper()
	if err := w.config.check(); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, addr: make(map[string]string), done: make(chan error, 1)}
	up := make(chan struct{})
	p := &process{wiring: w, log: slog.New(slog.NewTextHandler(t.Output(), nil)), metrics: telemetry.NewMetrics(buildInfo()), notify: new(daemon.Notifier), reread: reread}
	p.started = func(d *daemon.Daemon, listeners []*daemon.Listener) {
		s.daemon = d
		for _, l := range listeners {
			s.addr[l.Name()] = l.Addr().String()
		}
		close(up)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go func() { s.done <- p.run(ctx) }()
	select {
	case <-up:
	case err := <-s.done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// page fetches a page of the operator's listener.
func (s *served) page(path string) (int, string) {
	s.t.Helper()
	res, err := http.Get("http://" + s.addr["operator"] + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (s *served) eventually(what string, f func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_, state := s.page("/health/state")
			s.t.Fatalf("never: %s\n%s", what, state)
		}
	}
}

// certify writes a self-signed server certificate for a key of the ring.
func certify(t testing.TB, w *wiring, id signer.KeyID, path string) *x509.CertPool {
	t.Helper()
	s, err := w.ring.Signer(t.Context(), id, signer.PurposeTLS)
	if err != nil {
		t.Fatal(err)
	}
	key := softwareKey(t)
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	root, err := x509.CreateCertificate(rand.Reader, issuer, issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, s.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return pool
}

// TestServe serves TLS with a key in a token, becomes ready when the key's
// device is there, and follows a rotation of the key by a reload.
func TestServe(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "web", Purpose: signer.PurposeTLS, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.config.dir, "server.pem")
	pool := certify(t, w, "web", path)
	w.config.Serve = &ServeConfig{Operator: "operator", CriticalKeys: []signer.KeyID{"web"}, Listeners: map[string]*ListenerSection{
		"operator": {Address: "127.0.0.1:0", Plain: true},
		"public":   {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"},
	}}
	s := serveTest(t, w)
	s.eventually("ready", func() bool { code, _ := s.page("/health/ready"); return code == http.StatusOK })
	handshake := func(pool *x509.CertPool) error {
		c, err := tls.Dial("tcp", s.addr["public"], &tls.Config{RootCAs: pool})
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := handshake(pool); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ring.Rotate(t.Context(), "web", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.daemon.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "is not for version 2 of key web") {
		t.Errorf("reloaded the certificate of the old version: %v", err)
	}
	pool = certify(t, w, "web", path)
	if err := s.daemon.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := handshake(pool); err != nil {
		t.Error(err)
	}
	if _, text := s.page("/metrics"); !strings.Contains(text, `privyseal_reloads_total{result="error"} 1`) || !strings.Contains(text, "privyseal_build_info{") {
		t.Errorf("metrics:\n%s", text)
	}
}

// TestServeWithoutDevice starts while the token cannot be reached: live, and
// not ready.
func TestServeWithoutDevice(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "web", Purpose: signer.PurposeTLS, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(w.config.dir, "softhsm", "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	w, err := newWiring(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(context.Background()) })
	w.config.Serve = &ServeConfig{Operator: "operator", CriticalKeys: []signer.KeyID{"web"},
		Listeners: map[string]*ListenerSection{"operator": {Address: "127.0.0.1:0", Plain: true}}}
	s := serveTest(t, w)
	s.eventually("the device is seen to be away", func() bool {
		_, text := s.page("/health/state")
		return strings.Contains(text, `"down"`)
	})
	if code, _ := s.page("/health/live"); code != http.StatusOK {
		t.Errorf("live: %d", code)
	}
	if code, text := s.page("/health/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("ready: %d %s", code, text)
	}
}

// TestServeConfig holds the member "serve" to its rules.
func TestServeConfig(t *testing.T) {
	for name, c := range map[string]struct{ serve, want string }{
		"no listener":        {`{"listeners":{}}`, "serve.listeners: is required"},
		"unknown member":     {`{"listeners":{"a":{"address":":1","plain":true}},"issuers":{}}`, `no member "issuers"`},
		"wrong case":         {`{"Listeners":{}}`, `no member "Listeners"`},
		"bad name":           {`{"listeners":{"A":{"address":":1","plain":true}}}`, "is no listener name"},
		"no address":         {`{"listeners":{"a":{"plain":true}}}`, "serve.listeners.a.address"},
		"no certificate":     {`{"listeners":{"a":{"address":":1"}}}`, "serve.listeners.a.certificate"},
		"two keys":           {`{"listeners":{"a":{"address":":1","certificate":"c","key":"k","key_id":"i"}}}`, "one of key and key_id"},
		"plain with TLS":     {`{"listeners":{"a":{"address":":1","plain":true,"client_ca":"c"}}}`, "for TLS"},
		"auth without CA":    {`{"listeners":{"a":{"address":":1","certificate":"c","key":"k","client_auth":"require"}}}`, "needs client_ca"},
		"bad auth":           {`{"listeners":{"a":{"address":":1","certificate":"c","key":"k","client_ca":"d","client_auth":"maybe"}}}`, "use require"},
		"bad node":           {`{"listeners":{"a":{"address":":1","plain":true}},"journal":{"node":"A B"}}`, "serve.journal.node"},
		"operator not there": {`{"listeners":{"a":{"address":":1","plain":true}},"operator":"b"}`, `no listener "b"`},
		"bad key id":         {`{"listeners":{"a":{"address":":1","plain":true}},"critical_keys":["A B"]}`, "critical_keys"},
		"bad level":          {`{"listeners":{"a":{"address":":1","plain":true}},"log":{"level":"loud"}}`, "serve.log.level"},
		"negative drain":     {`{"listeners":{"a":{"address":":1","plain":true}},"drain":"-1s"}`, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(`{"version":1,"devices":{},"serve":` + c.serve + `}`))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	good := `{"version":1,"devices":{},"serve":{"listeners":{"a":{"address":":1","plain":true}},"operator":"a","drain":"5s","log":{"format":"json","level":"warn"}}}`
	c, err := ParseConfig([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if b, err := json.Marshal(c); err != nil || json.Compact(&again, b) != nil || again.String() != good {
		t.Errorf("written again: %s, %v", again.String(), err)
	}
}

func softwareKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestMetricNames scrapes after work, and holds the names to the documentation.
func TestMetricNames(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	for id, p := range map[signer.KeyID]signer.Purpose{"web": signer.PurposeTLS, "mac": signer.PurposeFrankMAC, "init": signer.PurposeMLSInit} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	config := w.config
	if err := w.Close(t.Context()); err != nil { // the devices open under the eyes of serve
		t.Fatal(err)
	}
	w, err := newWiring(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(context.Background()) })
	interval := Duration(300 * time.Millisecond)
	w.config.Serve = &ServeConfig{Operator: "operator", CriticalKeys: []signer.KeyID{"web"}, SelfTest: &interval,
		Listeners: map[string]*ListenerSection{"operator": {Address: "127.0.0.1:0", Plain: true}}}
	s := serveTest(t, w)
	tested := `privyseal_self_tests_total{device="softhsm",result="ok"} `
	s.eventually("each key passed a self-test", func() bool {
		_, text := s.page("/metrics")
		return strings.Contains(text, `{alg="HMAC-SHA256",key="mac",result="ok"}`) && strings.Contains(text, `key="init",result="ok"}`) && strings.Contains(text, `key="web",result="ok"}`)
	})
	_, text := s.page("/metrics")
	for _, want := range []string{
		"privyseal_build_info{", tested, `privyseal_sign_requests_total{alg="P-256",key="web",result="ok"}`, `privyseal_sign_duration_seconds_bucket{alg="P-256",le="0.0001"}`,
		`privyseal_pkcs11_call_duration_seconds_count{function="C_Sign",module="libsofthsm2.so"}`, `privyseal_device_up{module="libsofthsm2.so",token="softhsm"} 1`,
		`privyseal_device_sessions{device="softhsm",state="limit"}`, `privyseal_device_in_flight{device="softhsm"}`, `privyseal_device_suspect{device="softhsm"} 0`,
		"privyseal_audit_write_failures_total 0", `privyseal_http_requests_total{code="2xx",listener="operator"}`, "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `result="error"`) {
		t.Errorf("self-tests failed:\n%s", text)
	}
	j, err := journal.Open(t.Context(), w.config.databaseSource(journalPart), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	kept := make(map[string]int)
	for e, err := range j.Entries(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Intent.Caller == selfTestCaller {
			kept[string(e.Intent.Key)+" "+string(e.Intent.Operation)]++
		}
	}
	if kept["web sign"] == 0 || kept["mac mac"] == 0 || kept["init agree"] == 0 {
		t.Errorf("the journal has %v", kept)
	}
}
