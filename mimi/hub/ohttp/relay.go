package ohttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi/peer"
)

const (
	maxKeys  = 4096 // octets of a gateway's keys
	keysTime = time.Hour
	maxKept  = 1024 // gateways whose keys are kept
)

// A Relay passes encapsulated requests of our clients on to gateways. Nothing
// but the body goes there: no address, no header and no name of the client.
type Relay struct {
	client   *peer.Client
	gateways func(provider string) bool

	mu   sync.Mutex // guards keys
	keys map[string]keptKeys
}

type keptKeys struct {
	octets         []byte
	fetched, until time.Time
}

// NewRelay returns a relay to the gateways of the providers that the function
// allows.
func NewRelay(client *peer.Client, gateways func(provider string) bool) *Relay {
	return &Relay{client: client, gateways: gateways, keys: make(map[string]keptKeys)}
}

// Routes serves the relay to other providers, who let their clients use it.
func (l *Relay) Routes(server *peer.Server) {
	server.HandleStream(peer.OHTTPRelay, func(w http.ResponseWriter, r *peer.Request) error { return l.Serve(w, r.HTTP, r.Variable) })
}

func (l *Relay) check(gateway string) error {
	if !l.gateways(gateway) {
		return problem.New(http.StatusForbidden, "gateway", "this relay does not pass on to %q", gateway)
	}
	return nil
}

// Serve passes one request on to the gateway of a provider.
func (l *Relay) Serve(w http.ResponseWriter, r *http.Request, gateway string) error {
	if err := l.check(gateway); err != nil {
		return err
	}
	sealed, err := readSealed(w, r)
	if err != nil {
		return err
	}
	resp, err := l.client.Open(r.Context(), peer.Call{
		Provider: gateway, Endpoint: peer.OHTTPGateway, Value: peer.Value(""), Body: sealed,
		Header: http.Header{"Content-Type": {ohttp.MediaTypeRequest}},
	})
	if err != nil {
		l.forgetIfOld(gateway, err)
		return passOn(err)
	}
	defer resp.Body.Close()
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != ohttp.MediaTypeResponse {
		return problem.New(http.StatusBadGateway, "upstream", "the gateway answered with something else")
	}
	if resp.ContentLength > maxResponse {
		return problem.New(http.StatusBadGateway, "upstream", "the gateway's answer is too large")
	}
	return passSealed(w, resp.Body)
}

// passTime bounds how long a client takes to read an answer.
const passTime = 5 * time.Minute

// passSealed passes an answer on as it comes, so that large ones take no memory
// here. One that breaks off, or is too large, breaks off for the client as well.
func passSealed(w http.ResponseWriter, body io.Reader) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(passTime))
	w.Header().Set("Content-Type", ohttp.MediaTypeResponse)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	n, err := io.Copy(w, io.LimitReader(body, maxResponse+1))
	if err != nil || n > maxResponse {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// passOn tells a client what a gateway refused, such as an old key, and of
// other failures that there was one: names of ours and addresses that names have
// inside are not for who asks.
func passOn(err error) error {
	var p *problem.Problem
	if errors.As(err, &p) && (p.Status/100 == 4 && p.Status != http.StatusUnauthorized && p.Status != http.StatusForbidden) {
		return p
	}
	after, _ := peer.Retry(err)
	failed := problem.New(http.StatusBadGateway, "upstream", "the gateway cannot be reached").After(after)
	failed.Err = err
	return failed
}

// Keys returns the keys of a provider's gateway, encoded. All clients get the
// same ones for as long as they last.
func (l *Relay) Keys(ctx context.Context, gateway string) ([]byte, error) {
	if err := l.check(gateway); err != nil {
		return nil, err
	}
	if b := l.kept(gateway); b != nil {
		return b, nil
	}
	b, header, err := l.client.Get(ctx, gateway, KeysPath, ohttp.MediaTypeKeys, maxKeys)
	if err != nil {
		return nil, passOn(err)
	}
	if _, err := ohttp.ParseKeys(b); err != nil {
		return nil, problem.New(http.StatusBadGateway, "upstream", "the gateway's keys: %w", err)
	}
	return l.keep(gateway, b, peer.MaxAge(header, keysTime)), nil
}

func (l *Relay) kept(gateway string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.keys[gateway]; ok && time.Now().Before(k.until) {
		return k.octets
	}
	return nil
}

// keep returns the keys that are kept: those of another fetch, if it was first.
func (l *Relay) keep(gateway string, b []byte, age time.Duration) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.keys[gateway]; ok && time.Now().Before(k.until) {
		return k.octets
	}
	if len(l.keys) >= maxKept {
		clear(l.keys)
	}
	l.keys[gateway] = keptKeys{b, time.Now(), time.Now().Add(age)}
	return b
}

// forgetIfOld drops keys that the gateway says it does not have. A client with
// a key of its own making does not cause a fetch each time.
func (l *Relay) forgetIfOld(gateway string, err error) {
	var p *problem.Problem
	if !errors.As(err, &p) || p.Type != ohttp.ProblemKey {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.keys[gateway].fetched) > time.Minute {
		delete(l.keys, gateway)
	}
}

// ServeKeys answers with the keys of a provider's gateway.
func (l *Relay) ServeKeys(w http.ResponseWriter, r *http.Request, gateway string) error {
	b, err := l.Keys(r.Context(), gateway)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", ohttp.MediaTypeKeys)
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(keysTime.Seconds()/4)))
	_, err = w.Write(b)
	return err
}

// Handler serves clients under a path prefix: POST GATEWAY passes on, and GET
// GATEWAY gives the keys. Whoever mounts it authenticates the client.
func (l *Relay) Handler(prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gateway, _ := strings.CutPrefix(r.URL.Path, prefix)
		var err error
		switch r.Method {
		case http.MethodPost:
			err = l.Serve(w, r, gateway)
		case http.MethodGet:
			err = l.ServeKeys(w, r, gateway)
		default:
			w.Header().Set("Allow", "GET, POST")
			err = problem.New(http.StatusMethodNotAllowed, "method", "a relay takes GET and POST")
		}
		if err != nil {
			problem.Of(err).Write(w)
		}
	})
}
