package signer

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Reserve writes the intent to make the first version of a new key. If the
// process dies now, the pending version shows that the device may have made
// an object with this ObjectID.
func (s *KeyStore) Reserve(ctx context.Context, key *Key, device string, object ObjectID) error {
	labels, err := json.Marshal(nonNilLabels(key.Labels))
	if err != nil {
		return err
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `INSERT INTO keys (id, purpose, algorithm, labels, unverified, created_at)
			VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			string(key.ID), string(key.Purpose), string(key.Algorithm), string(labels), truth(key.Unverified), at)
		if err := changed(res, err, fmt.Errorf("%w: %s; choose another id, or rotate it", ErrKeyExists, key.ID)); err != nil {
			return err
		}
		if key.Unverified {
			if err := record(ctx, tx, at, key.ID, 0, "verify-before-release off", ""); err != nil {
				return err
			}
		}
		return reserveVersion(ctx, tx, at, key.ID, 1, device, object)
	})
}

// ReserveNext writes the intent to make a further version and returns its
// number. A key with a pending version gets no second one.
func (s *KeyStore) ReserveNext(ctx context.Context, id KeyID, device string, object ObjectID) (number int, err error) {
	err = s.step(ctx, func(tx *sqldb.Tx) error {
		var pending int
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT coalesce(max(number), 0) + 1, coalesce(sum(CASE WHEN state = 'pending' THEN 1 ELSE 0 END), 0)
			FROM versions WHERE key_id = ?`, string(id)).Scan(&number, &pending)
		switch {
		case err != nil:
			return err
		case pending > 0:
			return fmt.Errorf("%w: %s already has a pending version; settle it first", ErrKeyState, id)
		}
		return reserveVersion(ctx, tx, s.db.Now().UnixMicro(), id, number, device, object)
	})
	return number, err
}

// lockKey has other nodes wait with what they do to the key.
func lockKey(ctx context.Context, tx *sqldb.Tx, id KeyID) error {
	var one int
	err := tx.QueryRow(ctx, `SELECT 1 FROM keys WHERE id = ?`+tx.ForUpdate(), string(id)).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %s", ErrNoKey, id)
	}
	return err
}

func reserveVersion(ctx context.Context, tx *sqldb.Tx, at int64, id KeyID, number int, device string, object ObjectID) error {
	_, err := tx.Exec(ctx, `INSERT INTO versions (key_id, number, state, device, object_id, created_at)
		VALUES (?, ?, 'pending', ?, ?, ?)`, string(id), number, device, object.String(), at)
	if err != nil {
		return err
	}
	return record(ctx, tx, at, id, number, "pending", "device "+device)
}

// Activate turns a pending version active and the active one, if there is
// one, verify-only. made says what the device has.
func (s *KeyStore) Activate(ctx context.Context, id KeyID, number int, made *Made) error {
	evidence, err := made.evidenceJSON()
	if err != nil {
		return err
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		at := s.db.Now().UnixMicro()
		if err := retireActive(ctx, tx, at, id, "rotated"); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, `UPDATE versions SET state = 'active', uri = ?, public = ?, kid = nullif(?, ''), evidence = ?, activated_at = ?
			WHERE key_id = ? AND number = ? AND state = 'pending'`,
			made.URI, made.Public, made.KID, evidence, at, string(id), number)
		if err := changed(res, err, fmt.Errorf("%w: version %d of %s is not pending any more", ErrKeyState, number, id)); err != nil {
			return err
		}
		return record(ctx, tx, at, id, number, "active", made.URI)
	})
}

// Made is what a device made for a pending version.
type Made struct {
	URI      string
	Public   []byte // SubjectPublicKeyInfo, or nil
	KID      string
	Evidence *Evidence
}

func (m *Made) evidenceJSON() (sql.NullString, error) {
	return evidenceJSON(m.Evidence)
}

func evidenceJSON(e *Evidence) (sql.NullString, error) {
	if e == nil {
		return sql.NullString{}, nil
	}
	if err := e.check(); err != nil {
		return sql.NullString{}, err
	}
	b, err := json.Marshal(e)
	return sql.NullString{String: string(b), Valid: true}, err
}

func retireActive(ctx context.Context, tx *sqldb.Tx, at int64, id KeyID, why string) error {
	var number int
	err := tx.QueryRow(ctx, `UPDATE versions SET state = 'verify-only', retired_at = ?
		WHERE key_id = ? AND state = 'active' RETURNING number`, at, string(id)).Scan(&number)
	if err == sql.ErrNoRows {
		return nil
	}
	if err != nil {
		return err
	}
	return record(ctx, tx, at, id, number, "verify-only", why)
}

// Abandon ends a pending version of which the device has nothing. A key that
// never had another version goes with it, so that its id is free again; the
// history keeps both.
func (s *KeyStore) Abandon(ctx context.Context, id KeyID, number int, why string) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `UPDATE versions SET state = 'destroyed', destroyed_at = ?
			WHERE key_id = ? AND number = ? AND state = 'pending'`, at, string(id), number)
		if err := changed(res, err, fmt.Errorf("%w: version %d of %s is not pending any more", ErrKeyState, number, id)); err != nil {
			return err
		}
		if err := record(ctx, tx, at, id, number, "abandoned", why); err != nil {
			return err
		}
		return dropNeverMade(ctx, tx, id)
	})
}

