package problem_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

func TestWriteRead(t *testing.T) {
	sent := problem.New(http.StatusTooManyRequests, "rate-limited", "wait: %w", io.EOF).After(1500 * time.Millisecond)
	w := httptest.NewRecorder()
	problem.Of(fmt.Errorf("handler: %w", sent)).Write(w)
	resp := w.Result()
	if got := resp.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After = %q, want the seconds rounded up", got)
	}
	got := problem.Read(resp, time.Now())
	if got.Status != 429 || got.Code != "rate-limited" || got.Detail != "wait: EOF" || got.Type != problem.Base+"rate-limited" || got.RetryAfter != 2*time.Second {
		t.Errorf("read %+v", got)
	}
	if !errors.Is(sent, io.EOF) {
		t.Error("the cause is lost")
	}
}

func TestOfHidesOurFailures(t *testing.T) {
	p := problem.Of(errors.New("pin 1234"))
	w := httptest.NewRecorder()
	p.Write(w)
	if w.Code != 500 || strings.Contains(w.Body.String(), "1234") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestReadStrangers(t *testing.T) {
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		typ, body, retry string
		code             string
		after            time.Duration
	}{
		"plain text": {"text/plain", "no", "", "http-status", 0},
		"not JSON":   {problem.MediaType, "{", "5", "http-status", 5 * time.Second},
		"huge":       {problem.MediaType, `{"code":"x","detail":"` + strings.Repeat("a", 20000) + `"}`, "", "http-status", 0},
		"a date":     {problem.MediaType, `{}`, "Sat, 28 Nov 2026 00:01:00 GMT", "http-status", time.Minute},
		"past date":  {problem.MediaType, `{}`, "Fri, 27 Nov 2026 00:01:00 GMT", "http-status", 0},
		"for ever":   {problem.MediaType, `{"code":"x"}`, "2000000000", "x", problem.MaxRetryAfter},
		"negative":   {problem.MediaType, `{"code":"x"}`, "-1", "x", 0},
	} {
		resp := &http.Response{StatusCode: 503, Header: http.Header{"Content-Type": {c.typ}, "Retry-After": {c.retry}}, Body: io.NopCloser(strings.NewReader(c.body))}
		if p := problem.Read(resp, now); p.Status != 503 || p.Code != c.code || p.RetryAfter != c.after {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
