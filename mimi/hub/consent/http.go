package consent

import (
	"context"
	"net/http"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Routes serves requestConsent and updateConsent.
func (s *Service) Routes(server *peer.Server) {
	server.Handle(peer.RequestConsent, s.handleRequest)
	server.Handle(peer.UpdateConsent, s.handleUpdate)
}

func (s *Service) handleRequest(ctx context.Context, r *peer.Request) ([]byte, error) {
	e, err := s.parse(r, (*mimi.ConsentEntry).CheckRequest)
	if err != nil {
		return nil, err
	}
	return nil, s.receive(ctx, r, e, e.RequesterURI, e.TargetURI, s.receiveRequest)
}

func (s *Service) handleUpdate(ctx context.Context, r *peer.Request) ([]byte, error) {
	e, err := s.parse(r, (*mimi.ConsentEntry).CheckUpdate)
	if err != nil {
		return nil, err
	}
	return nil, s.receive(ctx, r, e, e.TargetURI, e.RequesterURI, s.receiveAnswer)
}

// parse decodes the body. Who may send it is said by receive, with another
// status; here only the kind of operation counts.
func (s *Service) parse(r *peer.Request, check func(e *mimi.ConsentEntry, from, to string) error) (*mimi.ConsentEntry, error) {
	e, err := mimi.ParseConsentEntry(r.Body)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "malformed", "%w", err)
	}
	from, to := e.RequesterURI.Host(), e.TargetURI.Host()
	if e.Operation == mimi.ConsentGrant || e.Operation == mimi.ConsentRevoke {
		from, to = to, from
	}
	if err := check(e, from, to); err != nil {
		return nil, problem.New(http.StatusBadRequest, "operation", "%w", err)
	}
	return plain(e), nil
}

// receive takes an entry of a peer about one user of its own and one of ours.
func (s *Service) receive(ctx context.Context, r *peer.Request, e *mimi.ConsentEntry, theirs, ours mimi.URI,
	take func(context.Context, *sqldb.Tx, *mimi.ConsentEntry) error) error {
	if err := r.Peer.SpeaksFor(theirs); err != nil {
		return err
	}
	if ours.Host() != r.Provider {
		return problem.New(http.StatusForbidden, "foreign-user", "%s is not a user of %s", ours, r.Provider)
	}
	if r.Variable != ours.Host() && r.Variable != ours.String() {
		return problem.New(http.StatusBadRequest, "path", "the path is about %q, the entry about %s", r.Variable, ours)
	}
	if s.cfg.Ask != nil {
		if err := s.cfg.Ask(theirs, ours); err != nil {
			return err
		}
	}
	known, err := s.cfg.UserExists(ctx, ours)
	if err != nil {
		return storeError(err)
	}
	if !known && s.cfg.RevealUnknown {
		return problem.New(http.StatusNotFound, "not-found", "no such user")
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if !known {
			return s.pretend(ctx, tx, e)
		}
		return take(ctx, tx, e)
	})
	s.wake()
	return storeError(err)
}

// pretend takes about the time of a request to somebody who is there, and
// leaves nothing behind.
func (s *Service) pretend(ctx context.Context, tx *sqldb.Tx, e *mimi.ConsentEntry) error {
	if _, err := readWords(ctx, tx, e.ConsentScope); err != nil {
		return err
	}
	if _, err := pendingFull(ctx, tx, e.ConsentScope); err != nil {
		return err
	}
	if err := addRequest(ctx, tx, received, e.ConsentScope, micros(s.db)); err != nil {
		return err
	}
	_, err := dropRequest(ctx, tx, received, e.ConsentScope)
	return err
}

// SendTo tells another provider of an entry: requests and cancels go to
// requestConsent, grants and revocations to updateConsent.
func SendTo(ctx context.Context, c *peer.Client, provider string, e *mimi.ConsentEntry) error {
	call := peer.Call{Provider: provider, Endpoint: peer.RequestConsent, Body: e.Marshal()}
	user := e.TargetURI
	if e.Operation == mimi.ConsentGrant || e.Operation == mimi.ConsentRevoke {
		call.Endpoint, user = peer.UpdateConsent, e.RequesterURI
	}
	call.Value = peer.ConsentValue(provider, user.String())
	_, err := c.Call(ctx, call)
	return err
}
