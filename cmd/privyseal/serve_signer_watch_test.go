package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	signservice "github.com/privyseal/privyseal/signer/service"
)

// checkSignerMetrics holds the metrics to what TestServeSigner did.
func checkSignerMetrics(t *testing.T, text string) {
	t.Helper()
	for _, want := range []string{
		`privyseal_policy_denials_total{rule="no-room-x"} 1`, `privyseal_policy_denials_total{rule="none"} 1`,
		`privyseal_service_requests_total{alg="P-256",operation="sign",result="ok"}`, `privyseal_service_requests_total{alg="P-256",operation="sign",result="POLICY_DENIED"} 2`,
		`privyseal_service_request_duration_seconds_count{operation="sign"}`, `privyseal_sign_requests_total{alg="P-256",key="acme.leaf",result="ok"}`,
		`privyseal_service_stage_duration_seconds_count{stage="admit"}`, `privyseal_service_stage_duration_seconds_count{stage="policy.evaluate"}`,
		`privyseal_service_stage_duration_seconds_count{stage="audit.append"}`, `privyseal_service_stage_duration_seconds_count{stage="device"}`,
		`privyseal_service_stage_duration_seconds_count{stage="audit.complete"}`, `privyseal_service_stage_duration_seconds_count{stage="audit.refuse"}`,
		`privyseal_queue_depth{queue="device softhsm"} 0`, `privyseal_queue_depth{queue="journal"} 0`, "privyseal_audit_write_failures_total 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `"bot"`) {
		t.Error("a caller is in the metrics")
	}
}

// TestSignerSpans has a collector see the stages of a request, and a journal
// that is away counted.
func TestSignerSpans(t *testing.T) {
	got := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	log := slog.New(slog.DiscardHandler)
	tracer, err := telemetry.TracerFromEnv(t.Context(), buildInfo(), log)
	if err != nil {
		t.Fatal(err)
	}
	m := telemetry.NewMetrics(buildInfo())
	m.SetTracer(tracer)
	hooks := signerHooks(deps{log: log, metrics: m})
	for stage, err := range map[signservice.Stage]error{signservice.StagePolicy: nil, signservice.StageReserve: fmt.Errorf("%w: disk full", journal.ErrDown)} {
		_, end := hooks.Stage(t.Context(), stage)
		end(err)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if spans := <-got; !strings.Contains(spans, telemetry.SpanPolicy) || !strings.Contains(spans, telemetry.SpanJournal) || strings.Contains(spans, "disk full") {
		t.Errorf("the collector got %q", spans)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "privyseal_audit_write_failures_total 1") {
		t.Error("the journal's failure is not counted")
	}
}

// TestIssuerMetrics scrapes an issuer that has published its list.
func TestIssuerMetrics(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "status", Purpose: signer.PurposeStatus, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	w.config.Issuer = &IssuerSection{URL: "https://issuer.example", StatusKey: "status"}
	w.config.Serve = &ServeConfig{Operator: "operator", Issuer: &IssuerServeSection{Listener: "public"}, Listeners: map[string]*ListenerSection{
		"operator": {Address: "127.0.0.1:0", Plain: true}, "public": {Address: "127.0.0.1:0", Plain: true}}}
	s := serveTest(t, w)
	s.eventually("the list is published", func() bool {
		_, text := s.page("/metrics")
		return strings.Contains(text, `privyseal_publications_total{result="ok"} 1`)
	})
	_, text := s.page("/metrics")
	for _, want := range []string{`privyseal_status_list_age_seconds{list="status"} `, "privyseal_revocation_lag_seconds 0", "privyseal_publication_wait_seconds_count 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}
