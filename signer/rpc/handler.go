package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"golang.org/x/time/rate"

	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/api/openapi"
	"github.com/privyseal/privyseal/signer/api/privyseal/signer/v1/signerv1connect"
	"github.com/privyseal/privyseal/signer/service"
)

// Config joins a handler from its parts; all but the limits are required.
type Config struct {
	Service   *service.Service
	Access    *access.Store
	Authority *access.Authority
	Log       *slog.Logger
	// Requests bounds the requests under way at once; 1024 if 0. Beyond it they
	// are sent away before anything of them is read.
	Requests int
	// Deadline is that of requests which have none, and the most that one may
	// have; 30 s if 0.
	Deadline time.Duration
}

const (
	defaultRequests = 1024
	defaultDeadline = 30 * time.Second
	// maxMessage is a CRL and what stands around it, in JSON a third more.
	maxMessage = service.MaxCRL*4/3 + 64<<10
	// enrollments bounds the calls of those who have no certificate.
	enrollmentsPerSecond = 10
)

// Paths are where the handler wants to be mounted.
func Paths() []string {
	return []string{
		"/" + signerv1connect.SigningServiceName + "/", "/" + signerv1connect.KeyServiceName + "/",
		"/" + signerv1connect.AccessServiceName + "/", "/grpc.health.v1.Health/", "GET /openapi.json",
	}
}

// NewHandler returns the handler of all services. It expects to be served over
// TLS that verifies client certificates against the Authority's pool where
// they are given, and admits clients without one.
func NewHandler(c Config) http.Handler {
	if c.Requests <= 0 {
		c.Requests = defaultRequests
	}
	if c.Deadline <= 0 {
		c.Deadline = defaultDeadline
	}
	h := &handler{c: c, slots: make(chan struct{}, c.Requests), enroll: rate.NewLimiter(enrollmentsPerSecond, enrollmentsPerSecond)}
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessage), connect.WithSendMaxBytes(maxMessage),
		connect.WithCompression("gzip", nil, nil), // nothing here compresses, and bombs do
		connect.WithRequestGate(h.gate), connect.WithRecover(h.recovered),
	}
	mux := http.NewServeMux()
	mux.Handle(signerv1connect.NewSigningServiceHandler(signing{h}, options...))
	mux.Handle(signerv1connect.NewKeyServiceHandler(keys{h}, options...))
	mux.Handle(signerv1connect.NewAccessServiceHandler(callers{h}, options...))
	mux.Handle(grpchealth.NewHandler(health{}, connect.WithReadMaxBytes(4096)))
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(openapi.Document())
	})
	return h.limit(mux)
}

type handler struct {
	c      Config
	slots  chan struct{}
	enroll *rate.Limiter
}

type tlsKey struct{}

type callerKey struct{}

// limit bounds the requests at once and their time, and hands on what TLS knows.
func (h *handler) limit(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		default:
			err := h.fail(r.Context(), &admit.Overload{What: "the number of requests at once", RetryAfter: time.Second / 2})
			w.Header().Set("Retry-After", "1")
			if refuse.IsSupported(r) {
				refuse.Write(w, r, err)
				return
			}
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), h.c.Deadline)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, tlsKey{}, r.TLS)))
	})
}

// gate finds out who calls, before anything of the request is decoded.
func (h *handler) gate(ctx context.Context, spec connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
	if spec.Procedure == signerv1connect.AccessServiceEnrollProcedure {
		if !h.enroll.Allow() {
			return nil, h.fail(ctx, &admit.Overload{What: "the number of enrollments", RetryAfter: time.Second})
		}
		return ctx, nil
	}
	state, _ := ctx.Value(tlsKey{}).(*tls.ConnectionState)
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil, h.fail(ctx, fmt.Errorf("%w: no client certificate of this service's CA; enroll first", access.ErrUnknown))
	}
	c, err := h.c.Access.Authenticate(ctx, state.VerifiedChains[0][0])
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return context.WithValue(ctx, callerKey{}, c), nil
}

// caller returns who the gate has let in.
func caller(ctx context.Context) *access.Caller {
	return ctx.Value(callerKey{}).(*access.Caller)
}

func (h *handler) recovered(ctx context.Context, spec connect.Spec, _ http.Header, p any) error {
	return h.fail(ctx, fmt.Errorf("panic in %s: %v", spec.Procedure, p))
}

// health says that the process serves. Whether devices are there is for the
// operator's health pages, which restart nobody's connections.
type health struct{}

func (health) Check(_ context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	switch r.Service {
	case "", signerv1connect.SigningServiceName, signerv1connect.KeyServiceName, signerv1connect.AccessServiceName:
		return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such service"))
}
