package ohttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi/peer"
)

// KeysPath is where a gateway's keys are (RFC 9540 section 4).
const KeysPath = "/.well-known/ohttp-gateway"

const (
	maxRequest   = 64 << 10  // octets of a sealed request
	maxResponse  = 128 << 20 // of a sealed response
	defaultAsset = 16 << 20
	sealedAtOnce = 8 // assets, each of which is in memory three times
)

// A Fetcher returns an asset of at most so many octets, or a problem.
type Fetcher interface {
	Fetch(ctx context.Context, url string, most int64) ([]byte, error)
}

// A Gateway answers encapsulated requests.
type Gateway struct {
	keys *ohttp.Keys
	from Fetcher
	most int64
	busy chan struct{}
}

// NewGateway returns a gateway for assets of at most so many octets; 0 means
// 16 MiB. Each is sealed in memory.
func NewGateway(keys *ohttp.Keys, from Fetcher, most int64) *Gateway {
	if most <= 0 {
		most = defaultAsset
	}
	return &Gateway{keys, from, most, make(chan struct{}, sealedAtOnce)}
}

// Routes serves the gateway to relays, which are providers, and its keys to
// anybody.
func (g *Gateway) Routes(server *peer.Server) {
	server.HandleStream(peer.OHTTPGateway, func(w http.ResponseWriter, r *peer.Request) error { return g.Serve(w, r.HTTP) })
	server.HandlePublic(KeysPath, http.HandlerFunc(g.serveKeys))
}

func (g *Gateway) serveKeys(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem.New(http.StatusMethodNotAllowed, "method", "keys take GET; the gateway is at ohttpGateway of the directory").Write(w)
		return
	}
	key, err := g.keys.Current()
	if err != nil {
		problem.Of(err).Write(w)
		return
	}
	w.Header().Set("Content-Type", ohttp.MediaTypeKeys)
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(g.keys.Left().Seconds())))
	w.Write(ohttp.MarshalKeys([]*ohttp.KeyConfig{key.Config}))
}

// readSealed reads the body of a request to a gateway or a relay.
func readSealed(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != ohttp.MediaTypeRequest {
		return nil, problem.New(http.StatusUnsupportedMediaType, "media-type", "the body is not %s", ohttp.MediaTypeRequest)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return nil, problem.New(http.StatusRequestEntityTooLarge, "too-large", "a request has at most %d octets", maxRequest)
	}
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "body", "the body did not arrive whole")
	}
	return b, nil
}

func writeSealed(w http.ResponseWriter, b []byte) error {
	w.Header().Set("Content-Type", ohttp.MediaTypeResponse)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(b)
	return err
}

// Serve answers one encapsulated request. What fails before it is open is told
// to the relay; what fails after, only to who asked.
func (g *Gateway) Serve(w http.ResponseWriter, r *http.Request) error {
	sealed, err := readSealed(w, r)
	if err != nil {
		return err
	}
	request, seal, err := ohttp.OpenRequest(g.keys.Find, sealed)
	if errors.Is(err, ohttp.ErrKey) {
		p := problem.New(http.StatusBadRequest, "ohttp-key", "%w", err)
		p.Type = ohttp.ProblemKey
		return p
	}
	if err != nil {
		return problem.New(http.StatusBadRequest, "malformed", "%w", err)
	}
	select {
	case g.busy <- struct{}{}:
		defer func() { <-g.busy }()
	case <-r.Context().Done():
		return problem.New(http.StatusServiceUnavailable, "busy", "too many assets are under way").After(time.Second)
	}
	response, err := g.answer(r.Context(), request)
	if err != nil {
		return err
	}
	b, err := seal.SealResponse(bhttp.Pad(response, ohttp.Padded(len(response))))
	if err != nil {
		return err
	}
	return writeSealed(w, b)
}

// answer returns the encoded response to a request that was open. Its error is
// a failure of our own.
func (g *Gateway) answer(ctx context.Context, request []byte) ([]byte, error) {
	asset, err := g.get(ctx, request)
	if err != nil {
		return refusal(err)
	}
	return (&bhttp.Response{
		Status: http.StatusOK, Content: asset, Header: []bhttp.Field{{Name: "content-type", Value: "application/octet-stream"}},
	}).Marshal()
}

func (g *Gateway) get(ctx context.Context, request []byte) ([]byte, error) {
	q, err := bhttp.ParseRequest(request)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "malformed", "%w", err)
	}
	if q.Method != http.MethodGet || len(q.Content) > 0 {
		return nil, problem.New(http.StatusMethodNotAllowed, "method", "assets take GET")
	}
	return g.from.Fetch(ctx, q.URL(), g.most)
}

func refusal(err error) ([]byte, error) {
	p := problem.Of(err)
	content, err := json.Marshal(map[string]any{"type": problem.Base + p.Code, "title": http.StatusText(p.Status), "status": p.Status, "detail": p.Detail, "code": p.Code})
	if err != nil {
		return nil, err
	}
	return (&bhttp.Response{Status: p.Status, Content: content, Header: []bhttp.Field{{Name: "content-type", Value: problem.MediaType}}}).Marshal()
}
