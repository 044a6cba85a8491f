package journal_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// A reservation that is not durable is "once" in the model: nothing counts of it
// before it is completed, and it is "lost" with its process.

// The model knows every claim that was ever let in, and asks of a new one
// whether it contradicts one of them. It keeps no marks.

type modelClaim struct {
	scope   string
	number  uint64
	content string // "" where there may be several
	observe bool
}

type modelReservation struct {
	claims    []modelClaim
	state     string // "once", "lost", "open", "signed", "unknown", "not-signed"
	rejected  bool   // its Commit
	requested *signer.Request
	epoch     uint64
	group     string
	held      *journal.Reservation // nil after a crash
}

// contradicts reports whether a claim cannot stand beside an older one.
func (c modelClaim) contradicts(old modelClaim, rejected bool) bool {
	switch {
	case c.scope != old.scope || old.observe:
		return false
	case c.number != old.number:
		return c.number < old.number
	}
	return !c.observe && !rejected && c.content != old.content
}

type model struct {
	reservations []*modelReservation
}

// admits tells whether a request may be let in. strict counts what was not
// signed as if it had been.
func (m *model) admits(claims []modelClaim, strict bool) bool {
	for _, r := range m.reservations {
		if r.state == "not-signed" && !strict || r.state == "once" || r.state == "lost" {
			continue
		}
		for _, old := range r.claims {
			for _, c := range claims {
				if c.contradicts(old, r.rejected) {
					return false
				}
			}
		}
	}
	return true
}

// open counts what is open.
func (m *model) open() (n int) {
	for _, r := range m.reservations {
		if r.state == "open" {
			n++
		}
	}
	return n
}

// A machine runs the journal beside the model.
type machine struct {
	t       *rapid.T
	test    testing.TB
	source  string
	tenant  string
	nodes   []*journal.Journal
	model   model
	entries int // in the journal, of this tenant
	fault   string
}

var errFault = errors.New("fault")

func (m *machine) open() {
	for i := range m.nodes {
		j, err := journal.Open(context.Background(), m.source, &journal.Options{Node: fmt.Sprint(i)})
		if err != nil {
			m.t.Fatal(err)
		}
		j.SetFault(func(before bool) error {
			if m.fault == "before" && before || m.fault == "after" && !before {
				return errFault
			}
			return nil
		})
		m.nodes[i] = j
	}
}

func (m *machine) close() {
	for _, j := range m.nodes {
		j.Close()
	}
}

func (m *machine) node() *journal.Journal {
	return m.nodes[rapid.IntRange(0, len(m.nodes)-1).Draw(m.t, "node")]
}

// draw makes a request with what the model thinks of it.
func (m *machine) draw() *modelReservation {
	t := m.t
	group := rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group")
	n := rapid.Uint64Range(0, 5).Draw(t, "number")
	content := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "content")
	r := &modelReservation{epoch: n, group: group, state: "open"}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		r.requested = message(m.test, m.tenant+group, n, content)
		r.claims = []modelClaim{{scope: "epoch " + group, number: n}}
	case 1:
		r.requested = commit(m.test, m.tenant+group, n, content)
		r.claims = []modelClaim{{scope: "epoch " + group, number: n}, {scope: "commit " + group, number: n, content: content}}
	case 2:
		r.requested = statusJWT(m.test, group, int64(n), content)
		r.claims = []modelClaim{{scope: "list " + group, number: n, content: content}}
	case 3:
		r.requested = checkpoint(m.test, "log."+group, n, content)
		r.claims = []modelClaim{{scope: "log " + group, number: n, content: content}}
	}
	return r
}

func (m *machine) intent(r *signer.Request) journal.Intent {
	in := intent(r)
	in.Tenant, in.Key = m.tenant, signer.KeyID("k-"+m.tenant)
	return in
}

