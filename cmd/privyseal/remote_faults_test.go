package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/rpc/rpctest"
	signservice "github.com/privyseal/privyseal/signer/service"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// A faultRig is a signing service with one key in two tokens, one in one of
// them and one in a TPM, and callers that ask over mutual TLS without a pause.
type faultRig struct {
	*twin
	tpm   *swtpm.Server
	parts *signerParts
	next  atomic.Int64
	keys  map[string]*client.Signer
}

// faultDeadline is what the callers give a request.
const faultDeadline = 1500 * time.Millisecond

func newFaultRig(t *testing.T) *faultRig {
	t.Helper()
	r := &faultRig{tpm: tpmtest.Start(t, swtpm.Config{}), keys: make(map[string]*client.Signer)}
	r.twin = newTwinWith(t, initOptions{softHSM: true, tpm: r.tpm.Address()})
	r.config.Serve = &ServeConfig{Signer: &SignerSection{Listener: "api", CallerCA: "caller-ca"}}
	var err error
	if r.parts, err = newSignerParts(t.Context(), r.wiring, signservice.Hooks{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.parts.Close() })
	house := &servicetest.House{T: t, Keys: r.store, Ring: r.ring, Journal: r.parts.journal, Access: r.parts.access, Service: r.parts.service}
	server := rpctest.Start(t, house, "softhsm", nil)
	house.Key("acme.single", signer.PurposeMLSLeaf, "clone")
	house.Key("acme.tpm", signer.PurposeMLSLeaf, "tpm")
	identity := server.Identity("acme", "bot", access.Client, "both:sign", "single:sign", "tpm:sign")
	c := server.Client(identity, func(c *client.Config) { c.Attempts = 1 })
	for _, name := range []string{"both", "single", "tpm"} {
		if r.keys[name], err = c.Signer(context.Background(), name); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var tending sync.WaitGroup
	tending.Go(func() { r.ring.Tend(ctx, signer.TendOptions{Interval: -1}) })
	t.Cleanup(func() { stop(); tending.Wait() })
	return r
}

// asked is one request of a caller.
type asked struct {
	began, ended time.Time
	err          error
}

// callers ask for signatures of a key until stop is called, which returns what
// they asked.
func (r *faultRig) callers(key string, n int) (stop func() []asked) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	all := make([][]asked, n)
	for i := range n {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), faultDeadline)
				a := asked{began: time.Now()}
				_, a.err = r.keys[key].SignMessageContext(ctx, loadMessage(r.next.Add(1)), nil)
				a.ended = time.Now()
				cancel()
				all[i] = append(all[i], a)
				if a.err != nil { // as a caller that tries again later
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	return func() []asked {
		close(done)
		wg.Wait()
		out := slices.Concat(all...)
		slices.SortFunc(out, func(a, b asked) int { return a.ended.Compare(b.ended) })
		return out
	}
}

// reasonOf names what a caller was told.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*client.Error](err); ok && e.Reason != "" {
		return fmt.Sprintf("%s (%s)", e.Reason, e.Action)
	}
	if errors.Is(err, context.DeadlineExceeded) || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return "the caller's deadline"
	}
	return err.Error()
}

// faultPhase tells of one phase: between from and to.
func faultPhase(t *testing.T, name string, all []asked, from, to time.Time) (served int, reasons map[string]int) {
	t.Helper()
	reasons = make(map[string]int)
	var took []time.Duration
	for _, a := range all {
		switch {
		case a.ended.Before(from) || !a.ended.Before(to):
		case a.err != nil:
			reasons[reasonOf(a.err)]++
		default:
			took = append(took, a.ended.Sub(a.began))
		}
	}
	slices.Sort(took)
	t.Logf("%-16s %5d signed in %v, p50 %v p99 %v, failed %v", name, len(took), to.Sub(from).Round(time.Millisecond), quantile(took, .5), quantile(took, .99), reasons)
	return len(took), reasons
}

func TestRemoteFaults(t *testing.T) { remoteFaults(t, 400*time.Millisecond) }

