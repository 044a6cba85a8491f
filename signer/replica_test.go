package signer_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// A pair is a store with two devices, "a" and "b".
type pair struct {
	t     *testing.T
	store *signer.KeyStore
	ring  *signer.Keyring
	a, b  *signertest.Device
	dirA  string
	dirB  string
	mu    sync.Mutex // guards used
	used  map[string]int
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, dirA: t.TempDir(), dirB: t.TempDir(), used: make(map[string]int)}
	p.a, p.b = signertest.NewDir(p.dirA), signertest.NewDir(p.dirB)
	var err error
	if p.store, err = signer.OpenKeyStore(t.Context(), storeSource(t, t.TempDir()), nil); err != nil {
		t.Fatal(err)
	}
	p.open()
	t.Cleanup(func() { p.store.Close() })
	return p
}

// open makes a fresh Keyring, as a new process does.
func (p *pair) open() {
	p.ring = signer.NewKeyring(p.store, map[string]signer.Device{"a": p.a, "b": p.b})
	p.ring.SetHooks(signer.Hooks{Call: func(ctx context.Context, c signer.DeviceCall) (context.Context, func(error)) {
		if !c.SelfTest {
			p.mu.Lock()
			p.used[c.Device]++
			p.mu.Unlock()
		}
		return ctx, func(error) {}
	}})
	ring := p.ring
	p.t.Cleanup(func() { ring.Close() })
}

func (p *pair) uses() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := p.used
	p.used = make(map[string]int)
	return used
}

// create makes a key in "a" and clones its object to "b".
func (p *pair) create(id signer.KeyID, purpose signer.Purpose) (uri string) {
	p.t.Helper()
	key, err := p.ring.Create(p.t.Context(), signer.NewKey{ID: id, Purpose: purpose, Device: "a"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.clone(p.dirA, p.dirB, key.Active().ObjectID.String())
	return key.Active().URI
}

// clone copies an object by the vendor's means.
func (p *pair) clone(from, to, name string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(from, name+".key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, name+".key"), b, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) replicate(id signer.KeyID, purpose signer.Purpose) {
	p.t.Helper()
	uri := p.create(id, purpose)
	if _, err := p.ring.AddReplica(p.t.Context(), id, 1, "b", uri); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) sign(id signer.KeyID) (*signer.Signature, error) {
	r, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.ring.Sign(p.t.Context(), id, signer.PurposeMLSLeaf, r)
}

func (p *pair) tend(o signer.TendOptions) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.ring.Tend(ctx, o) }()
	p.t.Cleanup(func() { cancel(); <-done })
}

func (p *pair) eventually(what string, f func() bool) {
	p.t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s; health %+v", what, p.ring.Health())
		}
	}
}

