package client_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	"github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

// A crowd is one Client whose calls for signatures are watched.
type crowd struct {
	t      *testing.T
	server *rpctest.Server
	device *signertest.Device
	client *client.Client
	leaf   *client.Signer
	tap    client.Tap

	mu      sync.Mutex     // guards the rest
	single  int            // calls of Sign
	batches []int          // calls of Batch, with their items
	sent    map[string]int // how often each idempotency key was sent
}

func newCrowd(t *testing.T, change func(*client.Config)) *crowd {
	t.Helper()
	c := &crowd{t: t, sent: make(map[string]int)}
	c.server, c.device = start(t)
	own := c.server.Client(c.server.Identity("acme", "bot", access.Client, "leaf:sign"), change)
	c.tap.Single = func(m *signerv1.SignRequest) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.single++
		c.sent[m.GetIdempotencyKey()]++
	}
	c.tap.Before = func(m *signerv1.BatchRequest) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.batches = append(c.batches, len(m.GetItems()))
		for _, item := range m.GetItems() {
			c.sent[item.GetSign().GetIdempotencyKey()]++
		}
	}
	c.client = own.Tap(&c.tap)
	var err error
	if c.leaf, err = c.client.Signer(t.Context(), "leaf"); err != nil {
		t.Fatal(err)
	}
	return c
}

