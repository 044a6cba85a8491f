package enrol_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/problem"
)

const (
	laptop   = "mimi://acme.example/d/alice/laptop"
	alice    = "mimi://acme.example/u/alice"
	audience = "https://issuer.acme.example"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, reason enrol.Reason) {
	t.Helper()
	if !errors.Is(err, &enrol.Error{Reason: reason}) {
		t.Errorf("got %v, want a refusal for %s", err, reason)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func names(t testing.TB) certs.Names {
	t.Helper()
	n, err := certs.DeviceNames(laptop, alice)
	must(t, err)
	return n
}

// A clock is moved by hand.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

// A world is an issuer with a CA, and an appliance that it believes.
type world struct {
	*enrol.Service
	t         *testing.T
	clock     clock
	store     *enrol.Store
	book      *registry.Store
	ca        *certs.Issuer
	appliance crypto.Signer
}

func newWorld(t *testing.T, source string, most int) *world {
	t.Helper()
	w := &world{t: t, appliance: newKey(t)}
	w.makeCA(source)
	var err error
	w.store, err = enrol.NewStore(t.Context(), w.book, w.clock.now)
	must(t, err)
	w.Service, err = enrol.New(enrol.Config{
		Invitations: w.store, Issuer: w, Audience: audience, Appliances: []crypto.PublicKey{newKey(t).Public(), w.appliance.Public()},
		Most: most, Now: w.clock.now, Lifetime: time.Minute,
	})
	must(t, err)
	return w
}

func (w *world) makeCA(source string) {
	w.t.Helper()
	var err error
	w.book, err = registry.Open(w.t.Context(), source)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, w.book.Close()) })
	key := newKey(w.t)
	root, err := certs.CreateRoot(w.t.Context(), key, w.book, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme root"}})
	must(w.t, err)
	above, err := certs.NewIssuer(certs.Config{Key: key, Certificate: root, Store: w.book})
	must(w.t, err)
	below := newKey(w.t)
	cert, err := above.CreateIssuingCA(w.t.Context(), below, certs.CAOrder{Subject: pkix.Name{CommonName: "Acme devices"}, Hosts: []string{"acme.example"}})
	must(w.t, err)
	w.ca, err = certs.NewIssuer(certs.Config{Key: below, Certificate: cert, Store: w.book})
	must(w.t, err)
}

// Issue implements enrol.Issuer.
func (w *world) Issue(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
	note := registry.Attachment{ID: registry.NewID(), Attestation: o.Level, Evidence: o.Evidence, Along: o.Spend}
	cert, err := w.ca.Certify(ctx, certs.Order{Request: o.Request, Names: o.Names, Nonce: o.Nonce, Lifetime: o.Lifetime, Attachment: note})
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return &enrol.Issued{ID: string(note.ID), Type: string(o.Type), Credential: string(text), Attestation: o.Level.String(), NotAfter: cert.NotAfter, Chain: [][]byte{cert.Raw, w.ca.Certificate().Raw}}, nil
}

func (w *world) invite() string {
	w.t.Helper()
	code, _, err := w.store.Invite(w.t.Context(), enrol.Invitation{Names: names(w.t), Type: registry.X509, Lifetime: time.Hour}, 0)
	must(w.t, err)
	return code.Reveal()
}

func (w *world) begin(code string) *enrol.Challenge {
	w.t.Helper()
	c, err := w.Begin(w.t.Context(), &enrol.BeginRequest{Code: code})
	must(w.t, err)
	return c
}

func good(c *enrol.Challenge, key crypto.PublicKey) enrol.Statement {
	return enrol.Statement{Audience: c.Audience, Nonce: c.Nonce, IssuedAt: time.Now(), Key: key, Attributes: enrol.Attributes{
		Sensitive: true, AlwaysSensitive: true, NeverExtractable: true, Local: true, Module: "module", ReadAt: time.Now().UTC(),
	}}
}

// answer makes the second request for a key.
func (w *world) answer(c *enrol.Challenge, key crypto.Signer, s enrol.Statement, by crypto.Signer) *enrol.FinishRequest {
	w.t.Helper()
	request, err := certs.CreateRequest(rand.Reader, key, names(w.t), c.Nonce)
	must(w.t, err)
	text, err := s.Sign(w.t.Context(), by)
	must(w.t, err)
	return &enrol.FinishRequest{Session: c.Session, Request: request, Statement: text}
}

