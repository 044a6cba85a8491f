package service_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

func newHouse(t testing.TB, change func(*service.Config)) (*servicetest.House, *signertest.Device) {
	d := signertest.New()
	return servicetest.New(t, map[string]signer.Device{"soft": d}, change), d
}

func message(group string, epoch uint64, text string) service.Input {
	return service.MLS([]byte("FramedContentTBS"), signertest.ApplicationTBS(group, epoch, text))
}

func commit(group string, epoch uint64, text string) service.Input {
	return service.MLS([]byte("FramedContentTBS"), signertest.CommitTBS(group, epoch, text))
}

// wants checks the reason and the action of an error.
func wants(t testing.TB, what string, err error, reason service.Reason, action service.Action) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %s", what, reason)
		return
	}
	if e := service.Explain(err); e.Reason != reason || e.Action != action {
		t.Errorf("%s: %s, %s (%v), want %s, %s", what, e.Reason, e.Action, err, reason, action)
	}
}

func TestSignEveryInput(t *testing.T) {
	h, _ := newHouse(t, nil)
	bot := servicetest.Client(t, "acme", "bot", "*:sign,raw")
	for id, p := range map[signer.KeyID]signer.Purpose{"acme.leaf": signer.PurposeMLSLeaf, "acme.issuer": signer.PurposeCredentialIssuer, "acme.raw": signer.PurposeRaw} {
		h.Key(id, p, "soft")
	}
	digest := sha256.Sum256([]byte("x"))
	content := signertest.ApplicationTBS("room", 1, "hi")
	for _, c := range []struct {
		key   string
		input service.Input
		tbs   func() (*signer.Request, error)
		raw   bool
	}{
		{"leaf", service.MLS([]byte("FramedContentTBS"), content), func() (*signer.Request, error) { return signer.MLSRequest("FramedContentTBS", content) }, false},
		{"issuer", service.JWS([]byte(`{"alg":"ES256"}`), []byte(`{"a":1}`)), func() (*signer.Request, error) {
			return signer.JWSRequest([]byte(`{"alg":"ES256"}`), []byte(`{"a":1}`))
		}, true},
		{"issuer", service.COSE([]byte{0xa1, 1, 0x26}, nil, []byte{0xa0}), func() (*signer.Request, error) {
			return signer.COSERequest([]byte{0xa1, 1, 0x26}, nil, []byte{0xa0})
		}, true},
		{"raw", service.Digest("SHA-256", digest[:]), nil, false},
	} {
		out, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: c.key, Input: c.input})
		if err != nil {
			t.Errorf("%s: %v", c.key, err)
			continue
		}
		key, err := h.Keys.Key(t.Context(), signer.KeyID("acme."+c.key))
		if err != nil {
			t.Fatal(err)
		}
		pub, err := key.Active().PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		good := false
		switch {
		case c.tbs == nil:
			good = ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest[:], out.Signature)
		default:
			r, err := c.tbs()
			if err != nil {
				t.Fatal(err)
			}
			if c.raw {
				good = credentials.ECDSAP256.VerifyRaw(pub, r.Octets(), out.Signature)
			} else {
				good = credentials.ECDSAP256.Verify(pub, r.Octets(), out.Signature)
			}
		}
		if !good || out.Name != "keys/"+c.key+"/versions/1" || out.KID != key.Active().KID || out.Reservation == 0 {
			t.Errorf("%s: %+v, verifies: %v", c.key, out, good)
		}
	}
}

