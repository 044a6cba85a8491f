package enrol

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// sharedSessions are in the database, for nodes behind one name: the device's
// second request may arrive at another node than the first. A row is sealed with a
// key that is made of the session's id, which only the device has, so that the
// database and its copies hold no answer to a challenge.
type sharedSessions struct {
	store   *Store
	resumer Resumer // nil where no TPM is believed
}

// sealedSession is what a row holds.
type sealedSession struct {
	Nonce []byte    `json:"nonce"`
	Ends  time.Time `json:"ends"`
	// TPM is the State of a Believed; nil for a Statement.
	TPM []byte `json:"tpm,omitempty"`
}

// put opens a session, which ends the one that the code had. There are at most as
// many as there are codes.
func (s *sharedSessions) put(ctx context.Context, x *session, now time.Time) error {
	x.id = rand.Text()
	inner := sealedSession{Nonce: x.nonce, Ends: x.ends}
	if x.believed != nil {
		b, ok := x.believed.(Resumable)
		if !ok {
			return errors.New("enrol: the endorser's TPMs cannot be resumed, which nodes that share a database need")
		}
		var err error
		if inner.TPM, err = b.State(); err != nil {
			return err
		}
	}
	text, err := json.Marshal(inner)
	if err != nil {
		return err
	}
	row, aead, err := sessionKey(x.id)
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, make([]byte, aead.NonceSize()), text, []byte(x.code)) // the key is used once
	return s.store.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a statement that is broken off takes the batch of all with it
		if _, err := tx.Exec(ctx, `DELETE FROM enrol_session WHERE ends < ?`, now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO enrol_session (id, code, sealed, ends) VALUES (?, ?, ?, ?)
			ON CONFLICT (code) DO UPDATE SET id = excluded.id, sealed = excluded.sealed, ends = excluded.ends`, row, x.code, sealed, x.ends.UnixMicro())
		return err
	})
}

// take ends a session and returns it, or nil. It is good once, whatever comes
// of it, whichever node asks.
func (s *sharedSessions) take(ctx context.Context, id string, now time.Time) (*session, error) {
	row, aead, err := sessionKey(id)
	if err != nil {
		return nil, err
	}
	x := &session{id: id}
	var sealed []byte
	err = s.store.db.Write(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `DELETE FROM enrol_session WHERE id = ? RETURNING code, sealed`, row).Scan(&x.code, &sealed)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, []byte(x.code))
	if err != nil {
		return nil, fmt.Errorf("enrol: a session in the database is not as it was written: %w", err)
	}
	var inner sealedSession
	if err := json.Unmarshal(text, &inner); err != nil {
		return nil, fmt.Errorf("enrol: a session in the database: %w", err)
	}
	if !now.Before(inner.Ends) {
		return nil, nil
	}
	x.nonce, x.ends = inner.Nonce, inner.Ends
	if x.invitation, err = s.store.find(ctx, x.code); err != nil {
		return nil, err
	}
	if inner.TPM != nil {
		if s.resumer == nil {
			return nil, refuse(ReasonMethod, "no TPM is believed at this node")
		}
		if x.believed, err = s.resumer.Resume(inner.TPM); err != nil {
			return nil, &Error{ReasonEndorsement, err}
		}
		if level := x.believed.Level(); level < x.invitation.Least { // by what this node believes
			return nil, refuse(ReasonLevel, "the device can prove %v, the invitation asks for %v", level, x.invitation.Least)
		}
	}
	return x, nil
}

// sessionKey returns the name of a session's row, and what its state is sealed
// with.
func sessionKey(id string) (row string, _ cipher.AEAD, _ error) {
	sum := sha256.Sum256([]byte(id))
	key, err := hkdf.Key(sha256.New, []byte(id), nil, "privyseal enrolment session", 32)
	if err != nil {
		return "", nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", nil, err
	}
	aead, err := cipher.NewGCM(block)
	return hex.EncodeToString(sum[:]), aead, err
}

// A Resumable is a Believed that another node can go on with.
type Resumable interface {
	Believed
	// State is what Resume takes. It holds the answer to the challenge, and is
	// stored sealed.
	State() ([]byte, error)
}

// A Resumer is an Endorser that goes on with what another node has begun. It
// judges the endorsement key anew.
type Resumer interface {
	Resume(state []byte) (Believed, error)
}
