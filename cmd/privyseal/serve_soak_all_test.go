//go:build soak

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/signer"
	signclient "github.com/privyseal/privyseal/signer/client"
)

// A houseSoak is "privyseal serve" in a process of its own with every section,
// and what this process asks of it.
type houseSoak struct {
	*providerTest
	served *served // addresses and pages only
	dir    string
	config string
	roots  string
	ca     *x509.Certificate // of the devices' certificates
	book   *registry.Store
	serve  *exec.Cmd

	counts sync.Map // *atomic.Int64 by name
	tell   sync.Map // the first error by name
	group  sync.WaitGroup
	stop   chan struct{}
}

func (h *houseSoak) count(name string) *atomic.Int64 {
	n, _ := h.counts.LoadOrStore(name, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// every does one kind of work at a rate, one after another, and counts it.
func (h *houseSoak) every(d time.Duration, name string, f func(context.Context) error) {
	h.group.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-h.stop:
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			err := f(ctx)
			cancel()
			if err != nil {
				h.count(name + " failed").Add(1)
				h.tell.LoadOrStore(name, err)
				continue
			}
			h.count(name).Add(1)
		}
	})
}

func newHouseSoak(t *testing.T) *houseSoak {
	t.Helper()
	h := &houseSoak{providerTest: newProviderTest(t), stop: make(chan struct{})}
	h.dir = h.wiring.config.dir
	for id, p := range map[signer.KeyID]signer.Purpose{
		"caller-ca": signer.PurposeX509CA, "log": signer.PurposeLogCheckpoint, "root": signer.PurposeX509CA, "issuing-ca": signer.PurposeX509CA,
		"issuer": signer.PurposeCredentialIssuer, "status": signer.PurposeStatus, "holder": signer.PurposeCredentialConfirmation,
	} {
		if _, err := h.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	h.served = &served{t: t, addr: make(map[string]string)}
	c := h.wiring.config
	c.Serve.Listeners["public"] = &ListenerSection{Address: "127.0.0.1:0", Plain: true}
	c.Serve.Listeners["api"] = &ListenerSection{Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"}
	for name, l := range c.Serve.Listeners {
		l.Address = freeAddress(t)
		h.served.addr[name] = l.Address
	}
	site := "http://" + h.served.addr["public"]
	c.Issuer = &IssuerSection{URL: "https://issuer.example", TokenKey: "issuer", StatusKey: "status", CAs: map[string]*CASection{"devices": {Key: "issuing-ca", Presign: 16}}}
	for _, o := range []*caOptions{
		{key: "root", name: "Soak Root"},
		{key: "issuing-ca", issuer: "root", name: "Soak Devices", hosts: []string{"a.example"}, crl: []string{site + "/ca/devices.crl"}, ocsp: []string{site + "/ocsp/devices"}},
	} {
		chain, err := h.createCA(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		h.ca = chain[0]
	}
	interval := Duration(30 * time.Second)
	c.Serve.SelfTest = &interval
	c.Serve.Issuer = &IssuerServeSection{Listener: "public"}
	c.Serve.Signer = &SignerSection{Listener: "api", CallerCA: "caller-ca"}
	c.Serve.TransparencyLog = &TransparencyLogSection{Origin: "soak.example/log", Key: "log", Listener: "public"}
	c.Serve.Log.Level = "warn"
	h.start()
	return h
}

func (h *houseSoak) must(err error) {
	h.t().Helper()
	if err != nil {
		h.t().Fatal(err)
	}
}

func (h *houseSoak) t() testing.TB { return h.served.t }

// start writes the configuration and runs serve.
func (h *houseSoak) start() {
	t := h.t()
	t.Helper()
	text, err := json.Marshal(h.wiring.config)
	h.must(err)
	h.config, h.roots = filepath.Join(h.dir, "soak.json"), filepath.Join(h.dir, "server.pem")
	h.must(os.WriteFile(h.config, text, 0o600))
	h.serve = exec.Command("privyseal", "--config", h.config, "serve")
	var log bytes.Buffer
	h.serve.Stdout, h.serve.Stderr = &log, &log
	h.must(h.serve.Start())
	t.Cleanup(func() {
		h.serve.Process.Signal(syscall.SIGTERM)
		if err := h.serve.Wait(); err != nil {
			t.Errorf("serve ended with %v", err)
		}
		if log.Len() > 0 {
			t.Logf("serve said:\n%.8000s", log.String())
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		res, err := http.Get("http://" + h.served.addr["operator"] + "/health/ready")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("serve is not ready: %v\n%s", err, log.String())
		}
	}
	h.book, err = registry.Open(t.Context(), h.wiring.config.databaseSource(issuerPart))
	h.must(err)
	t.Cleanup(func() { h.book.Close() })
}

// command runs the command line.
func (h *houseSoak) command(args ...string) {
	h.t().Helper()
	var out, errs bytes.Buffer
	if got := run(context.Background(), append([]string{"--config", h.config}, args...), streams{in: strings.NewReader(""), out: &out, err: &errs}); got != 0 {
		h.t().Fatalf("%v: status %d\n%s%s", args, got, out.String(), errs.String())
	}
}

// callers has a caller of the signing service sign messages.
func (h *houseSoak) callers() {
	api := "https://" + h.served.addr["api"]
	for who, grant := range map[string][]string{"op": {"--role", "operator"}, "bot": {"--grant", "leaf:sign"}} {
		token := filepath.Join(h.dir, who+".token")
		h.command(append([]string{"caller", "invite", who, "--tenant", "acme", "--out", token}, grant...)...)
		h.command("remote", "--identity", filepath.Join(h.dir, who), "enroll", "--server", api, "--server-ca", h.roots, "--token-file", token)
	}
	h.command("remote", "--identity", filepath.Join(h.dir, "op"), "key", "create", "leaf", "--purpose", "mls-leaf")
	identity, err := signclient.OpenIdentity(filepath.Join(h.dir, "bot"))
	h.must(err)
	c, err := connectRemote(api, h.roots, identity)
	h.must(err)
	key, err := c.Signer(context.Background(), "leaf")
	h.must(err)
	var n int64
	h.every(125*time.Millisecond, "signatures by the API", func(context.Context) error {
		n++
		_, err := key.SignMessage(nil, loadMessage(n), nil)
		return err
	})
}

// issuer issues credentials of each type, revokes every second certificate and
// asks until the answers of OCSP and CRL say so.
func (h *houseSoak) issuer() {
	names, err := certs.DeviceNames("mimi://a.example/d/carol/1", "mimi://a.example/u/carol")
	h.must(err)
	type issuing = func(context.Context, *registry.Store, *issueOptions, possession) (*issued, error)
	token := func(typ registry.Type, sign tokenSigner) issuing {
		return func(ctx context.Context, b *registry.Store, o *issueOptions, p possession) (*issued, error) {
			o.issuerKey = "issuer"
			return h.token(ctx, b, o, p, typ, sign)
		}
	}
	kinds := []issuing{
		func(ctx context.Context, b *registry.Store, o *issueOptions, p possession) (*issued, error) {
			o.issuerKey = "issuing-ca"
			return h.certify(ctx, b, o, p)
		},
		token(registry.SDJWT, signSDJWT), token(registry.SDCWT, signSDCWT),
	}
	n := 0
	h.every(1500*time.Millisecond, "credentials issued", func(ctx context.Context) error {
		o := &issueOptions{requestOptions: requestOptions{holder: "holder"}, lifetime: 2 * time.Hour}
		p, err := h.provePossession(ctx, nil, o, names)
		if err != nil {
			return err
		}
		made, err := kinds[n%len(kinds)](ctx, h.book, o, p)
		n++
		if err != nil {
			return err
		}
		if n%2 == 1 {
			return nil
		}
		if _, err := h.book.Revoke(ctx, registry.Target{ID: registry.ID(made.ID)}, certs.KeyCompromise); err != nil {
			return err
		}
		h.count("revoked").Add(1)
		if made.Type != typeX509 {
			return nil
		}
		return h.awaitRevoked(ctx, []byte(made.Credential))
	})
	site := "http://" + h.served.addr["public"]
	for what, r := range map[string][2]string{
		"CRLs fetched": {"/ca/devices.crl", ""}, "lists fetched (JWT)": {"/status/1", "application/statuslist+jwt"},
		"lists fetched (CWT)": {"/status/1", "application/statuslist+cwt"}, "keys fetched": {"/jwks.json", ""}, "checkpoints fetched": {"/log/checkpoint", ""},
	} {
		h.every(time.Second, what, func(ctx context.Context) error {
			_, _, err := new(demoSite).get(ctx, http.MethodGet, site+r[0], r[1], nil)
			return err
		})
	}
}

func (h *houseSoak) awaitRevoked(ctx context.Context, text []byte) error {
	chain, err := parseCertificates(text)
	if err != nil {
		return err
	}
	leaf, begin := chain[0], time.Now()
	for {
		nonce := certs.NewNonce()
		request, err := certs.CreateOCSPRequest(leaf, h.ca, nonce)
		if err != nil {
			return err
		}
		answer, _, err := new(demoSite).get(ctx, http.MethodPost, leaf.OCSPServer[0], "", request)
		if err != nil {
			return err
		}
		_, err = certs.CheckOCSP(certs.OCSPCheck{Response: answer, Certificate: leaf, Issuer: h.ca, Nonce: nonce, RequireNonce: true, At: time.Now(), Skew: credentialSkew})
		h.count("OCSP answers").Add(1)
		if credentials.CodeOf(err) == credentials.CodeRevoked {
			break
		}
		if err != nil {
			return err
		}
		if time.Since(begin) > time.Minute {
			return errors.New("OCSP does not know of a revocation after a minute")
		}
		time.Sleep(200 * time.Millisecond)
	}
	h.count("revocations seen by OCSP").Add(1)
	return nil
}

// members has two clients of the provider talk and commit.
func (h *houseSoak) members() {
	t := h.t()
	alice, _ := member(t, h.providerTest.ca, h.served, h.judge, deviceTLS(t, h.providerTest.roots), "alice")
	bob, _ := member(t, h.providerTest.ca, h.served, h.judge, deviceTLS(t, h.providerTest.roots), "bob")
	uri, err := mimi.ParseURI("mimi://a.example/r/clubhouse")
	h.must(err)
	room, err := alice.CreateRoom(t.Context(), uri, client.RoomOptions{})
	h.must(err)
	_, err = room.Add(t.Context(), bob.User(), client.AddOptions{})
	h.must(err)
	n := 0
	h.every(700*time.Millisecond, "messages sent", func(ctx context.Context) error {
		n++
		if n%60 == 0 {
			if _, err := room.Refresh(ctx); err != nil {
				return err
			}
			h.count("commits").Add(1)
		}
		sent, err := room.Text(ctx, fmt.Sprintf("message %d", n))
		if err == nil && sent.NotFranked != "" {
			err = errors.New(sent.NotFranked)
		}
		return err
	})
	var after time.Time
	h.every(3*time.Second, "syncs", func(ctx context.Context) error {
		if err := errors.Join(bob.Sync(ctx), alice.Sync(ctx)); err != nil {
			return err
		}
		his, err := bob.Room(ctx, uri)
		if err != nil {
			return err
		}
		list, err := his.Messages(ctx, after)
		for _, m := range list {
			if m.Accepted.After(after) {
				after = m.Accepted
				h.count("messages received").Add(1)
			}
		}
		return err
	})
}

// strangers come and go without a word, and some stay.
func (h *houseSoak) strangers() {
	var idle []*tls.Conn
	h.every(time.Second, "idle connections", func(ctx context.Context) error {
		d := tls.Dialer{Config: &tls.Config{RootCAs: h.providerTest.roots}}
		c, err := d.DialContext(ctx, "tcp", h.served.addr["clients"])
		if err != nil {
			return err
		}
		if idle = append(idle, c.(*tls.Conn)); len(idle) > 20 {
			idle[0].Close()
			idle = slices.Delete(idle, 0, 1)
		}
		return nil
	})
	h.every(5*time.Second, "scrapes", func(context.Context) error {
		code, _ := h.served.page("/health/ready")
		if code != http.StatusOK {
			return fmt.Errorf("ready: %d", code)
		}
		h.served.page("/metrics")
		return nil
	})
	h.every(time.Minute, "reloads", func(context.Context) error { return h.serve.Process.Signal(syscall.SIGHUP) })
}

// A held is what serve and its files hold at one time.
type held struct {
	fds, goroutines int
	heap, rss       float64 // MiB
	workers         float64 // RSS of its module workers together, MiB
	cpu             float64 // seconds, of serve
	database, log   float64 // MiB on disk
	entries         int     // of the journal
}

var houseMetric = regexp.MustCompile(`(?m)^(process_open_fds|go_memstats_heap_alloc_bytes|process_resident_memory_bytes|go_goroutines|process_cpu_seconds_total) (\S+)$`)

func (h *houseSoak) hold() held {
	_, text := h.served.page("/metrics")
	value := make(map[string]float64)
	for _, m := range houseMetric.FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		h.must(err)
		value[m[1]] = v
	}
	const mib = 1 << 20
	s := held{fds: int(value["process_open_fds"]), goroutines: int(value["go_goroutines"]), heap: value["go_memstats_heap_alloc_bytes"] / mib,
		rss: value["process_resident_memory_bytes"] / mib, cpu: value["process_cpu_seconds_total"]}
	for _, pid := range children(h.serve.Process.Pid) {
		s.workers += residentMiB(pid)
	}
	state := h.wiring.config.stateDir()
	s.database, s.log = filesMiB(state, func(p string) bool { return strings.Contains(filepath.Base(p), ".db") }), filesMiB(h.wiring.config.logDir(), func(string) bool { return true })
	last := 0
	if b, _, err := new(demoSite).get(context.Background(), http.MethodGet, "http://"+h.served.addr["public"]+"/log/checkpoint", "", nil); err == nil {
		if lines := strings.Split(string(b), "\n"); len(lines) > 1 {
			last, _ = strconv.Atoi(lines[1])
		}
	}
	s.entries = last
	return s
}

func children(pid int) (out []int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

func residentMiB(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseFloat(f[1], 64)
		return pages * float64(os.Getpagesize()) / (1 << 20)
	}
	return 0
}

func filesMiB(dir string, which func(string) bool) (sum float64) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !which(path) {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += float64(info.Size()) / (1 << 20)
		}
		return nil
	})
	return sum
}

