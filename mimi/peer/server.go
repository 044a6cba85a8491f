package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/httpbody"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
)

// octets is the media type of every body of the draft, which names none.
const octets = "application/octet-stream"

// directoryAge is for how long a peer may keep our directory.
const directoryAge = time.Hour

// publicTime bounds a call of a public path.
const publicTime = 30 * time.Second

// Octets of bodies that are in memory at one time: of all calls, and of those of
// one peer.
const (
	maxBodies     = 1 << 30
	maxPeerBodies = 128 << 20
)

// A Request is a call of an authenticated peer.
type Request struct {
	Peer     Peer
	Provider string // our domain that the peer calls
	Endpoint Endpoint
	Variable string // the value in the path, decoded
	Body     []byte
	HTTP     *http.Request // for endpoints that need its headers
}

// URI returns the variable as a URI of a kind that our provider serves, or a
// 400 or 404 problem.
func (r *Request) URI(kinds ...mimi.Kind) (mimi.URI, error) {
	u, err := mimi.ParseURI(r.Variable)
	if err != nil {
		return u, problem.New(http.StatusBadRequest, "path", "the path names no mimi URI: %w", err)
	}
	for _, k := range kinds {
		if u.Kind() == k {
			return u, nil
		}
	}
	return u, problem.New(http.StatusBadRequest, "path", "%s is a %s", u, u.Kind())
}

// A Handler answers a call with a body, or with an error of which the peer is
// told if it is a *problem.Problem.
type Handler func(ctx context.Context, r *Request) ([]byte, error)

// A StreamHandler answers a call itself. An error is for before the first
// octet is written.
type StreamHandler func(w http.ResponseWriter, r *Request) error

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Hosts gives the provider's domain for each name in Host, without port and
	// in lower case, that we serve. The domain itself must be among them.
	Hosts map[string]string
	// Directories gives each provider's own directory.
	Directories map[string]*Directory
	Chains      *Chains
	// Admit may refuse a call before its body is read, for example by a limit.
	Admit func(ctx context.Context, r *Request) error
	// Concurrency bounds the calls of one peer that are under way; 0 means 128.
	Concurrency int
	Log         *slog.Logger
}

// A Server is the http.Handler of our providers' endpoints.
type Server struct {
	cfg    ServerConfig
	routes map[Endpoint]StreamHandler
	public map[string]http.Handler
	bodies *httpbody.Budget

	mu   sync.Mutex // guards open
	open map[string]int
}

// NewServer returns a server without endpoints.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 128
	}
	return &Server{cfg: cfg, routes: make(map[Endpoint]StreamHandler), public: make(map[string]http.Handler),
		bodies: httpbody.NewBudget(maxBodies, maxPeerBodies), open: make(map[string]int)}
}

// Handle serves an endpoint whose body is read whole.
func (s *Server) Handle(e Endpoint, h Handler) {
	t := traits[e]
	s.routes[e] = func(w http.ResponseWriter, r *Request) error {
		release, ok := s.bodies.Take(r.Peer.Domain, httpbody.Announced(r.HTTP.ContentLength, t.request))
		if !ok {
			return problem.New(http.StatusTooManyRequests, "too-many", "too many octets of %s are under way", r.Peer.Domain).After(time.Second)
		}
		defer release()
		if err := r.readBody(w, t.request); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(r.HTTP.Context(), t.timeout)
		defer cancel()
		answer, err := h(ctx, r)
		if err != nil {
			return err
		}
		writeBody(w, t.success, answer)
		return nil
	}
}

// HandleStream serves an endpoint that writes its own answer.
func (s *Server) HandleStream(e Endpoint, h StreamHandler) { s.routes[e] = h }

