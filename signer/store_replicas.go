package signer

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// loadReplicas adds the replicas to the versions of keys.
func loadReplicas(ctx context.Context, tx *sqldb.Tx, keys []*Key, where string, args ...any) error {
	rows, err := tx.Query(ctx, `SELECT r.key_id, r.version, r.device, r.uri, r.evidence, r.proof, r.added_at
		FROM replicas r JOIN keys k ON k.id = r.key_id WHERE `+where+` ORDER BY r.key_id, r.version, r.device`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	byID := make(map[KeyID]*Key, len(keys))
	for _, k := range keys {
		byID[k.ID] = k
	}
	for rows.Next() {
		id, number, r, err := scanReplica(rows)
		if err != nil {
			return err
		}
		if k := byID[id]; k != nil && k.Version(number) != nil {
			v := k.Version(number)
			v.Replicas = append(v.Replicas, *r)
		}
	}
	return rows.Err()
}

func scanReplica(rows *sql.Rows) (id KeyID, number int, r *Replica, err error) {
	r = new(Replica)
	var evidence sql.NullString
	var proof string
	var added int64
	if err := rows.Scan(&id, &number, &r.Device, &r.URI, &evidence, &proof, &added); err != nil {
		return "", 0, nil, err
	}
	r.AddedAt = time.UnixMicro(added).UTC()
	if evidence.Valid {
		r.Evidence = new(Evidence)
		if err := json.Unmarshal([]byte(evidence.String), r.Evidence); err != nil {
			return "", 0, nil, err
		}
	}
	return id, number, r, json.Unmarshal([]byte(proof), &r.Proof)
}

// AddReplica records that a device holds the key of a version too.
func (s *KeyStore) AddReplica(ctx context.Context, id KeyID, number int, r *Replica) error {
	evidence, err := evidenceJSON(r.Evidence)
	if err != nil {
		return err
	}
	proof, err := json.Marshal(r.Proof)
	if err != nil {
		return err
	}
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := reviseVersion(ctx, tx, id, number); err != nil {
			return err
		}
		at := s.db.Now().UnixMicro()
		res, err := tx.Exec(ctx, `INSERT INTO replicas (key_id, version, device, uri, evidence, proof, added_at)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, string(id), number, r.Device, r.URI, evidence, string(proof), at)
		if err := changed(res, err, fmt.Errorf("%w: device %s serves version %d of %s, or the object another key", ErrUsage, r.Device, number, id)); err != nil {
			return err
		}
		return record(ctx, tx, at, id, number, "replica added", r.Device+" "+r.URI)
	})
}

// RemoveReplica records that a device serves a version no more.
func (s *KeyStore) RemoveReplica(ctx context.Context, id KeyID, number int, device string) error {
	return s.step(ctx, func(tx *sqldb.Tx) error {
		if err := reviseVersion(ctx, tx, id, number); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, `DELETE FROM replicas WHERE key_id = ? AND version = ? AND device = ?`, string(id), number, device)
		if err := changed(res, err, fmt.Errorf("%w: %q is no replica of version %d of %s", ErrNoDevice, clip(device), number, id)); err != nil {
			return err
		}
		return record(ctx, tx, s.db.Now().UnixMicro(), id, number, "replica removed", device)
	})
}

// reviseVersion has every process that has the version open look at its
// replicas again.
func reviseVersion(ctx context.Context, tx *sqldb.Tx, id KeyID, number int) error {
	if err := lockKey(ctx, tx, id); err != nil {
		return err
	}
	res, err := tx.Exec(ctx, `UPDATE versions SET revision = revision + 1
		WHERE key_id = ? AND number = ? AND state IN ('active', 'verify-only')`, string(id), number)
	return changed(res, err, fmt.Errorf("%w: %s has no version %d in a device", ErrKeyState, id, number))
}

// TimesSuspect counts how often a device turned suspect since then.
func (s *KeyStore) TimesSuspect(ctx context.Context, device string, since time.Time) (n int, err error) {
	prefix := device + ": "
	err = s.db.QueryRow(ctx, `SELECT count(*) FROM history WHERE event = 'device suspect' AND at >= ? AND substr(detail, 1, ?) = ?`,
		since.UnixMicro(), len(prefix), prefix).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("key store: %w", err)
	}
	return n, nil
}
