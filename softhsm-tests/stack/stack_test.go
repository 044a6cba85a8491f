//go:build soak

package stack

import (
	"bytes"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

var (
	hosts = []string{"a.example", "b.example"}
	users = []string{"alice@a.example", "adam@a.example", "bob@b.example", "beth@b.example"}
	rooms = []string{"mimi://a.example/r/clubhouse", "mimi://b.example/r/workshop"}
)

// A world is all parties with what is between them.
type world struct {
	t         *testing.T
	dir       string
	postgres  *pgtest.Server
	providers map[string]*party  // by host
	clients   []*party           // in the order of users
	inward    map[string][]*link // the links that lead to a provider's clients' side
	between   map[string]*link   // the link that leads to a provider from the other
	links     []*link            // all
	runs      map[string]int     // how often a client was given its load
	tally     *tally
	faults    map[string]int
	mu        sync.Mutex // guards runs and faults
	database  sync.Mutex // is held while PostgreSQL is down
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), providers: make(map[string]*party), inward: make(map[string][]*link), between: make(map[string]*link),
		runs: make(map[string]int), tally: new(tally), faults: make(map[string]int),
	}
	w.postgres = must[*pgtest.Server](t)(pgtest.Start())
	t.Cleanup(func() { w.postgres.Close() })
	ca, network := identitytest.NewCA(t, "Test root", nil), peertest.New(t)
	common := settings{Trust: identitytest.WriteConfig(t, w.dir, nil, ca.Entry(t, w.dir, "test", hosts...)), Root: network.CA.Raw}
	w.makeProviders(common, ca, network)
	w.makeClients(common, ca)
	t.Cleanup(w.showLogs)
	for _, host := range hosts {
		w.try(w.startProvider(host))
	}
	for _, c := range w.clients {
		w.try(c.start())
		w.try(c.ask(&order{Do: "register"}, nil))
	}
	w.makeRooms()
	return w
}

func (w *world) try(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) link(name string) *link {
	k := newLink(w.t, name)
	w.links = append(w.links, k)
	return k
}

func (w *world) makeProviders(s settings, ca *identitytest.CA, network *peertest.Net) {
	w.t.Helper()
	links := make(map[string]string)
	for _, host := range hosts {
		w.between[host] = w.link("providers to " + host)
		links[host] = w.between[host].address()
	}
	for i, host := range hosts {
		dir := folder(w.t, w.dir, host)
		s.Name, s.Host, s.Links, s.Source = host, host, links, filepath.Join(dir, "provider.db")
		if i == 0 {
			s.Source = must[string](w.t)(w.postgres.NewDatabase(w.t.Context()))
		}
		cert := network.CertificateUntil(w.t, time.Now().Add(lifetime), host)
		s.TLS = certified{Key: marshalKey(w.t, cert.PrivateKey), Chain: cert.Certificate}
		s.Sender, s.Franking = certify(w.t, ca, "mimi://"+host), certify(w.t, ca, "mimi://"+host)
		s.MAC = make([]byte, 32)
		rand.Read(s.MAC)
		w.providers[host] = newParty(w.t, dir, host, &s, w.tally)
	}
}

func (w *world) makeClients(s settings, ca *identitytest.CA) {
	w.t.Helper()
	for _, u := range users {
		user, host, _ := strings.Cut(u, "@")
		dir, k := folder(w.t, w.dir, u), w.link(u+" to its provider")
		w.inward[host] = append(w.inward[host], k)
		s.Name, s.Host, s.Provider, s.Rooms, s.State, s.TLS = user, host, k.address(), rooms, filepath.Join(dir, "state.db"), selfSigned(w.t)
		s.Leaf = certify(w.t, ca, fmt.Sprintf("mimi://%s/d/%s/phone", host, user), fmt.Sprintf("mimi://%s/u/%s", host, user))
		w.clients = append(w.clients, newParty(w.t, dir, u, &s, w.tally))
	}
}

// startProvider starts a provider and leads the links to it.
func (w *world) startProvider(host string) error {
	p := w.providers[host]
	if err := p.start(); err != nil {
		return err
	}
	a := new(addresses)
	if err := p.ask(&order{Do: "listen"}, a); err != nil {
		return err
	}
	w.between[host].lead(a.Providers)
	for _, k := range w.inward[host] {
		k.lead(a.Clients)
	}
	return nil
}

// makeRooms makes the rooms with everybody in both.
func (w *world) makeRooms() {
	w.t.Helper()
	for i, room := range rooms {
		creator := w.clients[2*i] // the first of the room's provider
		w.try(creator.ask(&order{Do: "create", Room: room}, nil))
		for _, u := range users {
			if u != creator.name {
				user, host, _ := strings.Cut(u, "@")
				w.try(creator.ask(&order{Do: "add", Room: room, User: fmt.Sprintf("mimi://%s/u/%s", host, user)}, nil))
			}
		}
	}
	// A hub takes messages of the epoch before. Whoever came after it cannot read
	// those; so everybody is in one epoch before the load begins.
	w.converge(w.unsettled)
}

// load gives a client its load, of texts that no run before had.
func (w *world) load(c *party) error {
	w.mu.Lock()
	w.runs[c.name]++
	run := w.runs[c.name]
	w.mu.Unlock()
	return c.ask(&order{Do: "load", Run: run}, nil)
}