// TestTenantsDoNotSeeEachOther: every call for another tenant's key answers
// exactly as for one that does not exist.
func TestTenantsDoNotSeeEachOther(t *testing.T) {
	h, d := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	h.Key("acme.init", signer.PurposeMLSInit, "soft")
	h.Key("acme.mac", signer.PurposeFrankMAC, "soft")
	h.Key("house", signer.PurposeMLSLeaf, "soft")
	var touched atomic.Int64
	d.Fault = func(signertest.Step, signertest.Phase) error { touched.Add(1); return nil }
	admin := &access.Caller{Tenant: "other", Name: "root", Role: access.Admin, Grants: servicetest.Client(t, "", "", "*:sign,raw,mac,agree").Grants}
	client := servicetest.Client(t, "acme", "bot", "elsewhere:sign,raw,mac,agree")
	s, ctx := h.Service, t.Context()
	calls := map[string]func(c *access.Caller, key string) error{
		"sign": func(c *access.Caller, key string) error {
			_, err := s.Sign(ctx, c, &service.SignRequest{Key: key, Input: message("r", 1, "")})
			return err
		},
		"mac": func(c *access.Caller, key string) error {
			_, _, err := s.MAC(ctx, c, &service.MACRequest{Key: key, Data: []byte("x")})
			return err
		},
		"agree": func(c *access.Caller, key string) error {
			_, _, err := s.Agree(ctx, c, &service.AgreeRequest{Key: key, PublicKey: []byte("x")})
			return err
		},
		"report": func(c *access.Caller, key string) error {
			return s.ReportRejected(ctx, c, key, []byte("r"), 1, make([]byte, 32), "")
		},
		"get": func(c *access.Caller, key string) error { _, err := s.Key(ctx, c, key); return err },
		"attest": func(c *access.Caller, key string) error {
			_, err := s.AttestKeyVersion(ctx, c, key, 1, nil)
			return err
		},
	}
	manage := map[string]func(c *access.Caller, key string) error{
		"rotate":  func(c *access.Caller, key string) error { _, err := s.RotateKey(ctx, c, key, ""); return err },
		"disable": func(c *access.Caller, key string) error { _, err := s.DisableKey(ctx, c, key, ""); return err },
		"destroy": func(c *access.Caller, key string) error { _, err := s.DestroyKeyVersion(ctx, c, key, 1); return err },
	}
	try := func(name string, f func(*access.Caller, string) error, c *access.Caller, keys ...string) {
		none := f(c, "absent")
		for _, key := range keys {
			err := f(c, key)
			wants(t, name+" "+key, err, service.NotFound, service.FixRequest)
			if err != nil && string(bytes.ReplaceAll([]byte(err.Error()), []byte(key), []byte("absent"))) != none.Error() {
				t.Errorf("%s tells %s from a key that is not there: %q, %q", name, key, err, none)
			}
		}
	}
	for name, f := range calls {
		try(name, f, admin, "leaf", "init", "mac", "house")
		try(name, f, client, "leaf", "init", "mac", "house")
	}
	for name, f := range manage {
		try(name, f, admin, "leaf", "init", "mac", "house")
		wants(t, name+" by a client", f(client, "leaf"), service.RoleRequired, service.FixRequest)
	}
	for _, key := range []string{"acme.leaf", "../acme.leaf", "", "LEAF", ".leaf"} {
		wants(t, "a key named "+key, calls["sign"](admin, key), service.BadRequest, service.FixRequest)
	}
	for _, c := range []*access.Caller{admin, client} {
		if keys, more, err := s.Keys(ctx, c, "", 0); err != nil || len(keys) != 0 || more {
			t.Errorf("%s lists %v, %v", c.Name, keys, err)
		}
	}
	if touched.Load() != 0 {
		t.Errorf("the device was asked %d times", touched.Load())
	}
	// The name is free in the other tenant: creation tells nothing either.
	if _, err := s.CreateKey(ctx, admin, signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf}); err != nil {
		t.Errorf("a key of the same name in the other tenant: %v", err)
	}
}

