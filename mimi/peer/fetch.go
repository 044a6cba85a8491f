package peer

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	leastDirectoryAge = time.Minute // for which a directory is kept whatever it says
	mostDirectoryAge  = 24 * time.Hour
)

// directory returns the provider's directory, from memory if it is fresh. One
// caller fetches; the others wait for it.
func (c *Client) directory(ctx context.Context, s *session) (*Directory, error) {
	if d := s.fresh(c.cfg.Now()); d != nil {
		return d, nil
	}
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d := s.fresh(c.cfg.Now()); d != nil {
		return d, nil
	}
	d, age, err := c.fetchDirectory(ctx, s)
	if err != nil {
		err = fmt.Errorf("peer: directory of %s: %w", s.provider, err)
		if ctx.Err() == nil {
			s.failed(c.cfg.Now(), err) // without a directory there is nothing to call
		}
		return nil, err
	}
	s.keep(d, c.cfg.Now(), age)
	return d, nil
}

func (c *Client) fetchDirectory(ctx context.Context, s *session) (*Directory, time.Duration, error) {
	b, header, err := c.get(ctx, s, DirectoryPath, "application/json", maxDirectory)
	if err != nil {
		return nil, 0, err
	}
	d, err := ParseDirectory(b)
	return d, MaxAge(header, directoryAge), err
}

// MaxAge returns for how long a document of a provider may be kept: what its
// header says, or else the usual time, from a minute to a day.
func MaxAge(h http.Header, usual time.Duration) time.Duration {
	age := usual
	for directive := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		seconds, err := strconv.ParseUint(value, 10, 31)
		switch {
		case strings.EqualFold(name, "no-store"), strings.EqualFold(name, "no-cache"):
			return leastDirectoryAge
		case strings.EqualFold(name, "max-age") && err == nil:
			age = time.Duration(seconds) * time.Second
		}
	}
	return min(max(age, leastDirectoryAge), mostDirectoryAge)
}

func (s *session) fresh(now time.Time) *Directory {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.directory == nil || !now.Before(s.stale) {
		return nil
	}
	return s.directory
}

func (s *session) keep(d *Directory, now time.Time, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.directory, s.fetched, s.stale = d, now, now.Add(age)
}

// forget drops a directory that may be out of date, and reports whether it did.
// One that is hardly fetched is kept, so that a peer which denies everything
// is not asked twice each time.
func (s *session) forget(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.fetched) < leastDirectoryAge {
		return false
	}
	s.directory = nil
	return true
}
