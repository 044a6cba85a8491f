package telemetry

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"
)

// RequestIDHeader carries the id of a request in its answer, and in the request
// where the caller chose it.
const RequestIDHeader = "X-Request-Id"

// HTTP gives each request an id, counts and times it, and logs it at debug
// level without its query, which may hold what is not for logs.
func (m *Metrics) HTTP(listener string, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := r.Header.Get(RequestIDHeader)
		if !goodRequestID(id) {
			id = rand.Text()
		}
		ctx := WithRequestID(r.Context(), id)
		w.Header().Set(RequestIDHeader, id)
		ctx, end := m.tracer.request(ctx, listener, r)
		rec := &statusRecorder{ResponseWriter: w}
		defer func() {
			took := time.Since(start)
			end(rec.status)
			m.httpRequests.WithLabelValues(listener, statusClass(rec.status)).Inc()
			m.httpDuration.WithLabelValues(listener).Observe(took.Seconds())
			log.DebugContext(ctx, "request", "listener", listener, "method", r.Method, "path", r.URL.Path, "status", rec.status, "took", took)
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// goodRequestID admits what cannot break a log.
func goodRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func statusClass(status int) string {
	switch {
	case status == 0:
		return "none" // the handler was cut off, or wrote nothing
	case status < 200:
		return "1xx"
	case status < 300:
		return "2xx"
	case status < 400:
		return "3xx"
	case status == http.StatusTooManyRequests:
		return "429"
	case status == http.StatusServiceUnavailable:
		return "503"
	case status < 500:
		return "4xx"
	}
	return "5xx"
}

// A statusRecorder remembers the status of the answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(code int) {
	if s.status == 0 || s.status < 200 {
		s.status = code
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *statusRecorder) Write(b []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap and Flush let http.ResponseController and streams through.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusRecorder) Flush() { http.NewResponseController(s.ResponseWriter).Flush() }
