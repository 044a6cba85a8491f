package trust_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	client = "mimi://acme.example/d/alice/phone"
	user   = "mimi://acme.example/u/alice"
	room   = "mimi://hub.example/r/room"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, code credentials.Code) {
	t.Helper()
	if credentials.CodeOf(err) != code || (err == nil) != (code == "") {
		t.Errorf("%s: error %v, want code %q", what, err, code)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// A clock that tests set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// A site is an HTTPS server of an issuer, whose pages tests change.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	pages map[string]http.HandlerFunc
	hits  map[string]int
	dir   string // has ca.pem
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{pages: map[string]http.HandlerFunc{}, hits: map[string]int{}, dir: t.TempDir()}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.route))
	t.Cleanup(s.Close)
	writeFile(t, s.dir, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return s
}

func (s *site) route(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.hits[r.URL.Path]++
	h := s.pages[r.URL.Path]
	s.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (s *site) handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[path] = h
}

func (s *site) serve(path, mediaType string, body []byte) {
	s.handle(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Write(body)
	})
}

func (s *site) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[path]
}

// fetch lets a configuration reach the site.
func (s *site) fetch() map[string]any {
	return map[string]any{"allow_private": []string{"127.0.0.0/8"}, "ca_file": filepath.Join(s.dir, "ca.pem"), "timeout_s": 5}
}

func writeFile(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

type object = map[string]any

// write writes a configuration and returns its path.
func write(t testing.TB, dir string, config object) string {
	t.Helper()
	text, err := json.Marshal(config)
	must(t, err)
	return writeFile(t, dir, "trust.json", text)
}

func openList(t testing.TB, ck *clock, config object) *trust.List {
	t.Helper()
	l, err := trust.Open(write(t, t.TempDir(), config), trust.Options{Now: ck.now, Rand: func() float64 { return 0.5 }})
	must(t, err)
	t.Cleanup(l.Close)
	return l
}

// An issuer of tokens, its key called kid.
type issuer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	kid string
	iss string
	ck  *clock

	chain  [][]byte          // x5c or x5chain
	status map[string]any    // status claim of tokens
	with   func(object)      // changes JWT claims
	cwt    func(map[any]any) // changes CWT claims
	typ    string
	life   time.Duration // 0 leaves exp out of a JWT
}

func newIssuer(t testing.TB, ck *clock, iss string) *issuer {
	return &issuer{t: t, key: newKey(t), kid: "k1", iss: iss, ck: ck, life: 24 * time.Hour}
}

// jwks is the set of the keys of issuers.
func jwks(t testing.TB, issuers ...*issuer) []byte {
	t.Helper()
	keys := []any{}
	for _, i := range issuers {
		text, err := credentials.FormatJWK(i.key.Public())
		must(t, err)
		var k object
		must(t, json.Unmarshal(text, &k))
		if i.kid != "" {
			k["kid"] = i.kid
		}
		keys = append(keys, k)
	}
	text, err := json.Marshal(object{"keys": keys})
	must(t, err)
	return text
}

// coseKeys is the same as a COSE_KeySet.
func coseKeys(t testing.TB, issuers ...*issuer) []byte {
	t.Helper()
	var keys []dcbor.Value
	for _, i := range issuers {
		b, err := credentials.FormatCOSEKey(i.key.Public())
		must(t, err)
		v, err := dcbor.Decode(b)
		must(t, err)
		var pairs []dcbor.Value
		for k, m := range v.Pairs() {
			pairs = append(pairs, k, m)
		}
		keys = append(keys, dcbor.NewMap(append(pairs, dcbor.NewInt(2), dcbor.NewBytes([]byte(i.kid)))...))
	}
	return dcbor.Encode(dcbor.NewArray(keys...))
}

