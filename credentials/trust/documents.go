package trust

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
)

// Bounds of fetching.
const (
	minAge       = 5 * time.Minute
	maxAge       = 24 * time.Hour
	defaultAge   = time.Hour
	retryFirst   = 30 * time.Second // after a failure; doubled up to minAge
	maxDocuments = 4096             // kept in memory
	maxOctets    = 512 << 20        // that they take in memory, about
)

// A document is something that is fetched and kept: what it is, where it is,
// and how it is read.
type document struct {
	kind   string // part of its name, so that one URL can be read in two ways
	uri    string // or the path of a file, if it has no scheme
	owner  string // the issuer entry for which it is fetched
	accept []string
	limit  int64
	plain  bool
	hops   int
	client *safehttp.Client

	// read parses and verifies what came. prev is what it replaces, or nil; an
	// older one is refused. It is called again for what a database has kept.
	read func(ctx context.Context, in input) (reading, error)
	// ask makes the body of a POST, and a check of the answer to it; nil is a
	// GET.
	ask func() (post []byte, check func(answer []byte) error, err error)
	// changed is told when a fetch brought something else than before.
	changed func(prev, next any)
}

// An input is a body that came.
type input struct {
	mediaType string
	body      []byte
	fetched   time.Time
	maxAge    time.Duration // as the server said; 0 if it did not
	prev      any
}

// A reading is a body that was understood.
type reading struct {
	value   any
	issue   order     // nil where nothing is older or newer, as of key sets
	refresh time.Time // when it should be fetched anew
	until   time.Time // when it ceases to be good, but for what staleness is allowed
	hard    time.Time // when it may not be used however stale is allowed; zero is never
	octets  int       // that the value takes in memory, about; 0 is as many as came
}

// A held is a document in memory.
type held struct {
	flight chan struct{} // holds a token while somebody fetches
	owner  string        // the issuer entry for which it is fetched
	octets int           // that it takes in memory; guarded by documents.mu

	mu       sync.Mutex // guards the fields below
	have     bool
	reading  reading
	taken    time.Time // when it was fetched
	etag     string
	loaded   bool      // the database was asked
	doc      *document // as it was last asked for
	wanted   time.Time // when that was
	failed   error
	failures int
	retry    time.Time // no fetch before it, after a failure
	forced   time.Time // of the last fetch that was forced
}

// documents are what was fetched.
type documents struct {
	store store
	now   func() time.Time
	rand  func() float64

	most int // octets

	mu     sync.Mutex // guards what follows, and the octets of each
	all    map[string]*held
	octets int // of all
}

func newDocuments(o Options) *documents {
	d := &documents{store: store{o.DB}, now: o.Now, rand: o.Rand, most: maxOctets, all: map[string]*held{}}
	if d.rand == nil {
		d.rand = rand.Float64
	}
	return d
}

func (d *documents) held(doc *document) *held {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := doc.id()
	h := d.all[id]
	if h != nil {
		return h
	}
	h = &held{flight: make(chan struct{}, 1), owner: doc.owner}
	d.all[id] = h
	d.makeRoom(h)
	return h
}

// weigh notes how much memory a document takes.
func (d *documents) weigh(h *held, id string, octets int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[id] != h {
		return // forgotten meanwhile
	}
	d.octets += octets - h.octets
	h.octets = octets
	d.makeRoom(h)
}

// makeRoom forgets any other documents while there are too many, those of the same
// issuer entry first: one issuer does not crowd out the rest. Those in use stay
// alive. The caller holds mu.
func (d *documents) makeRoom(keep *held) {
	for _, owned := range []bool{true, false} {
		for id, h := range d.all {
			if len(d.all) <= maxDocuments && d.octets <= d.most {
				return
			}
			if h != keep && (!owned || h.owner == keep.owner) {
				delete(d.all, id)
				d.octets -= h.octets
			}
		}
	}
}

// A mood is how eager a caller is.
type mood int

const (
	asDue  mood = iota // fetch what is due
	forced             // fetch now, unless that was done a moment ago
	atHand             // fetch nothing
	ahead              // fetch what is due, before somebody asks
)

// get returns a document, fetched if that is due. stale says that it could not
// be fetched anew and is older than it should be, by at most maxStale.
func (d *documents) get(ctx context.Context, doc *document, maxStale time.Duration, m mood) (r reading, stale bool, err error) {
	h := d.held(doc)
	if m != ahead {
		h.remember(doc, d.now())
	}
	if m != forced {
		if r, stale, err, ok := h.ready(d.now(), maxStale, m == atHand && h.wasLoaded()); ok {
			return r, stale, err
		}
	}
	select {
	case h.flight <- struct{}{}:
		defer func() { <-h.flight }()
	case <-ctx.Done():
		return reading{}, false, ctx.Err()
	}
	return d.fly(ctx, doc, h, maxStale, m)
}

