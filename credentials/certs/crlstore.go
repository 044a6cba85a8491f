package certs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"time"
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
	if _, known := reasonNames[r.Reason]; !known || r.Reason == RemoveFromCRL {
		return fmt.Errorf("%v cannot be the reason of a revocation", r.Reason)
	}
	return s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		before, err := revocationOf(ctx, tx, issuer, serial)
		if err != nil {
			return err
		}
		if before.Valid && Reason(before.Int64) == r.Reason {
			return nil
		}
		if before.Valid && Reason(before.Int64) != CertificateHold {
			return ErrRevoked
		}
		return setRevocation(ctx, tx, issuer, serial, r.At.UnixMicro(), int(r.Reason))
	})
}

// Resume takes a certificate off hold.
func (s *SQLStore) Resume(ctx context.Context, issuer KeyID, serial *big.Int) error {
	return s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		before, err := revocationOf(ctx, tx, issuer, serial)
		if err != nil {
			return err
		}
		if !before.Valid || Reason(before.Int64) != CertificateHold {
			return ErrNotOnHold
		}
		return setRevocation(ctx, tx, issuer, serial, nil, nil)
	})
}

func revocationOf(ctx context.Context, tx execer, issuer KeyID, serial *big.Int) (reason sql.NullInt64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT reason FROM certificate WHERE issuer = ? AND serial = ?`, issuer[:], serialText(serial)).Scan(&reason)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoIntent
	}
	return reason, err
}

// setRevocation changes a certificate's revocation and notes after which CRL.
func setRevocation(ctx context.Context, tx execer, issuer KeyID, serial *big.Int, revoked, reason any) error {
	_, err := tx.ExecContext(ctx, `UPDATE certificate SET revoked = ?, reason = ?,
		changed = (SELECT coalesce(max(number), 0) FROM crl WHERE issuer = ?) WHERE issuer = ? AND serial = ?`,
		revoked, reason, issuer[:], issuer[:], serialText(serial))
	return err
}

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
	// what the CRL will list: all revoked certificates, or for a delta those
	// whose revocation changed since the last finished full CRL.
	ReserveCRL(ctx context.Context, issuer KeyID, delta bool, thisUpdate, nextUpdate time.Time) (*Reservation, error)

	// PutCRL completes a reservation.
	PutCRL(ctx context.Context, issuer KeyID, number int64, der []byte) error

	// Record returns what became of one certificate, or ErrNoIntent.
	Record(ctx context.Context, issuer KeyID, serial *big.Int) (*Record, error)
}

// ReserveCRL implements CRLStore.
func (s *SQLStore) ReserveCRL(ctx context.Context, issuer KeyID, delta bool, thisUpdate, nextUpdate time.Time) (*Reservation, error) {
	var r *Reservation
	err := s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		mine := &Reservation{ThisUpdate: thisUpdate, NextUpdate: nextUpdate}
		if err := mine.takeNumber(ctx, tx, issuer, delta); err != nil {
			return err
		}
		err := mine.readEntries(ctx, tx, issuer)
		r = mine
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Reservation) takeNumber(ctx context.Context, tx execer, issuer KeyID, delta bool) error {
	var last, lastUpdate int64
	var base sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT coalesce(max(number), 0), coalesce(max(this_update), 0), max(number) FILTER (WHERE base IS NULL AND der IS NOT NULL)
		FROM crl WHERE issuer = ?`, issuer[:]).Scan(&last, &lastUpdate, &base)
	if err != nil {
		return err
	}
	if r.ThisUpdate.Unix() < lastUpdate {
		return ErrClockBehind
	}
	if delta && !base.Valid {
		return ErrNoBase
	}
	r.Number = last + 1
	base.Valid = delta
	if delta {
		r.Base = base.Int64
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO crl (issuer, number, base, this_update, next_update) VALUES (?, ?, ?, ?, ?)`,
		issuer[:], r.Number, base, r.ThisUpdate.Unix(), r.NextUpdate.Unix())
	return err
}

func (r *Reservation) readEntries(ctx context.Context, tx execer, issuer KeyID) error {
	rows, err := tx.QueryContext(ctx, `SELECT serial, revoked, reason FROM certificate
		WHERE issuer = ?1 AND (revoked IS NOT NULL OR changed > 0) AND not_after > ?2 AND changed >= ?3 AND (revoked IS NOT NULL OR ?3 > 0) ORDER BY revoked, serial`,
		issuer[:], r.ThisUpdate.Add(-keepExpired).Unix(), r.Base)
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

// PutCRL implements CRLStore.
func (s *SQLStore) PutCRL(ctx context.Context, issuer KeyID, number int64, der []byte) error {
	return s.writer.do(ctx, func(ctx context.Context, tx execer) error {
		res, err := tx.ExecContext(ctx, `UPDATE crl SET der = ? WHERE issuer = ? AND number = ? AND der IS NULL`, der, issuer[:], number)
		return oneRow(res, err, ErrNoIntent)
	})
}

// CRL returns the last finished CRL of an issuer, full or delta, or
// ErrNoIntent if there is none.
func (s *SQLStore) CRL(ctx context.Context, issuer KeyID, delta bool) ([]byte, error) {
	var der []byte
	err := s.db.QueryRowContext(ctx, `SELECT der FROM crl WHERE issuer = ? AND der IS NOT NULL AND (base IS NOT NULL) = ? ORDER BY number DESC LIMIT 1`, issuer[:], delta).Scan(&der)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoIntent
	}
	return der, err
}