// hold has the device keep each signature until release is called, or until the
// context of the one who waits has ended.
func (c *crowd) hold() (release func()) {
	gate := make(chan struct{})
	c.device.Stall = func(ctx context.Context, step signertest.Step) error {
		if step != signertest.StepSign {
			return nil
		}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return sync.OnceFunc(func() { close(gate) })
}

// sign signs message i and verifies the signature.
func (c *crowd) sign(ctx context.Context, i int) error {
	m := tbs(c.t, fmt.Sprint("message ", i))
	sig, err := c.leaf.SignMessageContext(ctx, m, nil)
	if err == nil && !credentials.ECDSAP256.Verify(c.leaf.Public(), m, sig) {
		err = errors.New("the signature is of another message")
	}
	return err
}

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	for begin := time.Now(); !met(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// each starts n calls of f and returns their errors when all have ended.
func each(n int, f func(i int) error) (wait func() []error) {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	return func() []error { wg.Wait(); return errs }
}

func (c *crowd) requests() (single int, batches []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.single, slices.Clone(c.batches)
}

// counts has the device count what it signs.
func (c *crowd) counts() *atomic.Int64 {
	var n atomic.Int64
	c.device.Fault = func(step signertest.Step, p signertest.Phase) error {
		if step == signertest.StepSign && p == signertest.After {
			n.Add(1)
		}
		return nil
	}
	return &n
}

// fill has calls 0 and 1 be under way, each alone, and n more in one batch: all
// with a device that holds them. It returns when the device has all of them.
func (c *crowd) fill(n int, f func(i int) error) (wait func() []error) {
	c.t.Helper()
	c.mu.Lock()
	c.single, c.batches = 0, nil
	c.mu.Unlock()
	started := 0
	starts := make([]func() []error, 0, 3)
	for range 2 {
		i := started
		starts = append(starts, each(1, func(int) error { return f(i) }))
		started++
		until(c.t, "a call alone", func() bool { single, _ := c.requests(); return single == started })
	}
	starts = append(starts, each(n, func(i int) error { return f(i + 2) }))
	until(c.t, "all are in requests", func() bool {
		single, batches := c.requests()
		for _, b := range batches {
			single += b
		}
		return single == n+2
	})
	return func() (all []error) {
		for _, w := range starts {
			all = append(all, w()...)
		}
		return all
	}
}

// TestCallsAtOnceShareRequests: a lone call is a request of its own; those that
// come while some are under way share requests, and each has its own signature.
func TestCallsAtOnceShareRequests(t *testing.T) {
	c := newCrowd(t, nil)
	if err := c.sign(t.Context(), -1); err != nil {
		t.Fatal(err)
	}
	if single, batches := c.requests(); single != 1 || batches != nil {
		t.Errorf("a lone call made %d requests and %d batches", single, len(batches))
	}
	release := c.hold()
	wait := c.fill(40, func(i int) error { return c.sign(t.Context(), i) })
	release()
	if err := errors.Join(wait()...); err != nil {
		t.Error(err)
	}
	single, batches := c.requests()
	if len(batches) == 0 || single+len(batches) > 20 {
		t.Errorf("43 calls made %d requests and the batches %v", single, batches)
	}
	for key, n := range c.sent {
		if n != 1 {
			t.Errorf("%s was sent %d times", key, n)
		}
	}
	if n := c.client.Lanes(); n != 0 {
		t.Errorf("%d lanes are left", n)
	}
}

// TestApart: the option makes each call a request of its own.
func TestApart(t *testing.T) {
	c := newCrowd(t, func(c *client.Config) { c.Apart = true })
	if err := errors.Join(each(20, func(i int) error { return c.sign(t.Context(), i) })()...); err != nil {
		t.Error(err)
	}
	if single, batches := c.requests(); single != 20 || batches != nil {
		t.Errorf("%d requests and the batches %v", single, batches)
	}
}

// TestACallerThatGoesAwayGoesAlone: it neither waits nor takes others along, on
// its way or before; and a request that nobody waits for is cancelled.
func TestACallerThatGoesAwayGoesAlone(t *testing.T) {
	c := newCrowd(t, func(c *client.Config) { c.Attempts = 1 })
	release := c.hold()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	wait := c.fill(12, func(i int) error {
		if i != 5 {
			return c.sign(t.Context(), i)
		}
		err := c.sign(ctx, i)
		gone <- err
		return nil
	})
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that went away: %v", err)
	}
	release()
	if err := errors.Join(wait()...); err != nil {
		t.Errorf("those with it in a request: %v", err)
	}

	var all, stop = context.WithCancel(t.Context())
	var held, ended atomic.Int64
	c.device.Stall = func(ctx context.Context, step signertest.Step) error {
		if step == signertest.StepSign {
			held.Add(1)
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		}
		return nil
	}
	wait = c.fill(6, func(i int) error { return c.sign(all, 100+i) })
	until(t, "the device has the batch too", func() bool { return held.Load() >= 3 })
	stop()
	for i, err := range wait() {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	until(t, "the service learns that nobody waits", func() bool { return ended.Load() == held.Load() })
}

// TestOneCallerIsRefused: by policy, among those that are not; it is not asked
// again, and neither are the others.
func TestOneCallerIsRefused(t *testing.T) {
	c := newCrowd(t, nil)
	c.server.Policy(`{"version":1,"rules":[{"id":"epoch-7","effect":"deny","when":"mls.epoch == 7u"},{"id":"rest","effect":"allow","when":"true"}]}`)
	r, err := signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS("room", 7, "denied"))
	if err != nil {
		t.Fatal(err)
	}
	release := c.hold()
	wait := c.fill(9, func(i int) error {
		if i != 6 {
			return c.sign(t.Context(), i)
		}
		_, err := c.leaf.SignMessage(nil, r.Octets(), nil)
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Reason != "POLICY_DENIED" || e.Action != client.FixRequest || e.Metadata["rule"] != "epoch-7" || connect.CodeOf(e.Err) != connect.CodePermissionDenied {
			return fmt.Errorf("refused as %w", err)
		}
		return nil
	})
	release()
	if err := errors.Join(wait()...); err != nil {
		t.Error(err)
	}
	for key, n := range c.sent {
		if n != 1 {
			t.Errorf("%s was sent %d times", key, n)
		}
	}
}

// TestOnlyWhatFailedIsAskedAgain: results are lost or changed on their way, each
// alone; those are asked for again, under the same idempotency key, and the
// device signs nothing twice.
func TestOnlyWhatFailedIsAskedAgain(t *testing.T) {
	c := newCrowd(t, nil)
	signed := c.counts()
	var bad []string
	c.tap.After = func(in *signerv1.BatchRequest, out *signerv1.BatchResponse, err error) error {
		if err != nil || len(bad) > 0 || len(in.Items) < 5 {
			return err
		}
		for _, i := range []int{0, 2, 4} {
			bad = append(bad, in.Items[i].GetSign().GetIdempotencyKey())
		}
		out.Results[0] = &signerv1.BatchResult{Result: &signerv1.BatchResult_Failure{Failure: &signerv1.Failure{Code: "unavailable", Reason: "JOURNAL_DOWN", Action: "retry"}}}
		m := out.Results[2].GetSigned()
		m.Signature = bytes.Clone(m.Signature)
		m.Signature[len(m.Signature)-1] ^= 1
		out.Results[4] = &signerv1.BatchResult{Result: &signerv1.BatchResult_Computed{Computed: &signerv1.MacResponse{}}}
		return nil
	}
	release := c.hold()
	wait := c.fill(10, func(i int) error { return c.sign(t.Context(), i) })
	release()
	if err := errors.Join(wait()...); err != nil {
		t.Error(err)
	}
	if len(bad) != 3 || len(c.sent) != 12 {
		t.Fatalf("%d results were changed, %d keys were sent", len(bad), len(c.sent))
	}
	for key, n := range c.sent {
		want := 1
		if slices.Contains(bad, key) {
			want = 2
		}
		if n != want {
			t.Errorf("%s was sent %d times, want %d", key, n, want)
		}
	}
	if n := signed.Load(); n != 12 {
		t.Errorf("the device signed %d times for 12 calls", n)
	}
}

// TestALostConnectionSignsNothingTwice ends all connections while the device
// has a batch: what it then signs is found again under its idempotency key.
func TestALostConnectionSignsNothingTwice(t *testing.T) {
	c := newCrowd(t, func(c *client.Config) { c.Attempts = 20 })
	signed := c.counts()
	gate := make(chan struct{})
	c.device.Stall = func(_ context.Context, step signertest.Step) error { // as a module does, which cannot be interrupted
		if step == signertest.StepSign {
			<-gate
		}
		return nil
	}
	wait := c.fill(10, func(i int) error { return c.sign(t.Context(), i) })
	c.server.Restart()
	close(gate)
	if err := errors.Join(wait()...); err != nil {
		t.Error(err)
	}
	if n := signed.Load(); n != 12 {
		t.Errorf("the device signed %d times for 12 calls", n)
	}
}

// TestAServiceWithoutBatch is asked call by call.
func TestAServiceWithoutBatch(t *testing.T) {
	c := newCrowd(t, nil)
	var batches atomic.Int64
	c.tap.After = func(*signerv1.BatchRequest, *signerv1.BatchResponse, error) error {
		batches.Add(1)
		return connect.NewError(connect.CodeUnimplemented, errors.New("no such method"))
	}
	for range 3 {
		if err := errors.Join(each(20, func(i int) error { return c.sign(t.Context(), i) })()...); err != nil {
			t.Error(err)
		}
	}
	if n := batches.Load(); n > 8 {
		t.Errorf("%d batches were tried", n)
	}
}

// TestAnAnswerOfAnotherLength is corrupt as a whole.
func TestAnAnswerOfAnotherLength(t *testing.T) {
	c := newCrowd(t, func(c *client.Config) { c.Attempts = 1 })
	c.tap.After = func(_ *signerv1.BatchRequest, out *signerv1.BatchResponse, err error) error {
		if err == nil {
			out.Results = out.Results[1:]
		}
		return err
	}
	release := c.hold()
	wait := c.fill(6, func(i int) error { return c.sign(t.Context(), i) })
	release()
	var corrupt int
	for _, err := range wait() {
		if errors.Is(err, client.ErrCorrupt) {
			corrupt++
		} else if err != nil {
			t.Error(err)
		}
	}
	if _, batches := c.requests(); corrupt == 0 || len(batches) == 0 {
		t.Errorf("%d calls failed of the batches %v", corrupt, batches)
	}
}

// TestSlowRequestsDoNotKeepOthers: two requests hang; calls that come after them
// do not wait for their end.
func TestSlowRequestsDoNotKeepOthers(t *testing.T) {
	c := newCrowd(t, nil)
	var held atomic.Int64
	gate := make(chan struct{})
	c.device.Stall = func(_ context.Context, step signertest.Step) error {
		if step == signertest.StepSign && held.Add(1) <= 2 {
			<-gate
		}
		return nil
	}
	slow := each(2, func(i int) error { return c.sign(t.Context(), i) })
	until(t, "two requests hang", func() bool { return held.Load() == 2 })
	if err := errors.Join(each(10, func(i int) error { return c.sign(t.Context(), i+2) })()...); err != nil {
		t.Error(err)
	}
	close(gate)
	if err := errors.Join(slow()...); err != nil {
		t.Error(err)
	}
}

// TestEveryKindSharesRequests: signatures, franks, MACs and agreements of many
// callers at once, some of whom go away.
func TestEveryKindSharesRequests(t *testing.T) {
	s, _ := start(t)
	s.Key("acme.init", signer.PurposeMLSInit, "soft")
	s.Key("acme.mac", signer.PurposeFrankMAC, "soft")
	s.Key("acme.frank", signer.PurposeFrankSign, "soft")
	var kinds sync.Map
	tap := &client.Tap{Before: func(m *signerv1.BatchRequest) {
		for _, item := range m.GetItems() {
			kinds.Store(fmt.Sprintf("%T", item.GetOperation()), true)
		}
	}}
	c := s.Caller("acme", "bot", access.Client, "leaf:sign", "init:agree", "mac:mac", "frank:sign").Tap(tap)
	ctx := t.Context()
	leaf, err := c.Signer(ctx, "leaf")
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.KeyExchanger(ctx, "init")
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := other.ECDH(x.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	known, err := c.MAC("mac").MAC(ctx, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	calls := []func(context.Context, int) error{
		func(ctx context.Context, i int) error {
			m := tbs(t, fmt.Sprint(i))
			sig, err := leaf.SignMessageContext(ctx, m, nil)
			if err == nil && !credentials.ECDSAP256.Verify(leaf.Public(), m, sig) {
				err = errors.New("the signature is of another message")
			}
			return err
		},
		func(ctx context.Context, _ int) error {
			got, err := x.ECDHContext(ctx, other.PublicKey())
			if err == nil && !bytes.Equal(got, secret) {
				err = errors.New("another secret")
			}
			return err
		},
		func(ctx context.Context, _ int) error {
			got, err := c.MAC("mac").MAC(ctx, []byte("data"))
			if err == nil && !bytes.Equal(got, known) {
				err = errors.New("another MAC")
			}
			return err
		},
		func(ctx context.Context, i int) error {
			m := frankRequest(i)
			f, err := c.Frank(ctx, m)
			if err != nil {
				return err
			}
			// The MAC is over tag and context, which a MAC key computes alone too.
			want, err := c.MAC("mac").MAC(context.WithoutCancel(ctx), frankInput(m))
			if err == nil && !bytes.Equal(f.GetServerFrank(), want) {
				err = errors.New("the frank of another message")
			}
			return err
		},
	}
	for i, err := range each(96, func(i int) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if i%13 == 5 {
			go cancel()
		}
		err := calls[i%len(calls)](ctx, i)
		if i%13 == 5 && errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})() {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for _, kind := range []any{&signerv1.BatchItem_Sign{}, &signerv1.BatchItem_Agree{}, &signerv1.BatchItem_Mac{}, &signerv1.BatchItem_Frank{}} {
		if _, ok := kinds.Load(fmt.Sprintf("%T", kind)); !ok {
			t.Errorf("no %T was in a batch", kind)
		}
	}
	if n := c.Lanes(); n != 0 {
		t.Errorf("%d lanes are left", n)
	}
}

func frankRequest(i int) *signerv1.FrankRequest {
	return &signerv1.FrankRequest{MacKey: "mac", SignKey: "frank", FrankingTag: bytes.Repeat([]byte{byte(i)}, 32), CipherSuite: 2,
		SenderUri: "mimi://a.example/u/alice", RoomUri: "mimi://a.example/r/room", AcceptedTimestamp: uint64(i)}
}

func frankInput(m *signerv1.FrankRequest) []byte {
	b := new(tlsvec.Builder)
	b.Raw(m.GetFrankingTag())
	b.String(m.GetSenderUri())
	b.String(m.GetRoomUri())
	b.Uint64(m.GetAcceptedTimestamp())
	return b.Bytes()
}

// oneInside has a gate let one request at a time to the device.
func oneInside(c *service.Config) { c.Gate = admit.Options{Inside: 1, MaxWait: time.Minute} }

// TestACrowdLeavesOthersTheirTurn: a tenant whose one caller has a crowd waiting
// at a device that does one thing at a time keeps no other tenant from its turn.
func TestACrowdLeavesOthersTheirTurn(t *testing.T) {
	d := signertest.New()
	turns := make(chan struct{})
	var open atomic.Bool
	d.Stall = func(_ context.Context, step signertest.Step) error {
		if step == signertest.StepSign && !open.Load() {
			<-turns
		}
		return nil
	}
	open.Store(true)
	served := make(chan struct{}) // the other tenant, in the service: its answer is on the way for longer
	s := rpctest.Start(t, servicetest.New(t, map[string]signer.Device{"soft": d}, func(c *service.Config) {
		oneInside(c)
		c.Hooks.Done = func(_ context.Context, d service.Done) {
			if d.Tenant == "other" {
				close(served)
			}
		}
	}), "soft", nil)
	s.Key("acme.leaf", signer.PurposeMLSLeaf, "soft")
	s.Key("other.leaf", signer.PurposeMLSLeaf, "soft")
	var calls, requests atomic.Int64
	tap := &client.Tap{
		Single: func(*signerv1.SignRequest) { calls.Add(1); requests.Add(1) },
		Before: func(m *signerv1.BatchRequest) { calls.Add(int64(len(m.GetItems()))); requests.Add(1) },
	}
	many, few := s.Caller("acme", "bot", access.Client, "leaf:sign").Tap(tap), s.Caller("other", "bot", access.Client, "leaf:sign")
	ctx := t.Context()
	a, err := many.Signer(ctx, "leaf")
	if err != nil {
		t.Fatal(err)
	}
	b, err := few.Signer(ctx, "leaf")
	if err != nil {
		t.Fatal(err)
	}
	open.Store(false)
	crowd := each(30, func(i int) error {
		_, err := a.SignMessage(nil, tbs(t, fmt.Sprint(i)), nil)
		return err
	})
	// One has the device, and each other request waits for its first turn.
	until(t, "the crowd waits for the device", func() bool {
		return calls.Load() == 30 && s.Service.Load()["soft"] == [2]int{1, int(requests.Load()) - 1}
	})
	one := make(chan error, 1)
	go func() {
		_, err := b.SignMessage(nil, tbs(t, "one"), nil)
		one <- err
	}()
	until(t, "the other tenant waits too", func() bool { return s.Service.Load()["soft"][1] == int(requests.Load()) })
	signed := 0
	for other := false; !other; {
		select {
		case turns <- struct{}{}:
			signed++
		case <-served:
			other = true
		}
	}
	if signed > 8 {
		t.Errorf("the device signed %d times before the other tenant had its turn", signed)
	}
	open.Store(true)
	close(turns)
	if err := errors.Join(append(crowd(), <-one)...); err != nil {
		t.Error(err)
	}
}