// TestStatementEnrols runs on both engines, and verifies what was kept.
func TestStatementEnrols(t *testing.T) {
	for name, source := range map[string]func(testing.TB) string{
		"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "issuer.db") },
		"PostgreSQL": pgtest.Database,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, source(t), 0)
			code, key := w.invite(), newKey(t)
			c := w.begin(code)
			made, err := w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
			must(t, err)
			if made.Attestation != "stated" || !strings.Contains(made.Credential, "CERTIFICATE") {
				t.Errorf("issued %+v", made)
			}
			kept, err := w.book.Evidence(t.Context(), registry.ID(made.ID))
			must(t, err)
			s, err := enrol.OpenStatement(string(kept), []crypto.PublicKey{w.appliance.Public()})
			must(t, err)
			if !key.PublicKey.Equal(s.Key) || string(s.Nonce) != string(c.Nonce) || s.Attributes.Module != "module" {
				t.Errorf("kept %+v", s)
			}
			_, err = w.Begin(t.Context(), &enrol.BeginRequest{Code: code})
			refused(t, err, enrol.ReasonCode)
		})
	}
}

// TestStatementRefused alters each thing that a statement must say.
func TestStatementRefused(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	code := w.invite()
	for name, change := range map[string]func(*enrol.Statement){
		"another audience": func(s *enrol.Statement) { s.Audience += "/" },
		"another nonce":    func(s *enrol.Statement) { s.Nonce = certs.NewNonce() },
		"another key":      func(s *enrol.Statement) { s.Key = newKey(t).Public() },
		"extractable":      func(s *enrol.Statement) { s.Attributes.Extractable = true },
		"was extractable":  func(s *enrol.Statement) { s.Attributes.NeverExtractable = false },
		"not sensitive":    func(s *enrol.Statement) { s.Attributes.Sensitive = false },
		"was not so":       func(s *enrol.Statement) { s.Attributes.AlwaysSensitive = false },
		"imported":         func(s *enrol.Statement) { s.Attributes.Local = false },
	} {
		t.Run(name, func(t *testing.T) {
			c, key := w.begin(code), newKey(t)
			s := good(c, key.Public())
			change(&s)
			_, err := w.Finish(t.Context(), w.answer(c, key, s, w.appliance))
			refused(t, err, enrol.ReasonStatement)
		})
	}
	c, key := w.begin(code), newKey(t)
	_, err := w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), newKey(t)))
	refused(t, err, enrol.ReasonStatement)
	c = w.begin(code)
	f := w.answer(c, key, good(c, key.Public()), w.appliance)
	f.Statement = f.Statement[:len(f.Statement)-4] + "AAAA"
	_, err = w.Finish(t.Context(), f)
	refused(t, err, enrol.ReasonStatement)
}

// TestRequestRefused finishes with requests that are not what was invited.
func TestRequestRefused(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	code, key := w.invite(), newKey(t)
	other, err := certs.DeviceNames("mimi://acme.example/d/alice/phone", alice)
	must(t, err)
	for name, request := range map[string]func(c *enrol.Challenge) ([]byte, error){
		"other names": func(c *enrol.Challenge) ([]byte, error) { return certs.CreateRequest(rand.Reader, key, other, c.Nonce) },
		"other nonce": func(*enrol.Challenge) ([]byte, error) {
			return certs.CreateRequest(rand.Reader, key, names(t), certs.NewNonce())
		},
		"no nonce": func(*enrol.Challenge) ([]byte, error) { return certs.CreateRequest(rand.Reader, key, names(t), nil) },
		"no names": func(*enrol.Challenge) ([]byte, error) {
			return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.begin(code)
			f := w.answer(c, key, good(c, key.Public()), w.appliance)
			f.Request, err = request(c)
			must(t, err)
			_, err = w.Finish(t.Context(), f)
			refused(t, err, enrol.ReasonRequest)
		})
	}
}

// TestSessions holds sessions to their time, their number and their one use.
func TestSessions(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 2)
	first, key := w.invite(), newKey(t)
	old := w.begin(first)
	c := w.begin(first)
	_, err := w.Finish(t.Context(), w.answer(old, key, good(old, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonSession) // the second has ended it
	w.begin(w.invite())
	third := w.invite()
	_, err = w.Begin(t.Context(), &enrol.BeginRequest{Code: third})
	if p := problem.Of(err); p.Code != "busy" || p.RetryAfter == 0 {
		t.Errorf("a third session: %v", err)
	}
	w.clock.move(time.Minute)
	_, err = w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonSession)
	w.begin(third) // those that ended make room
	c = w.begin(first)
	w.clock.move(59 * time.Second)
	_, err = w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
	must(t, err)
}

// TestCodeEnds lets a code end between the two steps.
func TestCodeEnds(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	code, _, err := w.store.Invite(t.Context(), enrol.Invitation{Names: names(t), Type: registry.X509, Lifetime: time.Hour}, 30*time.Second)
	must(t, err)
	c, key := w.begin(code.Reveal()), newKey(t)
	w.clock.move(31 * time.Second)
	_, err = w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonCode)
	_, err = w.Begin(t.Context(), &enrol.BeginRequest{Code: code.Reveal()})
	refused(t, err, enrol.ReasonCode)
}