func (m *machine) Reserve(*rapid.T) {
	r := m.draw()
	res, err := m.node().Reserve(context.Background(), m.intent(r.requested))
	var guard *journal.GuardError
	switch {
	case errors.As(err, &guard):
		if m.model.admits(r.claims, true) {
			m.t.Fatalf("refused, and nothing contradicts it: %v", err)
		}
		return
	case errors.Is(err, errFault) && m.fault == "after":
		if m.unfinished() == m.model.open() { // the guard refused it, and the answer was lost
			if m.model.admits(r.claims, true) {
				m.t.Fatal("refused, and nothing contradicts it")
			}
			return
		}
	case errors.Is(err, errFault):
		return
	case err != nil:
		m.t.Fatal(err)
	default:
		r.held = res
		if res.Number() == 0 {
			r.state = "once"
			m.model.reservations = append(m.model.reservations, r)
			return
		}
	}
	if !m.model.admits(r.claims, false) {
		m.t.Fatalf("let in beside what it contradicts: %+v", r.claims)
	}
	m.model.reservations = append(m.model.reservations, r)
}

// held draws one of the reservations that can be completed.
func (m *machine) held() *modelReservation {
	var open []*modelReservation
	for _, r := range m.model.reservations {
		if r.held != nil && (r.state == "open" || r.state == "once") {
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		m.t.Skip("none is open")
	}
	return rapid.SampledFrom(open).Draw(m.t, "reservation")
}

func (m *machine) Complete(*rapid.T) {
	r := m.held()
	result := rapid.SampledFrom([]journal.Result{journal.Signed, journal.NotSigned, journal.Unknown}).Draw(m.t, "result")
	out := journal.Outcome{Result: result}
	if result == journal.Signed {
		out.Signature = fmt.Append(nil, m.tenant, m.entries)
	}
	once := r.state == "once"
	err := r.held.Complete(context.Background(), out)
	var guard *journal.GuardError
	switch {
	case errors.Is(err, errFault) && m.fault == "before":
		r.held = nil // spent; it stays open
		if once {
			r.state = "lost"
		}
		return
	case once && errors.As(err, &guard):
		if m.model.admits(r.claims, true) {
			m.t.Fatalf("dropped, and nothing contradicts it: %v", err)
		}
		r.state = "lost" // but its entry says so
		m.entries++
		return
	case once && err == nil && result == journal.Signed && !m.model.admits(r.claims, false):
		m.t.Fatalf("released beside what it contradicts: %+v", r.claims)
	case err != nil && !errors.Is(err, errFault):
		m.t.Fatal(err)
	}
	r.state = string(result)
	m.entries++
}

func (m *machine) Reject(*rapid.T) {
	if m.fault != "" {
		m.t.Skip("an answer that is lost says nothing new here")
	}
	r := m.draw()
	if len(r.claims) != 2 {
		m.t.Skip("no Commit")
	}
	d := sha256.Sum256(r.requested.Octets())
	err := m.node().ReportRejected(context.Background(), journal.Rejection{Tenant: m.tenant, Key: signer.KeyID("k-" + m.tenant),
		Group: []byte(m.tenant + r.group), Epoch: r.epoch, Digest: d[:]})
	if errors.Is(err, journal.ErrNotFound) || errors.Is(err, journal.ErrInFlight) {
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	known := false
	for _, old := range m.model.reservations {
		if len(old.claims) == 2 && old.claims[1] == r.claims[1] {
			if old.state == "open" {
				m.t.Fatal("rejected while it may still be signed")
			}
			old.rejected, known = true, true
		}
	}
	if !known {
		m.t.Fatal("a Commit was rejected that was never let in")
	}
	m.entries++
}

// Fault makes the writes fail from now on, or work again.
func (m *machine) Fault(*rapid.T) {
	m.fault = rapid.SampledFrom([]string{"", "", "before", "after"}).Draw(m.t, "fault")
}

func (m *machine) Crash(*rapid.T) {
	m.close()
	m.fault = ""
	m.open()
	for _, r := range m.model.reservations {
		r.held = nil
		if r.state == "once" {
			r.state = "lost"
		}
	}
}

func (m *machine) Reconcile(*rapid.T) {
	if m.fault != "" {
		m.t.Skip("writes fail")
	}
	if _, err := m.node().Reconcile(context.Background(), time.Now().Add(time.Hour)); err != nil {
		m.t.Fatal(err)
	}
	for _, r := range m.model.reservations {
		if r.state == "open" {
			r.state = "unknown"
			m.entries++
		}
	}
}

// unfinished counts what is open in the journal.
func (m *machine) unfinished() (n int) {
	open, err := m.nodes[0].Unfinished(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, u := range open {
		if u.Intent.Tenant == m.tenant {
			n++
		}
	}
	return n
}

// check compares what is open and what is closed.
func (m *machine) check() {
	ctx := context.Background()
	m.Crash(nil)
	want, got := m.model.open(), m.unfinished()
	entries := 0
	if _, err := m.nodes[0].Verify(ctx, func(e *journal.Entry) error {
		if e.Intent.Tenant == m.tenant {
			entries++
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
	if got != want || entries != m.entries {
		m.t.Fatalf("%d open and %d entries, want %d and %d", got, entries, want, m.entries)
	}
}

var tenants atomic.Int64

// histories sets how many are drawn, unless the command line says.
func histories(t *testing.T, n string) {
	t.Helper()
	const name = "rapid.checks"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	old := flag.Lookup(name).Value.String()
	if err := flag.CommandLine.Lookup(name).Value.Set(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.CommandLine.Lookup(name).Value.Set(old) })
}

// TestGuardAgainstModel draws histories with lost answers, failed writes and
// crashes.
func TestGuardAgainstModel(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		nodes := 1
		if strings.HasPrefix(source, "postgres") {
			nodes = 2
			histories(t, "10") // a crash costs it new connections
		}
		rapid.Check(t, func(rt *rapid.T) {
			m := &machine{t: rt, test: t, source: source, tenant: fmt.Sprint("t", tenants.Add(1)), nodes: make([]*journal.Journal, nodes)}
			m.open()
			defer m.close()
			reserve := m.Reserve
			rt.Repeat(map[string]func(*rapid.T){
				"reserve": reserve, "reserve again": reserve, "reserve once more": reserve,
				"complete": m.Complete, "complete again": m.Complete, "reject": m.Reject,
				"fault": m.Fault, "crash": m.Crash, "reconcile": m.Reconcile,
			})
			m.check()
		})
	})
}

// TestNodesRaceForAnEpoch lets many callers on two nodes sign different
// Commits for the same epochs.
func TestNodesRaceForAnEpoch(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		nodes := []*journal.Journal{open(t, source)}
		if strings.HasPrefix(source, "postgres") {
			nodes = append(nodes, open(t, source))
		}
		const epochs, callers = 12, 8
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for epoch := range uint64(epochs) {
					err := sign(t.Context(), nodes[c%len(nodes)], intent(commit(t, "g", epoch, fmt.Sprint("by ", c))), fmt.Sprint("sig", c, epoch))
					var guard *journal.GuardError
					if err != nil && !errors.As(err, &guard) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		commits := make(map[string]string)
		last := uint64(0)
		if _, err := nodes[0].Verify(t.Context(), func(e *journal.Entry) error {
			var n uint64
			fmt.Sscan(e.Intent.Claims[0].Number, &n)
			if other, ok := commits[e.Intent.Claims[0].Number]; ok && other != e.Intent.Digest {
				t.Errorf("two Commits of epoch %d", n)
			}
			commits[e.Intent.Claims[0].Number] = e.Intent.Digest
			last = max(last, n)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if last != epochs-1 {
			t.Errorf("they came to epoch %d only", last)
		}
	})
}
