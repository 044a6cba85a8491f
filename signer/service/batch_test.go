package service_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

// stages counts the stages that begin.
type stages struct {
	mu sync.Mutex // guards n
	n  map[service.Stage]int
}

func (s *stages) hook(c *service.Config) {
	s.n = make(map[service.Stage]int)
	c.Hooks.Stage = func(ctx context.Context, stage service.Stage) (context.Context, func(error)) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n[stage]++
		return ctx, func(error) {}
	}
}

// TestBatchGoesAsOne: a batch is told to the journal twice, whatever becomes of
// its items, and each has its own answer.
func TestBatchGoesAsOne(t *testing.T) {
	var seen stages
	h, _ := newHouse(t, seen.hook)
	h.Policy(`{"version":1,"rules":[{"id":"no","effect":"deny","when":"mls.epoch == 99u"},{"id":"yes","effect":"allow","when":"true"}]}`)
	for _, id := range []signer.KeyID{"acme.leaf-a", "acme.leaf-b"} {
		h.Key(id, signer.PurposeMLSLeaf, "soft")
	}
	bot := servicetest.Client(t, "acme", "bot", "leaf-*:sign")
	sum := service.Checksum([]byte("else"))
	batch := []*service.SignRequest{
		{Key: "leaf-a", Input: commit("room", 7, "a")},
		{Key: "leaf-a", Input: commit("room", 7, "b")},
		{Key: "leaf-b", Input: commit("room", 7, "b"), Format: service.FormatRaw},
		{Key: "leaf-a", Input: message("room", 99, "x")},
		{Key: "leaf-a", Input: message("room", 7, "x"), Checksum: &sum},
		{Key: "leaf-b", Input: message("room", 7, "x"), IdempotencyKey: "once"},
		{Key: "leaf-b", Input: message("room", 7, "x"), IdempotencyKey: "once"},
		{Key: "leaf-a", Version: 2, Input: message("room", 7, "x")},
	}
	results, err := h.Service.Batch(t.Context(), bot, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []service.Reason{"", service.GuardDenied, "", service.PolicyDenied, service.BadChecksum, "", service.InFlight, service.KeyState} {
		switch r := results[i]; {
		case want == "" && (r.Err != nil || r.Signed.Reservation == 0):
			t.Errorf("%d: %v", i, r.Err)
		case want != "" && (r.Signed != nil || service.Explain(r.Err).Reason != want):
			t.Errorf("%d: %v, want %s", i, r.Err, want)
		}
	}
	if n := seen.n; n[service.StageReserve] != 1 || n[service.StageComplete] != 1 || n[service.StageAdmit] != 1 || n[service.StageDevice] != 3 || n[service.StageRefuse] != 1 {
		t.Errorf("stages: %v", n)
	}
	if len(results[2].Signed.Signature) != 64 || results[2].Signed.Name != "keys/leaf-b/versions/1" {
		t.Errorf("%+v", results[2].Signed)
	}
	again, err := h.Service.Batch(t.Context(), bot, batch[5:6])
	if err != nil || again[0].Err != nil || !again[0].Signed.Replayed || string(again[0].Signed.Signature) != string(results[5].Signed.Signature) {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	for _, r := range results {
		if r.Signed != nil && r.Signed.Reservation != 0 && len(r.Signed.Signature) != 64 {
			if _, err := h.Journal.Find(t.Context(), r.Signed.Signature); err != nil {
				t.Errorf("no entry: %v", err)
			}
		}
	}
	if head, err := h.Journal.Verify(t.Context(), nil); err != nil || head.Entries != 4 {
		t.Errorf("%+v, %v", head, err)
	}
}

// TestBatchAfterRotation signs with the key that another node made.
func TestBatchAfterRotation(t *testing.T) {
	h, _ := newHouse(t, nil)
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	batch := []*service.SignRequest{{Key: "leaf", Input: message("room", 1, "a")}, {Key: "leaf", Input: message("room", 1, "b")}}
	for want := 1; want <= 2; want++ {
		results, err := h.Service.Batch(t.Context(), bot, batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil || r.Signed.Name != fmt.Sprintf("keys/leaf/versions/%d", want) {
				t.Errorf("%d: %+v, %v", i, r.Signed, r.Err)
			}
		}
		if _, err := h.Ring.Rotate(t.Context(), "acme.leaf", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBatchDeadline: what no device has seen when the time is over is recorded
// as not signed, so that its idempotency key and its epoch stay free.
func TestBatchDeadline(t *testing.T) {
	h, d := newHouse(t, func(c *service.Config) { c.Gate = admit.Options{Inside: 1} })
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first sync.Once
	d.Stall = func(_ context.Context, s signertest.Step) error {
		if s == signertest.StepSign {
			first.Do(cancel)
		}
		return nil
	}
	var batch []*service.SignRequest
	for i := range 4 {
		batch = append(batch, &service.SignRequest{Key: "leaf", Input: message("room", 1, fmt.Sprint(i)), IdempotencyKey: fmt.Sprint(i)})
	}
	results, err := h.Service.Batch(ctx, bot, batch)
	if err != nil {
		t.Fatal(err)
	}
	canceled := 0
	for i, r := range results {
		if r.Err == nil {
			continue
		}
		if !errors.Is(r.Err, context.Canceled) {
			t.Errorf("%d: %v", i, r.Err)
		}
		canceled++
	}
	notSigned := 0
	head, err := h.Journal.Verify(t.Context(), func(e *journal.Entry) error {
		if e.Outcome.Result == journal.NotSigned {
			notSigned++
		}
		return nil
	})
	if err != nil || head.Entries != 4 || head.Reservations != 4 {
		t.Errorf("%+v, %v", head, err)
	}
	if canceled < 3 || notSigned < 3 {
		t.Errorf("%d were canceled, %d are recorded as not signed", canceled, notSigned)
	}
	again, err := h.Service.Batch(t.Context(), bot, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range again {
		if r.Err != nil {
			t.Errorf("%d, once more: %v", i, r.Err)
		}
	}
}

// TestBatchIsSentAwayWhole: where the gate has no room, the journal learns of
// nothing.
func TestBatchIsSentAwayWhole(t *testing.T) {
	h, d := newHouse(t, func(c *service.Config) { c.Gate = admit.Options{Inside: 1, MaxWait: 10 * time.Millisecond} })
	h.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign")
	if _, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, "open")}); err != nil {
		t.Fatal(err)
	}
	inside, leave := make(chan struct{}), make(chan struct{})
	d.Stall = func(context.Context, signertest.Step) error { close(inside); <-leave; return nil }
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := h.Service.Sign(t.Context(), bot, &service.SignRequest{Key: "leaf", Input: message("room", 1, "slow")}); err != nil {
			t.Error(err)
		}
	})
	<-inside
	results, err := h.Service.Batch(t.Context(), bot, []*service.SignRequest{{Key: "leaf", Input: message("room", 1, "a")}, {Key: "leaf", Input: message("room", 1, "b")}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		wants(t, fmt.Sprint(i), r.Err, service.Overloaded, service.Retry)
	}
	close(leave)
	wg.Wait()
	if head, err := h.Journal.Head(t.Context()); err != nil || head.Reservations != 2 {
		t.Errorf("%+v, %v", head, err)
	}
}

// TestBatchOfFranks: franks, MACs, agreements and signatures share the commit
// that completes them.
func TestBatchOfFranks(t *testing.T) {
	var seen stages
	h, d := newHouse(t, seen.hook)
	for id, p := range map[signer.KeyID]signer.Purpose{"acme.leaf": signer.PurposeMLSLeaf, "acme.init": signer.PurposeMLSInit,
		"acme.mac": signer.PurposeFrankMAC, "acme.frank": signer.PurposeFrankSign} {
		h.Key(id, p, "soft")
	}
	bot := servicetest.Client(t, "acme", "bot", "leaf:sign", "init:agree", "mac:mac", "frank:sign")
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	frank := func(at uint64, key string) *service.FrankRequest {
		return &service.FrankRequest{MACKey: "mac", SignKey: "frank", FrankingTag: make([]byte, 32), CipherSuite: 2,
			SenderURI: "mimi://a.example/u/alice", RoomURI: "mimi://a.example/r/room", AcceptedTimestamp: at, IdempotencyKey: key}
	}
	sum := service.Checksum([]byte("else"))
	batch := []service.Item{
		{Sign: &service.SignRequest{Key: "leaf", Input: message("room", 7, "x")}},
		{Frank: frank(1, "once")}, {Frank: frank(2, "")},
		{MAC: &service.MACRequest{Key: "mac", Data: []byte("data"), IdempotencyKey: "mac"}},
		{Agree: &service.AgreeRequest{Key: "init", PublicKey: other.PublicKey().Bytes()}},
		{MAC: &service.MACRequest{Key: "mac", Data: []byte("data"), Checksum: &sum}},
		{Agree: &service.AgreeRequest{Key: "init", PublicKey: []byte("no point")}},
		{Frank: &service.FrankRequest{MACKey: "mac", SignKey: "frank"}},
		{},
		{MAC: &service.MACRequest{Key: "mac", Data: []byte("late")}, Until: time.Now().Add(-time.Second)},
	}
	got, err := h.Service.BatchAll(t.Context(), bot, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []service.Reason{"", "", "", "", "", service.BadChecksum, service.BadRequest, service.BadRequest, service.BadRequest, service.DeadlinePassed} {
		if r := got[i]; (want == "") != (r.Err == nil) || want != "" && service.Explain(r.Err).Reason != want {
			t.Errorf("%d: %v, want %q", i, r.Err, want)
		}
	}
	if n := seen.n; n[service.StageReserve] != 2 || n[service.StageComplete] != 1 || n[service.StageDevice] != 8 {
		t.Errorf("stages: %v", n)
	}
	if got[0].Signed == nil || len(got[3].MAC.Octets) != 32 || len(got[4].Secret.Octets) != 32 || got[4].Secret.Name != "keys/init/versions/1" {
		t.Errorf("%+v", got)
	}
	f := got[1].Frank
	if len(f.ServerFrank) != 32 || f.MACName != "keys/mac/versions/1" || f.SignName != "keys/frank/versions/1" {
		t.Errorf("%+v", f)
	}
	for _, made := range [][]byte{got[0].Signed.Signature, f.ServerFrank, f.IntegritySignature, got[2].Frank.IntegritySignature, got[3].MAC.Octets} {
		if e, err := h.Journal.Find(t.Context(), made); err != nil || e.Outcome.Result != journal.Signed {
			t.Errorf("an answer has no entry: %v", err)
		}
	}
	d.Stall = func(context.Context, signertest.Step) error { t.Error("the device worked"); return nil }
	again, err := h.Service.BatchAll(t.Context(), bot, []service.Item{batch[1], batch[3]})
	if err != nil || again[0].Err != nil || again[1].Err != nil {
		t.Fatal(again, err)
	}
	if !bytes.Equal(again[0].Frank.IntegritySignature, f.IntegritySignature) || !bytes.Equal(again[1].MAC.Octets, got[3].MAC.Octets) {
		t.Error("the same again is something else")
	}
	if head, err := h.Journal.Verify(t.Context(), nil); err != nil || head.Entries != 8 {
		t.Errorf("%+v, %v", head, err)
	}
}
