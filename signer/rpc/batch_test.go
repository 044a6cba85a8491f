package rpc_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/signertest"
)

func signItem(m *signerv1.SignRequest) *signerv1.BatchItem {
	return &signerv1.BatchItem{Operation: &signerv1.BatchItem_Sign{Sign: m}}
}

// TestBatchOfEveryKind has one item of each operation, and some that are
// refused, each for its own reason.
func TestBatchOfEveryKind(t *testing.T) {
	s, _ := start(t, nil, nil)
	s.Key("acme.init", signer.PurposeMLSInit, "soft")
	s.Key("acme.mac", signer.PurposeFrankMAC, "soft")
	s.Key("acme.frank", signer.PurposeFrankSign, "soft")
	s.Policy(`{"version":1,"rules":[
		{"id":"no-rooms","effect":"deny","when":"mls.label == 'FramedContentTBS' && mls.epoch == 7u"},
		{"id":"all","effect":"allow","when":"caller.tenant == 'acme'"}]}`)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign", "init:agree", "mac:mac", "frank:sign")
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	frank := &signerv1.FrankRequest{MacKey: "mac", SignKey: "frank", FrankingTag: make([]byte, 32), CipherSuite: 2,
		SenderUri: "mimi://a.example/u/alice", RoomUri: "mimi://a.example/r/room", AcceptedTimestamp: 7}
	denied, wrong := mls("denied"), mls("wrong")
	denied.GetMls().Content = signertest.ApplicationTBS("room", 7, "denied")
	wrong.InputCrc32C = new(uint32)
	r, err := c.Signing().Batch(t.Context(), connect.NewRequest(&signerv1.BatchRequest{Items: []*signerv1.BatchItem{
		signItem(mls("x")),
		{Operation: &signerv1.BatchItem_Frank{Frank: frank}},
		{Operation: &signerv1.BatchItem_Mac{Mac: &signerv1.MacRequest{Key: "mac", Data: []byte("data")}}},
		{Operation: &signerv1.BatchItem_Agree{Agree: &signerv1.AgreeRequest{Key: "init", PublicKey: other.PublicKey().Bytes()}}},
		signItem(denied),
		signItem(wrong),
		signItem(&signerv1.SignRequest{Key: "absent", Input: mls("").Input}),
		{},
		{Operation: &signerv1.BatchItem_Agree{Agree: &signerv1.AgreeRequest{Key: "leaf", PublicKey: other.PublicKey().Bytes()}}},
	}}))
	if err != nil || len(r.Msg.Results) != 9 {
		t.Fatalf("%v, %v", r, err)
	}
	got := r.Msg.Results
	if sig := got[0].GetSigned(); sig == nil || service.Checksum(sig.Signature) != sig.SignatureCrc32C {
		t.Errorf("a signature: %v", got[0])
	}
	if f := got[1].GetFranked(); f == nil || len(f.ServerFrank) != 32 || service.Checksum(f.IntegritySignature) != f.IntegritySignatureCrc32C {
		t.Errorf("a frank: %v", got[1])
	}
	if m := got[2].GetComputed(); m == nil || len(m.Mac) != 32 || service.Checksum(m.Mac) != m.MacCrc32C {
		t.Errorf("a MAC: %v", got[2])
	}
	if a := got[3].GetAgreed(); a == nil || len(a.SharedSecret) != 32 {
		t.Errorf("an agreement: %v", got[3])
	}
	for i, want := range map[int]string{4: "POLICY_DENIED", 5: "BAD_CHECKSUM", 6: "NOT_FOUND", 7: "BAD_REQUEST", 8: "PERMISSION_DENIED"} {
		if f := got[i].GetFailure(); f.GetReason() != want || f.GetMessage() == "" || f.GetAction() == "" {
			t.Errorf("item %d: %v, want %s", i, got[i], want)
		}
	}
	if rule := got[4].GetFailure().GetMetadata()["rule"]; rule != "no-rooms" {
		t.Errorf("the rule is %q", rule)
	}
	for _, n := range []int{0, service.MaxBatch + 1} {
		items := make([]*signerv1.BatchItem, n)
		for i := range items {
			items[i] = &signerv1.BatchItem{}
		}
		if err := second(c.Signing().Batch(t.Context(), connect.NewRequest(&signerv1.BatchRequest{Items: items}))); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a batch of %d: %v", n, err)
		}
	}
}

