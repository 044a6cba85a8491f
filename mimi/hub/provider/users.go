package provider

import (
	"context"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// UserExists reports whether a user of ours has a client.
func (s *Service) UserExists(ctx context.Context, user mimi.URI) (exists bool, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		clients, err := clientsOf(ctx, tx, user)
		exists = len(clients) > 0
		return err
	})
	return exists, err
}

// TellConsent tells the clients of a user of ours of a consent that it is asked
// for, or told of. They have it durably when TellConsent returns.
func (s *Service) TellConsent(ctx context.Context, user mimi.URI, e *mimi.ConsentEntry) error {
	var clients []mimi.URI
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) (err error) {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		if clients, err = clientsOf(ctx, tx, user); err != nil || len(clients) == 0 {
			return err
		}
		seq, err := advance(ctx, tx, 1)
		for _, c := range clients {
			if err == nil {
				err = s.putDirect(ctx, tx, c, seq, clientapi.EventConsent, 0, 0, e.Marshal())
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range clients {
		s.wake.client(c)
	}
	return nil
}

// AssetPolicy returns the asset policy of a room of ours in which the user is, or
// nil if it has none. Of rooms of other hubs it knows none.
func (s *Service) AssetPolicy(ctx context.Context, user, room mimi.URI) (p *policy.AssetPolicy, err error) {
	if room.Host() != s.cfg.Domain {
		return nil, nil
	}
	err = s.decideAlone(ctx, room, func(e *entry) error {
		if e.room.State().RoleOf(user) <= mimi.RoleBanned {
			return clientapi.Problemf(clientapi.CodeNotFound, "no such room")
		}
		p = e.room.AssetPolicy()
		return nil
	})
	return p, s.asProblem(err)
}

// asProblem is problemOf for errors, without one for nil.
func (s *Service) asProblem(err error) error {
	if err == nil {
		return nil
	}
	return s.problemOf(err)
}