// last returns what a document said last, however old that is, or a reading
// without a value.
func (d *documents) last(doc *document) reading {
	h := d.held(doc)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.have {
		return reading{}
	}
	return h.reading
}

func (doc *document) id() string { return doc.kind + " " + doc.uri }

func (h *held) remember(doc *document, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.doc, h.wanted = doc, now
}

// fly is get for the one caller at a time that may fetch.
func (d *documents) fly(ctx context.Context, doc *document, h *held, maxStale time.Duration, m mood) (reading, bool, error) {
	if err := d.load(ctx, doc, h); err != nil {
		return reading{}, false, err
	}
	now := d.now()
	if m != forced || h.wasForced(now) {
		if r, stale, err, ok := h.ready(now, maxStale, m == atHand); ok {
			return r, stale, err
		}
	}
	err := d.fetch(ctx, doc, h, now, m == forced)
	if ctx.Err() != nil {
		return reading{}, false, ctx.Err()
	}
	h.note(err, now)
	r, stale, err, _ := h.ready(d.now(), maxStale, true)
	return r, stale, err
}

// ready answers from memory if that will do; final takes whatever there is for
// the answer.
func (h *held) ready(now time.Time, maxStale time.Duration, final bool) (r reading, stale bool, err error, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	behind := h.behind(now)
	switch {
	case h.have && !behind && now.Before(h.reading.refresh):
		return h.reading, false, nil, true
	case !final && !h.waits(now):
		return reading{}, false, nil, false
	case h.have && !behind && now.Before(h.reading.until):
		return h.reading, false, nil, true
	case h.have && now.Before(h.reading.until.Add(maxStale)) && (h.reading.hard.IsZero() || now.Before(h.reading.hard)):
		return h.reading, true, h.failed, true
	case h.failed != nil:
		return reading{}, false, h.failed, true
	}
	return reading{}, false, errNotAtHand, final
}

func (r reading) weight(k *kept) int { return max(r.octets, len(k.body)) }

// behind reports whether the clock has gone back behind the last fetch. How old
// that is, is then not known: it is fetched anew, and is stale where that fails.
// The caller holds mu.
func (h *held) behind(now time.Time) bool { return h.have && now.Add(minAge).Before(h.taken) }

// waits reports whether a fetch has failed a short time ago. The caller holds mu.
func (h *held) waits(now time.Time) bool {
	return now.Before(h.retry) && h.retry.Sub(now) <= minAge
}

func (h *held) wasLoaded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.loaded
}

// forcedInterval is how often a fetch may be forced before it is due.
const forcedInterval = 5 * time.Second

func (h *held) wasForced(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Sub(h.forced) < forcedInterval && !now.Before(h.forced)
}

// note keeps a failure, so that it is not repeated at once.
func (h *held) note(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed = err; err == nil {
		h.failures, h.retry = 0, time.Time{}
		return
	}
	wait := min(retryFirst<<min(h.failures, 8), minAge)
	h.failures++
	h.retry = now.Add(wait)
}

