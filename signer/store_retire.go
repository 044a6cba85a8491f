package signer

import (
	"context"
	"database/sql"
	"fmt"
)

// Retire turns the active version of a key verify-only and leaves the key
// without one that signs, until it is rotated.
func (s *KeyStore) Retire(ctx context.Context, id KeyID, why string) error {
	return s.step(ctx, func(tx *sql.Tx) error {
		var active bool
		err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM versions WHERE key_id = ? AND state = 'active')`, string(id)).Scan(&active)
		if err != nil {
			return err
		}
		if !active {
			return fmt.Errorf("%w: %s has no active version", ErrKeyState, id)
		}
		return retireActive(ctx, tx, s.now().UnixMicro(), id, why)
	})
}
