package translog_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
	"github.com/privyseal/privyseal/signer/translog"
)

// A victim is a process that signs until it is killed. It is this test binary,
// told so by its environment.
const victimEnv = "PRIVYSEAL_TEST_VICTIM"

// victimConfig is what a victim is told.
type victimConfig struct {
	Source string // of the journal
	Dir    string // with the key store, the device's keys and the log
	Node   string
	Log    bool // feed the log
}

func TestMain(m *testing.M) {
	if text := os.Getenv(victimEnv); text != "" {
		if err := victim(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}

// A release is a signature that left a victim: one line of its output.
type release struct {
	Group     string // of a Commit or a message
	Epoch     uint64
	Commit    bool
	Key       string // the idempotency key, if it has one
	Digest    string // SHA-256 of the to-be-signed octets
	Signature []byte
}

const victimCallers = 8

// victim signs, on several goroutines: Commits of the same few epochs with
// contents that differ, messages of those epochs, and with few idempotency keys
// of which each stands for one message, in turn. It writes each signature to standard output
// when, and only when, its entry is complete.
func victim(text string) error {
	var c victimConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx := context.Background()
	j, err := journal.Open(ctx, c.Source, &journal.Options{Node: c.Node})
	if err != nil {
		return err
	}
	store, err := signer.OpenKeyStore(ctx, filepath.Join(c.Dir, "keys.db"), nil)
	if err != nil {
		return err
	}
	ring := signer.NewKeyring(store, map[string]signer.Device{"dev": signertest.NewDir(filepath.Join(c.Dir, "device"))})
	leaf, err := ring.Signer(ctx, "leaf", signer.PurposeMLSLeaf)
	if err != nil {
		return err
	}
	failed := make(chan error, victimCallers+1)
	if c.Log {
		go func() { failed <- feedLog(ctx, j, ring, c.Dir) }()
	}
	var out sync.Mutex
	for range victimCallers {
		go func() {
			for {
				err := signCommit(ctx, j, leaf, &out)
				if err == nil {
					err = signMessage(ctx, j, leaf, &out)
				}
				if err == nil {
					err = signKeyed(ctx, j, leaf, &out)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

func feedLog(ctx context.Context, j *journal.Journal, ring *signer.Keyring, dir string) error {
	key, err := ring.Signer(ctx, "log", signer.PurposeLogCheckpoint)
	if err != nil {
		return err
	}
	sign, err := translog.NewJournalSigner(ctx, j, key, origin)
	if err != nil {
		return err
	}
	l, err := translog.Open(ctx, j, translog.Options{Dir: filepath.Join(dir, "log"), Signer: sign, Interval: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	return l.Run(ctx, 20*time.Millisecond)
}

// signCommit tries one Commit: for the epoch that is newest, or the next.
func signCommit(ctx context.Context, j *journal.Journal, leaf *signer.Signer, out *sync.Mutex) error {
	group := fmt.Sprint("group ", rand.IntN(3))
	epoch := newest(group) + rand.Uint64N(2)
	r, err := signer.MLSRequest("FramedContentTBS", signertest.CommitTBS(group, epoch, fmt.Sprint(rand.Uint32())))
	if err != nil {
		return err
	}
	return signOne(ctx, j, leaf, r, release{Group: group, Epoch: epoch, Commit: true}, out)
}

// signMessage signs a message of an epoch that was reached.
func signMessage(ctx context.Context, j *journal.Journal, leaf *signer.Signer, out *sync.Mutex) error {
	group := fmt.Sprint("group ", rand.IntN(3))
	epoch := newest(group)
	r, err := signer.MLSRequest("FramedContentTBS", signertest.ApplicationTBS(group, epoch, fmt.Sprint(rand.Uint32())))
	if err != nil {
		return err
	}
	return signOne(ctx, j, leaf, r, release{Group: group, Epoch: epoch}, out)
}

// signKeyed signs with an idempotency key that others use too.
func signKeyed(ctx context.Context, j *journal.Journal, leaf *signer.Signer, out *sync.Mutex) error {
	key := fmt.Sprint("key ", rand.IntN(500))
	r, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS(key))
	if err != nil {
		return err
	}
	return signOne(ctx, j, leaf, r, release{Key: key}, out)
}

// signOne signs and releases, as a service does.
func signOne(ctx context.Context, j *journal.Journal, leaf *signer.Signer, r *signer.Request, what release, out *sync.Mutex) error {
	res, err := j.Reserve(ctx, journal.Intent{Caller: "victim", Key: "leaf", Version: 1, Purpose: signer.PurposeMLSLeaf, Request: r, IdempotencyKey: what.Key})
	if errors.Is(err, journal.ErrInFlight) {
		return nil
	}
	var guard *journal.GuardError
	if errors.As(err, &guard) {
		group := what.Group
		n, err := strconv.ParseUint(guard.Number.String(), 10, 64)
		if guard.Fork {
			n, err = strconv.ParseUint(guard.Claim.Number.String(), 10, 64)
			n++
		}
		learn(group, n)
		return err
	}
	if err != nil {
		return err
	}
	if res.Replay() != nil {
		what.Signature = res.Replay().Signature
	} else if what.Signature, err = leaf.SignRequest(ctx, r); err != nil {
		return err
	} else {
		err = res.Complete(ctx, journal.Outcome{Result: journal.Signed, Signature: what.Signature, Device: "dev"})
		again := new(journal.RepeatedError)
		switch {
		case errors.As(err, &again):
			what.Signature = again.Outcome.Signature
		case errors.Is(err, journal.ErrInFlight), errors.As(err, &guard):
			return nil // dropped
		case err != nil:
			return err
		}
	}
	digest := sha256.Sum256(r.Octets())
	what.Digest = hex.EncodeToString(digest[:])
	line, err := json.Marshal(what)
	if err != nil {
		return err
	}
	out.Lock()
	defer out.Unlock()
	_, err = os.Stdout.Write(append(line, '\n')) // one write: whole or not at all
	return err
}

// epochs is what a victim has learned of the groups.
var epochs sync.Map

func newest(group string) uint64 {
	n, _ := epochs.LoadOrStore(group, uint64(0))
	return n.(uint64)
}

func learn(group string, n uint64) {
	if n > newest(group) {
		epochs.Store(group, n)
	}
}

// A massacre kills victims and looks at what they leave.
type massacre struct {
	t        *testing.T
	config   victimConfig
	nodes    int
	keys     *translog.Keys
	released []release
	seen     []journal.Leaf // of the journal when it was last looked at
}

func newMassacre(t *testing.T, source string, nodes int) *massacre {
	t.Helper()
	m := &massacre{t: t, nodes: nodes, config: victimConfig{Source: source, Dir: t.TempDir()}}
	if err := os.Mkdir(filepath.Join(m.config.Dir, "device"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	store := must[*signer.KeyStore](t)(signer.OpenKeyStore(ctx, filepath.Join(m.config.Dir, "keys.db"), nil))
	defer store.Close()
	ring := signer.NewKeyring(store, map[string]signer.Device{"dev": signertest.NewDir(filepath.Join(m.config.Dir, "device"))})
	defer ring.Close()
	must[*signer.Key](t)(ring.Create(ctx, signer.NewKey{ID: "leaf", Purpose: signer.PurposeMLSLeaf, Algorithm: signer.P256, Device: "dev"}))
	must[*signer.Key](t)(ring.Create(ctx, signer.NewKey{ID: "log", Purpose: signer.PurposeLogCheckpoint, Algorithm: signer.P256, Device: "dev"}))
	key := must[*signer.Signer](t)(ring.Signer(ctx, "log", signer.PurposeLogCheckpoint))
	m.keys = must[*translog.Keys](t)(translog.ParseKeys(must[string](t)(translog.VerifierKey(origin, key.Public()))))
	return m
}

// round starts the victims, waits until each has signed, and kills them at
// random moments.
func (m *massacre) round() {
	m.t.Helper()
	var wg sync.WaitGroup
	all := make([][]release, m.nodes)
	for n := range m.nodes {
		wg.Go(func() { all[n] = m.kill(n) })
	}
	wg.Wait()
	for _, r := range all {
		m.released = append(m.released, r...)
	}
}

func (m *massacre) kill(node int) (released []release) {
	c := m.config
	c.Node, c.Log = fmt.Sprint(node), node == 0
	text := must[[]byte](m.t)(json.Marshal(c))
	cmd := exec.Command(must[string](m.t)(os.Executable()))
	cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	pipe := must[io.ReadCloser](m.t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		m.t.Error(err)
		return nil
	}
	patience := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var r release
		if err := json.Unmarshal(line, &r); err != nil {
			m.t.Errorf("a victim wrote %q", line)
			break
		}
		if released == nil {
			// It is at work: it has until then to live.
			time.AfterFunc(time.Duration(rand.Int64N(int64(300*time.Millisecond))), func() { cmd.Process.Kill() })
		}
		released = append(released, r)
	}
	cmd.Wait()
	if !patience.Stop() || released == nil || cmd.ProcessState.ExitCode() == 1 {
		m.t.Errorf("a victim ended by itself, or never signed: %s", complaint.String())
	}
	return released
}

// check looks at everything that was ever released and at what was seen
// before, and then closes what the crash left open.
func (m *massacre) check() {
	m.t.Helper()
	ctx := m.t.Context()
	j := must[*journal.Journal](m.t)(journal.Open(ctx, m.config.Source, nil))
	defer j.Close()
	entries := make(map[string]*journal.Entry) // by hash of the signature
	commits := make(map[string]string)         // by group and epoch
	epochs := make(map[string][][2]uint64)     // reservation and epoch of what was signed, by group
	var leaves []journal.Leaf
	must[journal.Head](m.t)(j.Verify(ctx, func(e *journal.Entry) error {
		leaves = append(leaves, journal.Leaf{Commitment: e.Commitment()})
		if e.Outcome.Result == journal.Signed {
			entries[e.Outcome.Signature] = e
		}
		for _, c := range e.Intent.Claims {
			if c.Kind == journal.KindEpoch && e.Outcome.Result == journal.Signed {
				n := must[uint64](m.t)(strconv.ParseUint(c.Number, 10, 64))
				epochs[c.Name] = append(epochs[c.Name], [2]uint64{uint64(e.Reservation), n})
			}
			if c.Kind != journal.KindCommit {
				continue
			}
			if other, ok := commits[c.Name+c.Number]; ok && other != c.Content {
				m.t.Errorf("two Commits of epoch %s in group %s", c.Number, c.Name)
			}
			commits[c.Name+c.Number] = c.Content
		}
		return nil
	}))
	m.unchanged(leaves)
	for group, signed := range epochs {
		slices.SortFunc(signed, func(a, b [2]uint64) int { return cmp.Compare(a[0], b[0]) })
		for i := 1; i < len(signed); i++ {
			if signed[i][1] < signed[i-1][1] {
				m.t.Errorf("epoch %d was signed after %d in group %s", signed[i][1], signed[i-1][1], group)
			}
		}
	}
	keyed := make(map[string]string) // by idempotency key
	for _, r := range m.released {
		sum := sha256.Sum256(r.Signature)
		if e := entries[hex.EncodeToString(sum[:])]; e == nil || e.Intent.Digest != r.Digest {
			m.t.Errorf("a signature of epoch %d in %q, key %q, left and has no entry", r.Epoch, r.Group, r.Key)
		}
		if r.Key != "" {
			if other, ok := keyed[r.Key]; ok && other != string(r.Signature) {
				m.t.Errorf("two signatures left for %q", r.Key)
			}
			keyed[r.Key] = string(r.Signature)
		}
		if !r.Commit {
			continue
		}
		if c := commits[hex.EncodeToString([]byte(r.Group))+fmt.Sprint(r.Epoch)]; c != r.Digest {
			m.t.Errorf("a Commit of epoch %d in %s left, and the journal has another", r.Epoch, r.Group)
		}
	}
	m.checkLog(ctx, j)
	must[int](m.t)(j.Reconcile(ctx, time.Now().Add(time.Hour)))
}

// unchanged sees that nothing that was there is gone.
func (m *massacre) unchanged(leaves []journal.Leaf) {
	m.t.Helper()
	if len(leaves) < len(m.seen) {
		m.t.Fatalf("%d entries became %d", len(m.seen), len(leaves))
	}
	for i := range m.seen {
		if leaves[i].Commitment != m.seen[i].Commitment {
			m.t.Fatalf("entry %d is another one now", i)
		}
	}
	m.seen = leaves
}

func (m *massacre) checkLog(ctx context.Context, j *journal.Journal) {
	m.t.Helper()
	src := must[*translog.Source](m.t)(translog.NewSource(filepath.Join(m.config.Dir, "log"), nil))
	if _, err := src.Checkpoint(ctx, m.keys); errors.Is(err, os.ErrNotExist) {
		return // killed before the first one
	}
	if _, err := translog.Audit(ctx, j, src, m.keys); err != nil {
		m.t.Errorf("the log: %v", err)
	}
	monitor := &translog.Monitor{Source: src, Keys: m.keys, State: filepath.Join(m.config.Dir, "monitor")}
	if _, err := monitor.Check(ctx); err != nil {
		m.t.Errorf("the log: %v", err)
	}
}

// kills is how often victims are killed: a few times in every run of the
// tests, and as often as PRIVYSEAL_TEST_KILLS says.
func kills(t *testing.T) int {
	text := os.Getenv("PRIVYSEAL_TEST_KILLS")
	if text == "" {
		return 10
	}
	return must[int](t)(strconv.Atoi(text))
}

// TestKillAtAnyMoment kills signing processes with SIGKILL, on SQLite one and
// on PostgreSQL two that share the journal, one of them feeding the log.
func TestKillAtAnyMoment(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		nodes := 1
		if strings.HasPrefix(source, "postgres") {
			nodes = 2
		}
		m := newMassacre(t, source, nodes)
		for range kills(t) {
			m.round()
			m.check()
			if t.Failed() {
				return
			}
		}
		t.Logf("%d kills of %d processes, %d signatures released, %d entries", kills(t), nodes, len(m.released), len(m.seen))
		m.goesOn()
	})
}

// goesOn opens everything once more and brings the log to its end.
func (m *massacre) goesOn() {
	m.t.Helper()
	ctx := m.t.Context()
	j := must[*journal.Journal](m.t)(journal.Open(ctx, m.config.Source, nil))
	defer j.Close()
	store := must[*signer.KeyStore](m.t)(signer.OpenKeyStore(ctx, filepath.Join(m.config.Dir, "keys.db"), nil))
	defer store.Close()
	ring := signer.NewKeyring(store, map[string]signer.Device{"dev": signertest.NewDir(filepath.Join(m.config.Dir, "device"))})
	defer ring.Close()
	h := &house{t: m.t, dir: filepath.Join(m.config.Dir, "log"), journal: j, keys: m.keys}
	key := must[*signer.Signer](m.t)(ring.Signer(ctx, "log", signer.PurposeLogCheckpoint))
	sign := must[note.Signer](m.t)(translog.NewJournalSigner(ctx, j, key, origin))
	h.log = must[*translog.Log](m.t)(translog.Open(ctx, j, translog.Options{Dir: h.dir, Signer: sign, Interval: 100 * time.Millisecond}))
	defer h.log.Close(ctx)
	h.sign("after", 1)
	h.publish()
	m.checkLog(ctx, j)
}
