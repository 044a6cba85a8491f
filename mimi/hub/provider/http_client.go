package provider

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/httpbody"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

type callerKey struct{}

// Octets of requests that are in memory at one time: of all clients, and of each;
// and of those who register, who may be anybody.
const (
	maxBodies       = 512 << 20
	maxClientBodies = 32 << 20
	maxRegistering  = 64 << 20
)

// CallerOf returns the client that a request of the client API is of.
func CallerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// ClientHandler serves the client API (package clientapi). It needs TLS with
// client certificates of any issuer: what counts is the key.
func (s *Service) ClientHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+clientapi.PathDevice, s.serveRegister)
	for pattern, h := range map[string]func(context.Context, *Caller, *http.Request, []byte) (marshaler, error){
		"GET " + clientapi.PathDevice:                            s.getDevice,
		"DELETE " + clientapi.PathDevice:                         s.deleteDevice,
		"POST " + clientapi.PathKeyPackages:                      s.postKeyPackages,
		"GET " + clientapi.PathKeyPackages:                       s.getKeyPackages,
		"POST " + clientapi.PathKeyMaterial:                      s.postKeyMaterial,
		"GET " + clientapi.PathRooms:                             s.getRooms,
		"POST " + clientapi.PathRooms:                            s.postRoom,
		"GET " + clientapi.PathHubKeys:                           s.getHubKeys,
		"DELETE " + clientapi.PathRooms + "/{room}":              s.deleteRoom,
		"POST " + clientapi.PathRooms + "/{room}/update":         s.postUpdate,
		"POST " + clientapi.PathRooms + "/{room}/messages":       s.postMessage,
		"POST " + clientapi.PathRooms + "/{room}/group-info":     s.postGroupInfo,
		"POST " + clientapi.PathRooms + "/{room}/abuse-reports":  s.postAbuse,
		"POST " + clientapi.PathRooms + "/{room}/join-codes":     s.postJoinCode,
		"DELETE " + clientapi.PathRooms + "/{room}/subscription": s.deleteSubscription,
	} {
		mux.Handle(pattern, s.authenticated(s.answering(s.mostOf(pattern), h)))
	}
	mux.Handle("GET "+clientapi.PathEvents, s.authenticated(http.HandlerFunc(s.serveEvents)))
	for pattern, h := range s.cfg.Extra {
		mux.Handle(pattern, s.authenticated(h))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		clientapi.Problemf(clientapi.CodeNotFound, "no such route").Write(w)
	})
	return mux
}

// mostOf is how many octets a request has at most.
func (s *Service) mostOf(pattern string) int64 {
	switch pattern {
	case "POST " + clientapi.PathKeyPackages, "POST " + clientapi.PathRooms,
		"POST " + clientapi.PathRooms + "/{room}/update", "POST " + clientapi.PathRooms + "/{room}/abuse-reports":
		return clientapi.MaxRequest
	case "POST " + clientapi.PathRooms + "/{room}/messages":
		return int64(s.cfg.MaxMessage)
	}
	return clientapi.MaxSmallRequest
}

type marshaler interface{ Marshal() []byte }

// tlsKeyOf names the key of the client's certificate.
func tlsKeyOf(r *http.Request) ([32]byte, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return [32]byte{}, clientapi.Problemf(clientapi.CodeNotRegistered, "no client certificate was shown")
	}
	return clientapi.TLSKeyHash(r.TLS.PeerCertificates[0]), nil
}

func (s *Service) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := tlsKeyOf(r)
		var c *Caller
		if err == nil {
			c, err = s.Caller(r.Context(), key)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

func (s *Service) answering(most int64, h func(context.Context, *Caller, *http.Request, []byte) (marshaler, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		release, err := takeBody(s.bodies, CallerOf(r.Context()).Client.String(), r, most)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer release()
		body, err := readBody(w, r, most)
		var answer marshaler
		if err == nil {
			answer, err = h(r.Context(), CallerOf(r.Context()), r, body)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		respond(w, answer)
	})
}

func respond(w http.ResponseWriter, answer marshaler) {
	w.Header().Set("Cache-Control", "no-store")
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b := answer.Marshal()
	w.Header().Set("Content-Type", clientapi.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// takeBody takes memory for the body of a sender's request.
func takeBody(from *httpbody.Budget, sender string, r *http.Request, most int64) (release func(), err error) {
	release, ok := from.Take(sender, httpbody.Announced(r.ContentLength, most))
	if !ok {
		return nil, clientapi.Problemf(clientapi.CodeTooMany, "too many octets are under way").After(time.Second)
	}
	return release, nil
}

func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	if r.ContentLength > most {
		return nil, clientapi.Problemf(clientapi.CodeTooLarge, "%d octets, at most %d", r.ContentLength, most)
	}
	b, err := httpbody.Read(http.MaxBytesReader(w, r.Body, most), r.ContentLength)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, clientapi.Problemf(clientapi.CodeTooLarge, "more than %d octets", most)
	case err != nil:
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "the body broke off: %w", err)
	}
	return b, nil
}