func (h *houseSoak) counted() string {
	var out []string
	h.counts.Range(func(name, n any) bool {
		out = append(out, fmt.Sprintf("%v %d", name, n.(*atomic.Int64).Load()))
		return true
	})
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestServeHouseSoak runs serve with issuer, signer, provider, transparency log
// and journal at a modest rate, and holds memory, descriptors and goroutines to
// what they were in the second quarter of the time. What an hour is like is in
// docs/performance.md.
func TestServeHouseSoak(t *testing.T) {
	h := newHouseSoak(t)
	h.callers()
	h.members()
	h.issuer()
	h.strangers()
	defer h.group.Wait()
	stop := sync.OnceFunc(func() { close(h.stop) })
	defer stop()

	all, begin := soakTime(t), time.Now()
	var samples []held
	for time.Since(begin) < all {
		time.Sleep(all / 60)
		s := h.hold()
		samples = append(samples, s)
		t.Logf("%7v  fds %3d  goroutines %3d  heap %5.1f MiB  rss %5.1f MiB  workers %5.1f MiB  cpu %6.1f s  databases %6.1f MiB  log %5.1f MiB of %d entries",
			time.Since(begin).Round(time.Second), s.fds, s.goroutines, s.heap, s.rss, s.workers, s.cpu, s.database, s.log, s.entries)
		if len(samples)%10 == 0 {
			t.Log(h.counted())
		}
	}
	stop()
	h.group.Wait()
	t.Log(h.counted())
	h.tell.Range(func(name, err any) bool {
		t.Errorf("%v: first failure: %v", name, err)
		return true
	})
	// The least of a quarter is what garbage and bursts leave out.
	least := func(of []held) held {
		out := of[0]
		for _, s := range of[1:] {
			out.fds, out.goroutines = min(out.fds, s.fds), min(out.goroutines, s.goroutines)
			out.heap, out.rss, out.workers = min(out.heap, s.heap), min(out.rss, s.rss), min(out.workers, s.workers)
		}
		return out
	}
	q := len(samples) / 4
	first, last := least(samples[q:2*q]), least(samples[3*q:])
	t.Logf("the least of the second quarter: %+v\nof the last: %+v", first, last)
	if last.fds > first.fds+8 || last.goroutines > first.goroutines+16 || last.heap > 1.25*first.heap+4 || last.rss > 1.25*first.rss+16 || last.workers > 1.1*first.workers+8 {
		t.Error("it grows")
	}
	if last.entries = samples[len(samples)-1].entries; last.entries == 0 {
		t.Error("the log has no entries")
	}
}
