package translog

import (
	"net/http"
	"os"
	"regexp"
	"strings"
)

// logPath is the paths of C2SP tlog-tiles: the checkpoint, tiles of hashes and
// bundles of entries, whole or partial.
var logPath = regexp.MustCompile(`^(checkpoint|tile/(entries|[0-9]|[1-5][0-9]|6[0-3])(/x[0-9]{3}){0,6}/[0-9]{3}(\.p/[1-9][0-9]{0,2})?)$`)

// Handler serves a log's directory, read only, as C2SP tlog-tiles wants it. It
// is mounted with http.StripPrefix and needs no authentication: what it shows
// are commitments.
func Handler(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the log is read only", http.StatusMethodNotAllowed)
			return
		}
		if !logPath.MatchString(path) {
			http.NotFound(w, r)
			return
		}
		serveFile(w, r, dir, path)
	})
}

func serveFile(w http.ResponseWriter, r *http.Request, dir, path string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		http.Error(w, "the log cannot be read", http.StatusServiceUnavailable)
		return
	}
	defer root.Close()
	f, err := root.Open(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if path == "checkpoint" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
	} else {
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// Mounted is Handler below a prefix such as "/log/".
func Mounted(prefix, dir string) http.Handler { return http.StripPrefix(prefix, Handler(dir)) }