// fail answers with the problem that an error is.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problemOf(err)
	if p.Status >= 500 && r.Context().Err() == nil {
		s.cfg.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err, "cause", p.Err)
	}
	p.Write(w)
}

func (s *Service) problemOf(err error) *problem.Problem {
	var p *problem.Problem
	var refusal *policy.Refusal
	var credential *hub.CredentialError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, ErrNoRoom):
		return clientapi.Problemf(clientapi.CodeNotFound, "no such room")
	case errors.Is(err, ErrRoomExists):
		return clientapi.Problemf(clientapi.CodeRoomExists, "the room's name is taken")
	case errors.Is(err, hub.ErrForeign), errors.As(err, &refusal):
		return clientapi.Problemf(clientapi.CodeRefused, "%w", err)
	case errors.As(err, &credential):
		return clientapi.Problemf(clientapi.CodeCredential, "%s", credential.Told())
	case errors.Is(err, hub.ErrNotCreated):
		return clientapi.Problemf(clientapi.CodeRefused, "%w", err)
	case errors.Is(err, hub.ErrMalformed):
		return clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	case errors.Is(err, hub.ErrStale), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return clientapi.Problemf(clientapi.CodeUnavailable, "the provider is busy; try again")
	}
	return &problem.Problem{Status: clientapi.CodeUnavailable.Status(), Code: string(clientapi.CodeUnavailable), Detail: "the provider's database or device failed; try again", Err: err}
}

// roomOf returns the room in the path.
func roomOf(r *http.Request) (mimi.URI, error) {
	u, err := mimi.ParseURI(r.PathValue("room"))
	if err == nil && u.Kind() != mimi.KindRoom {
		err = errors.New("it names no room")
	}
	if err != nil {
		return u, clientapi.Problemf(clientapi.CodeMalformed, "the room in the path: %w", err)
	}
	return u, nil
}

// parsed decodes a body.
func parsed[T any](body []byte, parse func([]byte) (T, error)) (T, error) {
	v, err := parse(body)
	if err != nil {
		return v, clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	}
	return v, nil
}

// ofRoom decodes a body that is for the room in the path.
func ofRoom[T any](r *http.Request, body []byte, parse func([]byte) (T, error)) (room mimi.URI, v T, err error) {
	if room, err = roomOf(r); err == nil {
		v, err = parsed(body, parse)
	}
	return room, v, err
}

func (s *Service) serveRegister(w http.ResponseWriter, r *http.Request) {
	key, err := tlsKeyOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	release, err := takeBody(s.registering, string(key[:]), r, clientapi.MaxSmallRequest)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	body, err := readBody(w, r, clientapi.MaxSmallRequest)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q, err := parsed(body, clientapi.ParseRegisterRequest)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p, err := s.Register(r.Context(), key, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	respond(w, p)
}

func (s *Service) getDevice(ctx context.Context, c *Caller, _ *http.Request, _ []byte) (marshaler, error) {
	return s.Registration(ctx, c.Client, c.User)
}

func (s *Service) deleteDevice(ctx context.Context, c *Caller, _ *http.Request, _ []byte) (marshaler, error) {
	return nil, s.Unregister(ctx, c.Client)
}

func (s *Service) postKeyPackages(ctx context.Context, c *Caller, _ *http.Request, body []byte) (marshaler, error) {
	u, err := parsed(body, clientapi.ParseKeyPackageUpload)
	if err != nil {
		return nil, err
	}
	return s.Upload(ctx, c, u)
}

func (s *Service) getKeyPackages(ctx context.Context, c *Caller, _ *http.Request, _ []byte) (marshaler, error) {
	return s.Upload(ctx, c, new(clientapi.KeyPackageUpload))
}

func (s *Service) postKeyMaterial(ctx context.Context, c *Caller, _ *http.Request, body []byte) (marshaler, error) {
	q, err := parsed(body, mimi.ParseKeyMaterialRequest)
	if err != nil {
		return nil, err
	}
	if q.RequestingUser != c.User {
		return nil, clientapi.Problemf(clientapi.CodeRefused, "requestingUser is not the caller's user")
	}
	return s.KeyMaterial(ctx, c.from(), q)
}

func (s *Service) getRooms(ctx context.Context, c *Caller, _ *http.Request, _ []byte) (marshaler, error) {
	return s.Rooms(ctx, c.Client, c.User)
}

func (s *Service) postRoom(ctx context.Context, c *Caller, _ *http.Request, body []byte) (marshaler, error) {
	q, err := parsed(body, clientapi.ParseCreateRoomRequest)
	if err != nil {
		return nil, err
	}
	return s.CreateRoom(ctx, c.from(), q)
}

// HubKeys returns what the GroupContext of a room of ours must have.
func (s *Service) HubKeys(suite mls.CipherSuite) (*clientapi.HubKeys, error) {
	k := s.keysOf(suite)
	if k == nil {
		return nil, clientapi.Problemf(clientapi.CodeNotFound, "the provider takes no rooms of cipher suite %d", suite)
	}
	return &clientapi.HubKeys{CipherSuite: suite, HubSender: k.Sender, FrankingAgent: k.Franking.Marshal(), HubReceiver: k.Receiver}, nil
}

func (s *Service) getHubKeys(_ context.Context, _ *Caller, r *http.Request, _ []byte) (marshaler, error) {
	n, err := strconv.ParseUint(r.URL.Query().Get("suite"), 10, 16)
	if err != nil {
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "suite= must be the number of a cipher suite")
	}
	return s.HubKeys(mls.CipherSuite(n))
}