// reports asks all clients for what they have.
func (w *world) reports() ([]*report, error) {
	list := make([]*report, len(w.clients))
	errs := make([]error, len(w.clients))
	var wg sync.WaitGroup
	for i, c := range w.clients {
		list[i] = new(report)
		wg.Go(func() { errs[i] = c.ask(&order{Do: "report"}, list[i]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// healing is how long the parties may take to agree when nothing disturbs them.
// A provider waits between its tries.
const healing = 2 * time.Minute

// converge asks for reports until there is nothing to complain of.
func (w *world) converge(complaint func([]*report) string) []*report {
	w.t.Helper()
	for end := time.Now().Add(healing); ; time.Sleep(200 * time.Millisecond) {
		list, err := w.reports()
		what := ""
		if err != nil {
			what = err.Error()
		} else {
			what = complaint(list)
		}
		if what == "" {
			return list
		}
		if time.Now().After(end) {
			w.nothingRefused(list)
			w.t.Fatalf("after %v without faults: %s", healing, what)
		}
	}
}

// showLogs prints what the parties had to say, if the test failed.
func (w *world) showLogs() {
	if !w.t.Failed() {
		return
	}
	logs := must[[]string](w.t)(filepath.Glob(filepath.Join(w.dir, "*", "log")))
	for _, path := range logs {
		lines := bytes.Split(must[[]byte](w.t)(os.ReadFile(path)), []byte("\n"))
		w.t.Logf("%s:\n%s", path, bytes.Join(lines[max(0, len(lines)-25):], []byte("\n")))
	}
}

// A fault happens once; it ends by itself.
type fault struct {
	name string
	do   func() error
}

// deck is one fault of each kind, the kills for every party that has them.
func (w *world) deck() []fault {
	pick := func() *link { return w.links[mathrand.N(len(w.links))] }
	d := []fault{
		{"kill PostgreSQL", w.killPostgres},
		{"cut", func() error { pick().cut(); return nil }},
		{"cut all", func() error {
			for _, k := range w.links {
				k.cut()
			}
			return nil
		}},
		{"tear", func() error { pick().tearNext(); return nil }},
		{"tear", func() error { pick().tearNext(); return nil }},
		{"slow", func() error { pick().slowDown(3*time.Second, 150*time.Millisecond); return nil }},
		{"partition", func() error { return part(pick()) }},
		{"partition of providers", func() error { return part(w.between[hosts[0]], w.between[hosts[1]]) }},
	}
	for _, host := range hosts {
		d = append(d, fault{"kill provider", func() error { return w.killProvider(host) }})
	}
	for range 2 {
		d = append(d, fault{"kill client", func() error { return w.killClient(w.clients[mathrand.N(len(w.clients))]) }})
	}
	mathrand.Shuffle(len(d), func(i, j int) { d[i], d[j] = d[j], d[i] })
	return d
}

// part holds links for a while, and then mostly drops what they had.
func part(links ...*link) error {
	d := 200*time.Millisecond + mathrand.N(2*time.Second)
	for _, k := range links {
		k.hold(d)
	}
	if mathrand.N(3) > 0 {
		time.Sleep(d / 2)
		for _, k := range links {
			k.cut()
		}
	}
	return nil
}

// away is how long a killed process is not there.
func away() { time.Sleep(mathrand.N(time.Second)) }

func (w *world) killPostgres() error {
	w.database.Lock()
	defer w.database.Unlock()
	w.postgres.Kill()
	away()
	return w.postgres.Run()
}

func (w *world) killProvider(host string) error {
	w.providers[host].kill()
	away()
	return w.startProvider(host)
}

func (w *world) killClient(c *party) error {
	c.kill()
	away()
	if err := c.start(); err != nil {
		return err
	}
	return w.load(c)
}

// disturb deals faults for a time, each deck whole, and several at once.
func (w *world) disturb(d, pause time.Duration) {
	w.t.Helper()
	var wg sync.WaitGroup
	turn := map[string]*sync.Mutex{"kill provider": {}, "kill client": {}} // a party is killed once at a time
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, f := range w.deck() {
			time.Sleep(pause/2 + mathrand.N(pause))
			w.mu.Lock()
			w.faults[f.name]++
			w.mu.Unlock()
			wg.Go(func() {
				if m := turn[f.name]; m != nil {
					m.Lock()
					defer m.Unlock()
				}
				if err := f.do(); err != nil {
					w.t.Errorf("%s: %v", f.name, err)
				}
			})
		}
	}
	wg.Wait()
	for _, k := range w.links {
		k.heal()
	}
}

// run is the story: load, faults, healing, and the checker.
func (w *world) run(d, pause time.Duration) {
	w.t.Helper()
	begin := time.Now()
	for _, c := range w.clients {
		w.try(w.load(c))
	}
	w.disturb(d, pause)
	disturbed := time.Since(begin)
	w.settled()
	healed := time.Since(begin) - disturbed
	w.lastWords()
	w.summary(disturbed, healed)
}

func (w *world) summary(disturbed, healed time.Duration) {
	w.t.Logf("%d messages and %d commits acknowledged, %d outcomes open for a time; disturbed for %v, healed in %v; faults: %v",
		len(w.tally.acks), w.tally.commits, w.tally.open, disturbed.Round(time.Second), healed.Round(time.Millisecond), w.faults)
}
