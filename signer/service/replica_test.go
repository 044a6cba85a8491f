package service_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"testing"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

// TestJournalNamesTheReplica has the other device of each key do the work while
// its own is away: the entries say so, also of what none of them could do.
func TestJournalNamesTheReplica(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	a, b := signertest.NewDir(first), signertest.NewDir(second)
	h := servicetest.New(t, map[string]signer.Device{"a": a, "b": b}, nil)
	for id, p := range map[signer.KeyID]signer.Purpose{"acme.leaf": signer.PurposeMLSLeaf, "acme.init": signer.PurposeMLSInit, "acme.mac": signer.PurposeFrankMAC} {
		uri := h.Key(id, p, "a").Active().URI
		if err := errors.Join(os.RemoveAll(second), os.CopyFS(second, os.DirFS(first))); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Ring.AddReplica(t.Context(), id, 1, "b", uri); err != nil {
			t.Fatal(err)
		}
	}
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign", "init:agree", "mac:mac")
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	work := func() error {
		_, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, "x")})
		_, _, agree := h.Service.Agree(t.Context(), bot, &service.AgreeRequest{Key: "init", PublicKey: peer.PublicKey().Bytes()})
		_, _, mac := h.Service.MAC(t.Context(), bot, &service.MACRequest{Key: "mac", Data: []byte("x")})
		return errors.Join(err, agree, mac)
	}
	if err := work(); err != nil {
		t.Fatal(err)
	}
	a.Fault = away("a")
	if err := work(); err != nil {
		t.Fatal(err)
	}
	b.Fault = away("b")
	wants(t, "both away", work(), service.DeviceRetry, service.Retry)
	devices := make(map[string]int)
	for e, err := range h.Journal.Entries(t.Context(), 3) {
		if err != nil {
			t.Fatal(err)
		}
		devices[string(e.Intent.Operation)+" "+string(e.Outcome.Result)+" "+e.Outcome.Device]++
	}
	for _, want := range []string{"sign signed b", "agree signed b", "mac signed b"} {
		if devices[want] != 1 {
			t.Errorf("no %q in %v", want, devices)
		}
	}
}

// away is the fault of a device that cannot be reached.
func away(device string) func(signertest.Step, signertest.Phase) error {
	return func(s signertest.Step, _ signertest.Phase) error {
		return &signer.DeviceError{Device: device, Op: string(s), Remedy: signer.RemedyRetry, Err: errors.New("CKR_DEVICE_REMOVED")}
	}
}