func (s *Service) deleteRoom(ctx context.Context, c *Caller, r *http.Request, _ []byte) (marshaler, error) {
	room, err := roomOf(r)
	if err != nil {
		return nil, err
	}
	return nil, s.DestroyRoom(ctx, c.from(), room)
}

func (s *Service) postUpdate(ctx context.Context, c *Caller, r *http.Request, body []byte) (marshaler, error) {
	room, u, err := ofRoom(r, body, mimi.ReadHandshakeBundle)
	if err != nil {
		return nil, err
	}
	if room.Host() != s.cfg.Domain {
		return s.RelayUpdate(ctx, c.Client, room, u)
	}
	return s.Update(ctx, c.from(), room, u)
}

func (s *Service) postMessage(ctx context.Context, c *Caller, r *http.Request, body []byte) (marshaler, error) {
	room, q, err := ofRoom(r, body, mimi.ParseSubmitMessageRequest)
	if err != nil {
		return nil, err
	}
	if q.SendingURI != c.User {
		return nil, clientapi.Problemf(clientapi.CodeRefused, "sendingUri is not the caller's user")
	}
	if room.Host() != s.cfg.Domain {
		return s.RelaySubmit(ctx, room, q)
	}
	return s.Submit(ctx, c.from(), room, q)
}

func (s *Service) postGroupInfo(ctx context.Context, c *Caller, r *http.Request, body []byte) (marshaler, error) {
	room, q, err := ofRoom(r, body, mimi.ParseGroupInfoRequest)
	if err != nil {
		return nil, err
	}
	if room.Host() != s.cfg.Domain {
		return s.RelayGroupInfo(ctx, room, q)
	}
	return s.GroupInfo(ctx, c.from(), room, q)
}

func (s *Service) postAbuse(ctx context.Context, c *Caller, r *http.Request, body []byte) (marshaler, error) {
	room, q, err := ofRoom(r, body, mimi.ParseAbuseReport)
	if err != nil {
		return nil, err
	}
	if !q.ReportingUser.IsZero() && q.ReportingUser != c.User {
		return nil, clientapi.Problemf(clientapi.CodeRefused, "reportingUser is not the caller's user")
	}
	if room.Host() != s.cfg.Domain {
		return clientapi.AbuseVerdicts{}, s.RelayAbuse(ctx, room, q)
	}
	return s.ReportAbuse(ctx, c.from(), room, q)
}

func (s *Service) postJoinCode(ctx context.Context, c *Caller, r *http.Request, body []byte) (marshaler, error) {
	room, q, err := ofRoom(r, body, clientapi.ParseJoinCodeRequest)
	if err != nil {
		return nil, err
	}
	return s.JoinCode(ctx, c.from(), room, q)
}

func (s *Service) deleteSubscription(ctx context.Context, c *Caller, r *http.Request, _ []byte) (marshaler, error) {
	room, err := roomOf(r)
	if err != nil {
		return nil, err
	}
	return nil, s.Unsubscribe(ctx, c.Client, room)
}

// serveEvents streams events. The header is sent with the first frame or at the
// end, so that a failure before it still gets its status.
func (s *Service) serveEvents(w http.ResponseWriter, r *http.Request) {
	q, err := clientapi.ParseEventQuery(r.URL.Query())
	if err != nil {
		s.fail(w, r, clientapi.Problemf(clientapi.CodeMalformed, "%w", err))
		return
	}
	control := http.NewResponseController(w)
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", clientapi.ContentTypeEvents)
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
		}
	}
	ctx, stop := untilDrained(r.Context())
	defer stop()
	err = s.Events(ctx, CallerOf(r.Context()).Client, q, func(e *clientapi.Event) error {
		begin()
		if err := clientapi.WriteEvent(w, e); err != nil {
			return err
		}
		return control.Flush()
	})
	if err != nil && !begun {
		s.fail(w, r, err)
		return
	}
	begin()
}

// untilDrained ends when the listener drains: a client that follows its events
// comes back, to another node or to the next process.
func untilDrained(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	if drain := daemon.DrainSignal(ctx); drain != nil {
		go func() {
			select {
			case <-drain:
				stop()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, stop
}
