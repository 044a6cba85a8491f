package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The names of the spans below a request.
const (
	SpanPolicy  = "policy.evaluate"
	SpanJournal = "audit.append"
	SpanPKCS11  = "pkcs11." // and the function, such as C_Sign
	SpanTPM     = "tpm."    // and what it does
)

// A Tracer begins spans. The zero value, and nil, begin none.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
}

// propagator reads and writes the W3C trace context.
var propagator = propagation.TraceContext{}

// endpoints are the variables of the OpenTelemetry specification that say where
// traces go.
var endpoints = []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"}

// TracerFromEnv returns a Tracer that exports over OTLP/HTTP if one of the
// OTEL_EXPORTER_OTLP_*ENDPOINT variables is set and OTEL_SDK_DISABLED is not
// "true"; otherwise one that does nothing. The other OTEL_* variables (headers,
// certificate, sampler, resource attributes, batch sizes) are the SDK's own.
func TracerFromEnv(ctx context.Context, b BuildInfo, log *slog.Logger) (*Tracer, error) {
	if !tracingWanted() {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	attributes, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "privyseal"), attribute.String("service.version", b.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are lost", "err", err) }))
	return newTracer(sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(attributes))), nil
}

func newTracer(p *sdktrace.TracerProvider) *Tracer {
	return &Tracer{tracer: p.Tracer("github.com/privyseal/privyseal"), provider: p}
}

func tracingWanted() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	for _, name := range endpoints {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// Close exports what is left.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil || t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

const closeTime = 5 * time.Second

// Span begins a span with attributes in pairs of name and value, and returns
// its context and its end. Error texts stay out of traces: they go to systems
// that others run.
func (t *Tracer) Span(ctx context.Context, name string, pairs ...string) (context.Context, func(error)) {
	if t == nil || t.tracer == nil {
		return ctx, func(error) {}
	}
	attributes := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		attributes = append(attributes, attribute.String(pairs[i], pairs[i+1]))
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(attributes...))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// request begins the span of a request.
func (t *Tracer) request(ctx context.Context, listener string, r *http.Request) (context.Context, func(status int)) {
	if t == nil || t.tracer == nil {
		return ctx, func(int) {}
	}
	ctx = propagator.Extract(ctx, propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("url.path", r.URL.Path), attribute.String("privyseal.listener", listener)))
	return ctx, func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
