package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// certifyHub writes the certificate of a host's hub for a key of the ring.
func certifyHub(t testing.TB, w *wiring, ca *identitytest.CA, host string, id signer.KeyID, purpose signer.Purpose) string {
	t.Helper()
	key, err := w.ring.Signer(t.Context(), id, purpose)
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.Issue(t, key.Public(), identitytest.Day, "mimi://"+host)
	name := string(id) + ".pem"
	if err := os.WriteFile(filepath.Join(w.config.dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func deviceTLS(t testing.TB, roots *x509.CertPool) *tls.Config {
	t.Helper()
	key := identitytest.NewKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: crypto.PrivateKey(key)}}}
}

func member(t testing.TB, ca *identitytest.CA, s *served, evaluator client.Judge, tlsConfig *tls.Config, name string, mods ...func(*client.Config)) (*client.Client, mls.Credential) {
	t.Helper()
	key := identitytest.NewKey(t)
	var public *ecdsa.PublicKey = &key.PublicKey
	credential := ca.Client(t, public, "mimi://a.example/d/"+name+"/1", "mimi://a.example/u/"+name)
	cfg := client.Config{
		State:   filepath.Join(t.TempDir(), "state.db"),
		Custody: client.Custody{Mode: client.Device, Key: key, Credential: credential},
		Judge:   evaluator, Provider: "https://" + s.addr["clients"], TLS: tlsConfig, KeyPackages: 2,
	}
	for _, m := range mods {
		m(&cfg)
	}
	c, err := client.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Register(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c, credential
}

// A providerTest is a provider a.example whose every key is in a token.
type providerTest struct {
	*wiring
	ca    *identitytest.CA
	roots *x509.CertPool // of the listener clients
	judge client.TrustJudge
}

func newProviderTest(t testing.TB) *providerTest {
	t.Helper()
	return newProviderOn(t, wireTest(t, initOptions{softHSM: true}), "softhsm")
}

// newProviderOn makes the keys of a provider in one of the devices, and its
// configuration.
func newProviderOn(t testing.TB, w *wiring, device string) *providerTest {
	t.Helper()
	ca := identitytest.NewCA(t, "providers", time.Now)
	dir := t.TempDir()
	return newProviderOf(t, w, device, "a.example", ca, identitytest.WriteConfig(t, dir, nil, ca.Entry(t, dir, "ca", "a.example")))
}

// newProviderOf is newProviderOn for a host whose hub a CA certifies, and which
// goes by a trust configuration.
func newProviderOf(t testing.TB, w *wiring, device, host string, ca *identitytest.CA, trustFile string) *providerTest {
	t.Helper()
	for id, purpose := range map[signer.KeyID]signer.Purpose{
		"web": signer.PurposeTLS, "hub": signer.PurposeHubSender, "frank": signer.PurposeFrankSign, "mac": signer.PurposeFrankMAC, "reader": signer.PurposeMLSInit,
	} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: purpose, Device: device}); err != nil {
			t.Fatal(err)
		}
	}
	pool := certify(t, w, "web", filepath.Join(w.config.dir, "server.pem"))
	_, evaluator := identitytest.Open(t, trustFile, time.Now)
	w.config.Serve = &ServeConfig{
		Operator: "operator",
		Listeners: map[string]*ListenerSection{
			"operator": {Address: "127.0.0.1:0", Plain: true},
			"clients":  {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web", ClientAuth: "any"},
		},
		Provider: &ProviderSection{
			Domain: host, Clients: "clients", Trust: trustFile, MACKey: "mac",
			Keys: []ProviderKeys{{
				Suite:     uint16(mls.P256AES128SHA256P256),
				SenderKey: "hub", SenderCertificate: certifyHub(t, w, ca, host, "hub", signer.PurposeHubSender),
				FrankKey: "frank", FrankCertificate: certifyHub(t, w, ca, host, "frank", signer.PurposeFrankSign), ReceiverKey: "reader",
			}},
		},
	}
	return &providerTest{w, ca, pool, client.TrustJudge{Evaluator: evaluator}}
}

// TestServeProvider runs a provider whose every key is in a token: two clients
// talk, and their messages are franked there.
func TestServeProvider(t *testing.T) {
	w := newProviderTest(t)
	s := serveTest(t, w.wiring)
	s.eventually("ready", func() bool { code, _ := s.page("/health/ready"); return code == http.StatusOK })
	alice, _ := member(t, w.ca, s, w.judge, deviceTLS(t, w.roots), "alice")
	bob, credential := member(t, w.ca, s, w.judge, deviceTLS(t, w.roots), "bob")
	uri, err := mimi.ParseURI("mimi://a.example/r/clubhouse")
	if err != nil {
		t.Fatal(err)
	}
	room, err := alice.CreateRoom(t.Context(), uri, client.RoomOptions{SemiPrivate: true}) // the token reads its handshakes
	if err != nil {
		t.Fatal(err)
	}
	if _, err := room.Add(t.Context(), bob.User(), client.AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if sent, err := room.Text(t.Context(), "hello"); err != nil || sent.NotFranked != "" {
		t.Fatalf("%+v %v", sent, err)
	}
	if err := bob.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	hers, err := bob.Room(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	list, err := hers.Messages(t.Context(), time.Time{})
	if err != nil || len(list) != 1 || list[0].NotFranked != "" {
		t.Errorf("bob has %d messages: %v", len(list), err)
	}
	if err := s.daemon.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	w.removed(t, room, bob, credential)
}

// removed waits for bob's certificate to be gone from the room, in vain, until
// bob is removed.
func (w *providerTest) removed(t *testing.T, room *client.Room, bob *client.Client, credential mls.Credential) {
	t.Helper()
	chain, err := credential.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	digest, other := sha256.Sum256(chain[0]), sha256.Sum256([]byte("another"))
	of := func(digest [sha256.Size]byte) []*registry.Record {
		return []*registry.Record{{Type: registry.X509, Client: bob.URI().String(), Digest: digest[:]}}
	}
	await := func(records []*registry.Record, most time.Duration) (rooms []roomLeft, err error) {
		err = withProviderOf(t.Context(), w.config, func(s *provider.Service) error {
			rooms, err = awaitGone(t.Context(), s, records, most)
			return err
		})
		return rooms, err
	}
	if rooms, err := await(of(other), time.Minute); err != nil || len(rooms) != 0 {
		t.Errorf("a certificate that was never there: %v, %v", rooms, err)
	}
	if rooms, err := await(of(digest), time.Second); exitCode(err) != 3 || len(rooms) != 1 || rooms[0].Gone {
		t.Errorf("while bob is there: %v, %v", rooms, err)
	}
	done, err := room.Remove(t.Context(), bob.User())
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := await(of(digest), time.Minute)
	if err != nil || len(rooms) != 1 || !rooms[0].Gone || rooms[0].Room != room.URI().String() || rooms[0].Epoch != done.Epoch {
		t.Errorf("bob was removed in epoch %d: %v, %v", done.Epoch, rooms, err)
	}
}
