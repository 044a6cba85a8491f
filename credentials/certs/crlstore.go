package certs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Errors of revocation.
var (
	ErrRevoked     = errors.New("the certificate is revoked for good; only a certificate on hold can be changed")
	ErrNotOnHold   = errors.New("the certificate is not on hold")
	ErrNoBase      = errors.New("there is no full CRL that a delta CRL could build on; sign a full one first")
	ErrClockBehind = errors.New("the clock is behind the last CRL; CRLs never go backwards, set the clock right")
)

// keepExpired is how long a revoked certificate stays on CRLs after it ended,
// so that it appears on one that was issued after its end (RFC 5280
// section 5). CRLs are valid for that long at most.
const keepExpired = 7 * 24 * time.Hour

// Revoke marks a certificate, or an unfinished intent that may have been
// signed, as revoked. It is idempotent; a certificate on hold may be given
// another reason, one that is revoked for good fails with ErrRevoked.
func (s *SQLStore) Revoke(ctx context.Context, issuer KeyID, serial *big.Int, r Revocation) error {
	return s.batch(ctx, func(t Tx) error { return t.Revoke(ctx, issuer, serial, r) })
}

// Revoke is that of SQLStore.
func (t Tx) Revoke(ctx context.Context, issuer KeyID, serial *big.Int, r Revocation) error {
	if _, known := reasonNames[r.Reason]; !known || r.Reason == RemoveFromCRL {
		return fmt.Errorf("%v cannot be the reason of a revocation", r.Reason)
	}
	last, err := t.lockIssuer(ctx, issuer)
	if err != nil {
		return err
	}
	before, err := t.revocationOf(ctx, issuer, serial)
	switch {
	case err != nil:
		return err
	case before.Valid && Reason(before.Int64) == r.Reason:
		return nil
	case before.Valid && Reason(before.Int64) != CertificateHold:
		return ErrRevoked
	}
	return t.setRevocation(ctx, issuer, serial, r.At.UnixMicro(), int64(r.Reason), last.number)
}

// Resume takes a certificate off hold.
func (s *SQLStore) Resume(ctx context.Context, issuer KeyID, serial *big.Int) error {
	return s.batch(ctx, func(t Tx) error { return t.Resume(ctx, issuer, serial) })
}

// Resume is that of SQLStore.
func (t Tx) Resume(ctx context.Context, issuer KeyID, serial *big.Int) error {
	last, err := t.lockIssuer(ctx, issuer)
	if err != nil {
		return err
	}
	before, err := t.revocationOf(ctx, issuer, serial)
	if err != nil {
		return err
	}
	if !before.Valid || Reason(before.Int64) != CertificateHold {
		return ErrNotOnHold
	}
	return t.setRevocation(ctx, issuer, serial, nil, nil, last.number)
}

func (t Tx) revocationOf(ctx context.Context, issuer KeyID, serial *big.Int) (reason sql.NullInt64, err error) {
	err = t.tx.QueryRow(ctx, `SELECT reason FROM certificate WHERE issuer = ? AND serial = ?`, issuer[:], serialText(serial)).Scan(&reason)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoIntent
	}
	return reason, err
}

// setRevocation changes a certificate's revocation and notes after which CRL.
func (t Tx) setRevocation(ctx context.Context, issuer KeyID, serial *big.Int, revoked, reason any, after int64) error {
	_, err := t.tx.Exec(ctx, `UPDATE certificate SET revoked = ?, reason = ?, changed = ? WHERE issuer = ? AND serial = ?`,
		revoked, reason, after, issuer[:], serialText(serial))
	return err
}

// lastCRL is the last number that an issuer has taken.
type lastCRL struct{ number, thisUpdate int64 }

// lockIssuer keeps other transactions from taking a CRL number or changing a
// revocation of the issuer until this one ends. So a change is either on the
// CRL with the next number, or after it.
func (t Tx) lockIssuer(ctx context.Context, issuer KeyID) (last lastCRL, err error) {
	if _, err := t.tx.Exec(ctx, `INSERT INTO crl_issuer (issuer, number, this_update) VALUES (?, 0, 0) ON CONFLICT DO NOTHING`, issuer[:]); err != nil {
		return last, err
	}
	err = t.tx.QueryRow(ctx, `SELECT number, this_update FROM crl_issuer WHERE issuer = ?`+t.tx.ForUpdate(), issuer[:]).Scan(&last.number, &last.thisUpdate)
	return last, err
}

