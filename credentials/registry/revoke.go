package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/sqldb"
)

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// A Target says which credentials to change: exactly one of its members is
// set. All but ID stand for every credential that has not ended and was not
// revoked before, in every format.
type Target struct {
	ID     ID
	Client string // a device
	User   string // all devices of a user
	Holder string // a key, by its JWK thumbprint
}

func (t Target) where() (column, value string, err error) {
	for _, c := range []struct{ column, value string }{{"id", string(t.ID)}, {"client", t.Client}, {"user_uri", t.User}, {"holder", t.Holder}} {
		switch {
		case c.value == "":
		case column != "":
			return "", "", errors.New("registry: name one target: an id, a client, a user or a key")
		default:
			column, value = c.column, c.value
		}
	}
	if column == "" {
		err = errors.New("registry: name a target: an id, a client, a user or a key")
	}
	return column, value, err
}

// A Change is one change of a credential's state.
type Change struct {
	Seq        int64     `json:"seq"` // the order of the commits
	Credential ID        `json:"credential"`
	State      State     `json:"state"` // after it
	Reason     string    `json:"reason,omitempty"`
	At         time.Time `json:"at"`
	Published  time.Time `json:"published,omitzero"` // when every list that verifiers fetch said so

	Record *Record `json:"-"` // as it was changed; nil from Store.Changes
}

// Revoke revokes for good. It is durable, everywhere that the credentials
// appear, when it returns; it is idempotent, and returns what it changed. The
// record of a credential that may have been signed is revoked too.
func (s *Store) Revoke(ctx context.Context, t Target, reason certs.Reason) ([]Change, error) {
	if reason == certs.CertificateHold || reason == certs.RemoveFromCRL {
		return nil, fmt.Errorf("registry: %v is not for good; suspend instead", reason)
	}
	return s.change(ctx, t, Revoked, reason)
}

// Suspend takes credentials out of use until Resume or Revoke.
func (s *Store) Suspend(ctx context.Context, t Target) ([]Change, error) {
	return s.change(ctx, t, Suspended, certs.CertificateHold)
}

// Resume takes credentials off suspension.
func (s *Store) Resume(ctx context.Context, t Target) ([]Change, error) {
	return s.change(ctx, t, Valid, certs.Unspecified)
}

func (s *Store) change(ctx context.Context, t Target, to State, reason certs.Reason) (changes []Change, err error) {
	column, value, err := t.where()
	if err != nil {
		return nil, err
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		changes = nil
		seq, err := lockClock(ctx, tx)
		if err != nil {
			return err
		}
		records, err := s.targets(ctx, tx, column, value, to)
		if err != nil {
			return err
		}
		for _, r := range records {
			seq++
			if err := s.changeOne(ctx, tx, r, seq, to, reason); err != nil {
				return fmt.Errorf("credential %s: %w", r.ID, err)
			}
			changes = append(changes, Change{Seq: seq, Credential: r.ID, State: to, Reason: reasonOf(to, reason), At: r.Changed, Record: r})
		}
		if err := s.step("clock"); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE credential_clock SET seq = ? WHERE id = 1`, seq)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.step("committed"); err != nil {
		return nil, err
	}
	s.tell(changes)
	return changes, nil
}

func reasonOf(s State, r certs.Reason) string {
	if s == Valid {
		return ""
	}
	return r.String()
}

// lockClock keeps other changes out until the transaction ends, and returns the
// number of the last.
func lockClock(ctx context.Context, tx *sqldb.Tx) (seq int64, err error) {
	err = tx.QueryRow(ctx, `SELECT seq FROM credential_clock WHERE id = 1`+tx.ForUpdate()).Scan(&seq)
	return seq, err
}

// targets returns the records to change. One that is named by its id must
// exist and be able to change; of several, those that cannot are passed over.
func (s *Store) targets(ctx context.Context, tx *sqldb.Tx, column, value string, to State) ([]*Record, error) {
	query := `SELECT ` + columns + ` FROM credential WHERE ` + column + ` = ?`
	rows, err := tx.Query(ctx, query+` ORDER BY prepared, id`+tx.ForUpdate(), value)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found, out []*Record
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, value)
	}
	for _, r := range found {
		switch err := r.may(to, s.db.Now()); {
		case err == nil && r.State != to:
			out = append(out, r)
		case column == "id" && err != nil:
			return nil, fmt.Errorf("credential %s: %w", r.ID, err)
		}
	}
	return out, nil
}

// may says why a credential cannot get into a state, or returns nil.
func (r *Record) may(to State, now time.Time) error {
	switch {
	case r.State == to:
		return nil
	case r.State == Revoked:
		return ErrRevoked
	case r.Serial == "" && r.List == "":
		return ErrNoStatus
	case !now.Before(r.NotAfter.Add(keepEnded)):
		return fmt.Errorf("it ended %s", r.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// keepEnded is how long after its end a credential can still be revoked, as it
// stays on CRLs for that long.
const keepEnded = 7 * 24 * time.Hour

// changeOne changes the record, its place, and the book of changes.
func (s *Store) changeOne(ctx context.Context, tx *sqldb.Tx, r *Record, seq int64, to State, reason certs.Reason) error {
	r.Changed, r.State, r.Reason = s.db.Now(), to, reasonOf(to, reason)
	if err := s.changePlace(ctx, tx, r, to, reason); err != nil {
		return err
	}
	if err := s.step("place"); err != nil {
		return err
	}
	err := tx.ExecOne(ctx, ErrUnknown, `UPDATE credential SET state = ?, reason = ?, changed = ? WHERE id = ?`,
		string(to), int64(reason), r.Changed.UnixMicro(), string(r.ID))
	if err != nil {
		return err
	}
	if err := s.step("record"); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO credential_change (seq, credential, state, reason, at, place) VALUES (?, ?, ?, ?, ?, ?)`,
		seq, string(r.ID), string(to), int64(reason), r.Changed.UnixMicro(), r.place())
	return err
}

// place names where the state of a credential is published.
func (r *Record) place() string {
	if r.Serial != "" {
		return caPlace(r.IssuerKey)
	}
	return r.List
}

func caPlace(key certs.KeyID) string { return "ca " + key.String() }

// changePlace changes what CRLs and OCSP answers, or the status list, are made
// from.
func (s *Store) changePlace(ctx context.Context, tx *sqldb.Tx, r *Record, to State, reason certs.Reason) error {
	if r.Serial == "" {
		err := s.status.In(tx).SetStatus(ctx, r.List, r.Index, listStatus[to])
		if errors.Is(err, statuslist.ErrTooWide) {
			return ErrNotSuspending
		}
		return err
	}
	serial, ok := new(big.Int).SetString(r.Serial, 16)
	if !ok {
		return fmt.Errorf("registry: the row of credential %s is damaged", r.ID)
	}
	if to == Valid {
		return certs.In(tx).Resume(ctx, r.IssuerKey, serial)
	}
	return certs.In(tx).Revoke(ctx, r.IssuerKey, serial, certs.Revocation{At: r.Changed, Reason: reason})
}

var listStatus = map[State]statuslist.Status{Valid: statuslist.Valid, Suspended: statuslist.Suspended, Revoked: statuslist.Invalid}
