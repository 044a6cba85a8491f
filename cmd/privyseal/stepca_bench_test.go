package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/signer"
)

// stepCAVersion is what issuing is compared with.
const stepCAVersion = "github.com/smallstep/certificates/cmd/step-ca@v0.30.2"

// BenchmarkEnrolX509 is the rate of certificates from privyseal serve, over HTTPS
// on loopback, with the CA's key in a SoftHSM token and each certificate durable
// before it is given out:
//
//   - simple/s: enrolments without attestation, which are one request: EST
//     simpleenroll with a PKCS#10 request and a one-time code.
//   - x-step-ca: the rate of simple over that of step-ca's /1.0/sign, which takes a
//     PKCS#10 request and a one-time token too, with a CA key on a SoftHSM token of
//     its own and its database as by default (badger, synced). If there is no
//     step-ca in PATH or in GOPATH/bin, this is left out:
//     CGO_ENABLED=1 go install github.com/smallstep/certificates/cmd/step-ca@v0.30.2
//   - finish/s: the second request of an enrolment with a statement of where the key
//     is kept, which has no like in step-ca; the sessions were begun before.
//   - x-primitives: the time of simple over that of a signature by the token,
//     its verification and two durable writes to a bare SQLite table, which
//     callers at the same time share.
//
// Requests, codes and tokens are made before, keys and signatures in them included.
// Ours and step-ca's are sent by one kind of client, to which every certificate is in
// the answer, and looked at afterwards: over HTTP/2 on one connection for all, as
// programs in Go do by themselves, and over HTTP/1.1 with a connection for each caller,
// as devices have. CPU is that of both ends. All take turns; ratios are medians over
// the rounds.
func BenchmarkEnrolX509(b *testing.B) {
	ours := newEnrolBench(b)
	theirs := newStepCA(b)
	for _, version := range []int{2, 1} {
		ours.http = newCertClient(b, ours.pool, version)
		if theirs != nil {
			theirs.client = newCertClient(b, theirs.pool, version)
		}
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("http=%d/callers=%d", version, callers), func(b *testing.B) { compareIssuing(b, ours, theirs, callers) })
		}
	}
	if theirs == nil {
		b.Logf("no step-ca: go install %s", stepCAVersion)
	}
}

// compareIssuing measures ours, theirs unless it is nil, and the primitives.
func compareIssuing(b *testing.B, ours *enrolBench, theirs *stepCA, callers int) {
	const n = 256 // so that the beginning and the end of a turn weigh little
	var simple, finish, beside, bare, rate, ourCPU, theirCPU []float64
	for b.Loop() {
		requests := ours.requests(n)
		took, cpu := parallel(b, callers, n, func(i int64) error { return requests[i-1].send(ours.http) })
		ours.check(requests)
		ourCPU, simple = append(ourCPU, float64(cpu.Microseconds())/n), append(simple, n/took.Seconds())
		if theirs != nil {
			orders := theirs.prepare(n)
			before := theirs.cpu()
			signed, cpu := parallel(b, callers, n, func(i int64) error { return orders[i-1].send(theirs.client) })
			theirCPU = append(theirCPU, float64((cpu+theirs.cpu()-before).Microseconds())/n)
			beside, rate = append(beside, signed.Seconds()/took.Seconds()), append(rate, n/signed.Seconds())
			theirs.check(orders)
		}
		primitives, _ := parallel(b, callers, n, ours.primitives)
		bare = append(bare, took.Seconds()/primitives.Seconds())
		ready := ours.begin(n)
		took, _ = parallel(b, callers, n, func(i int64) error { return ours.finish(ready[i-1]) })
		finish = append(finish, n/took.Seconds())
	}
	b.ReportMetric(median(simple), "simple/s")
	b.ReportMetric(median(finish), "finish/s")
	b.ReportMetric(median(ourCPU), "cpu-us/simple")
	b.ReportMetric(median(bare), "x-primitives")
	if theirs != nil {
		b.ReportMetric(median(rate), "step-ca/s")
		b.ReportMetric(median(theirCPU), "cpu-us/step-ca")
		b.ReportMetric(median(beside), "x-step-ca")
	}
	b.ReportMetric(0, "ns/op")
}

// A certRequest is a request for a certificate, and then its answer.
type certRequest struct {
	url, contentType, code string
	body, answer           []byte
}

func (r *certRequest) send(c *http.Client) error {
	req, err := http.NewRequest(http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", r.contentType)
	if r.code != "" {
		req.SetBasicAuth("", r.code)
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	r.answer, err = io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", res.Status, r.answer)
	}
	return err
}

// newCertClient is what sends them, by a version of HTTP: over HTTP/1.1 each caller
// has a connection, over HTTP/2 they share one.
func newCertClient(b *testing.B, roots *x509.CertPool, version int) *http.Client {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: version == 2, MaxIdleConnsPerHost: 16}, Timeout: time.Minute}
	b.Cleanup(c.CloseIdleConnections)
	return c
}

