package signer

import (
	"context"
	"fmt"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Retire turns the active version of a key verify-only and leaves the key
// without one that signs, until it is rotated.
func (s *KeyStore) Retire(ctx context.Context, id KeyID, why string) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		var active bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM versions WHERE key_id = ? AND state = 'active')`, string(id)).Scan(&active)
		if err != nil {
			return err
		}
		if !active {
			return fmt.Errorf("%w: %s has no active version", ErrKeyState, id)
		}
		return retireActive(ctx, tx, s.db.Now().UnixMicro(), id, why)
	})
}
