package access_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer/access"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// each runs a test on both engines.
func each(t *testing.T, f func(*testing.T, *house)) {
	t.Run("SQLite", func(t *testing.T) { f(t, newHouse(t, filepath.Join(t.TempDir(), "access.db"))) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, newHouse(t, pgtest.Database(t))) })
}

// house is a store with a CA and a clock of its own.
type house struct {
	t      testing.TB
	source string
	store  *access.Store
	ca     *access.Authority

	mu    sync.Mutex // guards ahead
	ahead time.Duration
}

func newHouse(t testing.TB, source string) *house {
	h := &house{t: t, source: source}
	h.store, h.ca = h.node(newKey(t))
	return h
}

// node opens a store, as another node would.
func (h *house) node(caKey crypto.Signer) (*access.Store, *access.Authority) {
	h.t.Helper()
	s, err := access.Open(h.t.Context(), h.source, &access.Options{Now: h.now})
	h.must(err)
	h.t.Cleanup(func() { s.Close() })
	ca, err := access.NewAuthority(s, time.Hour, func(context.Context) (crypto.Signer, error) { return caKey, nil })
	h.must(err)
	return s, ca
}

func (h *house) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.ahead)
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += d
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (h *house) invite(tenant, name string, role access.Role, grants ...access.Grant) string {
	h.t.Helper()
	token, _, err := h.store.Invite(h.t.Context(), access.Invitation{Tenant: tenant, Name: name, Role: role, Grants: grants})
	h.must(err)
	return token.Reveal()
}

func (h *house) enroll(token string) (*x509.Certificate, *access.Issued) {
	h.t.Helper()
	issued, err := h.ca.Enroll(h.t.Context(), token, csr(h.t, newKey(h.t)))
	h.must(err)
	return h.verify(issued), issued
}

// verify checks a chain as the server does.
func (h *house) verify(i *access.Issued) *x509.Certificate {
	h.t.Helper()
	c, err := x509.ParseCertificate(i.Chain[0])
	h.must(err)
	pool, err := h.ca.Pool(h.t.Context())
	h.must(err)
	_, err = c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: h.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	h.must(err)
	return c
}

func TestEnrollAndRenew(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		grant := access.Grant{Key: "leaf-*", Uses: []access.Use{access.UseSign}}
		cert, issued := h.enroll(h.invite("acme", "bot", access.Client, grant))
		c, err := h.store.Authenticate(t.Context(), cert)
		h.must(err)
		if c.Tenant != "acme" || c.Name != "bot" || c.Role != access.Client || !c.May("leaf-1", access.UseSign) || c.State != access.Active {
			t.Errorf("the caller is %+v", c)
		}
		if left := issued.RenewAfter.Sub(h.now()); left < 30*time.Minute || left > 45*time.Minute {
			t.Errorf("renew in %v of an hour", left)
		}
		h.pass(50 * time.Minute)
		renewed, err := h.ca.Renew(t.Context(), c, csr(t, newKey(t)))
		h.must(err)
		h.pass(20 * time.Minute)
		if _, err := h.store.Authenticate(t.Context(), cert); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("an expired certificate: %v", err)
		}
		_, err = h.store.Authenticate(t.Context(), h.verify(renewed))
		h.must(err)
	})
}

func TestTokenIsForOneKeyAndOnce(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		token := h.invite("acme", "bot", access.Client)
		key := newKey(t)
		for range 2 { // the answer to the first was lost
			_, err := h.ca.Enroll(t.Context(), token, csr(t, key))
			h.must(err)
		}
		if _, err := h.ca.Enroll(t.Context(), token, csr(t, newKey(t))); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("the token went to a second key: %v", err)
		}
		late := h.invite("acme", "late", access.Client)
		h.pass(2 * time.Hour)
		if _, err := h.ca.Enroll(t.Context(), late, csr(t, newKey(t))); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("an expired token: %v", err)
		}
		fresh := h.invite("acme", "late", access.Client)
		if _, err := h.ca.Enroll(t.Context(), late, csr(t, newKey(t))); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("the token before the new one: %v", err)
		}
		for i := range len(fresh) {
			other := []byte(fresh)
			other[i] = map[bool]byte{true: 'A', false: 'B'}[other[i] != 'A']
			if _, err := h.ca.Enroll(t.Context(), string(other), csr(t, newKey(t))); err == nil && other[i] != fresh[i] {
				t.Errorf("character %d of the token does not count", i)
			}
		}
		h.enroll(fresh)
	})
}

