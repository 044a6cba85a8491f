package signer

import (
	"context"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// KeyStoreSteps is the store as a Keyring uses it, for a layer that makes a
// step fail.
type KeyStoreSteps = keyStore

// NewKeyringWithSteps returns a Keyring over such a layer.
func NewKeyringWithSteps(s KeyStoreSteps, devices map[string]Device) *Keyring {
	return newKeyring(s, devices)
}

// Standing is what a Keyring reads before each signature.
type Standing = standing

// SetSchema has a newer release write the store.
func (s *KeyStore) SetSchema(ctx context.Context, version int) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO schema_migration (part, version, applied) VALUES (?, ?, 0)`, storePart, version)
		return err
	})
}

// Verify is the check before release.
var Verify = verify

// Permits is the table of purpose by shape.
var Permits = permits

// Settings returns what SQLite says about durability on one connection.
func (s *KeyStore) Settings(ctx context.Context) (synchronous int, journal string, err error) {
	err = s.db.QueryRow(ctx, "SELECT s.synchronous, j.journal_mode FROM pragma_synchronous s, pragma_journal_mode j").Scan(&synchronous, &journal)
	return synchronous, journal, err
}

// BurstTime is how long a burst relies on one look.
const BurstTime = burstTime

// BurstKnows reports whether a burst has looked at its key.
func BurstKnows(s *Signer) bool {
	s.burst.mu.Lock()
	defer s.burst.mu.Unlock()
	return s.burst.seen != nil
}