// TestReplicas adds replicas of each kind of key, and takes one away again.
func TestReplicas(t *testing.T) {
	p := newPair(t)
	for id, purpose := range map[signer.KeyID]signer.Purpose{"leaf": signer.PurposeMLSLeaf, "init": signer.PurposeMLSInit, "mac": signer.PurposeFrankMAC} {
		uri := p.create(id, purpose)
		r, err := p.ring.AddReplica(t.Context(), id, 0, "b", uri)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if r.Device != "b" || len(r.Proof.Challenge) == 0 || (len(r.Proof.Answer) > 0) != (id == "leaf") {
			t.Errorf("%s: %+v", id, r.Proof)
		}
		if _, err := p.ring.AddReplica(t.Context(), id, 1, "b", uri); !errors.Is(err, signer.ErrUsage) {
			t.Errorf("%s: added twice: %v", id, err)
		}
		results, err := p.ring.SelfTest(t.Context(), id)
		if err != nil || len(results) != 2 || results[0].Err != nil || results[1].Err != nil {
			t.Errorf("%s: self-test %+v, %v", id, results, err)
		}
	}
	key, err := p.store.Key(t.Context(), "leaf")
	if err != nil || len(key.Active().Replicas) != 1 {
		t.Fatalf("%+v, %v", key.Active().Replicas, err)
	}
	proof := key.Active().Replicas[0].Proof
	test, err := signer.ParseSelfTest(proof.Challenge)
	pub, _ := key.Active().PublicKey()
	if err != nil || test.Key != "leaf" || test.Device != "b" || !signer.P256.Scheme().Verify(pub, proof.Challenge, proof.Answer) {
		t.Errorf("the proof that is kept: %+v, %v", test, err)
	}
	s, err := p.ring.Signer(t.Context(), "leaf", signer.PurposeMLSLeaf) // open across the change
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); err != nil {
			t.Fatal(err)
		}
	}
	if used := p.uses(); used["a"] == 0 || used["b"] == 0 {
		t.Errorf("both devices are there, and were used so: %v", used)
	}
	if err := p.ring.RemoveReplica(t.Context(), "leaf", 1, "b", true); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.SignMessage(nil, samples(t)[signer.ShapeMLS], nil); err != nil {
			t.Fatal(err)
		}
	}
	if used := p.uses(); used["b"] != 0 {
		t.Errorf("used after it was removed: %v", used)
	}
	if slices.Contains(p.b.Names(), key.Active().ObjectID.String()) {
		t.Error("the object is still there")
	}
	if err := p.ring.RemoveReplica(t.Context(), "leaf", 1, "b", false); !errors.Is(err, signer.ErrNoDevice) {
		t.Errorf("removed twice: %v", err)
	}
}

// TestReplicaOfOtherKey refuses an object that holds another key.
func TestReplicaOfOtherKey(t *testing.T) {
	p := newPair(t)
	for _, purpose := range []signer.Purpose{signer.PurposeMLSLeaf, signer.PurposeMLSInit, signer.PurposeFrankMAC} {
		id := signer.KeyID(purpose)
		p.create(id, purpose)
		other, err := p.ring.Create(t.Context(), signer.NewKey{ID: id + "-other", Purpose: purpose, Device: "b"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.ring.AddReplica(t.Context(), id, 1, "b", other.Active().URI)
		if d, ok := errors.AsType[*signer.DeviceError](err); !ok || d.Device != "b" {
			t.Errorf("%s: %v", purpose, err)
		}
		if _, err = p.ring.AddReplica(t.Context(), id, 1, "b", "software:none"); !errors.Is(err, signer.ErrNoObject) {
			t.Errorf("%s: no object: %v", purpose, err)
		}
		if _, err = p.ring.AddReplica(t.Context(), id, 1, "c", "software:none"); !errors.Is(err, signer.ErrNoDevice) {
			t.Errorf("%s: no device: %v", purpose, err)
		}
		key, err := p.store.Key(t.Context(), id)
		if err != nil || len(key.Active().Replicas) != 0 {
			t.Errorf("%s: %+v, %v", purpose, key.Active().Replicas, err)
		}
	}
}

var errAway = &signer.DeviceError{Op: "sign", Remedy: signer.RemedyRetry, Err: errors.New("the cable was pulled")}

// TestFailover takes one device away under load: no request fails, the device
// is left out, and returns by itself.
func TestFailover(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	var away atomic.Bool
	p.a.Stall = func(context.Context, signertest.Step) error {
		if away.Load() {
			return errAway
		}
		return nil
	}
	p.tend(signer.TendOptions{Interval: -1})
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer func() { stop(); load.Wait() }()
	var signed, failed atomic.Int64
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := p.sign("leaf"); err != nil && ctx.Err() == nil {
					t.Error(err)
					failed.Add(1)
				}
				signed.Add(1)
			}
		})
	}
	p.eventually("both devices work", func() bool { u := p.uses(); return u["a"] > 0 && u["b"] > 0 })
	away.Store(true)
	p.eventually("a is left out", func() bool { return p.ring.Health()["a"].Away != nil })
	p.uses()
	before := signed.Load()
	p.eventually("b works alone", func() bool { return signed.Load() > before+50 })
	if used := p.uses(); used["a"] > 8 { // those under way when it went
		t.Errorf("a device that is left out was used %d times", used["a"])
	}
	away.Store(false)
	p.eventually("a is back", func() bool { return p.ring.Health()["a"].Away == nil })
	p.eventually("a works again", func() bool { return p.uses()["a"] > 0 })
	stop()
	load.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), signed.Load())
	}
}

