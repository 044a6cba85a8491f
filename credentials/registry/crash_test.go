package registry_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/pgtest"
)

// The variables by which the test binary learns that it is to be killed: the
// folder of the issuer, and between which two writes.
const (
	crashDir = "REGISTRY_CRASH_DIR"
	crashAt  = "REGISTRY_CRASH_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crash(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}

// crash revokes everything of the laptop, publishes, and is killed before its
// nth step. It says on standard output what it has done.
func crash(ctx context.Context, dir string) error {
	at, err := strconv.Atoi(os.Getenv(crashAt))
	if err != nil {
		return err
	}
	b, err := reopen(ctx, dir)
	if err != nil {
		return err
	}
	b.publisher.Lease = 20 * time.Millisecond // who comes after the killed one does not wait long
	steps := 0
	b.SetStep(func(name string) error {
		if steps++; steps == at {
			fmt.Println("killed at", name)
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	if _, err := b.Revoke(ctx, registry.Target{Client: laptop}, certs.KeyCompromise); err != nil {
		return err
	}
	fmt.Println("acknowledged")
	if err := b.publisher.Publish(ctx); err != nil {
		return err
	}
	fmt.Println("done")
	return b.Close()
}

// reopen opens the issuer in a folder with its keys.
func reopen(ctx context.Context, dir string) (*book, error) {
	var k keys
	for name, to := range map[string]**ecdsa.PrivateKey{"root": &k.root, "ca": &k.ca, "tokens": &k.tokens, "status": &k.status} {
		der, err := os.ReadFile(filepath.Join(dir, name+".key"))
		if err != nil {
			return nil, err
		}
		if *to, err = x509.ParseECPrivateKey(der); err != nil {
			return nil, err
		}
	}
	var certificates []*x509.Certificate
	for _, name := range []string{"root.der", "ca.der"} {
		der, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	src, err := os.ReadFile(filepath.Join(dir, "source"))
	if err != nil {
		return nil, err
	}
	return openBook(ctx, string(src), k, certificates[0], certificates[1])
}

// save writes what reopen needs.
func (b *book) save(t *testing.T, dir, src string) {
	t.Helper()
	files := map[string][]byte{"root.der": b.rootCert.Raw, "ca.der": b.caCert.Raw, "source": []byte(src)}
	for name, key := range map[string]*ecdsa.PrivateKey{"root": b.root, "ca": b.ca, "tokens": b.tokens, "status": b.keys.status} {
		der, err := x509.MarshalECPrivateKey(key)
		must(t, err)
		files[name+".key"] = der
	}
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// TestKilledBetweenAnyTwoWrites kills the process with SIGKILL before each
// step of a revocation and its publication, opens the book again, and looks at
// all of it: a revocation is everywhere or nowhere, one that was acknowledged
// is there, the next publication says so, and no number goes backwards.
func TestKilledBetweenAnyTwoWrites(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		stride := 1
		if strings.Contains(t.Name(), "PostgreSQL") {
			stride = 4 // a fresh database each time is slow
		}
		for at := 1; ; at += stride {
			if at > 100 {
				t.Fatal("the steps do not end")
			}
			if !killAt(t, at) {
				if at < 15 {
					t.Errorf("there were only %d steps", at-1)
				}
				return
			}
		}
	})
}

// killAt runs one process that is killed, and reports whether it was.
func killAt(t *testing.T, at int) bool {
	dir, src := t.TempDir(), source(t)
	b, err := openBook(t.Context(), src, newKeys(t), nil, nil)
	must(t, err)
	b.save(t, dir, src)
	key := newKey(t)
	x, cert := b.certificate(t, laptop, key)
	records := []*registry.Record{x, b.token(t, registry.SDJWT, laptop, key), b.token(t, registry.SDCWT, laptop, key)}
	must(t, b.publisher.Publish(t.Context()))
	base := b.crl(t, false, nil)
	must(t, b.Close())

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+strconv.Itoa(at))
	out, err := cmd.Output()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !killed {
		t.Fatalf("step %d: %v: %s %s", at, err, out, exit.Stderr)
	}

	b, err = reopen(t.Context(), dir)
	must(t, err)
	defer b.Close()
	states := b.seen(t, records...)
	acknowledged := strings.Contains(string(out), "acknowledged")
	if states[0] != states[1] || states[1] != states[2] || acknowledged && states[0] != string(registry.Revoked) {
		t.Errorf("step %d (%s): states %v", at, out, states)
	}
	changes, err := b.Changes(t.Context(), 0, 0)
	must(t, err)
	if n := len(changes); n != 0 && n != 3 || (n == 3) != (states[0] == string(registry.Revoked)) {
		t.Errorf("step %d: %d changes, states %v", at, n, states)
	}
	before := b.crl(t, false, nil)
	if before.Number().Cmp(base.Number()) < 0 {
		t.Errorf("step %d: the stored CRL has number %v, it was %v", at, before.Number(), base.Number())
	}
	if states[0] != string(registry.Revoked) {
		_, err := b.Revoke(t.Context(), registry.Target{Client: laptop}, certs.KeyCompromise)
		must(t, err)
	}
	must(t, b.publisher.Publish(t.Context()))
	b.wantPublished(t, cert, records[1], base)
	der, err := b.Certificates().CRL(t.Context(), b.issuer.ID(), false)
	must(t, err)
	if _, err := certs.ParseCRL(der, b.caCert, before); err != nil {
		t.Errorf("step %d: what follows: %v", at, err)
	}
	if lag, err := b.publisher.Lag(t.Context()); err != nil || lag != 0 {
		t.Errorf("step %d: lag %v, %v", at, lag, err)
	}
	return killed
}

// publishedStatus returns what a signed list says of an index.
func publishedStatus(t testing.TB, f statuslist.Format, octets []byte, key crypto.PublicKey, index int64) statuslist.Status {
	t.Helper()
	rules := statuslist.Rules{Keys: statuslist.StaticKeys{key}}
	_, list, err := rules.Verify(t.Context(), f, octets, listURL)
	must(t, err)
	s, ok := list.Get(index)
	if !ok {
		t.Errorf("no index %d", index)
	}
	return s
}

// BenchmarkPublish is the time from the revocation of a client, with a certificate
// and a token, until CRL, OCSP and the status lists in both formats have it: in one
// process, with keys in memory and SQLite on disk.
func BenchmarkPublish(b *testing.B) {
	book := newBook(b)
	var took []float64 // ms
	for b.Loop() {
		key := newKey(b)
		_, cert := book.certificate(b, laptop, key)
		token := book.token(b, registry.SDJWT, laptop, key)
		must(b, book.publisher.Publish(b.Context()))
		base := book.crl(b, false, nil)
		begin := time.Now()
		must(b, second(book.Revoke(b.Context(), registry.Target{Client: laptop}, certs.KeyCompromise)))
		must(b, book.publisher.Publish(b.Context()))
		took = append(took, float64(time.Since(begin).Microseconds())/1000)
		book.wantPublished(b, cert, token, base)
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "ms-p50")
	b.ReportMetric(took[len(took)-1], "ms-most")
}