// HandlePublic serves a path to callers that need not be providers.
func (s *Server) HandlePublic(path string, h http.Handler) { s.public[path] = h }

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", octets)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	provider, ok := s.cfg.Hosts[strings.ToLower(hostName(r.Host))]
	if !ok {
		return problem.New(http.StatusMisdirectedRequest, "host", "this server has no provider at the Host that was asked for")
	}
	if r.URL.Path == DirectoryPath {
		return s.serveDirectory(w, r, provider)
	}
	if h, ok := s.public[r.URL.Path]; ok {
		s.deadlines(w, publicTime)
		h.ServeHTTP(w, r)
		return nil
	}
	call, route, err := s.route(r)
	if err != nil {
		return err
	}
	call.Provider = provider
	if call.Peer, err = s.cfg.Chains.Authenticate(r); err != nil {
		return err
	}
	leave, err := s.enter(call.Peer)
	if err != nil {
		return err
	}
	defer leave()
	s.deadlines(w, traits[call.Endpoint].timeout)
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(r.Context(), call); err != nil {
			return err
		}
	}
	return route(w, call)
}

// enter counts a call of a peer, or refuses it.
func (s *Server) enter(p Peer) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[p.Domain] >= s.cfg.Concurrency {
		return nil, problem.New(http.StatusTooManyRequests, "too-many", "%d calls of %s are under way", s.cfg.Concurrency, p.Domain).After(time.Second)
	}
	s.open[p.Domain]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[p.Domain]--; s.open[p.Domain] == 0 {
			delete(s.open, p.Domain)
		}
	}, nil
}

// deadlines bounds how long a peer may take to send its body and to read the
// answer. Servers under test may not know them.
func (s *Server) deadlines(w http.ResponseWriter, d time.Duration) {
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(d))
	c.SetWriteDeadline(time.Now().Add(2 * d))
}

// route finds the endpoint in the path as it was sent.
func (s *Server) route(r *http.Request) (*Request, StreamHandler, error) {
	notFound := problem.New(http.StatusNotFound, "not-found", "no such endpoint")
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), basePath)
	if !ok {
		return nil, nil, notFound
	}
	name, segment, hasSegment := strings.Cut(rest, "/")
	e := Endpoint(name)
	route, ok := s.routes[e]
	if t := traits[e]; !ok || hasSegment != (len(t.variables) > 0) {
		return nil, nil, notFound
	} else if r.Method != t.method {
		return nil, nil, problem.New(http.StatusMethodNotAllowed, "method", "%s takes %s", e, t.method)
	}
	value, err := unescapeSegment(segment)
	if err != nil {
		return nil, nil, problem.New(http.StatusBadRequest, "path", "%w", err)
	}
	return &Request{Endpoint: e, Variable: value, HTTP: r}, route, nil
}

func (s *Server) serveDirectory(w http.ResponseWriter, r *http.Request, provider string) error {
	d, ok := s.cfg.Directories[provider]
	if !ok {
		return problem.New(http.StatusNotFound, "not-found", "no directory")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return problem.New(http.StatusMethodNotAllowed, "method", "a directory takes GET")
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(directoryAge.Seconds())))
	_, err = w.Write(b)
	return err
}

// readBody reads the body up to its bound.
func (r *Request) readBody(w http.ResponseWriter, most int64) error {
	tooLarge := problem.New(http.StatusRequestEntityTooLarge, "too-large", "%s takes at most %d octets", r.Endpoint, most)
	if r.HTTP.ContentLength > most {
		return tooLarge
	}
	body, err := httpbody.Read(http.MaxBytesReader(w, r.HTTP.Body, most), r.HTTP.ContentLength)
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return tooLarge
	case err != nil:
		return problem.New(http.StatusBadRequest, "body", "the body did not arrive whole")
	}
	r.Body = body
	return nil
}

// fail tells the peer of an error, and the log of one that is ours.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.Of(err)
	if p.Status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allowed(r))
	}
	if p.Status >= 500 && r.Context().Err() == nil {
		s.cfg.Log.Error("peer call failed", "host", r.Host, "path", r.URL.EscapedPath(), "status", p.Status, "error", err)
	}
	p.Write(w)
}

func allowed(r *http.Request) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), basePath), "/")
	if t, ok := traits[Endpoint(name)]; ok {
		return t.method
	}
	return "GET, HEAD"
}