// TestTokenRace has many keys ask for one token at the same time, on two nodes.
func TestTokenRace(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		_, other := h.node(newKey(t))
		token := h.invite("acme", "bot", access.Client)
		var wg sync.WaitGroup
		won := make(chan []byte, 16)
		for i := range 16 {
			ca := []*access.Authority{h.ca, other}[i%2]
			request := csr(t, newKey(t))
			wg.Go(func() {
				if issued, err := ca.Enroll(context.Background(), token, request); err == nil {
					won <- issued.Chain[0]
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Errorf("%d keys got a certificate for one token", len(won))
		}
	})
}

func TestRevoke(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		cert, _ := h.enroll(h.invite("acme", "bot", access.Client))
		other, _ := h.node(newKey(t))
		c, err := h.store.Authenticate(t.Context(), cert)
		h.must(err)
		if _, err := other.Authenticate(t.Context(), cert); err != nil {
			t.Fatal(err)
		}
		pending := h.invite("acme", "pending", access.Client)
		for _, name := range []string{"bot", "pending"} {
			if _, err := h.store.Revoke(t.Context(), "acme", name, "left"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.store.Authenticate(t.Context(), cert); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("after the revocation: %v", err)
		}
		h.pass(2 * time.Second)
		if _, err := other.Authenticate(t.Context(), cert); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("on the other node: %v", err)
		}
		if _, err := h.ca.Renew(t.Context(), c, csr(t, newKey(t))); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("renewed after the revocation: %v", err)
		}
		if _, err := h.ca.Enroll(t.Context(), pending, csr(t, newKey(t))); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("enrolled after the revocation: %v", err)
		}
		// Invited again, the old certificate stays revoked.
		again, _ := h.enroll(h.invite("acme", "bot", access.Operator))
		now, err := h.store.Authenticate(t.Context(), again)
		h.must(err)
		if now.Role != access.Operator {
			t.Errorf("the role is %s", now.Role)
		}
		if _, err := h.store.Authenticate(t.Context(), cert); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("the old certificate came back: %v", err)
		}
		if _, _, err := h.store.Invite(t.Context(), access.Invitation{Tenant: "acme", Name: "bot", Role: access.Client}); !errors.Is(err, access.ErrExists) {
			t.Errorf("an active caller was invited: %v", err)
		}
		all, err := h.store.Callers(t.Context(), "acme")
		if err != nil || len(all) != 2 || all[1].State != access.Revoked || all[1].Reason != "left" {
			t.Errorf("callers %v, %v", all, err)
		}
		if others, err := h.store.Callers(t.Context(), "other"); err != nil || len(others) != 0 {
			t.Errorf("another tenant has %v, %v", others, err)
		}
	})
}

// TestForgedCertificate: a certificate of our own CA's key that was not given
// out, or names somebody else, is nobody's.
func TestForgedCertificate(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "access.db"))
	cert, _ := h.enroll(h.invite("acme", "bot", access.Client))
	forged := *cert
	forged.SerialNumber = new(big.Int).Add(cert.SerialNumber, big.NewInt(1))
	if _, err := h.store.Authenticate(t.Context(), &forged); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("a serial number that was never given: %v", err)
	}
	forged = *cert
	forged.URIs = nil
	if _, err := h.store.Authenticate(t.Context(), &forged); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("a certificate without its name: %v", err)
	}
}

// TestRotatedAuthority: certificates of the old CA key stay good.
func TestRotatedAuthority(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "access.db"))
	_, old := h.enroll(h.invite("acme", "bot", access.Client))
	_, h.ca = h.node(newKey(t))
	_, fresh := h.enroll(h.invite("acme", "bot2", access.Client))
	h.verify(old)
	h.verify(fresh)
}