// remoteFaults has sixteen callers ask while a device fails, and looks at
// what they see: errors that say what to do, within their deadlines; service
// that comes back by itself; and a journal with an entry for each signature that
// was given out, and no second one. With a second token, no request fails for
// the fault of the first.
func remoteFaults(t *testing.T, lasts time.Duration) {
	r := newFaultRig(t)
	signal := func(s syscall.Signal) func() {
		return func() {
			for _, pid := range r.workers("clone") {
				syscall.Kill(pid, s)
			}
		}
	}
	done := func(f func() error) func() {
		return func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	tokens := filepath.Join(r.config.dir, "clone", "tokens")
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name, key   string
		begin, end  func()
		mayFail     []string
		worksDuring bool
	}{
		{"workers stopped, one token", "single", signal(syscall.SIGSTOP), signal(syscall.SIGCONT),
			[]string{"the caller's deadline", "DEADLINE_EXCEEDED (retry)", "OVERLOADED (retry)", "DEVICE_UNAVAILABLE (retry)"}, false},
		{"workers killed, one token", "single", func() { r.kill("clone") }, func() {},
			[]string{"DEVICE_UNAVAILABLE (retry)", "OVERLOADED (retry)", "the caller's deadline", "DEADLINE_EXCEEDED (retry)"}, true},
		{"token away, one token", "single", func() { rename(tokens, tokens+".away"); r.kill("clone") }, func() { rename(tokens+".away", tokens) },
			[]string{"DEVICE_UNAVAILABLE (retry)", "DEVICE_FAILED (ask-operator)", "OVERLOADED (retry)", "the caller's deadline", "DEADLINE_EXCEEDED (retry)"}, false},
		{"TPM stopped", "tpm", done(r.tpm.Pause), done(r.tpm.Resume),
			[]string{"the caller's deadline", "DEADLINE_EXCEEDED (retry)", "OVERLOADED (retry)", "DEVICE_UNAVAILABLE (retry)"}, false},
		{"TPM killed and started", "tpm", done(r.tpm.Kill), done(func() error { return r.tpm.Restart(context.Background()) }),
			[]string{"the caller's deadline", "DEADLINE_EXCEEDED (retry)", "OVERLOADED (retry)", "DEVICE_UNAVAILABLE (retry)"}, false},
		{"workers stopped, two tokens", "both", signal(syscall.SIGSTOP), signal(syscall.SIGCONT), []string{"OVERLOADED (retry)", "the caller's deadline", "DEADLINE_EXCEEDED (retry)"}, true},
		{"token away, two tokens", "both", func() { rename(tokens, tokens+".away"); r.kill("clone") }, func() { rename(tokens+".away", tokens) },
			[]string{"OVERLOADED (retry)", "the caller's deadline", "DEADLINE_EXCEEDED (retry)"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.until("it works before", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				_, err := r.keys[c.key].SignMessageContext(ctx, loadMessage(r.next.Add(1)), nil)
				return err == nil
			})
			stop := r.callers(c.key, 16)
			start := time.Now()
			time.Sleep(lasts)
			began := time.Now()
			c.begin()
			time.Sleep(lasts)
			c.end()
			ended := time.Now()
			r.until("it works again", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), faultDeadline)
				defer cancel()
				_, err := r.keys[c.key].SignMessageContext(ctx, loadMessage(r.next.Add(1)), nil)
				return err == nil
			})
			first := time.Since(ended)
			time.Sleep(lasts)
			all := stop()
			faultPhase(t, "before", all, start, began)
			during, _ := faultPhase(t, "during", all, began, ended)
			after, _ := faultPhase(t, "after", all, ended, time.Now())
			steady := ended
			for _, a := range all {
				if a.err != nil && a.ended.After(steady) {
					steady = a.ended
				}
			}
			t.Logf("first signature %v after the fault, the last failure %v after it", first.Round(time.Millisecond), steady.Sub(ended).Round(time.Millisecond))
			if after == 0 || c.worksDuring && lasts >= 2*time.Second && during == 0 {
				t.Errorf("%d signed during the fault, %d after it", during, after)
			}
			for _, a := range all {
				if a.err != nil && !slices.Contains(c.mayFail, reasonOf(a.err)) {
					t.Errorf("a caller saw: %v", a.err)
					break
				}
				if late := a.ended.Sub(a.began); late > faultDeadline+5*time.Second {
					t.Errorf("a caller with %v to spare waited %v", faultDeadline, late)
				}
			}
			r.checkJournal(t, all)
		})
	}
}

// checkJournal holds the journal to what was given out so far.
func (r *faultRig) checkJournal(t *testing.T, all []asked) {
	t.Helper()
	var ok, failed int
	for _, a := range all {
		if a.err == nil {
			ok++
		} else {
			failed++
		}
	}
	if ok == 0 {
		t.Error("nothing was signed")
	}
	signed := make(map[string]int)
	for e, err := range r.parts.journal.Entries(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Intent.Caller == "bot" && e.Outcome.Result == journal.Signed {
			signed[fmt.Sprintf("%x", e.Intent.Digest)]++
		}
	}
	for digest, n := range signed {
		if n > 1 {
			t.Errorf("a message has %d entries: %s", n, digest)
		}
	}
	if len(signed) < ok {
		t.Errorf("%d signatures were given out, the journal has %d", ok, len(signed))
	}
}