func TestGrantsAndPolicy(t *testing.T) {
	h, _ := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	h.Key("acme.raw", signer.PurposeRaw, "soft")
	digest := sha256.Sum256(nil)
	sign := func(c *access.Caller, key string, in service.Input) error {
		_, err := h.Service.Sign(t.Context(), c, &service.SignRequest{Key: key, Input: in})
		return err
	}
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign", "raw:sign")
	wants(t, "a digest without a grant", sign(bot, "raw", service.Digest("SHA-256", digest[:])), service.RoleRequired, service.FixRequest)
	wants(t, "a digest with a leaf key", sign(servicetest.Client(t, "acme", "bot", "leaf:raw"), "leaf", service.Digest("SHA-256", digest[:])), service.PurposeDenied, service.FixRequest)
	wants(t, "what is no shape", sign(bot, "leaf", service.Octets([]byte("hello"))), service.PurposeDenied, service.FixRequest)
	wants(t, "MLS that is none", sign(bot, "leaf", service.MLS([]byte("LeafNodeTBS"), []byte("x"))), service.PurposeDenied, service.FixRequest)
	h.Policy(`{"version":1,"rules":[
		{"id":"no-room-x","effect":"deny","when":"mls.group == b'x'","message":"room x is closed"},
		{"id":"messages","effect":"allow","when":"mls.content_type == 'application' && caller.tenant == 'acme'"}]}`)
	if err := sign(bot, "leaf", message("a", 1, "")); err != nil {
		t.Error(err)
	}
	err := sign(bot, "leaf", message("x", 1, ""))
	wants(t, "a denied room", err, service.PolicyDenied, service.FixRequest)
	if e := service.Explain(err); e.Metadata["rule"] != "no-room-x" || e.Metadata["policy"] != h.Service.Policy().Version() {
		t.Errorf("the refusal says %v", e.Metadata)
	}
	wants(t, "what no rule allows", sign(bot, "leaf", commit("a", 1, "")), service.PolicyDenied, service.FixRequest)
}

// TestGuard: a second Commit of an epoch is refused, until the first is
// reported as rejected.
func TestGuard(t *testing.T) {
	h, _ := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	sign := func(in service.Input) error {
		_, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: in})
		return err
	}
	if err := errors.Join(sign(commit("room", 5, "a")), sign(commit("room", 5, "a"))); err != nil {
		t.Fatal(err)
	}
	wants(t, "another Commit", sign(commit("room", 5, "b")), service.GuardDenied, service.FixRequest)
	r, err := signer.MLSRequest("FramedContentTBS", signertest.CommitTBS("room", 5, "a"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(r.Octets())
	if err := h.Service.ReportRejected(t.Context(), bot, "leaf", []byte("room"), 5, digest[:], "wrong epoch"); err != nil {
		t.Fatal(err)
	}
	if err := sign(commit("room", 5, "b")); err != nil {
		t.Errorf("after the report: %v", err)
	}
	wants(t, "an epoch that is over", sign(message("room", 4, "")), service.GuardDenied, service.FixRequest)
}

func TestIdempotencyAndChecksum(t *testing.T) {
	h, d := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	var signed atomic.Int64
	d.Fault = func(s signertest.Step, p signertest.Phase) error {
		if s == signertest.StepSign && p == signertest.After {
			signed.Add(1)
		}
		return nil
	}
	content := signertest.ApplicationTBS("room", 1, "x")
	sum := service.Checksum([]byte("FramedContentTBS"), content)
	ask := func(key string, text string) (*service.Signed, error) {
		return h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, text), Checksum: &sum, IdempotencyKey: key})
	}
	first, err := ask("k1", "x")
	if err != nil || !first.Checked {
		t.Fatal(first, err)
	}
	again, err := ask("k1", "x")
	if err != nil || !again.Replayed || !bytes.Equal(first.Signature, again.Signature) || signed.Load() != 1 {
		t.Errorf("the same again: %+v, %v; signed %d times", again, err, signed.Load())
	}
	_, err = ask("k2", "y")
	wants(t, "a changed octet", err, service.BadChecksum, service.Retry)
	_, err = h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, "other"), IdempotencyKey: "k1"})
	wants(t, "the key for another request", err, service.KeyReused, service.FixRequest)
	other := servicetest.Client(t, "acme", "bot2", "leaf:sign")
	out, err := h.Service.Sign(t.Context(), other, &service.SignRequest{Key: "leaf", Input: message("room", 1, "other"), IdempotencyKey: "k1"})
	if err != nil || out.Replayed {
		t.Errorf("another caller's idempotency key: %+v, %v", out, err)
	}
}

