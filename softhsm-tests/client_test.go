package softhsmtests

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// A house is one provider over mutual TLS, whose franking keys are in a token.
type house struct {
	t     *testing.T
	ca    *identitytest.CA
	eval  *identity.Evaluator
	url   string
	roots *x509.CertPool
}

const houseHost = "a.example"

func newHouse(t *testing.T, tok *hsm.Token) *house {
	h := &house{t: t}
	h.ca, h.eval = identitytest.NewEvaluator(t, houseHost)
	db, err := provider.OpenDB(t.Context(), filepath.Join(t.TempDir(), "provider.db"))
	h.must(err)
	mac, err := tok.MAC(t.Context(), h.generate(tok, hsm.HMACSHA256, hsm.UseMAC, "frank-mac"))
	h.must(err)
	frank, err := tok.Signer(t.Context(), h.generate(tok, hsm.P256, hsm.UseSign, "frank"))
	h.must(err)
	sender, err := tok.Signer(t.Context(), h.generate(tok, hsm.P256, hsm.UseSign, "hub"))
	h.must(err)
	keys := &provider.Keys{
		Sender: mls.ExternalSender{SignatureKey: h.encoded(sender), Credential: h.ca.Hub(t, sender.Public(), "mimi://"+houseHost)}, SenderSigner: sender,
		Franking: mimi.FrankingAgent{SignatureKey: h.encoded(frank), Credential: h.ca.Hub(t, frank.Public(), "mimi://"+houseHost)}, FrankSigner: frank,
	}
	franks := new(mimi.FrankingKeys)
	franks.AddMAC(0, mimi.MaxTimestamp, mac)
	franks.AddSignatureKey(0, mimi.MaxTimestamp, mls.P256AES128SHA256P256, keys.Franking.SignatureKey)
	s, err := provider.New(provider.Config{
		Domain: houseHost, DB: db, Evaluator: hub.TrustEvaluator{Evaluator: h.eval}, MAC: mac, Franks: franks,
		Keys: func(mls.CipherSuite) *provider.Keys { return keys }, Poll: 20 * time.Millisecond,
	})
	h.must(err)
	h.serve(s, db.Close)
	return h
}

func (h *house) serve(s *provider.Service, end func() error) {
	server := httptest.NewUnstartedServer(s.ClientHandler())
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	h.url, h.roots = server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		<-done
		end()
	})
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) generate(tok *hsm.Token, kind hsm.KeyType, use hsm.Use, label string) hsm.URI {
	h.t.Helper()
	info, err := tok.Generate(h.t.Context(), hsm.KeySpec{Type: kind, Use: use, Label: label})
	h.must(err)
	return info.URI()
}

func (h *house) encoded(k crypto.Signer) []byte {
	h.t.Helper()
	b, err := k.Public().(*ecdsa.PublicKey).Bytes()
	h.must(err)
	return b
}

// member opens and registers a client, and opens it again as after a restart.
func (h *house) member(user string, custody client.Custody) (c *client.Client, restart func() *client.Client) {
	h.t.Helper()
	custody.Credential = h.ca.Client(h.t, custody.Key.Public(), fmt.Sprintf("mimi://%s/d/%s/1", houseHost, user), fmt.Sprintf("mimi://%s/u/%s", houseHost, user))
	cfg := client.Config{
		State: filepath.Join(h.t.TempDir(), "state.db"), Custody: custody, Judge: client.TrustJudge{Evaluator: h.eval}, Provider: h.url, KeyPackages: 2,
		TLS: &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{clientCertificate(h.t)}},
	}
	open := func() *client.Client {
		h.t.Helper()
		c, err := client.Open(h.t.Context(), cfg)
		h.must(err)
		h.t.Cleanup(func() { c.Close() })
		return c
	}
	c = open()
	_, err := c.Register(h.t.Context(), nil)
	h.must(err)
	return c, func() *client.Client { h.must(c.Close()); c = open(); return c }
}

