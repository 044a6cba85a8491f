package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/internal/daemon"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
	"github.com/privyseal/privyseal/signer/signertest"
)

// A load is what a process of its own asks of a signing service, so that the
// CPU of callers and of the service can be told apart.
type load struct {
	Server, Roots, Identity string
	Keys                    int // leaf-0, leaf-1, …
	Callers, Count          int
	Apart                   bool   // single calls do not share requests
	Batch                   int    // requests in one explicit batch; 0 for single calls, checked as the client does
	Operation               string // "mac", "agree" or "frank" instead of signing, with the keys of BenchmarkRemoteOperations
	Idempotent              bool   // the requests of explicit batches have idempotency keys, as single calls have
	// Rate, if not 0, is how many requests are made in a second, whether or not
	// those before were answered, each once; Callers are then the connections.
	Rate float64
}

// A loaded is what came of it.
type loaded struct {
	Seconds  float64
	CPU      float64 // of the callers, seconds
	P50, P99 float64 // of a call, milliseconds
	Failed   int64

	// Of a load with a Rate: what was done, P50 and P99 being of that, and what was
	// sent away.
	Accepted, Shed int64
	Reasons        map[string]int64 // of what was not done
	RetryAfter     float64          // the least that was told, milliseconds
	ShedP99        float64          // until it was sent away, milliseconds
	Offered        float64          // in a second, as it came out
}

const loadEnv = "PRIVYSEAL_TEST_LOAD"

// loadMain is the process of a load, if this is one.
func loadMain() {
	text, ok := os.LookupEnv(loadEnv)
	if !ok {
		return
	}
	var l struct {
		load
		Hub   *hubLoad
		Vault *vaultLoad
	}
	err := json.Unmarshal([]byte(text), &l)
	switch {
	case err == nil && l.Hub != nil:
		err = l.Hub.run()
	case err == nil && l.Vault != nil:
		err = l.Vault.run()
	case err == nil:
		err = l.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// inProcess runs the load in a process of its own.
func (l load) inProcess(t testing.TB) loaded {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	r := runLoad(t, text)
	if r.Failed > 0 && l.Rate == 0 {
		t.Fatalf("%d calls failed", r.Failed)
	}
	return r
}

// runLoad runs the load that is written in text in a process of its own.
func runLoad(t testing.TB, text []byte) (r loaded) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the callers' process: %v", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (l load) run() error {
	identity, err := client.OpenIdentity(l.Identity)
	if err != nil {
		return err
	}
	pool, err := daemon.ReadPool(l.Roots)
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{Address: l.Server, Roots: pool, Certificate: identity.Certificate, Apart: l.Apart})
	if err != nil {
		return err
	}
	if l.Operation != "" {
		call, err := l.operation(c)
		if err != nil {
			return err
		}
		return closed(l.Callers, l.Count, call)
	}
	keys, err := l.keys(c)
	if err != nil {
		return err
	}
	if l.Rate > 0 {
		return l.open(identity)
	}
	return closed(l.Callers, l.Count, func(n int64) error { return l.call(c, keys[int(n)%l.Keys], n) })
}

// closed has callers make count calls, each caller its next when it has the answer, and
// prints what they took.
func closed(callers, count int, call func(n int64) error) error {
	took := make([][]time.Duration, callers)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	before, begin := cpuTime(), time.Now()
	for i := range callers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(count); n = next.Add(1) {
				start := time.Now()
				if err := call(n); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	r := loaded{Seconds: time.Since(begin).Seconds(), CPU: (cpuTime() - before).Seconds(), Failed: failed.Load()}
	all := slices.Concat(took...)
	slices.Sort(all)
	r.P50, r.P99 = milliseconds(all[len(all)/2]), milliseconds(all[len(all)*99/100])
	return json.NewEncoder(os.Stdout).Encode(r)
}

// keys opens all keys, as many at once as there are callers.
func (l load) keys(c *client.Client) ([]*client.Signer, error) {
	keys, errs := make([]*client.Signer, l.Keys), make([]error, l.Callers)
	var wg sync.WaitGroup
	for caller := range l.Callers {
		wg.Go(func() {
			for i := caller; i < l.Keys && errs[caller] == nil; i += l.Callers {
				keys[i], errs[caller] = c.Signer(context.Background(), l.keyName(i))
			}
		})
	}
	wg.Wait()
	return keys, errors.Join(errs...)
}

// keyName is that of one of the keys, in turn.
func (l load) keyName(n int) string { return fmt.Sprintf("leaf-%d", n%l.Keys) }

func (l load) call(c *client.Client, key *client.Signer, n int64) error {
	if l.Batch == 0 {
		_, err := key.SignMessage(nil, loadMessage(n), nil)
		return err
	}
	m := &signerv1.BatchSignRequest{}
	for i := range l.Batch {
		one := &signerv1.SignRequest{Key: key.Key().GetName(), Input: &signerv1.SignRequest_Octets{Octets: loadMessage(n<<16 | int64(i))}}
		if l.Idempotent {
			one.IdempotencyKey = fmt.Sprintf("%016x-%x-%x", time.Now().UnixNano(), n, i)
		}
		m.Requests = append(m.Requests, one)
	}
	r, err := c.Signing().BatchSign(context.Background(), connect.NewRequest(m))
	if err != nil {
		return err
	}
	for _, one := range r.Msg.GetResults() {
		if one.GetSigned() == nil {
			return errors.New(one.GetFailure().GetMessage())
		}
	}
	return nil
}

// operation is a call other than a signature.
func (l load) operation(c *client.Client) (func(n int64) error, error) {
	ctx := context.Background()
	switch l.Operation {
	case "mac":
		key := c.MAC("mac")
		return func(n int64) error {
			_, err := key.MAC(ctx, loadMessage(n))
			return err
		}, nil
	case "agree":
		key, err := c.KeyExchanger(ctx, "init")
		if err != nil {
			return nil, err
		}
		peer, err := key.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return func(int64) error {
			_, err := key.ECDHContext(ctx, peer.PublicKey())
			return err
		}, nil
	case "frank":
		return func(n int64) error {
			tag := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
			_, err := c.Frank(ctx, &signerv1.FrankRequest{MacKey: "mac", SignKey: "frank", FrankingTag: tag[:], CipherSuite: 2,
				SenderUri: "mimi://a.example/u/alice", RoomUri: "mimi://a.example/r/room", AcceptedTimestamp: uint64(n)})
			return err
		}, nil
	}
	return nil, fmt.Errorf("no operation %q", l.Operation)
}

// loadMessage is a message of an epoch that does not end, with its own text.
func loadMessage(n int64) []byte {
	return mlsOctets("FramedContentTBS", signertest.ApplicationTBS("room", 1, fmt.Sprintf("message %d", n)))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// cpuTime returns the CPU time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