// failing is a journal whose steps fail.
type failing struct {
	service.Journal
	reserve bool
}

func (f *failing) Reserve(ctx context.Context, in journal.Intent) (*journal.Reservation, error) {
	if f.reserve {
		return nil, fmt.Errorf("%w: disk full", journal.ErrDown)
	}
	return f.Journal.Reserve(ctx, in)
}

func TestNoJournalNoSignature(t *testing.T) {
	f := &failing{}
	h, d := newHouse(t, func(c *service.Config) { f.Journal, c.Journal = c.Journal, f })
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	req := &service.SignRequest{Key: "leaf", Input: message("room", 1, "x")}
	if _, err := h.Service.Sign(t.Context(), bot, req); err != nil {
		t.Fatal(err)
	}
	f.reserve = true
	d.Fault = func(s signertest.Step, _ signertest.Phase) error {
		t.Errorf("the device was asked to %s", s)
		return nil
	}
	_, err := h.Service.Sign(t.Context(), bot, req)
	wants(t, "without a journal", err, service.JournalDown, service.Retry)
	d.Fault, f.reserve = nil, false
	// The journal closes while the device works: the signature is not released.
	d.Fault = func(s signertest.Step, p signertest.Phase) error {
		if s == signertest.StepSign && p == signertest.Before {
			h.Journal.Close()
		}
		return nil
	}
	out, err := h.Service.Sign(t.Context(), bot, req)
	wants(t, "completed without a journal", err, service.JournalDown, service.Retry)
	if out != nil {
		t.Error("a signature was released that no journal has")
	}
}

// TestAnotherNodeWasFirst: while the device works, another node signs the request
// with the same idempotency key. Its signature is the answer, and ours is dropped.
func TestAnotherNodeWasFirst(t *testing.T) {
	source := filepath.Join(t.TempDir(), "journal.db")
	var nodes [2]*journal.Journal
	for i := range nodes {
		var err error
		if nodes[i], err = journal.Open(t.Context(), source, nil); err != nil {
			t.Fatal(err)
		}
		defer nodes[i].Close()
	}
	h, d := newHouse(t, func(c *service.Config) { c.Journal = nodes[0] })
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	ask := func(text string) *service.SignRequest {
		return &service.SignRequest{Key: "leaf", Input: message("room", 1, text), IdempotencyKey: text}
	}
	if _, err := h.Service.Sign(t.Context(), bot, ask("warm")); err != nil {
		t.Fatal(err)
	}
	for _, batch := range []bool{false, true} {
		name := fmt.Sprint("batch ", batch)
		var once sync.Once
		var made int
		d.Fault = func(s signertest.Step, p signertest.Phase) error {
			if s == signertest.StepSign && p == signertest.After {
				made++
			}
			if s != signertest.StepSign || p != signertest.Before {
				return nil
			}
			once.Do(func() {
				r, err := signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS("room", 1, name))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := nodes[1].Reserve(t.Context(), journal.Intent{Tenant: "acme", Caller: "bot", Key: "acme.leaf", Version: 1,
					Purpose: signer.PurposeMLSLeaf, Request: r, IdempotencyKey: name})
				if err == nil {
					err = res.Complete(t.Context(), journal.Outcome{Result: journal.Signed, Signature: []byte("of another node")})
				}
				if err != nil {
					t.Error(err)
				}
			})
			return nil
		}
		var out *service.Signed
		var err error
		if batch {
			all, failed := h.Service.Batch(t.Context(), bot, []*service.SignRequest{ask(name)})
			if failed != nil {
				t.Fatal(failed)
			}
			out, err = all[0].Signed, all[0].Err
		} else {
			out, err = h.Service.Sign(t.Context(), bot, ask(name))
		}
		if err != nil || string(out.Signature) != "of another node" || !out.Replayed || out.Reservation != 0 || made != 1 {
			t.Errorf("%s: %+v, %v; the device made %d", name, out, err, made)
		}
	}
	dropped := 0
	if _, err := nodes[0].Verify(t.Context(), func(e *journal.Entry) error {
		if e.Outcome.ErrorClass == "dropped" {
			dropped++
		}
		return nil
	}); err != nil || dropped != 2 {
		t.Errorf("%d entries of what was dropped, %v", dropped, err)
	}
}

