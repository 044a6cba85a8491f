package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/pgtest"
	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

const (
	enrolClient = "mimi://a.example/d/alice/1"
	enrolUser   = "mimi://a.example/u/alice"
)

// An enrolIssuer serves enrolments over HTTPS with keys in a token. It believes
// the maker of one TPM and the endorsement key of another.
type enrolIssuer struct {
	t      *testing.T
	wiring *wiring
	pool   *x509.CertPool
	url    string
}

func newEnrolIssuer(t *testing.T, certified *swtpm.Server, listed *enrollee) *enrolIssuer {
	t.Helper()
	w := wireTest(t, initOptions{softHSM: true})
	i := &enrolIssuer{t: t, wiring: w}
	for id, p := range map[signer.KeyID]signer.Purpose{"web": signer.PurposeTLS, "root": signer.PurposeX509CA, "ca": signer.PurposeX509CA,
		"tokens": signer.PurposeCredentialIssuer, "leaf": signer.PurposeMLSLeaf, "stranger": signer.PurposeCredentialIssuer} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: p, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []caOptions{{key: "root"}, {key: "ca", issuer: "root", hosts: []string{"a.example"}}} {
		if _, err := w.createCA(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	i.pool = certify(t, w, "web", filepath.Join(w.config.dir, "server.pem"))
	i.believe(certified, listed)
	w.config.Issuer.URL, w.config.Issuer.TokenKey = "https://issuer.example/acme", "tokens"
	w.config.Issuer.CAs = map[string]*CASection{"devices": {Key: "ca"}}
	w.config.Serve = &ServeConfig{
		Operator: "operator", Issuer: &IssuerServeSection{Listener: "operator", Enrol: &EnrolSection{Listener: "public", Appliances: []string{"appliance.jwk"}}},
		Listeners: map[string]*ListenerSection{
			"operator": {Address: "127.0.0.1:0", Plain: true},
			"public":   {Address: "127.0.0.1:0", Certificate: "server.pem", KeyID: "web"},
		}}
	i.url = "https://" + serveTest(t, w).addr["public"] + "/acme"
	return i
}

// believe writes the files of issuer.attestation and the appliance's key.
func (i *enrolIssuer) believe(certified *swtpm.Server, listed *enrollee) {
	i.t.Helper()
	roots, err1 := certified.RootsPEM()
	below, err2 := certified.Issuer()
	shown, err3 := listed.introduce(i.t.Context())
	appliance, err4 := i.wiring.deviceKey(i.t.Context(), "tokens", signer.PurposeCredentialIssuer)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		i.t.Fatal(err)
	}
	jwk, err := credentials.FormatJWK(appliance.Public())
	if err != nil {
		i.t.Fatal(err)
	}
	sum := sha256.Sum256(shown.EK)
	for name, text := range map[string][]byte{"makers.pem": roots, "below.pem": below, "eks.txt": []byte(hex.EncodeToString(sum[:]) + " rack 4\n"), "appliance.jwk": jwk} {
		if err := os.WriteFile(filepath.Join(i.wiring.config.dir, name), text, 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
	i.wiring.config.Issuer = &IssuerSection{Attestation: &AttestationSection{EKRoots: "makers.pem", EKIntermediates: "below.pem", EKList: "eks.txt"}}
}

// client returns one that speaks to the issuer over HTTPS.
func (i *enrolIssuer) client(t *testing.T) *enrol.Client {
	t.Helper()
	c, err := enrol.NewClient(i.url, i.pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// invite returns a code.
func (i *enrolIssuer) invite(t *testing.T, typ registry.Type, least credentials.AttestationLevel, lifetime time.Duration) string {
	t.Helper()
	names, err := certs.DeviceNames(enrolClient, enrolUser)
	if err != nil {
		t.Fatal(err)
	}
	in := enrol.Invitation{Names: names, Type: typ, Lifetime: time.Hour, Least: least, Unattested: least == credentials.AttestationNone}
	code, _, err := i.wiring.config.invite(t.Context(), in, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s %q", code, code, code, code, code); strings.Contains(s, code.Reveal()) {
		t.Error("the code is printed")
	}
	return code.Reveal()
}

// newTPMEnrollee makes a key in a fresh TPM.
func newTPMEnrollee(t *testing.T, c swtpm.Config) (*enrollee, *swtpm.Server) {
	t.Helper()
	s := tpmtest.Start(t, c)
	w := wireTest(t, initOptions{tpm: s.Address()})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Device: "tpm"}); err != nil {
		t.Fatal(err)
	}
	e, err := w.newEnrollee(t.Context(), &enrolOptions{holder: "leaf"})
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

// refusedAs fails unless the issuer refused with that code and status 403.
func refusedAs(t *testing.T, err error, reason enrol.Reason) {
	t.Helper()
	p, ok := errors.AsType[*problems.Problem](err)
	if !ok || p.Status != http.StatusForbidden || p.Code != "enrol-"+string(reason) {
		t.Errorf("got %v, want a refusal enrol-%s", err, reason)
	}
}

// TestEnrol enrols devices with TPMs over HTTPS, and tries what must not pass.
func TestEnrol(t *testing.T) {
	certified, maker := newTPMEnrollee(t, swtpm.Config{Endorsement: true})
	listed, _ := newTPMEnrollee(t, swtpm.Config{})
	stranger, _ := newTPMEnrollee(t, swtpm.Config{})
	x := &enrolTest{newEnrolIssuer(t, maker, listed), certified, listed, stranger}
	t.Run("good", x.good)
	t.Run("endorsement key not believed", x.notBelieved)
	t.Run("level", x.level)
	t.Run("endorsement key of another TPM", x.otherEK)
	t.Run("attestation key of another TPM", x.otherAK)
	t.Run("foreign attestation key certifies", x.foreignCertification)
	t.Run("another key than that certified", x.otherKey)
	t.Run("replayed", x.replayed)
	t.Run("codes", x.codes)
	t.Run("statement", x.statement)
	t.Run("without attestation", x.simple)
	t.Run("bodies", x.bodies)
	t.Run("another node", x.anotherNode)
	t.Run("a rotated CA", x.rotatedCA)
}

type enrolTest struct {
	issuer                      *enrolIssuer
	certified, listed, stranger *enrollee
}

func (x *enrolTest) good(t *testing.T) {
	for _, c := range []struct {
		device *enrollee
		typ    registry.Type
		level  credentials.AttestationLevel
	}{
		{x.certified, registry.X509, credentials.AttestationCertified},
		{x.listed, registry.SDJWT, credentials.AttestationListed},
		{x.certified, registry.SDCWT, credentials.AttestationCertified},
	} {
		made, err := c.device.enrol(t.Context(), x.issuer.client(t), x.issuer.invite(t, c.typ, credentials.AttestationListed, 0))
		if err != nil {
			t.Fatal(err)
		}
		x.check(t, c.device, made, c.level)
	}
}

// ordered is an issuer that only says what it was asked for.
type ordered struct{ enrol.Order }

func (o *ordered) Issue(_ context.Context, order enrol.Order) (*enrol.Issued, error) {
	o.Order = order
	return &enrol.Issued{ID: "x", Attestation: order.Level.String()}, nil
}

// anotherNode has a TPM begin at one node and finish at another, which knows of
// it what is sealed in their database.
func (x *enrolTest) anotherNode(t *testing.T) {
	policy, err := loadEKPolicy(x.issuer.wiring.config)
	if err != nil {
		t.Fatal(err)
	}
	server := must(pgtest.Start())
	defer server.Close()
	book := must(registry.Open(t.Context(), must(server.NewDatabase(t.Context()))))
	defer book.Close()
	store := must(enrol.NewStore(t.Context(), book, nil))
	var made ordered
	node := func(p enrol.Endorser) *enrol.Service {
		return must(enrol.New(enrol.Config{Invitations: store, Issuer: &made, Audience: x.issuer.url, TPMs: p}))
	}
	names := must(certs.DeviceNames(enrolClient, enrolUser))
	begin := func(least credentials.AttestationLevel) (*enrol.Challenge, *enrol.FinishRequest) {
		code, _, err := store.Invite(t.Context(), enrol.Invitation{Names: names, Type: registry.X509, Lifetime: time.Hour, Least: least}, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := must(node(policy).Begin(t.Context(), &enrol.BeginRequest{Code: code.Reveal(), TPM: must(x.certified.introduce(t.Context()))}))
		return c, x.answer(t, x.certified, c)
	}
	refuses := func(err error, want enrol.Reason) {
		t.Helper()
		if !errors.Is(err, &enrol.Error{Reason: want}) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	c, f := begin(credentials.AttestationCertified)
	f.Answer = activated(t, x.certified, c)
	if _, err := node(policy).Finish(t.Context(), f); err != nil || made.Level != credentials.AttestationCertified {
		t.Fatalf("level %v, %v", made.Level, err)
	}
	if kept := must(tpm.ParseEvidence(made.Evidence)); string(kept.EK) != string(x.certified.ek.Public) {
		t.Errorf("kept evidence names endorsement key %x", kept.EK)
	}
	_, f = begin(credentials.AttestationCertified)
	f.Answer = guess()
	_, err = node(policy).Finish(t.Context(), f)
	refuses(err, enrol.ReasonActivation)

	// The node that finishes judges by what it believes itself.
	c, f = begin(credentials.AttestationListed)
	f.Answer = activated(t, x.certified, c)
	_, err = node(&ekPolicy{}).Finish(t.Context(), f)
	refuses(err, enrol.ReasonEndorsement)
	c, f = begin(credentials.AttestationCertified)
	f.Answer = activated(t, x.certified, c)
	_, err = node(&ekPolicy{listed: map[[sha256.Size]byte]bool{sha256.Sum256(x.certified.ek.Public): true}}).Finish(t.Context(), f)
	refuses(err, enrol.ReasonLevel)
}

// check looks at what was issued and at what the book says of it.
func (x *enrolTest) check(t *testing.T, e *enrollee, made *enrol.Issued, level credentials.AttestationLevel) {
	t.Helper()
	var record *registry.Record
	var evidence []byte
	err := x.issuer.wiring.withBook(t.Context(), func(b *registry.Store) (err error) {
		if record, err = b.Get(t.Context(), registry.ID(made.ID)); err == nil {
			evidence, err = b.Evidence(t.Context(), record.ID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if made.Attestation != level.String() || record.Attestation != level || record.Client != enrolClient || record.User != enrolUser || record.Holder != e.holder.KID() || record.Unfinished() {
		t.Errorf("issued %+v, record %+v, want level %v", made, record, level)
	}
	if made.Type == typeX509 {
		chain, err := parseCertificates([]byte(made.Credential))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := credentials.AttestationOf(chain[0]); err != nil || got != level || !credentials.SamePublicKey(chain[0].PublicKey, e.holder.Public()) {
			t.Errorf("certificate of level %v, %v", got, err)
		}
	}
	x.checkKept(t, e, record, evidence)
}

// checkKept verifies the evidence again, as an auditor does later, and shows
// that it is not taken for another credential's.
func (x *enrolTest) checkKept(t *testing.T, e *enrollee, record *registry.Record, evidence []byte) {
	t.Helper()
	w := x.issuer.wiring
	if err := w.checkKept(t.Context(), record, evidence); err != nil {
		t.Error(err)
	}
	other := *record
	other.Holder = x.stranger.holder.KID()
	if w.checkKept(t.Context(), &other, evidence) == nil || w.checkKept(t.Context(), record, nil) == nil || w.checkKept(t.Context(), record, evidence[:len(evidence)-9]) == nil {
		t.Error("evidence of another key, none, or damaged evidence is verified")
	}
	if e.device == nil {
		return
	}
	if kept, err := tpm.ParseEvidence(evidence); err != nil || string(kept.EK) != string(e.ek.Public) {
		t.Errorf("kept evidence names endorsement key %x, %v", kept.EK, err)
	}
}

func (x *enrolTest) notBelieved(t *testing.T) {
	code := x.issuer.invite(t, registry.X509, credentials.AttestationListed, 0)
	_, err := x.stranger.enrol(t.Context(), x.issuer.client(t), code)
	refusedAs(t, err, enrol.ReasonEndorsement)
	if _, err := x.listed.enrol(t.Context(), x.issuer.client(t), code); err != nil {
		t.Errorf("the attempt has spent the code: %v", err)
	}
}

func (x *enrolTest) level(t *testing.T) {
	_, err := x.listed.enrol(t.Context(), x.issuer.client(t), x.issuer.invite(t, registry.X509, credentials.AttestationCertified, 0))
	refusedAs(t, err, enrol.ReasonLevel)
}

// begin begins with the endorsement key of one TPM and the attestation key of
// another.
func (x *enrolTest) begin(t *testing.T, ek, ak *enrollee) *enrol.Challenge {
	t.Helper()
	a, err1 := ek.introduce(t.Context())
	b, err2 := ak.introduce(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	a.AK = b.AK
	c, err := x.issuer.client(t).Begin(t.Context(), &enrol.BeginRequest{Code: x.issuer.invite(t, registry.X509, credentials.AttestationListed, 0), TPM: a})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer makes what a device sends to finish, without the answer.
func (x *enrolTest) answer(t *testing.T, e *enrollee, c *enrol.Challenge) *enrol.FinishRequest {
	t.Helper()
	request, err := e.request(c)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := e.wiring.ring.Attest(t.Context(), e.key.ID, e.key.Active().Number, c.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	return &enrol.FinishRequest{Session: c.Session, Request: request, Evidence: proof.Proof.Statement}
}

func activated(t *testing.T, e *enrollee, c *enrol.Challenge) []byte {
	t.Helper()
	answer, err := e.activate(t.Context(), c.Credential)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// guess is what a device that cannot activate may send.
func guess() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

func (x *enrolTest) otherEK(t *testing.T) {
	c := x.begin(t, x.listed, x.certified)
	if _, err := x.certified.activate(t.Context(), c.Credential); err == nil {
		t.Error("a TPM without the endorsement key activated the credential")
	}
	f := x.answer(t, x.certified, c)
	f.Answer = guess()
	_, err := x.issuer.client(t).Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonActivation)
}

func (x *enrolTest) otherAK(t *testing.T) {
	c := x.begin(t, x.certified, x.stranger)
	if _, err := x.certified.activate(t.Context(), c.Credential); err == nil {
		t.Error("a TPM without the attestation key activated the credential")
	}
	f := x.answer(t, x.stranger, c)
	f.Answer = guess()
	_, err := x.issuer.client(t).Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonActivation)
}

func (x *enrolTest) foreignCertification(t *testing.T) {
	c := x.begin(t, x.certified, x.certified)
	f := x.answer(t, x.stranger, c)
	f.Answer = activated(t, x.certified, c)
	_, err := x.issuer.client(t).Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonEvidence)
}

func (x *enrolTest) otherKey(t *testing.T) {
	c := x.begin(t, x.certified, x.certified)
	f := x.answer(t, x.certified, c)
	f.Answer = activated(t, x.certified, c)
	var err error
	if f.Request, err = x.stranger.request(c); err != nil {
		t.Fatal(err)
	}
	_, err = x.issuer.client(t).Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonEvidence)
}

func (x *enrolTest) replayed(t *testing.T) {
	client := x.issuer.client(t)
	c := x.begin(t, x.certified, x.certified)
	first := x.answer(t, x.certified, c)
	first.Answer = activated(t, x.certified, c)
	if _, err := client.Finish(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	_, err := client.Finish(t.Context(), first)
	refusedAs(t, err, enrol.ReasonSession)

	c = x.begin(t, x.certified, x.certified)
	f := x.answer(t, x.certified, c)
	f.Answer, f.Evidence = activated(t, x.certified, c), first.Evidence
	_, err = client.Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonEvidence)

	c = x.begin(t, x.certified, x.certified)
	f = x.answer(t, x.certified, c)
	f.Answer, f.Request = activated(t, x.certified, c), first.Request
	_, err = client.Finish(t.Context(), f)
	refusedAs(t, err, enrol.ReasonRequest)
}

func (x *enrolTest) codes(t *testing.T) {
	client := x.issuer.client(t)
	used := x.issuer.invite(t, registry.X509, credentials.AttestationListed, 0)
	if _, err := x.certified.enrol(t.Context(), client, used); err != nil {
		t.Fatal(err)
	}
	late := x.issuer.invite(t, registry.X509, credentials.AttestationListed, time.Second)
	time.Sleep(time.Second)
	for name, code := range map[string]string{"used": used, "expired": late, "wrong": enrol.NewCode().Reveal(), "no code": "4711"} {
		t.Run(name, func(t *testing.T) {
			_, err := x.certified.enrol(t.Context(), client, code)
			refusedAs(t, err, enrol.ReasonCode)
		})
	}
}

// statement enrols a key in a token: what the module states is signed by the
// appliance, kept, and verified again.
func (x *enrolTest) statement(t *testing.T) {
	w, client := x.issuer.wiring, x.issuer.client(t)
	e, err := w.newEnrollee(t.Context(), &enrolOptions{holder: "leaf", applianceKey: "tokens"})
	if err != nil {
		t.Fatal(err)
	}
	made, err := e.enrol(t.Context(), client, x.issuer.invite(t, registry.SDJWT, credentials.AttestationStated, 0))
	if err != nil {
		t.Fatal(err)
	}
	x.check(t, e, made, credentials.AttestationStated)
	x.statedHere(t)

	_, err = e.enrol(t.Context(), client, x.issuer.invite(t, registry.SDJWT, credentials.AttestationListed, 0))
	refusedAs(t, err, enrol.ReasonLevel)
	other, err := w.newEnrollee(t.Context(), &enrolOptions{holder: "leaf", applianceKey: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.enrol(t.Context(), client, x.issuer.invite(t, registry.SDJWT, credentials.AttestationStated, 0))
	refusedAs(t, err, enrol.ReasonStatement)
}

// simple enrols a key in a token in one request, as credential enrol does with
// --client and --user.
func (x *enrolTest) simple(t *testing.T) {
	w, client := x.issuer.wiring, x.issuer.client(t)
	o := &enrolOptions{holder: "leaf", client: enrolClient, user: enrolUser}
	made, err := w.enrol(t.Context(), o, client, x.issuer.invite(t, registry.X509, credentials.AttestationNone, 0))
	if err != nil {
		t.Fatal(err)
	}
	err = w.withBook(t.Context(), func(b *registry.Store) error {
		r, err := b.Get(t.Context(), registry.ID(made.ID))
		if err == nil && (r.Unfinished() || r.Client != enrolClient || r.Level != "none") {
			t.Errorf("the book has %+v", r)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	chain, err := client.CACerts(t.Context())
	if err != nil || len(chain) != 2 || len(made.Chain) != 2 || !bytes.Equal(chain[0].Raw, made.Chain[1]) {
		t.Errorf("%d CA certificates, a chain of %d: %v", len(chain), len(made.Chain), err)
	}
	if leaf, err := x509.ParseCertificate(made.Chain[0]); err != nil || leaf.CheckSignatureFrom(chain[0]) != nil {
		t.Errorf("the certificate is not the CA's: %v", err)
	}
	_, err = w.enrol(t.Context(), o, client, x.issuer.invite(t, registry.X509, credentials.AttestationStated, 0))
	refusedAs(t, err, enrol.ReasonLevel)
	o.client = "mimi://a.example/d/alice/2"
	_, err = w.enrol(t.Context(), o, client, x.issuer.invite(t, registry.X509, credentials.AttestationNone, 0))
	refusedAs(t, err, enrol.ReasonRequest)
}

// rotatedCA enrols right after the CA's key was rotated: the certificate is by the
// new one, whatever the service remembers.
func (x *enrolTest) rotatedCA(t *testing.T) {
	w, client := x.issuer.wiring, x.issuer.client(t)
	o := &enrolOptions{holder: "leaf", client: enrolClient, user: enrolUser}
	codes := []string{x.issuer.invite(t, registry.X509, credentials.AttestationNone, 0), x.issuer.invite(t, registry.X509, credentials.AttestationNone, 0)}
	if _, err := w.ring.Rotate(t.Context(), "ca", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.enrol(t.Context(), o, client, codes[0]); err == nil {
		t.Error("a certificate by a key that was rotated, and whose certificate is the old one's")
	}
	if err := os.Rename(caPath(w.config, "ca"), caPath(w.config, "before")); err != nil {
		t.Fatal(err)
	}
	chain, err := w.createCA(t.Context(), &caOptions{key: "ca", issuer: "root", hosts: []string{"a.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range codes { // the first signed nothing, and its code is good
		made, err := w.enrol(t.Context(), o, client, code)
		if err != nil {
			t.Fatal(err)
		}
		if leaf, err := x509.ParseCertificate(made.Chain[0]); err != nil || leaf.CheckSignatureFrom(chain[0]) != nil {
			t.Errorf("the certificate is not by the new key: %v", err)
		}
	}
}

// statedHere issues to a key of the issuer's own token, as credential issue
// --attest does: the evidence is a statement too.
func (x *enrolTest) statedHere(t *testing.T) {
	w := x.issuer.wiring
	names, err := certs.DeviceNames(enrolClient, enrolUser)
	if err != nil {
		t.Fatal(err)
	}
	o := &issueOptions{kind: typeSDJWT, lifetime: time.Hour, attest: true, requestOptions: requestOptions{holder: "leaf"}}
	p, err := w.provePossession(t.Context(), nil, o, names)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.attest(t.Context(), o, &p); err != nil {
		t.Fatal(err)
	}
	made, err := issueSDJWT(t.Context(), w, o, p)
	if err != nil {
		t.Fatal(err)
	}
	record, evidence, err := w.keptEvidence(t.Context(), registry.ID(made.ID))
	if err := errors.Join(err, w.checkKept(t.Context(), record, evidence)); err != nil {
		t.Error(err)
	}
}

// bodies sends what is no request.
func (x *enrolTest) bodies(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x.issuer.pool}}}
	defer client.CloseIdleConnections()
	ek := base64.StdEncoding.EncodeToString(make([]byte, 4096))
	for _, c := range []struct {
		path, media, body string
		status            int
		code              string
	}{
		{enrol.PathBegin, "application/json", `{"code":"x","more":1}`, 400, "malformed"},
		{enrol.PathBegin, "application/json", `{"code":"x","code":"y"}`, 400, "malformed"},
		{enrol.PathBegin, "application/json", `{"code":"x","tpm":{"ek":"` + ek + `","ak":"AA=="}}`, 400, "malformed"},
		{enrol.PathBegin, "application/json", strings.Repeat(" ", 200<<10), 413, "too-large"},
		{enrol.PathBegin, "text/plain", `{"code":"x"}`, 415, "media-type"},
		{enrol.PathFinish, "application/json", `{"session":"x","request":"AA=="}`, 400, "malformed"},
		{enrol.PathFinish, "application/json", `{"session":"x","request":"AA==","statement":"x"}`, 403, "enrol-session"},
		{"/enrol/else", "application/json", `{}`, 404, "not-found"},
	} {
		resp, err := client.Post(x.issuer.url+c.path, c.media, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if p := problems.Read(resp, time.Now()); p.Status != c.status || p.Code != c.code {
			t.Errorf("%s %.40s: %v, want %d %s", c.path, c.body, p, c.status, c.code)
		}
		resp.Body.Close()
	}
}

// TestEnrolCommands runs the two commands as a person does.
func TestEnrolCommands(t *testing.T) {
	device, maker := newTPMEnrollee(t, swtpm.Config{Endorsement: true})
	issuer := newEnrolIssuer(t, maker, device)
	dir := t.TempDir()
	code, out := filepath.Join(dir, "code"), filepath.Join(dir, "device.pem")
	ca := filepath.Join(issuer.wiring.config.dir, "server.pem")
	if err := device.device.Close(t.Context()); err != nil { // a software TPM has one connection
		t.Fatal(err)
	}
	command := func(w *wiring, args ...string) (int, string) {
		var o, e strings.Builder
		config := filepath.Join(w.config.dir, configName)
		status := run(context.Background(), append([]string{"--config", config}, args...), streams{strings.NewReader(""), &o, &e})
		return status, o.String() + e.String()
	}
	status, text := command(issuer.wiring, "credential", "invite", "--type", "x509", "--client", enrolClient, "--user", enrolUser, "--out", code)
	if status != exitOK || strings.Contains(text, "pvsenrol_") {
		t.Fatalf("invite ended with %d: %s", status, text)
	}
	enrolArgs := []string{"--json", "credential", "enrol", issuer.url, "--server-ca", ca, "--code-file", code, "--holder", "leaf"}
	status, text = command(device.wiring, append(enrolArgs, "--out", out)...)
	if status != exitOK || !strings.Contains(text, "attestation tpm-certified") {
		t.Fatalf("enrol ended with %d: %s", status, text)
	}
	if b, err := os.ReadFile(out); err != nil || !strings.Contains(string(b), "BEGIN CERTIFICATE") {
		t.Errorf("credential %s, %v", b, err)
	}
	status, text = command(device.wiring, enrolArgs...)
	if status != exitRefused || !strings.Contains(text, "enrol-code") {
		t.Errorf("a used code ended with %d: %s", status, text)
	}
}

// TestEnrolCommandsOfToken enrols a key in a PKCS#11 token of another appliance
// as a person does, and reads the evidence of both kinds again.
func TestEnrolCommandsOfToken(t *testing.T) {
	device, maker := newTPMEnrollee(t, swtpm.Config{Endorsement: true})
	issuer := newEnrolIssuer(t, maker, device)
	if err := device.device.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The commands read the file; the service above had its members by hand.
	file := filepath.Join(issuer.wiring.config.dir, configName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(text), `"version": 1,`, `"version": 1, "issuer": {"url": "https://issuer.example/acme", "token_key": "tokens"},`, 1)
	if err := os.WriteFile(file, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	ca, dir := filepath.Join(issuer.wiring.config.dir, "server.pem"), t.TempDir()
	command := func(w *wiring, args ...string) (int, string) {
		t.Helper()
		var o, e strings.Builder
		status := run(context.Background(), append([]string{"--config", filepath.Join(w.config.dir, configName)}, args...), streams{strings.NewReader(""), &o, &e})
		return status, o.String() + e.String()
	}
	invite := func() string {
		t.Helper()
		code := filepath.Join(t.TempDir(), "code")
		if status, text := command(issuer.wiring, "credential", "invite", "--type", "sd-jwt", "--min-attestation", "stated", "--client", enrolClient, "--user", enrolUser, "--out", code); status != exitOK {
			t.Fatalf("invite ended with %d: %s", status, text)
		}
		return code
	}
	enrolWith := func(w *wiring, code string, more ...string) (int, string) {
		t.Helper()
		return command(w, append([]string{"credential", "enrol", issuer.url, "--server-ca", ca, "--code-file", code, "--holder", "leaf"}, more...)...)
	}
	// The issuer's own appliance is believed: its token key signs statements.
	code := invite()
	if status, text := enrolWith(issuer.wiring, code); status != exitLocal || !strings.Contains(text, "--appliance-key") {
		t.Errorf("without an appliance key: %d, %s", status, text)
	}
	if status, text := enrolWith(issuer.wiring, code, "--appliance-key", "stranger"); status != exitRefused || !strings.Contains(text, "enrol-statement") {
		t.Errorf("a stranger's statement: %d, %s", status, text)
	}
	// enrolled runs the command and returns the id of what was issued.
	enrolled := func(level string, w *wiring, code string, more ...string) string {
		t.Helper()
		status, text := enrolWith(w, code, more...)
		_, rest, ok := strings.Cut(text, "enrolled as ")
		if status != exitOK || !ok || !strings.Contains(text, "attestation "+level) {
			t.Fatalf("enrol ended with %d: %s", status, text)
		}
		id, _, _ := strings.Cut(rest, ",")
		return id
	}
	stated := enrolled("stated", issuer.wiring, code, "--appliance-key", "tokens", "--out", filepath.Join(dir, "stated.sd-jwt"))
	certified := enrolled("tpm-certified", device.wiring, invite(), "--out", filepath.Join(dir, "certified.sd-jwt"))
	for id, want := range map[string]string{stated: "verified: stated", certified: "verified: tpm-certified"} {
		if status, text := command(issuer.wiring, "credential", "evidence", id); status != exitOK || !strings.Contains(text, want) {
			t.Errorf("evidence of %s ended with %d: %s", id, status, text)
		}
		if status, text := command(issuer.wiring, "--json", "credential", "evidence", id); status != exitOK || !strings.Contains(text, `"verified": true`) {
			t.Errorf("evidence of %s as JSON ended with %d: %s", id, status, text)
		}
	}
	// What is not there, and what nothing was kept with.
	if status, text := command(issuer.wiring, "credential", "evidence", "no-id"); status != exitLocal {
		t.Errorf("no id: %d, %s", status, text)
	}
	if status, text := command(issuer.wiring, "credential", "evidence", string(registry.NewID())); status == exitOK {
		t.Errorf("an unknown id: %d, %s", status, text)
	}
	if status, text := command(issuer.wiring, "credential", "issue", "--type", "x509", "--issuer-key", "ca", "--holder", "leaf", "--client", enrolClient, "--user", enrolUser, "--out", filepath.Join(dir, "plain.pem")); status != exitOK {
		t.Fatalf("issue ended with %d: %s", status, text)
	}
	_, list := command(issuer.wiring, "credential", "list", "--type", "x509")
	for line := range strings.Lines(list) {
		if id := strings.Fields(line)[0]; strings.Contains(line, enrolClient) {
			if status, text := command(issuer.wiring, "credential", "evidence", id); status != exitRefused || !strings.Contains(text, "nothing was kept") {
				t.Errorf("evidence of what was not attested: %d, %s", status, text)
			}
		}
	}
}