// dropNeverMade removes a key of which no version was ever active.
func dropNeverMade(ctx context.Context, tx *sqldb.Tx, id KeyID) error {
	var made bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM versions
		WHERE key_id = ? AND (activated_at IS NOT NULL OR state != 'destroyed'))`, string(id)).Scan(&made)
	if err != nil || made {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM versions WHERE key_id = ?`, string(id)); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `DELETE FROM keys WHERE id = ?`, string(id))
	return err
}

// BeginDestroy writes the decision to destroy a version. From now on it signs
// no more; an active version becomes verify-only. If the process dies now, the
// version shows as Destroying.
func (s *KeyStore) BeginDestroy(ctx context.Context, id KeyID, number int) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `UPDATE versions SET state = 'verify-only', destroying = 1, retired_at = coalesce(retired_at, ?)
			WHERE key_id = ? AND number = ? AND state IN ('active', 'verify-only')`, at, string(id), number)
		if err := changed(res, err, fmt.Errorf("%w: %s has no version %d that can be destroyed", ErrKeyState, id, number)); err != nil {
			return err
		}
		return record(ctx, tx, at, id, number, "destroying", "")
	})
}

// FinishDestroy writes that the device object is gone. The row stays.
func (s *KeyStore) FinishDestroy(ctx context.Context, id KeyID, number int) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := lockKey(ctx, tx, id); err != nil {
			return err
		}
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `UPDATE versions SET state = 'destroyed', destroying = 0, destroyed_at = ?
			WHERE key_id = ? AND number = ? AND destroying = 1`, at, string(id), number)
		if err := changed(res, err, fmt.Errorf("%w: version %d of %s is not being destroyed", ErrKeyState, number, id)); err != nil {
			return err
		}
		return record(ctx, tx, at, id, number, "destroyed", "")
	})
}

// SetUnverified records whether signatures of the key are released without
// being verified first.
func (s *KeyStore) SetUnverified(ctx context.Context, id KeyID, unverified bool, why string) error {
	event := "verify-before-release on"
	if unverified {
		event = "verify-before-release off"
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		res, err := tx.Exec(ctx, `UPDATE keys SET unverified = ? WHERE id = ?`, truth(unverified), string(id))
		if err := changed(res, err, fmt.Errorf("%w: %s", ErrNoKey, id)); err != nil {
			return err
		}
		return record(ctx, tx, s.db.Now().UnixMicro(), id, 0, event, why)
	})
}

// SetLabels replaces the labels of a key.
func (s *KeyStore) SetLabels(ctx context.Context, id KeyID, labels map[string]string) error {
	b, err := json.Marshal(nonNilLabels(labels))
	if err != nil {
		return err
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		res, err := tx.Exec(ctx, `UPDATE keys SET labels = ? WHERE id = ?`, string(b), string(id))
		if err := changed(res, err, fmt.Errorf("%w: %s", ErrNoKey, id)); err != nil {
			return err
		}
		return record(ctx, tx, s.db.Now().UnixMicro(), id, 0, "labels", string(b))
	})
}

// SetEvidence replaces the evidence of a version by newer evidence.
func (s *KeyStore) SetEvidence(ctx context.Context, id KeyID, number int, e *Evidence) error {
	text, err := evidenceJSON(e)
	if err != nil {
		return err
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		res, err := tx.Exec(ctx, `UPDATE versions SET evidence = ?
			WHERE key_id = ? AND number = ? AND state IN ('active', 'verify-only')`, text, string(id), number)
		if err := changed(res, err, fmt.Errorf("%w: %s has no version %d in a device", ErrKeyState, id, number)); err != nil {
			return err
		}
		return record(ctx, tx, s.db.Now().UnixMicro(), id, number, "evidence", e.Kind())
	})
}

// MarkSuspect records that a device returned a wrong signature. The first
// reason stays.
func (s *KeyStore) MarkSuspect(ctx context.Context, device string, id KeyID, number int, reason string) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `INSERT INTO suspects (device, key_id, reason, since) VALUES (?, ?, ?, ?)
			ON CONFLICT DO NOTHING`, device, string(id), reason, at)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // it is suspect already
		}
		return record(ctx, tx, at, id, number, "device suspect", device+": "+reason)
	})
}

// ClearSuspect lets a device sign again, after somebody looked into it.
func (s *KeyStore) ClearSuspect(ctx context.Context, device, why string) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		var id string
		err := tx.QueryRow(ctx, `DELETE FROM suspects WHERE device = ? RETURNING key_id`, device).Scan(&id)
		if err == sql.ErrNoRows {
			return fmt.Errorf("%w: %q is not suspect", ErrNoDevice, clip(device))
		}
		if err != nil {
			return err
		}
		return record(ctx, tx, s.db.Now().UnixMicro(), KeyID(id), 0, "device cleared", device+": "+why)
	})
}

// changed returns missing if the statement changed no row.
func changed(res sql.Result, err, missing error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return missing
	}
	return nil
}

// record adds a row to the history.
func record(ctx context.Context, tx *sqldb.Tx, at int64, id KeyID, number int, event, detail string) error {
	_, err := tx.Exec(ctx, `INSERT INTO history (at, key_id, version, event, detail) VALUES (?, ?, ?, ?, ?)`,
		at, string(id), number, event, detail)
	return err
}

// truth is a truth value as both engines keep it.
func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nonNilLabels keeps nil from being stored as null.
func nonNilLabels(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}
