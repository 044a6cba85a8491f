package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestCardinality has ten thousand keys and rules: the series stay few.
func TestCardinality(t *testing.T) {
	m := NewMetrics(BuildInfo{"v1", "abc", "go1"})
	for i := range 10000 {
		m.SignCall(fmt.Sprintf("key-%d", i), "P-256", "a")("ok")
		m.PolicyDenied(fmt.Sprintf("rule-%d", i))
	}
	text := scrape(t, m)
	if n := strings.Count(text, "privyseal_sign_requests_total{"); n != maxLabel+1 {
		t.Errorf("%d series of keys", n)
	}
	if n := strings.Count(text, "privyseal_policy_denials_total{"); n != maxLabel+1 {
		t.Errorf("%d series of rules", n)
	}
	if !strings.Contains(text, `privyseal_sign_requests_total{alg="P-256",key="other",result="ok"} 9744`) {
		t.Error("the rest is not counted as other")
	}
}

// TestHTTP looks at the request id, the metrics and the log of a request.
func TestHTTP(t *testing.T) {
	m := NewMetrics(BuildInfo{})
	var out bytes.Buffer
	log, err := NewLogger(&out, "json", "debug")
	if err != nil {
		t.Fatal(err)
	}
	h := m.HTTP("api", log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.InfoContext(r.Context(), "inside")
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, "yes")
	}))
	for id, kept := range map[string]bool{"abc-123": true, "a b": false, "": false, strings.Repeat("a", 65): false, "a\nb": false} {
		r := httptest.NewRequest("GET", "/yes?secret=1", nil)
		r.Header.Set(RequestIDHeader, id)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get(RequestIDHeader); (got == id) != kept || got == "" || !strings.Contains(out.String(), `"request_id":"`+got+`"`) {
			t.Errorf("id %q became %q", id, got)
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Error("the query is in the log")
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/no", nil))
	text := scrape(t, m)
	for _, want := range []string{`privyseal_http_requests_total{code="2xx",listener="api"} 5`, `privyseal_http_requests_total{code="429",listener="api"} 1`, `privyseal_http_request_duration_seconds_count{listener="api"} 6`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestLogger(t *testing.T) {
	for _, bad := range [][2]string{{"xml", ""}, {"json", "loud"}} {
		if _, err := NewLogger(io.Discard, bad[0], bad[1]); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	var out bytes.Buffer
	log, err := NewLogger(&out, "text", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.With("a", 1).WithGroup("g").WarnContext(WithRequestID(t.Context(), "id1"), "heard")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "heard") || !strings.Contains(got, "request_id=id1") {
		t.Errorf("logged %q", got)
	}
}

// TestSpans looks at the tree of a request, and that errors stay out of it.
func TestSpans(t *testing.T) {
	record := tracetest.NewSpanRecorder()
	tracer := newTracer(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(record)))
	m := NewMetrics(BuildInfo{})
	m.SetTracer(tracer)
	h := m.HTTP("api", slog.New(slog.DiscardHandler), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := m.Tracer().Span(r.Context(), SpanPolicy)
		end(nil)
		_, end = m.Tracer().Span(ctx, SpanPKCS11+"C_Sign", "privyseal.device", "a")
		end(errors.New("PIN 1234"))
	}))
	r := httptest.NewRequest("POST", "/v1/sign", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	h.ServeHTTP(httptest.NewRecorder(), r)
	var names []string
	for _, s := range record.Ended() {
		names = append(names, s.Name())
		if s.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s is of another trace", s.Name())
		}
		if strings.Contains(fmt.Sprintf("%+v", s), "1234") {
			t.Errorf("%s has the text of an error", s.Name())
		}
	}
	if got := strings.Join(names, " "); got != "policy.evaluate pkcs11.C_Sign POST" {
		t.Errorf("spans %q", got)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTracingIsOffByDefault exports only where the environment says so.
func TestTracingIsOffByDefault(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"nothing":  {nil, false},
		"endpoint": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true},
		"traces":   {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, true},
		"disabled": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false},
		"none":     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			tracer, err := TracerFromEnv(t.Context(), BuildInfo{}, slog.New(slog.DiscardHandler))
			if err != nil || (tracer != nil) != c.want {
				t.Errorf("%v, %v", tracer, err)
			}
			_, end := tracer.Span(context.Background(), "x")
			end(nil)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			tracer.Close(ctx)
		})
	}
}

// TestExport sends a span to a collector over OTLP/HTTP.
func TestExport(t *testing.T) {
	got := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + string(b)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tracer, err := TracerFromEnv(t.Context(), BuildInfo{Version: "v1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, end := tracer.Span(t.Context(), SpanJournal)
	end(nil)
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := <-got; !strings.HasPrefix(s, "/v1/traces ") || !strings.Contains(s, SpanJournal) {
		t.Errorf("the collector got %q", s)
	}
}
