package asset_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub/asset"
	"github.com/privyseal/privyseal/mimi/policy"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func onBoth(t *testing.T, test func(t *testing.T, source string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "x.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, pgtest.Database(t)) })
}

func uri(s string) mimi.URI {
	u, err := mimi.ParseURI(s)
	if err != nil {
		panic(err)
	}
	return u
}

var alice, bob = uri("mimi://a.example/u/alice"), uri("mimi://a.example/u/bob")

func openStore(t *testing.T, source string, cfg asset.StoreConfig, now func() time.Time) *asset.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.BaseURL = "https://assets.a.example/assets/"
	s, err := asset.OpenStore(t.Context(), source, cfg, sqldb.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func wantProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != status || p.Code != code {
		t.Errorf("%v, want %d %s", err, status, code)
	}
}

func upload(t *testing.T, s *asset.Store, user mimi.URI, q clientapi.AssetQuery, body io.Reader) (*clientapi.Asset, error) {
	t.Helper()
	r := httptest.NewRequest("POST", clientapi.PathAssets+"?"+q.Values().Encode(), body)
	w := httptest.NewRecorder()
	if err := s.Upload(w, r, user); err != nil {
		return nil, err
	}
	if w.Code != http.StatusCreated {
		t.Errorf("upload: %d", w.Code)
	}
	return clientapi.ParseAsset(w.Body.Bytes())
}

func get(s *asset.Store, url string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", url, nil)
	r.Header = header
	w := httptest.NewRecorder()
	s.Handler("/assets/").ServeHTTP(w, r)
	return w
}

// An asset that a client sealed comes back as it was, whole and in parts.
func TestUploadDownload(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := openStore(t, source, asset.StoreConfig{}, nil)
		sealed, part, err := content.SealAsset(bytes.Repeat([]byte("picture "), 10_000), "image/png")
		if err != nil {
			t.Fatal(err)
		}
		a, err := upload(t, s, alice, clientapi.AssetQuery{}, bytes.NewReader(sealed))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(sealed)
		if want := "https://assets.a.example/assets/" + base64.RawURLEncoding.EncodeToString(sum[:]); a.URL != want || a.Size != uint64(len(sealed)) {
			t.Fatalf("%+v, want %s", a, want)
		}
		w := get(s, a.URL, nil)
		if got, err := part.Open(w.Body.Bytes()); w.Code != 200 || err != nil || len(got) != 80_000 {
			t.Fatalf("%d, %v", w.Code, err)
		}
		etag := w.Header().Get("ETag")
		if w := get(s, a.URL, http.Header{"Range": {"bytes=10-19"}, "If-Range": {etag}}); w.Code != 206 || !bytes.Equal(w.Body.Bytes(), sealed[10:20]) {
			t.Errorf("a range: %d", w.Code)
		}
		if w := get(s, a.URL, http.Header{"Range": {"bytes=999999-"}}); w.Code != 416 {
			t.Errorf("a range beyond the end: %d", w.Code)
		}
		if w := get(s, a.URL, http.Header{"If-None-Match": {etag}}); w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("unchanged: %d", w.Code)
		}
		for name, want := range map[string]string{"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}

func TestNamesThatAreNone(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "x.db"), asset.StoreConfig{}, nil)
	for _, name := range []string{"", ".", "..", "../x.db", "%2e%2e/x.db", strings.Repeat("A", 42), strings.Repeat("A", 44), strings.Repeat("A", 42) + "B", strings.Repeat("A", 43), strings.Repeat("A", 43) + "/", ".durable.1"} {
		if w := get(s, "https://assets.a.example/assets/"+name, nil); w.Code != 404 {
			t.Errorf("%q: %d", name, w.Code)
		}
	}
}