func clientCertificate(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tokenAgreements makes init keys in a token.
type tokenAgreements struct{ tok *hsm.Token }

func (a tokenAgreements) uri(ctx context.Context, name string) (hsm.URI, error) {
	keys, err := a.tok.Keys(ctx)
	for _, k := range keys {
		if k.Label == name && k.Class == hsm.ClassPrivate {
			return k.URI(), nil
		}
	}
	return hsm.URI{}, errors.Join(err, errNoSuchKey)
}

var errNoSuchKey = errors.New("no such key")

func (a tokenAgreements) Generate(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	info, err := a.tok.Generate(ctx, hsm.KeySpec{Type: hsm.P256, Use: hsm.UseAgree, Label: name})
	if err != nil {
		return nil, err
	}
	return a.tok.Agreement(ctx, info.URI())
}

func (a tokenAgreements) Open(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	u, err := a.uri(ctx, name)
	if err != nil {
		return nil, err
	}
	return a.tok.Agreement(ctx, u)
}

func (a tokenAgreements) Destroy(ctx context.Context, name string) error {
	u, err := a.uri(ctx, name)
	if errors.Is(err, errNoSuchKey) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.tok.Destroy(ctx, u)
}

// remoteKey is a key behind the signing API, whose guard is told of commits
// that did not take effect.
func remoteKey(t *testing.T) client.Custody {
	s := rpctest.Start(t, servicetest.New(t, map[string]signer.Device{"soft": signertest.New()}, nil), "soft", nil)
	s.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	api := s.Caller("acme", "cathy", access.Client, "leaf:sign")
	leaf, err := api.Signer(t.Context(), "leaf")
	if err != nil {
		t.Fatal(err)
	}
	return client.Custody{Mode: client.Remote, Key: leaf, Rejected: func(ctx context.Context, group []byte, epoch uint64, digest []byte, reason string) error {
		return api.ReportRejected(ctx, "leaf", group, epoch, digest, reason)
	}}
}

// Alice's keys are in a token, Bob's leaf key is bound to one in a TPM that also
// opens his state, Cathy signs through the API of a signing service. All three
// commit and talk, and are restarted in between.
func TestClientCustody(t *testing.T) {
	tok, device := hsmtest.Token(t), tpmtest.Open(t)
	h := newHouse(t, tok)
	leaf, err := tok.Signer(t.Context(), h.generate(tok, hsm.P256, hsm.UseSign, "alice"))
	h.must(err)
	confirmation, err := device.GenerateKey(t.Context(), tpm.KeySpec{Kind: tpm.SignP256})
	h.must(err)
	agreement, err := device.GenerateKey(t.Context(), tpm.KeySpec{Kind: tpm.ECDHP256})
	h.must(err)
	seal, err := hpke.NewDHKEMPrivateKey(agreement)
	h.must(err)
	remote := remoteKey(t)

	alice, restartAlice := h.member("alice", client.Custody{Mode: client.Device, Key: leaf, Agreements: tokenAgreements{tok}})
	bob, restartBob := h.member("bob", client.Custody{Mode: client.Bound, Key: confirmation, Seal: seal})
	cathy, restartCathy := h.member("cathy", remote)
	if bob.SealedBy() != client.SealDevice {
		t.Errorf("bob's state is sealed by %s", bob.SealedBy())
	}
	uri, err := mimi.ParseURI("mimi://" + houseHost + "/r/club")
	h.must(err)
	r, err := cathy.CreateRoom(t.Context(), uri, client.RoomOptions{})
	h.must(err)
	for _, other := range []*client.Client{alice, bob} {
		_, err = r.Add(t.Context(), other.User(), client.AddOptions{})
		h.must(err)
	}
	var said []string
	for round := range 3 {
		for _, c := range []*client.Client{alice, bob, cathy} {
			h.must(c.Sync(t.Context()))
			room, err := c.Room(t.Context(), uri)
			h.must(err)
			text := fmt.Sprintf("%s %d", c.User(), round)
			sent, err := room.Text(t.Context(), text)
			h.must(err)
			if sent.NotFranked != "" {
				t.Errorf("%s: not franked: %s", text, sent.NotFranked)
			}
			said = append(said, text)
			_, err = room.Refresh(t.Context())
			h.must(err)
		}
		alice, bob, cathy = restartAlice(), restartBob(), restartCathy()
	}
	for _, c := range []*client.Client{alice, bob, cathy} {
		h.must(c.Sync(t.Context()))
		h.compare(c, uri, said)
	}
}

func (h *house) compare(c *client.Client, uri mimi.URI, said []string) {
	h.t.Helper()
	room, err := c.Room(h.t.Context(), uri)
	h.must(err)
	list, err := room.Messages(h.t.Context(), time.Time{})
	h.must(err)
	tl, err := room.Timeline(h.t.Context())
	h.must(err)
	if len(list) != len(said) || len(tl.Entries()) != len(said) {
		h.t.Errorf("%s has %d messages, want %d", c.User(), len(list), len(said))
	}
	for i, m := range list {
		if !strings.HasPrefix(said[i], m.Sender.String()+" ") || m.NotFranked != "" || m.Issuer == "" {
			h.t.Errorf("%s: message %d is of %s, franked %q", c.User(), i, m.Sender, m.NotFranked)
		}
	}
	refused, err := c.Refused(h.t.Context())
	h.must(err)
	for _, f := range refused {
		h.t.Errorf("%s refused: %s", c.User(), f.Reason)
	}
}

// What the room's policy forbids is signed by the service before it is judged.
// The service is told that it was not sent, and signs the next commit of the
// same epoch.
func TestClientReportsRejectedCommits(t *testing.T) {
	h := newHouse(t, hsmtest.Token(t))
	remote := remoteKey(t)
	cathy, restart := h.member("cathy", remote)
	uri, err := mimi.ParseURI("mimi://" + houseHost + "/r/club")
	h.must(err)
	r, err := cathy.CreateRoom(t.Context(), uri, client.RoomOptions{})
	h.must(err)
	for range 2 {
		if _, err := r.SetRole(t.Context(), cathy.User(), 2); !errors.As(err, new(*policy.Refusal)) {
			t.Fatalf("changing one's own role: %v", err)
		}
	}
	cathy = restart()
	r, err = cathy.Room(t.Context(), uri)
	h.must(err)
	_, err = r.Refresh(t.Context())
	h.must(err)
}
