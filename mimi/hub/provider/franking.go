package provider

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// Secrets are the hub's keys of a Config, which Rekey replaces.
type Secrets struct {
	Keys   func(mls.CipherSuite) *Keys
	MAC    mimi.MAC
	Franks *mimi.FrankingKeys
}

// Rekey puts other franking keys in the place of those of the Config, while
// messages are franked. Rooms are proposed the new signature key at once. The keys
// of before must be among Keys.Before and Franks for as long as rooms have them.
func (s *Service) Rekey(next Secrets) {
	s.secrets.Store(&next)
	select {
	case s.tend <- struct{}{}:
	default:
	}
}

// keysOf returns the hub's keys for a cipher suite, or nil.
func (s *Service) keysOf(suite mls.CipherSuite) *Keys { return s.secrets.Load().Keys(suite) }

// frankingID names a franking key in the store.
func frankingID(public []byte) []byte {
	h := sha256.Sum256(public)
	return h[:]
}

// suites are those in which a provider may have keys.
var suites = []mls.CipherSuite{
	mls.X25519AES128SHA256Ed25519, mls.P256AES128SHA256P256, mls.X25519ChaCha20SHA256Ed25519, mls.P521AES256SHA512P521, mls.P384AES256SHA384P384,
}

// refrank proposes to the rooms that have a franking key of before to have the
// one of now. A room whose proposal an external commit cuts off is proposed to
// again the next time.
func (s *Service) refrank(ctx context.Context) error {
	list, err := s.frankedBefore(ctx)
	if err != nil {
		return err
	}
	var failures []error
	for _, u := range list {
		err := s.decideAlone(ctx, u, func(e *entry) error {
			out, err := e.room.ProposeFranking(ctx)
			if err != nil {
				e.forget()
				return err
			}
			if len(out.Events) == 0 {
				return s.noteFranking(ctx, e)
			}
			return s.complete(ctx, &updateWrite{e: e, out: out})
		})
		if err != nil && !errors.Is(err, ErrNoRoom) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// noteFranking stores the key of a room of which it was not known.
func (s *Service) noteFranking(ctx context.Context, e *entry) error {
	id := frankingID(e.room.FrankingKey())
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(context.WithoutCancel(ctx), `UPDATE room SET franking = ? WHERE id = ?`, id, e.id)
		return err
	})
}

// frankedBefore lists the rooms of ours that do not have a key of now.
func (s *Service) frankedBefore(ctx context.Context) ([]mimi.URI, error) {
	query, now := `SELECT uri FROM room WHERE hub = '' AND closed = 0`, []any(nil)
	for _, suite := range suites {
		if k := s.keysOf(suite); k != nil {
			query += ` AND (franking IS NULL OR franking <> ?)`
			now = append(now, frankingID(k.Franking.SignatureKey))
		}
	}
	return s.roomsOfQuery(ctx, query, now...)
}