// load takes up what the database has kept.
func (d *documents) load(ctx context.Context, doc *document, h *held) error {
	if h.wasLoaded() {
		return nil
	}
	k, err := d.store.document(ctx, doc.id())
	if err != nil {
		return err
	}
	if k != nil {
		// What no longer verifies is not used, and is fetched anew.
		if r, err := doc.read(ctx, input{k.mediaType, k.body, k.fetched, k.maxAge, nil}); err == nil {
			h.take(r, k.etag, k.fetched)
			d.weigh(h, doc.id(), r.weight(k))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = true
	return nil
}

func (h *held) take(r reading, etag string, fetched time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.have, h.reading, h.etag, h.taken = true, r, etag, fetched
}

// fetch gets a document anew. What it replaces stays if that fails.
func (d *documents) fetch(ctx context.Context, doc *document, h *held, now time.Time, force bool) error {
	h.mu.Lock()
	had, prev, etag := h.have, h.reading.value, h.etag
	if force {
		h.forced = now
	}
	h.mu.Unlock()
	k, unchanged, err := doc.bring(ctx, etag, now)
	if err != nil {
		return err
	}
	if unchanged {
		return d.unchanged(h, k)
	}
	in := input{k.mediaType, k.body, now, k.maxAge, nil}
	if had {
		in.prev = prev
	}
	r, err := doc.read(ctx, in)
	if err != nil {
		return err
	}
	k.issue = r.issue
	newer, err := d.keep(ctx, doc, k)
	if err != nil {
		return err
	}
	if newer != nil {
		r, k = *newer.reading, newer.kept
	}
	r.refresh = d.spread(now, r)
	h.take(r, k.etag, k.fetched)
	d.weigh(h, doc.id(), r.weight(k))
	if had && doc.changed != nil {
		doc.changed(prev, r.value)
	}
	return nil
}

// A stored document was kept by another and is newer than what was fetched.
type stored struct {
	kept    *kept
	reading *reading
}

// keep stores what was fetched, unless the database has a newer one that somebody
// else fetched: then that is returned, and counts here too. One that does not
// verify any more is replaced.
func (d *documents) keep(ctx context.Context, doc *document, k *kept) (*stored, error) {
	won, err := d.store.putDocument(ctx, doc.id(), k)
	if err != nil || won {
		return nil, err
	}
	there, err := d.store.document(ctx, doc.id())
	if err != nil {
		return nil, err
	}
	if there != nil {
		if r, err := doc.read(ctx, input{there.mediaType, there.body, there.fetched, there.maxAge, nil}); err == nil {
			return &stored{there, &r}, nil
		}
	}
	return nil, d.store.replaceDocument(ctx, doc.id(), there, k)
}

// bring gets a document from where it is.
func (doc *document) bring(ctx context.Context, etag string, now time.Time) (k *kept, unchanged bool, err error) {
	if !strings.Contains(doc.uri, "://") {
		body, err := readBounded(doc.uri, doc.limit)
		return &kept{body: body, fetched: now}, false, err
	}
	r := safehttp.Request{URL: doc.uri, Accept: doc.accept, Plain: doc.plain, IfNoneMatch: etag, MaxBody: doc.limit, Redirects: doc.hops, Gzip: true}
	check := func([]byte) error { return nil }
	if doc.ask != nil {
		if r.Post, check, err = doc.ask(); err != nil {
			return nil, false, err
		}
		r.PostType, r.IfNoneMatch = typeOCSPRequest, ""
	}
	resp, err := doc.client.Do(ctx, r)
	if err != nil {
		return nil, false, err
	}
	k = &kept{mediaType: mediaType(resp.Header.Get("Content-Type")), etag: resp.Header.Get("ETag"), body: resp.Body, fetched: now, maxAge: cacheAge(resp.Header)}
	return k, resp.Status == http.StatusNotModified, check(resp.Body)
}

// unchanged extends the life of what the server says is still the same.
func (d *documents) unchanged(h *held, k *kept) error {
	h.mu.Lock()
	prev, etag := h.reading, h.etag
	h.mu.Unlock()
	same, ok := prev.value.(renewable)
	if !ok {
		return errNotRenewable
	}
	r := same.renew(prev, k.fetched, k.maxAge)
	r.issue = prev.issue
	r.refresh = d.spread(k.fetched, r)
	h.take(r, etag, k.fetched)
	return nil
}

// A renewable value lives on when its server says that it has not changed.
type renewable interface {
	renew(old reading, fetched time.Time, maxAge time.Duration) reading
}

// spread moves the time of a refresh by up to a tenth, so that not everybody
// comes at once.
func (d *documents) spread(now time.Time, r reading) time.Time {
	wait := r.refresh.Sub(now)
	at := r.refresh.Add(time.Duration((d.rand()*0.2 - 0.1) * float64(wait)))
	if at.After(r.until) {
		return r.until
	}
	return at
}

func mediaType(contentType string) string {
	name, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(name))
}

// cacheAge reads max-age of Cache-Control; no-store and no-cache mean the
// least.
func cacheAge(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return time.Nanosecond
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				return time.Duration(n)*time.Second + time.Nanosecond
			}
		}
	}
	return 0
}

func clampAge(age time.Duration) time.Duration {
	if age == 0 {
		age = defaultAge
	}
	return min(max(age, minAge), maxAge)
}

// due returns the documents that should be fetched anew by now, and when the
// next one is.
func (d *documents) due(now time.Time) (docs []*document, next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.all {
		doc, at := h.dueAt(now)
		switch {
		case doc == nil:
		case !now.Before(at):
			docs = append(docs, doc)
		default:
			next = earlier(next, at)
		}
	}
	return docs, next
}

// keepFor is for how long what nobody asks for is fetched ahead.
const keepFor = 7 * 24 * time.Hour

func (h *held) dueAt(now time.Time) (*document, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.have && h.failed == nil || now.Sub(h.wanted) > keepFor {
		return nil, time.Time{}
	}
	at := h.reading.refresh
	if h.behind(now) {
		at = now
	}
	if h.waits(now) {
		at = later(at, h.retry)
	}
	return h.doc, at
}

// of returns the documents that were fetched for an issuer entry.
func (d *documents) of(owner string) (docs []*document) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.all {
		h.mu.Lock()
		if h.doc != nil && h.doc.owner == owner {
			docs = append(docs, h.doc)
		}
		h.mu.Unlock()
	}
	return docs
}