func TestDeviceErrors(t *testing.T) {
	h, d := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	sign := func() error {
		_, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, "x")})
		return err
	}
	if err := sign(); err != nil {
		t.Fatal(err)
	}
	for remedy, want := range map[signer.Remedy]struct {
		reason service.Reason
		action service.Action
	}{
		signer.RemedyRetry: {service.DeviceRetry, service.Retry}, signer.RemedyLogin: {service.DeviceRetry, service.Retry},
		signer.RemedyOperator: {service.DeviceOperator, service.AskOperator},
	} {
		d.Fault = func(s signertest.Step, p signertest.Phase) error {
			if s != signertest.StepSign {
				return nil
			}
			return &signer.DeviceError{Device: "soft", Op: "sign", Remedy: remedy, Err: errors.New("CKR_DEVICE_ERROR")}
		}
		wants(t, string(remedy), sign(), want.reason, want.action)
	}
	d.Fault = nil
	d.Garble = func(sig []byte) []byte { sig[len(sig)-1] ^= 1; return sig }
	wants(t, "a wrong signature", sign(), service.DeviceSuspect, service.AskOperator)
}

func TestRotatedMeanwhile(t *testing.T) {
	h, _ := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	sign := func(version int) (*service.Signed, error) {
		return h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Version: version, Input: message("room", 1, "x")})
	}
	if _, err := sign(1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Ring.Rotate(t.Context(), "acme.leaf", ""); err != nil { // by another process
		t.Fatal(err)
	}
	out, err := sign(0)
	if err != nil || out.Name != "keys/leaf/versions/2" {
		t.Errorf("after the rotation: %+v, %v", out, err)
	}
	_, err = sign(1)
	wants(t, "the old version", err, service.KeyState, service.FixRequest)
	operator := &access.Caller{Tenant: "acme", Name: "op", Role: access.Operator}
	if _, err := h.Service.DisableKey(t.Context(), operator, "leaf", "leaked"); err != nil {
		t.Fatal(err)
	}
	_, err = sign(0)
	wants(t, "a disabled key", err, service.KeyState, service.FixRequest)
	if _, err := h.Service.RotateKey(t.Context(), operator, "leaf", ""); err != nil {
		t.Fatal(err)
	}
	if out, err := sign(0); err != nil || out.Name != "keys/leaf/versions/3" {
		t.Errorf("rotated after it was disabled: %+v, %v", out, err)
	}
}

