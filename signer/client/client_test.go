package client_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

func start(t testing.TB) (*rpctest.Server, *signertest.Device) {
	t.Helper()
	d := signertest.New()
	s := rpctest.Start(t, servicetest.New(t, map[string]signer.Device{"soft": d}, nil), "soft", nil)
	s.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	return s, d
}

func tbs(t testing.TB, text string) []byte {
	t.Helper()
	r, err := signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS("room", 1, text))
	if err != nil {
		t.Fatal(err)
	}
	return r.Octets()
}

// TestRemoteKeys uses remote keys as the standard library does.
func TestRemoteKeys(t *testing.T) {
	s, _ := start(t)
	s.Key("acme.init", signer.PurposeMLSInit, "soft")
	s.Key("acme.mac", signer.PurposeFrankMAC, "soft")
	s.Key("acme.raw", signer.PurposeRaw, "soft")
	c := s.Caller("acme", "bot", access.Client, "leaf:sign", "init:agree", "mac:mac", "raw:raw")
	ctx := t.Context()
	leaf, err := c.Signer(ctx, "leaf")
	if err != nil {
		t.Fatal(err)
	}
	message := tbs(t, "hello")
	sig, err := crypto.SignMessage(leaf, rand.Reader, message, crypto.SHA256)
	if err != nil || !credentials.ECDSAP256.Verify(leaf.Public(), message, sig) {
		t.Errorf("SignMessage: %v", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, leaf)
	if err != nil {
		t.Errorf("a certificate request: %v", err)
	} else if csr, err := x509.ParseCertificateRequest(der); err != nil || csr.CheckSignature() != nil {
		t.Errorf("a certificate request: %v", err)
	}
	digest := sha256.Sum256(message)
	if _, err := leaf.Sign(nil, digest[:], crypto.SHA256); err == nil {
		t.Error("a leaf key signed a digest")
	}
	raw, err := c.Signer(ctx, "raw")
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = raw.Sign(nil, digest[:], crypto.SHA256); err != nil || !credentials.ECDSAP256.Verify(raw.Public(), message, sig) {
		t.Errorf("a digest: %v", err)
	}
	if sig, err = raw.SignMessage(nil, message, nil); err != nil || !credentials.ECDSAP256.Verify(raw.Public(), message, sig) {
		t.Errorf("a message with a raw key: %v", err)
	}
	x, err := c.KeyExchanger(ctx, "init")
	if err != nil {
		t.Fatal(err)
	}
	private, err := hpke.NewDHKEMPrivateKey(x)
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(private.PublicKey(), hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sender.Seal([]byte("aad"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.AES128GCM(), []byte("info"))
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := receiver.Open([]byte("aad"), sealed); err != nil || string(opened) != "secret" {
		t.Errorf("HPKE through the service: %q, %v", opened, err)
	}
	if mac, err := c.MAC("mac").MAC(ctx, []byte("data")); err != nil || len(mac) != 32 {
		t.Errorf("%x, %v", mac, err)
	}
	if _, err := c.KeyExchanger(ctx, "leaf"); err == nil {
		t.Log("a P-256 signing key parses as a key for agreement; the service refuses its use")
		other, _ := ecdh.P256().GenerateKey(rand.Reader)
		y, _ := c.KeyExchanger(ctx, "leaf")
		if _, err := y.ECDH(other.PublicKey()); err == nil {
			t.Error("a leaf key agreed on a secret")
		}
	}
	// Another tenant's caller does not find it.
	_, err = s.Caller("other", "bot", access.Admin, "*:sign").Signer(ctx, "leaf")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != "NOT_FOUND" {
		t.Errorf("another tenant: %v", err)
	}
}

// TestReconnects signs across restarts of the server.
func TestReconnects(t *testing.T) {
	s, _ := start(t)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	leaf, err := c.Signer(t.Context(), "leaf")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		message := tbs(t, fmt.Sprint(i))
		if sig, err := leaf.SignMessage(nil, message, nil); err != nil || !credentials.ECDSAP256.Verify(leaf.Public(), message, sig) {
			t.Errorf("after %d restarts: %v", i, err)
		}
		s.Restart()
	}
}

// TestRetries: what the service says may be asked again is, and nothing else.
func TestRetries(t *testing.T) {
	s, d := start(t)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	leaf, err := c.Signer(t.Context(), "leaf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.SignMessage(nil, tbs(t, "first"), nil); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	remedy := signer.RemedyRetry
	d.Fault = func(step signertest.Step, p signertest.Phase) error {
		if step != signertest.StepSign || p != signertest.Before {
			return nil
		}
		if n := calls.Add(1); remedy == signer.RemedyRetry && n > 2 {
			return nil
		}
		return &signer.DeviceError{Device: "soft", Op: "sign", Remedy: remedy, Err: errors.New("CKR_DEVICE_ERROR")}
	}
	message := tbs(t, "second")
	if sig, err := leaf.SignMessage(nil, message, nil); err != nil || calls.Load() != 3 || !credentials.ECDSAP256.Verify(leaf.Public(), message, sig) {
		t.Errorf("a device that comes back: %v after %d calls", err, calls.Load())
	}
	calls.Store(0)
	remedy = signer.RemedyOperator
	_, err = leaf.SignMessage(nil, tbs(t, "third"), nil)
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Action != client.AskOperator || e.Reason != "DEVICE_FAILED" || calls.Load() != 1 {
		t.Errorf("a device that needs somebody: %v after %d calls", err, calls.Load())
	}
	d.Fault = nil
	if _, err := s.Ring.Rotate(t.Context(), "acme.leaf", ""); err != nil {
		t.Fatal(err)
	}
	_, err = leaf.SignMessage(nil, message, nil)
	if e, ok = errors.AsType[*client.Error](err); !ok || e.Reason != "KEY_STATE" {
		t.Errorf("a rotated key: %v", err)
	}
}

func TestEnrollAndRenew(t *testing.T) {
	s, _ := start(t)
	anonymous, dir := s.Anonymous(), t.TempDir()
	token := s.Invite("acme", "bot", access.Client, "leaf:sign")
	if _, err := client.Enroll(t.Context(), anonymous, dir, token[:len(token)-2]+"AA"); err == nil {
		t.Error("enrolled with a wrong token")
	}
	identity, err := client.Enroll(t.Context(), anonymous, dir, token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Enroll(t.Context(), anonymous, dir, token); err == nil {
		t.Error("enrolled over an identity")
	}
	if _, err := os.Stat(filepath.Join(dir, "enrolling.pem")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key of the enrollment is left: %v", err)
	}
	c := s.Client(identity, nil)
	before := identity.Leaf().SerialNumber
	if err := identity.Renew(t.Context(), c); err != nil || identity.Leaf().SerialNumber.Cmp(before) == 0 {
		t.Errorf("renewed: %v", err)
	}
	again, err := client.OpenIdentity(dir)
	if err != nil || again.Leaf().SerialNumber.Cmp(identity.Leaf().SerialNumber) != 0 {
		t.Errorf("read again: %v", err)
	}
	if left := time.Until(identity.RenewAfter()); left < 100*time.Hour || left > 120*time.Hour {
		t.Errorf("renew in %v of seven days", left)
	}
	if _, err := c.Signer(t.Context(), "leaf"); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
	if _, err := s.Access.Revoke(t.Context(), "acme", "bot", "gone"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Signer(t.Context(), "leaf")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != "UNAUTHENTICATED" || e.Action != client.AskOperator {
		t.Errorf("revoked, on an open connection: %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, "identity.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := client.OpenIdentity(dir); err == nil {
		t.Error("an identity that others may read was opened")
	}
}

// TestCorruptAnswers stands between client and service and changes octets.
func TestCorruptAnswers(t *testing.T) {
	for _, what := range []string{"signature", "checksum"} {
		t.Run(what, func(t *testing.T) {
			s, d := start(t)
			c := s.Client(s.Identity("acme", "bot", access.Client, "leaf:sign"), func(c *client.Config) { c.Attempts = 2 })
			leaf, err := c.Signer(t.Context(), "leaf")
			if err != nil {
				t.Fatal(err)
			}
			var signed atomic.Int64
			d.Fault = func(step signertest.Step, p signertest.Phase) error {
				if step == signertest.StepSign && p == signertest.After {
					signed.Add(1)
				}
				return nil
			}
			changed := leaf.WithCall(func(m *signerv1.SignResponse) {
				if what == "signature" {
					m.Signature = bytes.Clone(m.Signature)
					m.Signature[len(m.Signature)-1] ^= 1
				} else {
					m.SignatureCrc32C ^= 1
				}
			})
			if _, err := changed.SignMessage(nil, tbs(t, "x"), nil); !errors.Is(err, client.ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
			if signed.Load() != 1 {
				t.Errorf("the device signed %d times for one idempotency key", signed.Load())
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	pool := x509.NewCertPool()
	for _, c := range []client.Config{
		{Address: "http://127.0.0.1:1", Roots: pool}, {Address: "https://u:p@127.0.0.1:1", Roots: pool}, {Address: "127.0.0.1:1", Roots: pool}, {Address: "https://127.0.0.1:1"},
	} {
		if _, err := client.New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	c, err := client.New(client.Config{Address: "https://127.0.0.1:1", Roots: pool, Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = c.Signer(ctx, "leaf")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Action != client.Retry {
		t.Errorf("nobody there: %v", err)
	}
}
