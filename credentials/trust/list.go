package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/safehttp"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// Options are what a List works with beside its file. The zero value keeps what
// it fetches in memory only.
type Options struct {
	// DB keeps what was fetched, and which credentials are known to be
	// revoked, so that a restart opens no hole. It is opened with [Migrations].
	DB *sqldb.DB
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Rand is between 0 and 1 and spreads the times of refreshes; random if
	// nil.
	Rand func() float64
}

// A List is the trust configuration with what was fetched for it. It may be
// used concurrently.
type List struct {
	path    string
	opts    Options
	docs    *documents
	mu      sync.Mutex // serialises Reload and the change of keys
	current atomic.Pointer[Snapshot]
	watch   watchers
	revoked revocations
	answers answers

	forTests func(*safehttp.Config) // changes how is fetched; nil but in tests
}

// A Snapshot is one reading of the configuration. It does not change.
type Snapshot struct {
	// Generation counts the changes: of the file, of the files that it names,
	// and of key sets that were fetched. A result that was found under another
	// generation may not hold any more.
	Generation uint64
	Config     *Config

	list    *List
	digest  [sha256.Size]byte
	issuers []*Issuer
	byName  map[string]*Issuer
	byIss   map[[2]string]*Issuer
	paths   *certs.Verifier
	fetch   *safehttp.Client // for what has no authorities of its own
	domains *autoDomains
	clients []*safehttp.Client
}

// Open reads a trust configuration.
func Open(path string, opts Options) (*List, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &List{path: path, opts: opts}
	l.docs = newDocuments(opts)
	return l, l.Reload()
}

// Close closes connections that are kept open.
func (l *List) Close() { l.current.Load().close() }

// Snapshot returns the configuration as it is now.
func (l *List) Snapshot() *Snapshot { return l.current.Load() }

// Generation is that of the Snapshot.
func (l *List) Generation() uint64 { return l.Snapshot().Generation }

// Reload reads the file and all files that it names. Either all of it takes
// effect or, with an error, nothing. What is as it was changes nothing.
func (l *List) Reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := l.build()
	if err != nil {
		var at *ConfigError
		if errors.As(err, &at) && at.File == "" {
			at.File = l.path
		}
		return err
	}
	old := l.current.Load()
	if old != nil && old.digest == next.digest {
		next.close()
		return nil
	}
	l.publish(next)
	if old != nil {
		old.close()
	}
	return nil
}

// publish puts a snapshot in force. l.mu is held.
func (l *List) publish(next *Snapshot) {
	if old := l.current.Load(); old != nil {
		next.Generation = old.Generation + 1
	} else {
		next.Generation = 1
	}
	l.current.Store(next)
	l.watch.wake()
}

// keysChanged makes results that were found under earlier keys void.
func (l *List) keysChanged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := *l.current.Load()
	l.publish(&next)
}

// A builder makes a Snapshot.
type builder struct {
	list   *List
	config *Config
	dir    string
	hash   hash.Hash
	snap   *Snapshot
}

func (l *List) build() (_ *Snapshot, err error) {
	text, err := readBounded(l.path, maxConfig)
	if err != nil {
		return nil, &ConfigError{File: l.path, Err: err}
	}
	config, err := ParseConfig(text)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Config: config, list: l, byName: map[string]*Issuer{}, byIss: map[[2]string]*Issuer{}, domains: &autoDomains{all: map[string]*Issuer{}}}
	b := &builder{list: l, config: config, dir: filepath.Dir(l.path), hash: sha256.New(), snap: s}
	b.hash.Write(text)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.fetch, err = b.client("fetch.ca_file", config.Fetch.CAFile); err != nil {
		return nil, err
	}
	if err = b.issuers(); err != nil {
		return nil, err
	}
	b.hash.Sum(s.digest[:0])
	return s, nil
}

// timeless is a skew that makes every time of ours be within every validity:
// when a credential is valid is judged apart from whether it is what it says.
const timeless = 250 * 365 * 24 * time.Hour

func (b *builder) issuers() error {
	s := b.snap
	var entries []certs.Entry
	for n := range b.config.Issuers {
		i, err := b.compile(n)
		if err != nil {
			return err
		}
		s.issuers, s.byName[i.Name] = append(s.issuers, i), i
		if i.Type == TypeX509 {
			entries = append(entries, i.anchors)
		} else {
			s.byIss[[2]string{i.Type, i.config.Iss}] = i
		}
	}
	var err error
	if s.paths, err = certs.NewVerifier(timeless, entries...); err != nil {
		return wrong("issuers", "%w", err)
	}
	return nil
}

// client returns a client for the fetches of this configuration, or with other
// authorities for one issuer.
func (b *builder) client(at, caFile string) (*safehttp.Client, error) {
	f := &b.config.Fetch
	config := safehttp.Config{Timeout: seconds(f.TimeoutS)}
	for _, text := range f.AllowPrivate {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, wrong("fetch.allow_private", "%w", err)
		}
		config.Allow = append(config.Allow, p)
	}
	roots, err := b.readCertificates(at, caFile)
	if err != nil {
		return nil, err
	}
	if roots != nil {
		config.Roots = x509.NewCertPool()
		for _, c := range roots {
			config.Roots.AddCert(c)
		}
	}
	if change := b.list.forTests; change != nil {
		change(&config)
	}
	c := safehttp.New(config)
	b.snap.clients = append(b.snap.clients, c)
	return c, nil
}

func (s *Snapshot) close() {
	if s == nil {
		return
	}
	for _, c := range s.clients {
		c.Close()
	}
}

// Issuers returns the entries in their order.
func (s *Snapshot) Issuers() []*Issuer { return s.issuers }

// Issuer returns an entry by its name, or nil.
func (s *Snapshot) Issuer(name string) *Issuer { return s.byName[name] }

// Skew is what clocks may differ by; Grace is for how long a member goes on
// with what has expired.
func (s *Snapshot) Skew() time.Duration  { return seconds(s.Config.Defaults.SkewS) }
func (s *Snapshot) Grace() time.Duration { return seconds(s.Config.Defaults.GraceS) }

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d octets", path, most)
	}
	return b, nil
}

// watchers are told of changes without being waited for.
type watchers struct {
	mu   sync.Mutex // guards all
	next int
	all  map[int]chan struct{}
}

// Watch returns a channel that has a value after changes of the configuration,
// of keys or of what is known of revocations, and a function that ends it.
func (l *List) Watch() (<-chan struct{}, func()) { return l.watch.add() }

func (w *watchers) add() (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[int]chan struct{}{}
	}
	id, c := w.next, make(chan struct{}, 1)
	w.next++
	w.all[id] = c
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, id)
	}
}

func (w *watchers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.all {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// AdmitsBasic reports whether a credential that proves nothing is taken from a
// host.
func (s *Snapshot) AdmitsBasic(host string) bool {
	b := &s.Config.Basic
	listed := slices.Contains(b.Hosts, host)
	return b.Mode == basicTest && listed || b.Mode == basicAllow && (listed || len(b.Hosts) == 0)
}

// QuarantinesUnknown reports whether a group is followed although it has a leaf
// of an issuer that is not configured.
func (s *Snapshot) QuarantinesUnknown() bool { return s.Config.UnknownIssuer == unknownQuarantine }

// RefusesBasic reports whether credentials that prove nothing are taken from
// nobody.
func (s *Snapshot) RefusesBasic() bool { return s.Config.Basic.Mode == basicRefuse }
