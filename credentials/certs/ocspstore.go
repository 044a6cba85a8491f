package certs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// An OCSPAnswer is an answer to requests without a nonce, as it is stored: what
// its ResponseData is made of, and the signature over that.
type OCSPAnswer struct {
	Issuer    KeyID
	Serial    string // as in the Store
	Hash      string // OID of the hash by which requests name the issuer
	Responder []byte // hash of the key that signed
	Status    []byte // CertStatus in DER
	Produced  time.Time
	Validity  time.Duration
	Signature []byte
}

// An OCSPAnswers keeps answers that were signed ahead. What it returns is
// believed no further than its signature and the status that the certificate has
// now.
type OCSPAnswers interface {
	// PutOCSPAnswers stores answers in one step, in the place of older ones, and
	// forgets those of their issuers that have ended by now.
	PutOCSPAnswers(ctx context.Context, answers []OCSPAnswer, now time.Time) error
	// OCSPAnswer returns the answer about a certificate, or ErrNoAnswer.
	OCSPAnswer(ctx context.Context, issuer KeyID, serial, hash string) (*OCSPAnswer, error)
}

// ErrNoAnswer says that no OCSP answer is stored.
var ErrNoAnswer = errors.New("no OCSP answer is stored")

// PutOCSPAnswers implements OCSPAnswers.
func (s *SQLStore) PutOCSPAnswers(ctx context.Context, answers []OCSPAnswer, now time.Time) error {
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		swept := make(map[KeyID]bool)
		for _, a := range answers {
			if !swept[a.Issuer] {
				swept[a.Issuer] = true
				if _, err := tx.Exec(ctx, `DELETE FROM ocsp_answer WHERE issuer = ? AND produced + validity < ?`, a.Issuer[:], now.Unix()); err != nil {
					return err
				}
			}
			_, err := tx.Exec(ctx, `INSERT INTO ocsp_answer (issuer, serial, hash, responder, status, produced, validity, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (issuer, serial, hash) DO UPDATE SET responder = excluded.responder, status = excluded.status, produced = excluded.produced, validity = excluded.validity, signature = excluded.signature`,
				a.Issuer[:], a.Serial, a.Hash, a.Responder, a.Status, a.Produced.Unix(), int64(a.Validity/time.Second), a.Signature)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// OCSPAnswer implements OCSPAnswers.
func (s *SQLStore) OCSPAnswer(ctx context.Context, issuer KeyID, serial, hash string) (*OCSPAnswer, error) {
	a := &OCSPAnswer{Issuer: issuer, Serial: serial, Hash: hash}
	var produced, validity int64
	err := s.db.QueryRow(ctx, `SELECT responder, status, produced, validity, signature FROM ocsp_answer WHERE issuer = ? AND serial = ? AND hash = ?`, issuer[:], serial, hash).
		Scan(&a.Responder, &a.Status, &produced, &validity, &a.Signature)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoAnswer
	}
	if err != nil {
		return nil, fmt.Errorf("stored OCSP answer: %w", err)
	}
	a.Produced, a.Validity = time.Unix(produced, 0).UTC(), time.Duration(validity)*time.Second
	return a, nil
}