// TestHangingDevice has one device never answer: requests go on to the other
// after a moment, and none fails.
func TestHangingDevice(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	for range 4 {
		if _, err := p.sign("leaf"); err != nil {
			t.Fatal(err)
		}
	}
	p.a.Stall = func(ctx context.Context, _ signertest.Step) error { <-ctx.Done(); return ctx.Err() }
	// The faster of the two is asked more often: it takes a while until the
	// other is, and is found hanging.
	for n := 0; n < 5000 && p.ring.Health()["a"].Away == nil; n++ {
		sig, err := p.sign("leaf")
		if err != nil || sig.Device != "b" {
			t.Fatalf("%+v, %v", sig, err)
		}
	}
	if h := p.ring.Health()["a"]; h.Away == nil || !strings.Contains(h.Away.Error(), "much longer") {
		t.Errorf("health %+v", h)
	}
}

// TestAllAway shows that devices which are left out are tried when there is no
// other, and taken in when they answer.
func TestAllAway(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	var away atomic.Bool
	away.Store(true)
	stall := func(context.Context, signertest.Step) error {
		if away.Load() {
			return errAway
		}
		return nil
	}
	if _, err := p.sign("leaf"); err != nil {
		t.Fatal(err)
	}
	p.a.Stall, p.b.Stall = stall, stall
	for range 3 {
		if d, ok := errors.AsType[*signer.DeviceError](second(p.sign("leaf"))); !ok || d.Remedy != signer.RemedyRetry {
			t.Errorf("got %v", d)
		}
	}
	away.Store(false)
	if _, err := p.sign("leaf"); err != nil {
		t.Errorf("after they came back: %v", err)
	}
}

func second(_ *signer.Signature, err error) error { return err }

// TestSuspectReturns has one device garble its signatures: the caller gets the
// other's, the device is suspect, and is taken in when it has proved itself. At
// its third fall it waits for an operator.
func TestSuspectReturns(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	var garble atomic.Bool
	p.a.Garble = func(sig []byte) []byte {
		if garble.Load() {
			sig[len(sig)-1] ^= 1
		}
		return sig
	}
	suspect := func() bool {
		list, err := p.store.Suspects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(list) == 1 && list[0].Device == "a"
	}
	fall := func() {
		garble.Store(true)
		for range 50 {
			if _, err := p.sign("leaf"); err != nil {
				t.Fatal(err)
			}
		}
		if !suspect() {
			t.Fatal("the device is not suspect")
		}
		garble.Store(false)
	}
	fall()
	p.uses()
	if _, err := p.sign("leaf"); err != nil || p.uses()["a"] > 0 {
		t.Errorf("a suspect device was used: %v", err)
	}
	const step = 60 * time.Millisecond
	p.tend(signer.TendOptions{Interval: -1, Probation: step})
	p.eventually("the device has proved itself", func() bool { return !suspect() })
	for range 2 {
		if n, err := p.store.TimesSuspect(t.Context(), "a", time.Now().Add(-time.Hour)); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if err := p.store.MarkSuspect(t.Context(), "a", "leaf", 1, "again"); err != nil {
			t.Fatal(err)
		}
		p.store.ClearSuspect(t.Context(), "a", "by hand")
	}
	fall()
	time.Sleep(10 * step)
	if !suspect() {
		t.Error("a device was taken in that fell again and again")
	}
}