func TestRefusedInput(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "access.db"))
	for _, in := range []access.Invitation{
		{Tenant: "Acme", Name: "a", Role: access.Client}, {Tenant: "a.b", Name: "a", Role: access.Client}, {Tenant: "acme", Name: "", Role: access.Client},
		{Tenant: "acme", Name: "a/b", Role: access.Client}, {Tenant: "acme", Name: "a", Role: "root"}, {Tenant: "acme", Name: "a", Role: access.Client, Lifetime: 8 * 24 * time.Hour},
		{Tenant: "acme", Name: "a", Role: access.Client, Grants: []access.Grant{{Key: "x"}}},
		{Tenant: "acme", Name: "a", Role: access.Client, Grants: []access.Grant{{Key: "x", Uses: []access.Use{"everything"}}}},
		{Tenant: "acme", Name: "a", Role: access.Client, Grants: []access.Grant{{Key: "x*y", Uses: []access.Use{access.UseSign}}}},
	} {
		if _, _, err := h.store.Invite(t.Context(), in); !errors.Is(err, access.ErrUsage) {
			t.Errorf("%+v: %v", in, err)
		}
	}
	token := h.invite("acme", "bot", access.Client)
	good := csr(t, newKey(t))
	bad := append([]byte(nil), good...)
	bad[len(bad)-1] ^= 1
	for _, der := range [][]byte{nil, good[:len(good)-1], bad, make([]byte, 1<<20)} {
		if _, err := h.ca.Enroll(t.Context(), token, der); !errors.Is(err, access.ErrUsage) {
			t.Errorf("a request of %d octets: %v", len(der), err)
		}
	}
}

func TestGrants(t *testing.T) {
	c := access.Caller{Role: access.Client}
	for _, s := range []string{"leaf-*:sign", "raw:raw,sign", "init:agree"} {
		g, err := access.ParseGrant(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Grants = append(c.Grants, g)
	}
	for _, x := range []struct {
		key string
		use access.Use
		may bool
	}{
		{"leaf-1", access.UseSign, true}, {"leaf-1", access.UseRaw, false}, {"leaf", access.UseSign, false},
		{"raw", access.UseRaw, true}, {"init", access.UseAgree, true}, {"init", access.UseSign, false}, {"other", access.UseMAC, false},
	} {
		if c.May(x.key, x.use) != x.may {
			t.Errorf("%s %s: %v", x.key, x.use, !x.may)
		}
	}
	if c.Sees("other") || !c.Sees("init") {
		t.Error("a client sees what it has no grant for, or does not see what it has")
	}
	if auditor := (access.Caller{Role: access.Auditor}); !auditor.Sees("other") || auditor.May("other", access.UseSign) {
		t.Error("an auditor sees everything and uses nothing")
	}
	for _, s := range []string{"leaf", "leaf:", ":sign", "le*af:sign", "leaf:sign,", "Leaf:sign"} {
		if _, err := access.ParseGrant(s); !errors.Is(err, access.ErrUsage) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	h := newHouse(t, filepath.Join(t.TempDir(), "access.db"))
	token, _, err := h.store.Invite(t.Context(), access.Invitation{Tenant: "acme", Name: "bot", Role: access.Client})
	h.must(err)
	secret := strings.TrimPrefix(token.Reveal(), "pvsinvite_")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if s := fmt.Sprintf(verb, token); strings.Contains(s, secret) || s != "[invitation]" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("pvsinvite_" + strings.Repeat("A", 43))
	f.Add("pvsinvite_")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := access.ParseToken(s)
		if err == nil && token.Reveal() != s {
			t.Errorf("%q became %q", s, token.Reveal())
		}
	})
}

func FuzzParseGrant(f *testing.F) {
	f.Add("leaf-*:sign,raw")
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := access.ParseGrant(s); err == nil && g.Check() != nil {
			t.Errorf("%q", s)
		}
	})
}