func TestRoomPolicy(t *testing.T) {
	room := uri("mimi://h.example/r/x")
	p := &policy.AssetPolicy{MaxImage: 100, MaxAudio: math.MaxUint64, MaxAttachment: 10, ForbiddenMediaTypes: []policy.MediaType{{Type: "image/gif"}}}
	s := openStore(t, filepath.Join(t.TempDir(), "x.db"), asset.StoreConfig{
		MaxSize: 1000,
		Policy: func(_ context.Context, user, r mimi.URI) (*policy.AssetPolicy, error) {
			if user != alice || r != room {
				return nil, problem.New(http.StatusForbidden, "refused", "not in the room")
			}
			return p, nil
		},
	}, nil)
	for name, c := range map[string]struct {
		user   mimi.URI
		q      clientapi.AssetQuery
		size   int
		status int
		code   string
	}{
		"image":             {alice, clientapi.AssetQuery{Room: room, Type: "image/png"}, 116, 0, ""},
		"large image":       {alice, clientapi.AssetQuery{Room: room, Type: "IMAGE/PNG"}, 117, 413, "too-large"},
		"attachment":        {alice, clientapi.AssetQuery{Room: room, Type: "application/pdf"}, 26, 0, ""},
		"large attachment":  {alice, clientapi.AssetQuery{Room: room, Type: "application/pdf"}, 27, 413, "too-large"},
		"of no type":        {alice, clientapi.AssetQuery{Room: room}, 1000, 0, ""}, // it may be audio
		"no bound":          {alice, clientapi.AssetQuery{Room: room, Type: "audio/ogg"}, 1000, 0, ""},
		"large, no bound":   {alice, clientapi.AssetQuery{Room: room, Type: "audio/ogg"}, 1001, 413, "too-large"},
		"forbidden":         {alice, clientapi.AssetQuery{Room: room, Type: "image/gif"}, 10, 403, "media-type"},
		"video, of no size": {alice, clientapi.AssetQuery{Room: room, Type: "video/mp4"}, 17, 413, "too-large"},
		"no room":           {bob, clientapi.AssetQuery{}, 1000, 0, ""},
		"no room, large":    {bob, clientapi.AssetQuery{}, 1001, 413, "too-large"},
		"another's room":    {bob, clientapi.AssetQuery{Room: room}, 1, 403, "refused"},
		"empty":             {alice, clientapi.AssetQuery{}, 0, 400, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			// A reader of which net/http does not know the length.
			_, err := upload(t, s, c.user, c.q, io.LimitReader(zeros{}, int64(c.size)))
			if c.status == 0 && err != nil {
				t.Error(err)
			} else if c.status != 0 {
				wantProblem(t, err, c.status, c.code)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func files(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestQuota(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		dir := t.TempDir()
		s := openStore(t, source, asset.StoreConfig{Dir: dir, Quota: 25, MaxCount: 3}, nil)
		put := func(user mimi.URI, body string) error {
			_, err := upload(t, s, user, clientapi.AssetQuery{}, strings.NewReader(body))
			return err
		}
		for range 3 { // the same asset counts once
			if err := put(alice, "ten octets"); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(alice, "TEN OCTETS"); err != nil {
			t.Fatal(err)
		}
		wantProblem(t, put(alice, "six of"), 403, "quota")
		if n := files(t, dir); n != 2 {
			t.Errorf("%d files, want the two that are within the quota", n)
		}
		if err := put(alice, "five!"); err != nil {
			t.Errorf("up to the quota: %v", err)
		}
		for _, body := range []string{"1", "2", "3"} {
			if err := put(bob, body); err != nil {
				t.Error(err)
			}
		}
		wantProblem(t, put(bob, "4"), 403, "quota")
	})
}

// Uploads at the same time do not pass the quota together.
func TestQuotaUnderConcurrency(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := openStore(t, source, asset.StoreConfig{MaxCount: 5}, nil)
		var wg sync.WaitGroup
		results := make(chan error, 20)
		for i := range 20 {
			wg.Go(func() {
				_, err := s.Put(t.Context(), alice, &clientapi.AssetQuery{}, strings.NewReader(strings.Repeat("x", i+1)))
				results <- err
			})
		}
		wg.Wait()
		close(results)
		passed := 0
		for err := range results {
			if err == nil {
				passed++
			} else if problem.Of(err).Code != "quota" {
				t.Error(err)
			}
		}
		if passed != 5 {
			t.Errorf("%d uploads passed a quota of 5", passed)
		}
	})
}

func TestBrokenUploadsLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(t.TempDir(), "x.db"), asset.StoreConfig{Dir: dir, MaxSize: 100}, nil)
	_, err := upload(t, s, alice, clientapi.AssetQuery{}, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("gone"))))
	wantProblem(t, err, 400, "body")
	_, err = upload(t, s, alice, clientapi.AssetQuery{}, io.LimitReader(zeros{}, 101))
	wantProblem(t, err, 413, "too-large")
	if n := files(t, dir); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func TestExpiryAndSweep(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		now := time.Now()
		dir := t.TempDir()
		s := openStore(t, source, asset.StoreConfig{Dir: dir, Lifetime: 48 * time.Hour}, func() time.Time { return now })
		short, err := upload(t, s, alice, clientapi.AssetQuery{Lifetime: 2 * time.Hour}, strings.NewReader("short"))
		if err != nil {
			t.Fatal(err)
		}
		both := func(user mimi.URI, lifetime time.Duration) *clientapi.Asset {
			a, err := upload(t, s, user, clientapi.AssetQuery{Lifetime: lifetime}, strings.NewReader("of both"))
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		shared := both(alice, 2*time.Hour)
		if a := both(bob, 1000*time.Hour); a.Expires != uint64(now.Add(48*time.Hour).UnixMilli()) {
			t.Errorf("a lifetime beyond the most: expires %d", a.Expires)
		}
		if err := os.WriteFile(filepath.Join(dir, ".durable.crashed"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("an early sweep: %d, %v", n, err)
		}
		now = now.Add(2 * time.Hour)
		if w := get(s, short.URL, nil); w.Code != 404 {
			t.Errorf("expired: %d", w.Code)
		}
		if n, err := s.Sweep(t.Context()); n != 2 || err != nil {
			t.Errorf("a sweep: %d, %v; want the asset and what crashed", n, err)
		}
		if w := get(s, shared.URL, nil); w.Code != 200 {
			t.Errorf("an asset that another user keeps: %d", w.Code)
		}
		now = now.Add(47 * time.Hour)
		if n, err := s.Sweep(t.Context()); n != 1 || err != nil || files(t, dir) != 0 {
			t.Errorf("the last sweep: %d, %v, %d files", n, err, files(t, dir))
		}
		if _, err := upload(t, s, alice, clientapi.AssetQuery{}, strings.NewReader("short")); err != nil {
			t.Errorf("after all have expired: %v", err)
		}
	})
}

// One user's uploads that are under way are bounded, and others' go on.
func TestUploadsUnderWayAreBounded(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "x.db"), asset.StoreConfig{MaxSize: 100}, nil)
	var wg sync.WaitGroup
	var ends []*io.PipeWriter
	for range 4 { // of unknown length
		r, w := io.Pipe()
		ends = append(ends, w)
		wg.Go(func() {
			_, err := upload(t, s, alice, clientapi.AssetQuery{}, r)
			wantProblem(t, err, 400, "body")
		})
		w.Write([]byte("x"))
	}
	_, err := upload(t, s, alice, clientapi.AssetQuery{}, strings.NewReader("one more"))
	wantProblem(t, err, 429, "too-many")
	if _, err := upload(t, s, bob, clientapi.AssetQuery{}, strings.NewReader("another's")); err != nil {
		t.Error(err)
	}
	for _, w := range ends {
		w.CloseWithError(io.ErrUnexpectedEOF)
	}
	wg.Wait()
	if _, err := upload(t, s, alice, clientapi.AssetQuery{}, strings.NewReader("later")); err != nil {
		t.Errorf("after the others have ended: %v", err)
	}
}
