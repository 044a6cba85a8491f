package asset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

// A cache keeps fetched assets in files. What is in it is not durable: it is
// emptied when it is made.
type cache struct {
	dir   string
	most  int64
	count int
	keep  time.Duration
	slots chan struct{} // one for each fetch that is under way

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	size    int64
	pending int // fetches that are under way or wait for a slot
}

// Bounds of a cache. A fetch outlives the request that began it, so that those
// that wait are counted and not the requests.
const (
	atOnce     = 32 // fetches that are under way
	maxPending = 8 * atOnce
	leastExtra = 64 << 20 // octets that may be read beyond the size of a small cache
)

var errBusy = problem.New(http.StatusServiceUnavailable, "busy", "too many fetches are under way").After(time.Second)

// An entry is one asset. It is made when the first asks for it; the others wait
// for ready.
type entry struct {
	ready chan struct{}
	err   error

	// The rest is guarded by the cache.
	path    string
	size    int64
	used    time.Time
	expires time.Time
	readers int
	dropped bool // from the cache, to be removed by the last reader
}

// An open entry must be released.
type open struct {
	path  string
	cache *cache
	entry *entry
}

func newCache(dir string, most int64, count int, keep time.Duration) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(dir, "asset-*"))
	if err != nil {
		return nil, err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return &cache{dir: dir, most: most, count: count, keep: keep, slots: make(chan struct{}, atOnce), entries: make(map[string]*entry)}, nil
}

// fetcher writes an asset and returns for how long it may be kept; zero for
// only those who wait for it now.
type fetcher func(ctx context.Context, into io.Writer) (time.Duration, error)

// get returns the asset of a URL, fetched by the first who asks. The fetch goes
// on if that one leaves, since others may wait.
func (c *cache) get(ctx context.Context, url string, fetch fetcher) (*open, error) {
	sum := sha256.Sum256([]byte(url))
	e, first, err := c.enter(hex.EncodeToString(sum[:]))
	if err != nil {
		return nil, err
	}
	if first {
		go c.fill(context.WithoutCancel(ctx), hex.EncodeToString(sum[:]), e, fetch)
	}
	o := &open{cache: c, entry: e}
	select {
	case <-e.ready:
	case <-ctx.Done():
		o.release()
		return nil, ctx.Err()
	}
	if e.err != nil {
		o.release()
		return nil, e.err
	}
	o.path = e.path
	return o, nil
}

// enter returns the entry of a key with one reader more. It makes none while
// too much is being fetched or read.
func (c *cache) enter(key string) (e *entry, first bool, err error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if ok && !e.expires.IsZero() && now.After(e.expires) {
		c.drop(key, e)
		ok = false
	}
	if !ok {
		if c.pending >= maxPending || c.size > c.most+max(c.most, leastExtra) {
			return nil, false, errBusy
		}
		c.pending++
		e = &entry{ready: make(chan struct{})}
		c.entries[key] = e
	}
	e.readers++
	e.used = now
	return e, !ok, nil
}

func (c *cache) fill(ctx context.Context, key string, e *entry, fetch fetcher) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime+5*time.Second)
	defer cancel()
	path, size, keep, err := c.fetchFile(ctx, fetch)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.path, e.size, e.err = path, size, err
	close(e.ready)
	c.pending--
	c.size += size
	if err != nil || keep <= 0 {
		c.drop(key, e)
		return
	}
	e.expires = time.Now().Add(min(keep, c.keep))
	c.shrink()
}

// fetchFile waits for a slot, and opens a file only then.
func (c *cache) fetchFile(ctx context.Context, fetch fetcher) (path string, size int64, keep time.Duration, err error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return "", 0, 0, errBusy
	}
	f, err := os.CreateTemp(c.dir, "asset-*")
	if err != nil {
		return "", 0, 0, err
	}
	keep, err = fetch(ctx, f)
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
		return "", 0, 0, err
	}
	return f.Name(), size, keep, nil
}

// drop takes an entry out; its file goes with the last reader.
func (c *cache) drop(key string, e *entry) {
	if c.entries[key] == e {
		delete(c.entries, key)
	}
	e.dropped = true
	c.removeIfUnused(e)
}

func (c *cache) removeIfUnused(e *entry) {
	if e.dropped && e.readers == 0 && e.path != "" {
		os.Remove(e.path)
		c.size -= e.size
		e.path = ""
	}
}

// shrink drops what was used the longest ago until the rest fits, by octets and by
// number: there may be many small ones. What is being read counts and stays.
func (c *cache) shrink() {
	for c.size > c.most || len(c.entries) > c.count {
		var oldest *entry
		var key string
		for k, e := range c.entries {
			if e.path != "" && e.readers == 0 && (oldest == nil || e.used.Before(oldest.used)) {
				oldest, key = e, k
			}
		}
		if oldest == nil {
			return
		}
		c.drop(key, oldest)
	}
}

func (o *open) release() {
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	o.entry.readers--
	o.cache.removeIfUnused(o.entry)
	o.cache.shrink()
}

// keep returns for how long an answer may be kept: what the host says, and
// otherwise the cache's own time, since assets never change.
func (p *Proxy) keep(h http.Header) time.Duration {
	keep := p.cfg.CacheTime
	for directive := range strings.SplitSeq(strings.ToLower(h.Get("Cache-Control")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if name == "no-store" || name == "no-cache" {
			return 0
		}
		if seconds, err := strconv.ParseUint(value, 10, 31); name == "max-age" && err == nil {
			keep = min(keep, time.Duration(seconds)*time.Second)
		}
	}
	return keep
}