func TestAgreeMACAndFrank(t *testing.T) {
	h, _ := newHouse(t, nil)
	h.Key("acme.init", signer.PurposeMLSInit, "soft")
	h.Key("acme.mac", signer.PurposeFrankMAC, "soft")
	h.Key("acme.frank", signer.PurposeFrankSign, "soft")
	bot := servicetest.Client(t, "acme", "bot", "init:agree", "mac:mac", "frank:sign")
	key, err := h.Keys.Key(t.Context(), "acme.init")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(key.Active().Public)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := h.Service.Agree(t.Context(), bot, &service.AgreeRequest{Key: "init", PublicKey: theirs.PublicKey().Bytes()})
	ours, _ := pub.(*ecdsa.PublicKey).ECDH()
	want, _ := theirs.ECDH(ours)
	if err != nil || !bytes.Equal(secret, want) {
		t.Errorf("the shared secret differs: %v", err)
	}
	_, _, err = h.Service.Agree(t.Context(), bot, &service.AgreeRequest{Key: "init", PublicKey: make([]byte, 65)})
	wants(t, "no point", err, service.BadRequest, service.FixRequest)
	mac1, _, err := h.Service.MAC(t.Context(), bot, &service.MACRequest{Key: "mac", Data: []byte("x"), IdempotencyKey: "m"})
	if err != nil || len(mac1) != 32 {
		t.Errorf("%x, %v", mac1, err)
	}
	frank := &service.FrankRequest{MACKey: "mac", SignKey: "frank", FrankingTag: make([]byte, 32), CipherSuite: 2,
		SenderURI: "mimi://a.example/u/alice", RoomURI: "mimi://a.example/r/room", AcceptedTimestamp: 7, IdempotencyKey: "f"}
	first, err := h.Service.Frank(t.Context(), bot, frank)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.Service.Frank(t.Context(), bot, frank)
	if err != nil || !bytes.Equal(first.IntegritySignature, again.IntegritySignature) {
		t.Errorf("the same again: %v", err)
	}
	frank.FrankingTag = nil
	_, err = h.Service.Frank(t.Context(), bot, frank)
	wants(t, "no tag", err, service.BadRequest, service.FixRequest)
}