// TestSelfTestIsForUsOnly shows that nobody can have a self-test signed, and
// that it parses in one form only.
func TestSelfTestIsForUsOnly(t *testing.T) {
	octets := (&signer.SelfTest{Key: "k", Version: 1, Purpose: signer.PurposeTLS, Device: "soft", At: time.UnixMicro(1790000000000001).UTC()}).Octets()
	r, err := signer.ParseRequest(octets)
	if err != nil || r.Shape() != signer.ShapeSelfTest {
		t.Fatalf("%v, %v", r, err)
	}
	for _, p := range signer.Purposes() {
		if p.Permits(signer.ShapeSelfTest, string(p)) {
			t.Errorf("a caller may have a self-test signed with a key of purpose %s", p)
		}
	}
	for i := range octets {
		if _, err := signer.ParseSelfTest(octets[:i]); err == nil {
			t.Errorf("the prefix of %d octets parses", i)
		}
	}
	for name, bad := range map[string]string{
		"trailing": string(octets) + "x", "case": strings.Replace(string(octets), "nonce ", "Nonce ", 1),
		"number": strings.Replace(string(octets), "version 1", "version 01", 1), "time": strings.Replace(string(octets), ".000001Z", "Z", 1),
	} {
		if _, err := signer.ParseSelfTest([]byte(bad)); err == nil {
			t.Errorf("%s: parses", name)
		}
	}
}

// TestSchedule tests each key on each device, as the journal sees it.
func TestSchedule(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	p.replicate("init", signer.PurposeMLSInit)
	j := &journal{seen: make(map[string]int)}
	p.open()
	p.ring.SetSelfTestJournal(j)
	p.tend(signer.TendOptions{Interval: 100 * time.Millisecond})
	p.eventually("each key was tested on each device", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.seen["leaf a"] > 1 && j.seen["leaf b"] > 1 && j.seen["init a"] > 1 && j.seen["init b"] > 1
	})
	j.mu.Lock()
	j.broken = true
	j.mu.Unlock()
	results, err := p.ring.SelfTest(t.Context(), "leaf")
	if err != nil || len(results) != 2 || results[0].Err == nil {
		t.Errorf("a self-test that cannot be journalled: %+v, %v", results, err)
	}
	if h := p.ring.Health(); h["a"].Away != nil {
		t.Errorf("the journal's failure is the device's: %+v", h)
	}
}

type journal struct {
	mu     sync.Mutex // guards the rest
	seen   map[string]int
	broken bool
}

func (j *journal) BeginSelfTest(_ context.Context, s *signer.SelfTest) (func(context.Context, []byte, error) error, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return nil, errors.New("the disk is full")
	}
	return func(_ context.Context, sig []byte, err error) error {
		j.mu.Lock()
		defer j.mu.Unlock()
		if err == nil && (len(sig) > 0) == (s.Purpose == signer.PurposeMLSLeaf) {
			j.seen[string(s.Key)+" "+s.Device]++
		}
		return nil
	}, nil
}

// TestDestroyWithReplicas destroys the objects everywhere; while a device is
// away the version shows as being destroyed.
func TestDestroyWithReplicas(t *testing.T) {
	p := newPair(t)
	p.replicate("leaf", signer.PurposeMLSLeaf)
	p.b.Stall = func(context.Context, signertest.Step) error { return errAway }
	if err := p.ring.Destroy(t.Context(), "leaf", 1); err == nil {
		t.Fatal("destroyed while a replica is away")
	}
	if found, err := p.ring.Unsettled(t.Context(), time.Now(), 0); err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	p.b.Stall = nil
	if found, err := p.ring.Reconcile(t.Context(), time.Now(), 0); err != nil || len(found) != 1 || found[0].Err != nil {
		t.Errorf("%+v, %v", found, err)
	}
	if len(p.a.Names()) != 0 || len(p.b.Names()) != 0 {
		t.Errorf("left over: %v, %v", p.a.Names(), p.b.Names())
	}
}