// CRLKinds says what is to be signed at one time.
type CRLKinds int

// The kinds. A full and a delta CRL that are signed together have the same
// number and say the same (RFC 5280 section 5.2.3).
const (
	FullCRL CRLKinds = iota
	DeltaCRL
	FullAndDelta // the delta is left out while there is no base for it
)

// A Reservation is the number of a CRL with what it will list. It is durable
// before the CRL is signed, so that no number is ever used twice and none is
// lower than one that was signed.
type Reservation struct {
	Number                 int64
	Base                   int64 // of the full CRL that a delta builds on; 0 for a full CRL
	ThisUpdate, NextUpdate time.Time
	Entries                []CRLEntry
}

// A CRLEntry is one certificate on a CRL.
type CRLEntry struct {
	Serial *big.Int
	Revocation
}

// A CRLStore keeps the numbers and the contents of CRLs. What holds for Store
// holds for it.
type CRLStore interface {
	// ReserveCRL takes the next number and reads, in the same transaction,
	// what the CRLs will list: all revoked certificates, and for a delta those
	// whose revocation changed since its base. That is the oldest full CRL
	// that may still be in use, so that the delta serves whoever has any of
	// them.
	ReserveCRL(ctx context.Context, issuer KeyID, kinds CRLKinds, thisUpdate, nextUpdate time.Time) ([]*Reservation, error)

	// PutCRL completes a reservation.
	PutCRL(ctx context.Context, issuer KeyID, r *Reservation, der []byte) error

	// Record returns what became of one certificate, or ErrNoIntent.
	Record(ctx context.Context, issuer KeyID, serial *big.Int) (*Record, error)
}

// ReserveCRL implements CRLStore.
func (s *SQLStore) ReserveCRL(ctx context.Context, issuer KeyID, kinds CRLKinds, thisUpdate, nextUpdate time.Time) (out []*Reservation, err error) {
	err = s.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		out, err = Tx{tx}.reserve(ctx, issuer, kinds, thisUpdate, nextUpdate)
		return err
	})
	return out, err
}