func TestBudgetAndBatch(t *testing.T) {
	h, _ := newHouse(t, func(c *service.Config) { c.Rates = admit.Rates{Caller: admit.Rate{PerSecond: 0.001, Burst: 5}} })
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	var batch []*service.SignRequest
	for i := range 4 {
		batch = append(batch, &service.SignRequest{Key: "leaf", Input: message("room", 1, fmt.Sprint(i))})
	}
	batch[1] = &service.SignRequest{Key: "absent", Input: message("room", 1, "x")}
	batch[2] = &service.SignRequest{Key: "leaf"}
	results, err := h.Service.Batch(t.Context(), bot, batch)
	if err != nil || results[0].Err != nil || results[3].Err != nil {
		t.Fatalf("%+v, %v", results, err)
	}
	wants(t, "a key that is not there", results[1].Err, service.NotFound, service.FixRequest)
	wants(t, "no input", results[2].Err, service.BadRequest, service.FixRequest)
	for range 3 {
		if _, err := h.Service.Sign(t.Context(), bot, batch[0]); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.Service.Sign(t.Context(), bot, batch[0])
	wants(t, "beyond the budget", err, service.Overloaded, service.Retry)
	if _, err := h.Service.Batch(t.Context(), bot, make([]*service.SignRequest, 257)); err == nil {
		t.Error("a batch of 257 was taken")
	}
}

// TestHouseSignerIsJournaled signs a certificate with a key that no caller has.
func TestHouseSignerIsJournaled(t *testing.T) {
	var done []service.Done
	var mu sync.Mutex
	h, _ := newHouse(t, func(c *service.Config) {
		c.Hooks.Done = func(_ context.Context, d service.Done) { mu.Lock(); done = append(done, d); mu.Unlock() }
	})
	h.Policy(`{"version":1,"rules":[]}`)
	h.Key("caller-ca", signer.PurposeX509CA, "soft")
	ca, err := access.NewAuthority(h.Access, 0, func(ctx context.Context) (crypto.Signer, error) {
		return h.Service.HouseSigner(ctx, "caller-ca", signer.PurposeX509CA, "caller-ca")
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := ca.Root(t.Context())
	if err != nil || root.CheckSignatureFrom(root) != nil {
		t.Fatal(err)
	}
	head, err := h.Journal.Head(t.Context())
	if err != nil || head.Entries != 1 {
		t.Errorf("the journal has %+v, %v", head, err)
	}
}

// TestOverload asks for ten times what the device can do. What is accepted
// stays fast, the rest is sent away at once with a time, and a tenant that asks
// for little is served.
func TestOverload(t *testing.T) {
	const each = 5 * time.Millisecond
	device := make(chan struct{}, 1)
	h, d := newHouse(t, func(c *service.Config) {
		c.Gate = admit.Options{Inside: 2, MaxWait: 150 * time.Millisecond}
	})
	h.Key("greedy.leaf", signer.PurposeMLSLeaf, "soft")
	h.Key("modest.leaf", signer.PurposeMLSLeaf, "soft")
	d.Fault = func(s signertest.Step, p signertest.Phase) error {
		if s == signertest.StepSign && p == signertest.Before {
			device <- struct{}{}
			time.Sleep(each)
			<-device
		}
		return nil
	}
	ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	type count struct{ ok, shed atomic.Int64 }
	var greedy, modest count
	var slow atomic.Int64
	ask := func(tenant string, n *count, pause time.Duration) {
		bot := servicetest.Client(t, tenant, "bot", "leaf:sign")
		for i := 0; ctx.Err() == nil; i++ {
			begin := time.Now()
			_, err := h.Service.Sign(context.Background(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, fmt.Sprint(i))})
			took := time.Since(begin)
			switch {
			case err == nil:
				n.ok.Add(1)
				if took > time.Second/2 {
					slow.Add(1)
				}
			case service.Explain(err).Reason == service.Overloaded && service.Explain(err).RetryAfter > 0:
				n.shed.Add(1)
			default:
				t.Errorf("%s: %v", tenant, err)
			}
			time.Sleep(pause)
		}
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { ask("greedy", &greedy, 10*time.Millisecond) })
	}
	wg.Go(func() { ask("modest", &modest, 20*time.Millisecond) })
	wg.Wait()
	t.Logf("greedy: %d signed, %d shed; modest: %d signed, %d shed; slow: %d", greedy.ok.Load(), greedy.shed.Load(), modest.ok.Load(), modest.shed.Load(), slow.Load())
	if greedy.shed.Load() == 0 || greedy.ok.Load() == 0 {
		t.Error("ten times too much was asked, and nothing was shed, or everything")
	}
	ok, asked := modest.ok.Load(), modest.ok.Load()+modest.shed.Load()
	if others := greedy.ok.Load(); ok == 0 || ok*(others+greedy.shed.Load()) < 5*others*asked {
		t.Errorf("the modest tenant was served %d of %d times", ok, asked)
	}
	const due = int64(1500 * time.Millisecond / each)
	if ok+greedy.ok.Load() > due/3 && (ok < 5 || asked > ok+ok/5) { // where the machine leaves the device its pace
		t.Errorf("the modest tenant was served only %d of %d times", ok, asked)
	}
}

// TestKeysInPages lists what a caller sees of many keys, page by page.
func TestKeysInPages(t *testing.T) {
	h, _ := newHouse(t, nil)
	for _, id := range []signer.KeyID{"acme.a1", "acme.b1", "acme.a2", "acme.b2", "acme.a3", "acme.b3", "other.a4"} {
		h.Key(id, signer.PurposeMLSLeaf, "soft")
	}
	bot := servicetest.Client(t, "acme", "bot", "a*:sign")
	var got []string
	for after, more := "", true; more; {
		var page []*signer.Key
		var err error
		if page, more, err = h.Service.Keys(t.Context(), bot, after, 2); err != nil || len(page) == 0 || len(page) > 2 {
			t.Fatalf("%d keys, %v", len(page), err)
		}
		for _, k := range page {
			after = service.Name(bot, k)
			got = append(got, after)
		}
	}
	if fmt.Sprint(got) != "[a1 a2 a3]" {
		t.Errorf("the caller lists %v", got)
	}
	_, _, err := h.Service.Keys(t.Context(), bot, "no such\x00token", 2)
	wants(t, "a page token that is no name", err, service.BadRequest, service.FixRequest)
}