// TestOneOfMany has several services with one store try a code at once.
func TestOneOfMany(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	code := w.invite()
	var finish []func() error
	for range 8 { // all begin before one has finished
		node, err := enrol.New(w.Config)
		must(t, err)
		c, err := node.Begin(t.Context(), &enrol.BeginRequest{Code: code})
		must(t, err)
		key := newKey(t)
		f := w.answer(c, key, good(c, key.Public()), w.appliance)
		finish = append(finish, func() error { _, err := node.Finish(context.Background(), f); return err })
	}
	var issued atomic.Int32
	var work sync.WaitGroup
	for _, f := range finish {
		work.Go(func() {
			if f() == nil {
				issued.Add(1)
			}
		})
	}
	work.Wait()
	if issued.Load() != 1 {
		t.Errorf("%d credentials on one code", issued.Load())
	}
}

// TestMethods refuses what nobody is configured to believe, and wrong
// invitations.
func TestMethods(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	_, err := w.Begin(t.Context(), &enrol.BeginRequest{Code: w.invite(), TPM: &enrol.TPM{EK: []byte{0}, AK: []byte{0}}})
	refused(t, err, enrol.ReasonMethod)
	none := w.Config
	none.Appliances = nil
	s, err := enrol.New(none)
	must(t, err)
	_, err = s.Begin(t.Context(), &enrol.BeginRequest{Code: w.invite()})
	refused(t, err, enrol.ReasonMethod)
	for name, in := range map[string]enrol.Invitation{
		"no names":  {Type: registry.X509, Lifetime: time.Hour},
		"no type":   {Names: names(t), Lifetime: time.Hour},
		"no life":   {Names: names(t), Type: registry.X509},
		"no level":  {Names: names(t), Type: registry.X509, Lifetime: time.Hour, Least: 9},
		"bad level": {Names: names(t), Type: registry.X509, Lifetime: time.Hour, Least: credentials.AttestationNone - 1},
	} {
		if _, _, err := w.store.Invite(t.Context(), in, 0); err == nil {
			t.Errorf("invited with %s", name)
		}
	}
}

// TestRestartBetweenSteps has the issuer restart between the two steps of an
// enrolment: the session is gone, the code is not, and the client begins again
// by itself. What is refused for another reason is not tried again.
func TestRestartBetweenSteps(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	var service atomic.Pointer[enrol.Service]
	service.Store(w.Service)
	restart := func() {
		s, err := enrol.New(w.Config)
		must(t, err)
		service.Store(s)
	}
	begins := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, enrol.PathBegin) {
			begins++
		}
		service.Load().Handler("").ServeHTTP(rw, r)
	}))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client, err := enrol.NewClient(server.URL, pool)
	must(t, err)
	defer client.Close()
	key := newKey(t)
	try := func(code string, restarts int) (*enrol.Issued, error) {
		begins = 0
		return client.Enrol(t.Context(), &enrol.BeginRequest{Code: code}, func(_ context.Context, c *enrol.Challenge) (*enrol.FinishRequest, error) {
			if restarts > 0 {
				restart()
				restarts--
			}
			return w.answer(c, key, good(c, key.Public()), w.appliance), nil
		})
	}
	for restarts, want := range map[int]int{0: 1, 1: 2, 2: 3} {
		made, err := try(w.invite(), restarts)
		if err != nil || made.Attestation != "stated" || begins != want {
			t.Errorf("%d restarts: %+v, %v, begun %d times", restarts, made, err, begins)
		}
	}
	code := w.invite()
	_, err = try(code, 3)
	if p := problem.Of(err); p.Code != "enrol-session" || p.Status != 403 || !strings.Contains(p.Detail, "begin again") || begins != 3 {
		t.Errorf("restarts without end: %v, begun %d times", err, begins)
	}
	_, err = try(code, 0) // the code is still good
	must(t, err)
	_, err = try(code, 0)
	if p := problem.Of(err); p.Code != "enrol-code" || begins != 1 {
		t.Errorf("a spent code: %v, begun %d times", err, begins)
	}
	// Another's answer is not begun again.
	begins = 0
	_, err = client.Enrol(t.Context(), &enrol.BeginRequest{Code: w.invite()}, func(_ context.Context, c *enrol.Challenge) (*enrol.FinishRequest, error) {
		return w.answer(c, key, good(c, key.Public()), newKey(t)), nil
	})
	if p := problem.Of(err); p.Code != "enrol-statement" || begins != 1 {
		t.Errorf("a stranger's statement: %v, begun %d times", err, begins)
	}
}