func (t Tx) reserve(ctx context.Context, issuer KeyID, kinds CRLKinds, thisUpdate, nextUpdate time.Time) ([]*Reservation, error) {
	last, err := t.lockIssuer(ctx, issuer)
	if err != nil {
		return nil, err
	}
	if thisUpdate.Unix() < last.thisUpdate {
		return nil, ErrClockBehind
	}
	bases, err := t.bases(ctx, issuer, kinds, thisUpdate)
	if err != nil {
		return nil, err
	}
	_, err = t.tx.Exec(ctx, `UPDATE crl_issuer SET number = number + 1, this_update = ? WHERE issuer = ?`, thisUpdate.Unix(), issuer[:])
	if err != nil {
		return nil, err
	}
	var out []*Reservation
	for _, base := range bases {
		r := &Reservation{Number: last.number + 1, Base: base, ThisUpdate: thisUpdate, NextUpdate: nextUpdate}
		if err := t.insertCRL(ctx, issuer, r); err != nil {
			return nil, err
		}
		if err := t.readEntries(ctx, issuer, r); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// bases returns the base of each CRL to sign: 0 for the full one.
func (t Tx) bases(ctx context.Context, issuer KeyID, kinds CRLKinds, at time.Time) ([]int64, error) {
	if kinds == FullCRL {
		return []int64{0}, nil
	}
	var base sql.NullInt64
	err := t.tx.QueryRow(ctx, `SELECT min(number) FROM crl_list WHERE issuer = ? AND base = 0 AND der IS NOT NULL AND next_update > ?`,
		issuer[:], at.Unix()).Scan(&base)
	switch {
	case err != nil:
		return nil, err
	case kinds == DeltaCRL && !base.Valid:
		return nil, ErrNoBase
	case kinds == DeltaCRL:
		return []int64{base.Int64}, nil
	case !base.Valid:
		return []int64{0}, nil
	}
	return []int64{0, base.Int64}, nil
}

func (t Tx) insertCRL(ctx context.Context, issuer KeyID, r *Reservation) error {
	_, err := t.tx.Exec(ctx, `INSERT INTO crl_list (issuer, number, base, this_update, next_update) VALUES (?, ?, ?, ?, ?)`,
		issuer[:], r.Number, r.Base, r.ThisUpdate.Unix(), r.NextUpdate.Unix())
	return err
}

func (t Tx) readEntries(ctx context.Context, issuer KeyID, r *Reservation) error {
	query := `SELECT serial, revoked, reason FROM certificate WHERE issuer = ? AND revoked IS NOT NULL AND not_after > ? ORDER BY revoked, serial`
	args := []any{issuer[:], r.ThisUpdate.Add(-keepExpired).Unix()}
	if r.Base > 0 {
		query = `SELECT serial, revoked, reason FROM certificate WHERE issuer = ? AND (revoked IS NOT NULL OR changed > 0)
			AND not_after > ? AND changed >= ? ORDER BY revoked, serial`
		args = append(args, r.Base)
	}
	rows, err := t.tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var serial string
		var revoked, reason sql.NullInt64
		if err := rows.Scan(&serial, &revoked, &reason); err != nil {
			return err
		}
		n, ok := new(big.Int).SetString(serial, 16)
		if !ok {
			return fmt.Errorf("certificate store: the row of serial %q is damaged", serial)
		}
		e := CRLEntry{Serial: n, Revocation: Revocation{At: time.UnixMicro(revoked.Int64).UTC(), Reason: Reason(reason.Int64)}}
		if !revoked.Valid {
			e.Revocation = Revocation{At: r.ThisUpdate, Reason: RemoveFromCRL}
		}
		r.Entries = append(r.Entries, e)
	}
	return rows.Err()
}

// PutCRL implements CRLStore. Of CRLs that are superseded the number and the
// times stay, which later deltas need, and of those that ended nothing.
func (s *SQLStore) PutCRL(ctx context.Context, issuer KeyID, r *Reservation, der []byte) error {
	return s.batch(ctx, func(t Tx) error {
		err := t.tx.ExecOne(ctx, ErrNoIntent, `UPDATE crl_list SET der = ? WHERE issuer = ? AND number = ? AND base = ? AND der IS NULL`,
			der, issuer[:], r.Number, r.Base)
		if err != nil {
			return err
		}
		_, err = t.tx.Exec(ctx, `UPDATE crl_list SET der = ? WHERE issuer = ? AND number < ? AND (base = 0) = ? AND der IS NOT NULL AND length(der) > 0`,
			[]byte{}, issuer[:], r.Number, r.Base == 0)
		if err != nil {
			return err
		}
		_, err = t.tx.Exec(ctx, `DELETE FROM crl_list WHERE issuer = ? AND number < ? AND next_update <= ?`, issuer[:], r.Number, r.ThisUpdate.Unix())
		return err
	})
}

// CRL returns the last finished CRL of an issuer, full or delta, or
// ErrNoIntent if there is none.
func (s *SQLStore) CRL(ctx context.Context, issuer KeyID, delta bool) (der []byte, err error) {
	c, err := s.LastCRL(ctx, issuer, delta)
	if err != nil {
		return nil, err
	}
	return c.DER, nil
}

// A StoredCRL is a CRL with its times, for who hands it on and need not read it.
type StoredCRL struct {
	DER                    []byte
	ThisUpdate, NextUpdate time.Time
}

// LastCRL is CRL with the times.
func (s *SQLStore) LastCRL(ctx context.Context, issuer KeyID, delta bool) (*StoredCRL, error) {
	var c StoredCRL
	var from, until int64
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT der, this_update, next_update FROM crl_list WHERE issuer = ? AND der IS NOT NULL AND (base > 0) = ? ORDER BY number DESC LIMIT 1`,
			issuer[:], delta).Scan(&c.DER, &from, &until)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoIntent
	}
	c.ThisUpdate, c.NextUpdate = time.Unix(from, 0).UTC(), time.Unix(until, 0).UTC()
	return &c, err
}