// TestBatchItemsHaveTheirOwnTime: one item is not wanted for long and its device
// hangs; the others have the time of the call.
func TestBatchItemsHaveTheirOwnTime(t *testing.T) {
	s, d := start(t, nil, nil)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	var hangs atomic.Bool
	hangs.Store(true)
	d.Stall = func(ctx context.Context, step signertest.Step) error {
		if step != signertest.StepSign || !hangs.Load() {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	short := signItem(mls("short"))
	short.TimeoutMs = 200
	r, err := c.Signing().Batch(t.Context(), connect.NewRequest(&signerv1.BatchRequest{Items: []*signerv1.BatchItem{short}}))
	if err != nil || r.Msg.Results[0].GetFailure().GetReason() != "DEADLINE_EXCEEDED" {
		t.Errorf("an item whose time was over: %v, %v", r, err)
	}
	hangs.Store(false)
	r, err = c.Signing().Batch(t.Context(), connect.NewRequest(&signerv1.BatchRequest{Items: []*signerv1.BatchItem{signItem(mls("long"))}}))
	if err != nil || r.Msg.Results[0].GetSigned() == nil {
		t.Errorf("an item after it: %v, %v", r, err)
	}
}

// TestABatchCountsItsItems: a batch of n takes n of the budget, and items beyond
// it are refused alone.
func TestABatchCountsItsItems(t *testing.T) {
	s, _ := start(t, func(c *service.Config) { c.Rates = admit.Rates{Caller: admit.Rate{PerSecond: 0.001, Burst: 5}} }, nil)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	in := new(signerv1.BatchRequest)
	for i := range 12 {
		in.Items = append(in.Items, signItem(mls(fmt.Sprint(i))))
	}
	r, err := c.Signing().Batch(t.Context(), connect.NewRequest(in))
	if err != nil {
		t.Fatal(err)
	}
	var signed, refused int
	for _, one := range r.Msg.Results {
		switch f := one.GetFailure(); {
		case one.GetSigned() != nil:
			signed++
		case f.GetReason() == "OVERLOADED" && f.GetAction() == "retry" && f.GetRetryAfterMs() > 0:
			refused++
		}
	}
	if signed != 5 || refused != 7 {
		t.Errorf("%d signed and %d refused of 12 with a budget of 5: %v", signed, refused, r.Msg)
	}
}

// TestAPanicIsTheItemsFailure: the service goes on.
func TestAPanicIsTheItemsFailure(t *testing.T) {
	s, d := start(t, nil, nil)
	c := s.Caller("acme", "bot", access.Client, "leaf:sign")
	var panics atomic.Bool
	d.Fault = func(step signertest.Step, p signertest.Phase) error {
		if step == signertest.StepSign && panics.CompareAndSwap(true, false) {
			panic("a driver's bug")
		}
		return nil
	}
	panics.Store(true)
	r, err := c.Signing().Batch(t.Context(), connect.NewRequest(&signerv1.BatchRequest{Items: []*signerv1.BatchItem{signItem(mls("1")), signItem(mls("2")), signItem(mls("3"))}}))
	if err != nil {
		t.Fatal(err)
	}
	var internal int
	for _, one := range r.Msg.Results {
		if one.GetFailure().GetReason() == "INTERNAL" {
			internal++
		}
	}
	if internal != 1 {
		t.Errorf("%d items failed: %v", internal, r.Msg)
	}
}
