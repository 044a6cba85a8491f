package asset

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/internal/httpbody"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

const (
	uploadTime   = 5 * time.Minute
	downloadTime = 5 * time.Minute
)

// Upload serves POST /client/v1/assets for a user whose client is
// authenticated.
func (s *Store) Upload(w http.ResponseWriter, r *http.Request, user mimi.URI) error {
	q, err := clientapi.ParseAssetQuery(r.URL.Query())
	if err != nil {
		return err
	}
	if r.ContentLength > s.cfg.MaxSize {
		return problem.New(http.StatusRequestEntityTooLarge, "too-large", "an asset has at most %d octets", s.cfg.MaxSize)
	}
	release, ok := s.coming.Take(user.String(), httpbody.Announced(r.ContentLength, s.cfg.MaxSize))
	if !ok {
		return problem.New(http.StatusTooManyRequests, "too-many", "too many uploads are under way").After(time.Second)
	}
	defer release()
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadTime))
	a, err := s.Put(r.Context(), user, q, r.Body)
	if err != nil {
		return err
	}
	b := a.Marshal()
	w.Header().Set("Content-Type", clientapi.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Location", a.URL)
	w.WriteHeader(http.StatusCreated)
	_, err = w.Write(b)
	return err
}

// lookUp returns when the last record of an asset expires.
func (s *Store) lookUp(ctx context.Context, name string) (expires time.Time, known bool, err error) {
	var last sql.NullInt64
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT MAX(expires) FROM asset WHERE name = ?`, name).Scan(&last)
	})
	return time.UnixMicro(last.Int64), last.Valid, err
}

// Download serves GET and HEAD for the asset with a name, whole or in ranges,
// to anybody.
func (s *Store) Download(w http.ResponseWriter, r *http.Request, name string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return problem.New(http.StatusMethodNotAllowed, "method", "assets take GET")
	}
	notFound := problem.New(http.StatusNotFound, "not-found", "no such asset")
	path, ok := s.path(name)
	if !ok {
		return notFound
	}
	expires, known, err := s.lookUp(r.Context(), name)
	if err != nil {
		return fmt.Errorf("asset: %w", err)
	}
	left := expires.Sub(s.db.Now())
	if !known || left <= 0 {
		return notFound
	}
	w.Header().Set("ETag", `"`+name+`"`)
	w.Header().Set("Cache-Control", fmt.Sprintf("private, immutable, max-age=%d", int64(left.Seconds())))
	return serveFile(w, r, path, notFound)
}

// serveFile answers with a file of encrypted octets, which no browser is to
// take for anything else.
func serveFile(w http.ResponseWriter, r *http.Request, path string, notFound error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound
	}
	if err != nil {
		return fmt.Errorf("asset: %w", err)
	}
	defer f.Close()
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTime))
	h := w.Header()
	h.Set("Content-Type", clientapi.ContentType)
	h.Set("Content-Disposition", "attachment")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// Handler serves Download under a path prefix that BaseURL ends with.
func (s *Store) Handler(prefix string) http.Handler {
	return http.StripPrefix(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.Download(w, r, r.URL.Path); err != nil {
			problem.Of(err).Write(w)
		}
	}))
}
