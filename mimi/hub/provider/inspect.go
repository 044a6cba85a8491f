package provider

import (
	"context"
	"crypto/sha256"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
)

// An Inspection is a room of ours as this node knows it.
type Inspection struct {
	Epoch        uint64
	TreeHash     []byte
	Context      [sha256.Size]byte // hash of the GroupContext: tree, components and transcript
	Members      []hub.Member
	Participants []mimi.UserRolePair
	Pending      int
	LastAccepted uint64
	Silenced     []mimi.URI // users with clients of ours who may not receive messages
}

// Inspect returns a room of ours. It waits for what is under way in it.
func (s *Service) Inspect(ctx context.Context, room mimi.URI) (i *Inspection, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error {
		context := e.room.Context()
		i = &Inspection{
			Epoch: e.room.Epoch(), TreeHash: context.TreeHash, Context: sha256.Sum256(e.room.ContextBytes()), Members: e.room.Members(),
			Participants: e.room.State().ParticipantList().Participants, Pending: e.room.Pending(), LastAccepted: e.room.LastTimestamp(),
		}
		for u := range e.deaf {
			i.Silenced = append(i.Silenced, u)
		}
		return nil
	})
	return i, err
}

// Forget drops every room from this node's memory, so that each is read anew
// from the store.
func (s *Service) Forget() {
	s.mu.Lock()
	entries := make([]*entry, 0, len(s.rooms))
	for _, e := range s.rooms {
		entries = append(entries, e)
	}
	s.mu.Unlock()
	for _, e := range entries {
		e.mu.Lock()
		e.queue.drain()
		e.forget()
		e.mu.Unlock()
	}
}

// Check reports whether the database answers.
func (s *Service) Check(ctx context.Context) error {
	return s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var seq int64
		return tx.QueryRow(ctx, `SELECT seq FROM counter WHERE id = 1`).Scan(&seq)
	})
}
