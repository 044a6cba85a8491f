package translog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
)

// A Source reads a log: from its directory, or over HTTP. What it returns is
// not checked.
type Source struct {
	get func(ctx context.Context, path string, most int64) ([]byte, time.Time, error)
}

// Limits of what a log answers: a tile has 256 hashes of 32 octets, a bundle of
// ours 256 entries of 32 octets, each with its length before it.
const (
	maxTile   = 256 * 32
	maxBundle = 256 * 34
)

// NewSource returns the log at an http:// or https:// URL, or in a directory.
func NewSource(at string, client *http.Client) (*Source, error) {
	if !strings.HasPrefix(at, "http://") && !strings.HasPrefix(at, "https://") {
		return &Source{dirGetter(at)}, nil
	}
	base, err := url.Parse(strings.TrimSuffix(at, "/") + "/")
	if err != nil {
		return nil, err
	}
	if client == nil {
		client = &http.Client{Timeout: outgoingTime, CheckRedirect: sameHost}
	}
	return &Source{httpGetter(base, client)}, nil
}

type getter = func(ctx context.Context, path string, most int64) ([]byte, time.Time, error)

func dirGetter(dir string) getter {
	return func(_ context.Context, path string, most int64) ([]byte, time.Time, error) {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, time.Time{}, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, time.Time{}, err
		}
		b, err := bounded(f, most)
		return b, info.ModTime(), err
	}
}

func httpGetter(base *url.URL, client *http.Client) getter {
	return func(ctx context.Context, path string, most int64) ([]byte, time.Time, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
		if err != nil {
			return nil, time.Time{}, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, time.Time{}, err
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusNotFound:
			return nil, time.Time{}, fmt.Errorf("%s: %w", req.URL, fs.ErrNotExist)
		default:
			return nil, time.Time{}, fmt.Errorf("%s answered %s", req.URL, resp.Status)
		}
		b, err := bounded(resp.Body, most)
		at, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
		return b, at, err
	}
}

func bounded(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("the log answers more than %d octets", most)
	}
	return b, err
}

// ReadCheckpoint returns the checkpoint as published, and when it was, as the
// file system or the server says.
func (s *Source) ReadCheckpoint(ctx context.Context) ([]byte, time.Time, error) {
	return s.get(ctx, layout.CheckpointPath, MaxCheckpoint)
}

// Checkpoint returns the checkpoint if its signatures are good.
func (s *Source) Checkpoint(ctx context.Context, keys *Keys) (*Checkpoint, error) {
	raw, _, err := s.ReadCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	return keys.Open(raw)
}

// ReadTile returns a tile of hashes; p is how many it has, 0 for all 256.
func (s *Source) ReadTile(ctx context.Context, level, index uint64, p uint8) ([]byte, error) {
	return s.partialOrFull(ctx, maxTile, p, func(p uint8) string { return layout.TilePath(level, index, p) })
}

// ReadEntryBundle returns a bundle of leaves; p is how many it has.
func (s *Source) ReadEntryBundle(ctx context.Context, index uint64, p uint8) ([]byte, error) {
	return s.partialOrFull(ctx, maxBundle, p, func(p uint8) string { return layout.EntriesPath(index, p) })
}

// partialOrFull asks for the full resource where the partial one was removed.
func (s *Source) partialOrFull(ctx context.Context, most int64, p uint8, path func(uint8) string) ([]byte, error) {
	b, _, err := s.get(ctx, path(p), most)
	if p > 0 && errors.Is(err, fs.ErrNotExist) {
		b, _, err = s.get(ctx, path(0), most)
	}
	return b, err
}

type bundleReader interface {
	ReadEntryBundle(ctx context.Context, index uint64, p uint8) ([]byte, error)
}

// readLeaves returns the p leaves of a bundle, 256 if p is 0.
func readLeaves(ctx context.Context, r bundleReader, index uint64, p uint8) ([][]byte, error) {
	raw, err := r.ReadEntryBundle(ctx, index, p)
	if err != nil {
		return nil, err
	}
	var b api.EntryBundle
	if err := b.UnmarshalText(raw); err != nil {
		return nil, fmt.Errorf("bundle %d of the log: %w", index, err)
	}
	want := int(p)
	if p == 0 {
		want = layout.EntryBundleWidth
	}
	if len(b.Entries) < want {
		return nil, fmt.Errorf("bundle %d of the log has %d entries, want %d", index, len(b.Entries), want)
	}
	return b.Entries[:want], nil
}