// jwt issues an SD-JWT to a holder, with key binding for the room.
func (i *issuer) jwt(holder crypto.Signer) []byte {
	t := i.t
	t.Helper()
	claims := object{"sub": client, "mimi_user": user, "vct": "https://vct.example/1"}
	if i.status != nil {
		claims["status"] = i.status
	}
	if i.with != nil {
		i.with(claims)
	}
	body, err := json.Marshal(claims)
	must(t, err)
	now := i.ck.now()
	var expires time.Time
	if i.life > 0 {
		expires = now.Add(i.life)
	}
	token, err := (&sdjwt.Issuer{Key: i.key, Name: i.iss, Kid: i.kid, Certificates: i.chain, Type: i.typ}).Issue(t.Context(), sdjwt.Request{
		Claims: body, Holder: holder.Public(), IssuedAt: now, Expires: expires, Redact: []sdjwt.Path{{"mimi_user"}},
	})
	must(t, err)
	c, err := sdjwt.OpenCredential(token.String(), sdjwt.Limits{})
	must(t, err)
	b, err := mlscred.SDJWT(t.Context(), c, mlscred.Binding{Key: holder, Audience: room, Now: i.ck.now}, true, sdjwt.Path{"mimi_user"})
	must(t, err)
	text, err := mlscred.ParseSDJWT(b)
	must(t, err)
	return []byte(text)
}

// kbt issues an SD-CWT to a holder, with key binding for the room.
func (i *issuer) kbt(holder crypto.Signer) []byte {
	t := i.t
	t.Helper()
	cnf, err := credentials.CWTConfirmation(holder.Public())
	must(t, err)
	confirmation, err := sdcwt.CBOR(cnf)
	must(t, err)
	now := i.ck.now()
	claims := sdcwt.Claims{
		sdcwt.ClaimIssuer: i.iss, sdcwt.ClaimSubject: client, sdcwt.ClaimCnf: confirmation, sdcwt.ClaimIssuedAt: now.Unix(),
		sdcwt.ClaimExpires: now.Add(i.life).Unix(), sdcwt.ClaimCWTID: []byte("0123456789abcdef"), sdcwt.Redact("mimi_user"): user,
	}
	if i.status != nil {
		claims[sdcwt.ClaimStatus] = object2CBOR(i.status)
	}
	if i.cwt != nil {
		i.cwt(claims)
	}
	var kid []byte
	if i.kid != "" {
		kid = []byte(i.kid)
	}
	token, err := (&sdcwt.Issuer{Key: i.key, KeyID: kid, X5Chain: i.chain, Type: i.typ}).Issue(t.Context(), claims)
	must(t, err)
	c, err := sdcwt.ParseCredential(token)
	must(t, err)
	kbt, err := mlscred.SDCWT(t.Context(), c, mlscred.Binding{Key: holder, Audience: room, Now: i.ck.now}, sdcwt.All)
	must(t, err)
	return kbt
}

func object2CBOR(o object) map[any]any {
	out := map[any]any{}
	for k, v := range o {
		if inner, ok := v.(object); ok {
			v = object2CBOR(inner)
		}
		out[k] = v
	}
	return out
}

// check has a snapshot verify a token of a holder.
func check(t testing.TB, l *trust.List, token []byte, holder crypto.Signer) (*trust.Evidence, error) {
	c := trust.TokenCheck{Token: token, HolderKey: holder.Public(), Audiences: []string{room}}
	if token[0] == 'e' {
		return l.Snapshot().SDJWT(t.Context(), c)
	}
	return l.Snapshot().SDCWT(t.Context(), c)
}

func clientGrant() []any {
	return []any{object{"host": "acme.example", "paths": []string{"d/*/*", "u/*"}}}
}

// entry is an issuer entry for a token issuer.
func entry(kind, iss string, keys object) object {
	return object{
		"name": "idp", "type": kind, "roles": []string{"client"}, "iss": iss, "keys": keys, "claims": object{"client": "sub", "user": "mimi_user"},
		"grants": clientGrant(), "revocation": object{"mode": "none"},
	}
}

func config(fetch object, issuers ...object) object {
	c := object{"version": 1, "issuers": append([]object{}, issuers...)}
	if fetch != nil {
		c["fetch"] = fetch
	}
	return c
}

// certify makes a certificate of a key, signed by a CA or by itself.
func certify(t testing.TB, ck *clock, template *x509.Certificate, pub crypto.PublicKey, ca *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = ck.now().Add(-time.Minute), ck.now().Add(30*24*time.Hour)
	}
	if ca == nil {
		ca = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, pub, key)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

func pemOf(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func spki(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