// An enrolBench is an issuer that believes one appliance, and the device.
type enrolBench struct {
	b         *testing.B
	wiring    *wiring
	store     *enrol.Store
	client    *enrol.Client
	pool      *x509.CertPool
	http      *http.Client
	url       string
	appliance crypto.Signer
	device    *ecdsa.PrivateKey
	ca        signer.SigningKey // as the device opens it
	public    crypto.PublicKey
	bare      *sqldb.DB
	next      int
}

func newEnrolBench(b *testing.B) *enrolBench {
	b.Helper()
	ctx := b.Context()
	x := &enrolBench{b: b, appliance: softwareKey(b), device: softwareKey(b)}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	config, err := initState(ctx, filepath.Join(b.TempDir(), "home", configName), initOptions{softHSM: true})
	must(err)
	w, err := newWiring(ctx, config)
	must(err)
	b.Cleanup(func() { w.Close(context.Background()) })
	x.wiring = w
	for id, p := range map[signer.KeyID]signer.Purpose{"web": signer.PurposeTLS, "root": signer.PurposeX509CA, "ca": signer.PurposeX509CA} {
		_, err := w.ring.Create(ctx, signer.NewKey{ID: id, Purpose: p, Device: "softhsm"})
		must(err)
	}
	for _, o := range []caOptions{{key: "root"}, {key: "ca", issuer: "root", hosts: []string{"a.example"}}} {
		_, err := w.createCA(ctx, &o)
		must(err)
	}
	pool := certify(b, w, "web", filepath.Join(w.config.dir, "server.pem"))
	jwk, err := credentials.FormatJWK(x.appliance.Public())
	must(err)
	must(os.WriteFile(filepath.Join(w.config.dir, "appliance.jwk"), jwk, 0o600))
	w.config.Issuer = &IssuerSection{URL: "https://issuer.example/acme", CAs: map[string]*CASection{"devices": {Key: "ca"}}}
	w.config.Serve = &ServeConfig{
		Operator: "operator", Issuer: &IssuerServeSection{Listener: "operator", Enrol: &EnrolSection{Listener: "public", Appliances: []string{"appliance.jwk"}}},
		Listeners: map[string]*ListenerSection{
			"operator": {Address: "127.0.0.1:0", Plain: true},
			"public":   {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"},
		}}
	host := "https://" + serveTest(b, w).addr["public"]
	x.pool, x.url = pool, host+enrol.PathEST+"/acme/simpleenroll"
	x.client, err = enrol.NewClient(host+"/acme", pool)
	must(err)
	b.Cleanup(x.client.Close)
	book, err := registry.Open(ctx, w.config.databaseSource(issuerPart))
	must(err)
	b.Cleanup(func() { book.Close() })
	x.store, err = enrol.NewStore(ctx, book, nil)
	must(err)
	key, err := w.store.Key(ctx, "ca")
	must(err)
	x.public, err = key.Active().PublicKey()
	must(err)
	opened, err := w.devices["softhsm"].Open(ctx, key.Active().URI, key.Algorithm)
	must(err)
	b.Cleanup(func() { opened.Close() })
	x.ca = opened.(signer.SigningKey)
	table := &fstest.MapFile{Data: []byte(`CREATE TABLE bare (id AUTOKEY, der BLOB NOT NULL) STRICT;`)}
	x.bare, err = sqldb.Open(ctx, filepath.Join(b.TempDir(), "bare.db"), sqldb.Options{Name: "bare", Migrations: fstest.MapFS{"migrations/0001_bare.sql": table}})
	must(err)
	b.Cleanup(func() { x.bare.Close() })
	return x
}

// invite returns a code for a new client, and its names.
func (x *enrolBench) invite(in enrol.Invitation) (string, certs.Names) {
	x.next++
	names, err := certs.DeviceNames(fmt.Sprintf("mimi://a.example/d/alice/%d", x.next), enrolUser)
	if err != nil {
		x.b.Fatal(err)
	}
	in.Names, in.Type, in.Lifetime = names, registry.X509, time.Hour
	code, _, err := x.store.Invite(x.b.Context(), in, 0)
	if err != nil {
		x.b.Fatal(err)
	}
	return code.Reveal(), names
}

// requests returns n of simpleenroll.
func (x *enrolBench) requests(n int) []*certRequest {
	all := make([]*certRequest, n)
	for i := range all {
		code, names := x.invite(enrol.Invitation{Unattested: true})
		der, err := certs.CreateRequest(rand.Reader, x.device, names, nil)
		if err != nil {
			x.b.Fatal(err)
		}
		all[i] = &certRequest{url: x.url, contentType: "application/pkcs10", code: code, body: []byte(base64.StdEncoding.EncodeToString(der))}
	}
	return all
}

// check looks for the certificate of the device in each answer.
func (x *enrolBench) check(all []*certRequest) {
	x.b.Helper()
	spki, err := x509.MarshalPKIXPublicKey(x.device.Public())
	if err != nil {
		x.b.Fatal(err)
	}
	for _, r := range all {
		if der, err := base64.StdEncoding.DecodeString(string(r.answer)); err != nil || !bytes.Contains(der, spki) {
			x.b.Fatalf("no certificate: %s", r.answer)
		}
	}
}

// begin returns second requests that are ready.
func (x *enrolBench) begin(n int) []*enrol.FinishRequest {
	ready := make([]*enrol.FinishRequest, n)
	for i := range ready {
		code, _ := x.invite(enrol.Invitation{})
		var err error
		if ready[i], err = x.answer(code); err != nil {
			x.b.Fatal(err)
		}
	}
	return ready
}

// answer begins, and signs the second request.
func (x *enrolBench) answer(code string) (*enrol.FinishRequest, error) {
	c, err := x.client.Begin(x.b.Context(), &enrol.BeginRequest{Code: code})
	if err != nil {
		return nil, err
	}
	names, err := certs.DeviceNames(c.Client, c.User)
	if err != nil {
		return nil, err
	}
	f := &enrol.FinishRequest{Session: c.Session}
	if f.Request, err = certs.CreateRequest(rand.Reader, x.device, names, c.Nonce); err != nil {
		return nil, err
	}
	s := enrol.Statement{Audience: c.Audience, Nonce: c.Nonce, IssuedAt: time.Now(), Key: x.device.Public(), Attributes: enrol.Attributes{
		Sensitive: true, AlwaysSensitive: true, NeverExtractable: true, Local: true, ReadAt: time.Now().UTC(),
	}}
	f.Statement, err = s.Sign(x.b.Context(), x.appliance)
	return f, err
}

func (x *enrolBench) finish(f *enrol.FinishRequest) error {
	made, err := x.client.Finish(x.b.Context(), f)
	if err == nil && !strings.HasPrefix(made.Credential, "-----BEGIN CERTIFICATE") {
		err = errors.New("no certificate")
	}
	return err
}

// primitives is what issuing cannot avoid.
func (x *enrolBench) primitives(i int64) error {
	message := bytes.Repeat([]byte{byte(i)}, 700)
	write := func() error {
		return x.bare.Batch(x.b.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(x.b.Context(), `INSERT INTO bare (der) VALUES (?)`, message)
			return err
		})
	}
	if err := write(); err != nil {
		return err
	}
	digest := sha256.Sum256(message)
	sig, err := x.ca.SignContext(x.b.Context(), digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !credentials.ECDSAP256.Verify(x.public, message, sig) {
		return errors.New("the token's signature does not verify")
	}
	return write()
}

// A stepCA is a running step-ca.
type stepCA struct {
	b           *testing.B
	url         string
	pool        *x509.CertPool
	client      *http.Client
	provisioner *ecdsa.PrivateKey
	kid         string
	pid         int
	device      *ecdsa.PrivateKey
	next        int
}

// newStepCA starts step-ca with its CA key on a SoftHSM token of its own; nil
// where there is none.
func newStepCA(b *testing.B) *stepCA {
	b.Helper()
	path, err := findStepCA()
	if err != nil {
		return nil
	}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	s := &stepCA{b: b, provisioner: softwareKey(b), device: softwareKey(b)}
	key, kms, env := s.token()
	root := s.authority(dir, key.public)
	sum, err := credentials.JWKThumbprint(s.provisioner.Public())
	must(err)
	s.kid = jose.EncodeBase64(sum)
	jwk, err := credentials.FormatJWK(s.provisioner.Public())
	must(err)
	members := make(map[string]any)
	must(json.Unmarshal(jwk, &members))
	members["kid"], members["use"], members["alg"] = s.kid, "sig", "ES256"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	address := l.Addr().String()
	must(l.Close())
	s.url = "https://" + address
	config, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "ca.pem"), "key": key.uri, "address": address, "dnsNames": []string{"127.0.0.1"},
		"kms": map[string]string{"type": "pkcs11", "uri": kms}, "logger": map[string]string{"format": "text"},
		"db":        map[string]string{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "JWK", "name": "bench", "key": members}}},
	})
	must(err)
	must(os.WriteFile(filepath.Join(dir, "ca.json"), config, 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(err)
	cmd := exec.Command(path, filepath.Join(dir, "ca.json"))
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env), log, log
	must(cmd.Start())
	s.pid = cmd.Process.Pid
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	s.pool = x509.NewCertPool()
	s.pool.AddCert(root)
	client := newCertClient(b, s.pool, 1)
	for range 300 {
		if res, err := client.Get(s.url + "/health"); err == nil {
			res.Body.Close()
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	b.Fatalf("step-ca does not answer: %s", text)
	return nil
}

func findStepCA() (string, error) {
	if path, err := exec.LookPath("step-ca"); err == nil {
		return path, nil
	}
	for _, dir := range []string{os.Getenv("GOBIN"), filepath.Join(os.Getenv("GOPATH"), "bin"), filepath.Join(os.Getenv("HOME"), "go", "bin")} {
		if path, err := exec.LookPath(filepath.Join(dir, "step-ca")); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

type stepKey struct {
	uri    string
	public crypto.PublicKey
}

// token makes a SoftHSM token with a CA key, and returns how step-ca finds it.
func (s *stepCA) token() (key stepKey, kms, env string) {
	s.b.Helper()
	ctx := s.b.Context()
	config, err := initState(ctx, filepath.Join(s.b.TempDir(), "home", configName), initOptions{softHSM: true})
	if err != nil {
		s.b.Fatal(err)
	}
	d := config.Devices["softhsm"]
	d.Workers = 1
	w, err := newWiring(ctx, config)
	if err != nil {
		s.b.Fatal(err)
	}
	made, err := w.ring.Create(ctx, signer.NewKey{ID: "ca", Purpose: signer.PurposeX509CA, Device: "softhsm"})
	if err != nil {
		s.b.Fatal(err)
	}
	pub, err := w.deviceKey(ctx, "ca", signer.PurposeX509CA)
	if err != nil {
		s.b.Fatal(err)
	}
	key.public = pub.Public()
	if err := w.Close(context.Background()); err != nil {
		s.b.Fatal(err)
	}
	pin, err := os.ReadFile(filepath.Join(config.dir, strings.TrimPrefix(d.PINSource, "file:")))
	if err != nil {
		s.b.Fatal(err)
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(made.Active().URI, "pkcs11:"), ";") {
		if id, ok := strings.CutPrefix(part, "id="); ok {
			key.uri = "pkcs11:id=" + id
		}
	}
	return key, "pkcs11:module-path=" + d.Module + ";token=" + softHSMLabel + "?pin-value=" + strings.TrimSpace(string(pin)), "SOFTHSM2_CONF=" + d.Env["SOFTHSM2_CONF"]
}

// authority writes the certificates of a root and of the CA that step-ca is.
func (s *stepCA) authority(dir string, ca crypto.PublicKey) (root *x509.Certificate) {
	s.b.Helper()
	key := softwareKey(s.b)
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	above := template(1, "root")
	for name, c := range map[string]struct {
		template *x509.Certificate
		key      crypto.PublicKey
	}{"root.pem": {above, key.Public()}, "ca.pem": {template(2, "ca"), ca}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, above, c.key, key)
		if err != nil {
			s.b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			s.b.Fatal(err)
		}
		if name == "root.pem" {
			if root, err = x509.ParseCertificate(der); err != nil {
				s.b.Fatal(err)
			}
		}
	}
	return root
}

// prepare returns n requests, with what is in them signed.
func (s *stepCA) prepare(n int) []*certRequest {
	all := make([]*certRequest, n)
	for i := range all {
		s.next++
		name := fmt.Sprintf("device-%d.a.example", s.next)
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, s.device)
		if err != nil {
			s.b.Fatal(err)
		}
		now := time.Now()
		claims := fmt.Sprintf(`{"iss":"bench","sub":%q,"sans":[%q],"aud":"%s/1.0/sign","jti":"%s","iat":%d,"nbf":%d,"exp":%d}`,
			name, name, s.url, rand.Text(), now.Unix(), now.Unix()-1, now.Unix()+280)
		token, err := jose.Sign(s.b.Context(), credentials.ECDSAP256, s.provisioner, fmt.Appendf(nil, `{"alg":"ES256","kid":%q,"typ":"JWT"}`, s.kid), []byte(claims))
		if err != nil {
			s.b.Fatal(err)
		}
		all[i] = &certRequest{url: s.url + "/1.0/sign", contentType: "application/json"}
		all[i].body, err = json.Marshal(map[string]string{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), "ott": token})
		if err != nil {
			s.b.Fatal(err)
		}
	}
	return all
}

// cpu returns the processor time of step-ca, to a hundredth of a second.
func (s *stepCA) cpu() time.Duration { return processCPU(s.b, s.pid) }

// processCPU returns the processor time of a process, to a hundredth of a second.
func processCPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime and stime, proc(5)
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

func (s *stepCA) check(all []*certRequest) {
	s.b.Helper()
	for _, r := range all {
		if !bytes.Contains(r.answer, []byte("BEGIN CERTIFICATE")) {
			s.b.Fatalf("step-ca: no certificate: %s", r.answer)
		}
	}
}
