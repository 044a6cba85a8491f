package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Endpoints are those that a Service serves to other providers.
func Endpoints() []peer.Endpoint {
	return []peer.Endpoint{peer.KeyMaterial, peer.Update, peer.Notify, peer.SubmitMessage, peer.GroupInfo, peer.ReportAbuse}
}

// ServePeers adds the endpoints for other providers to a server, which has
// authenticated the peer of each call.
func (s *Service) ServePeers(p *peer.Server) {
	for endpoint, h := range map[peer.Endpoint]func(context.Context, *peer.Request) ([]byte, error){
		peer.KeyMaterial: s.peerKeyMaterial, peer.Update: s.peerUpdate, peer.Notify: s.peerNotify,
		peer.SubmitMessage: s.peerSubmit, peer.GroupInfo: s.peerGroupInfo, peer.ReportAbuse: s.peerAbuse,
	} {
		p.Handle(endpoint, func(ctx context.Context, r *peer.Request) ([]byte, error) {
			b, err := h(ctx, r)
			if err != nil {
				return nil, s.peerProblem(r, err)
			}
			return b, nil
		})
	}
}

// peerProblem gives an error its status for another provider.
func (s *Service) peerProblem(r *peer.Request, err error) error {
	var p *problem.Problem
	switch {
	case errors.As(err, &p):
		return err
	case errors.Is(err, ErrNoRoom):
		return problem.New(http.StatusNotFound, codeNoRoom, "there is no such room")
	case errors.Is(err, hub.ErrForeign):
		return problem.New(http.StatusForbidden, "foreign-user", "%w", err)
	case errors.Is(err, hub.ErrMalformed):
		return problem.New(http.StatusBadRequest, "malformed", "%w", err)
	}
	q := s.problemOf(err)
	if q.Status >= 500 && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("call of a peer failed", "peer", r.Peer.Domain, "endpoint", string(r.Endpoint), "err", err)
	}
	return q
}

func bad(err error) error { return fmt.Errorf("%w: %w", hub.ErrMalformed, err) }

func (s *Service) peerKeyMaterial(ctx context.Context, r *peer.Request) ([]byte, error) {
	q, err := mimi.ParseKeyMaterialRequest(r.Body)
	if err != nil {
		return nil, bad(err)
	}
	if r.Variable != q.TargetUser.String() {
		return nil, fmt.Errorf("%w: the path is not about targetUser", hub.ErrMalformed)
	}
	p, err := s.PeerKeyMaterial(ctx, r.Peer.Domain, q)
	if err != nil {
		return nil, err
	}
	return p.Marshal(), nil
}

func (s *Service) peerUpdate(ctx context.Context, r *peer.Request) ([]byte, error) {
	room, err := r.URI(mimi.KindRoom)
	if err != nil {
		return nil, err
	}
	u, err := mimi.ReadHandshakeBundle(r.Body)
	if err != nil {
		return nil, bad(err)
	}
	p, err := s.Update(ctx, hub.From{Provider: r.Peer.Domain}, room, u)
	if err != nil {
		return nil, err
	}
	return p.Marshal(), nil
}

func (s *Service) peerSubmit(ctx context.Context, r *peer.Request) ([]byte, error) {
	room, err := r.URI(mimi.KindRoom)
	if err != nil {
		return nil, err
	}
	if len(r.Body) > s.cfg.MaxMessage {
		return nil, clientapi.Problemf(clientapi.CodeTooLarge, "%d octets, at most %d", len(r.Body), s.cfg.MaxMessage)
	}
	q, err := mimi.ParseSubmitMessageRequest(r.Body)
	if err != nil {
		return nil, bad(err)
	}
	p, err := s.Submit(ctx, hub.From{Provider: r.Peer.Domain}, room, q)
	if err != nil {
		return nil, err
	}
	return p.Marshal(), nil
}

func (s *Service) peerGroupInfo(ctx context.Context, r *peer.Request) ([]byte, error) {
	room, err := r.URI(mimi.KindRoom)
	if err != nil {
		return nil, err
	}
	q, err := mimi.ParseGroupInfoRequest(r.Body)
	if err != nil {
		return nil, bad(err)
	}
	p, err := s.GroupInfo(ctx, hub.From{Provider: r.Peer.Domain}, room, q)
	if err != nil {
		return nil, err
	}
	return p.Marshal(), nil
}

func (s *Service) peerAbuse(ctx context.Context, r *peer.Request) ([]byte, error) {
	room, err := r.URI(mimi.KindRoom)
	if err != nil {
		return nil, err
	}
	q, err := mimi.ParseAbuseReport(r.Body)
	if err != nil {
		return nil, bad(err)
	}
	_, err = s.ReportAbuse(ctx, hub.From{Provider: r.Peer.Domain}, room, q)
	return nil, err
}

// peerNotify is the one endpoint whose room is another provider's.
func (s *Service) peerNotify(ctx context.Context, r *peer.Request) ([]byte, error) {
	room, err := mimi.ParseURI(r.Variable)
	if err != nil || room.Kind() != mimi.KindRoom {
		return nil, fmt.Errorf("%w: the path names no room", hub.ErrMalformed)
	}
	return nil, s.Notify(ctx, r.Peer.Domain, room, r.Body)
}
