package enrol

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Lifetimes of a code.
const (
	DefaultCodeLifetime = time.Hour
	MaxCodeLifetime     = 7 * 24 * time.Hour
)

// An Invitation says what the device with the code may have.
type Invitation struct {
	Names    certs.Names
	Type     registry.Type
	Lifetime time.Duration                // of the credential
	Least    credentials.AttestationLevel // the level that it must prove; AttestationStated if 0
	// Unattested lets the device prove possession of its key and nothing about
	// where the key is kept: a certificate, in one request (Service.Simple).
	// Least must be 0.
	Unattested bool
}

func (in *Invitation) check() error {
	if _, err := certs.DeviceNames(in.Names.Client.String(), in.Names.User.String()); err != nil {
		return err
	}
	if _, err := registry.ParseType(string(in.Type)); err != nil {
		return err
	}
	if in.Lifetime < time.Minute {
		return fmt.Errorf("a credential lives for at least a minute, not %v", in.Lifetime)
	}
	if in.Unattested {
		if in.Type != registry.X509 || in.Least != credentials.AttestationNone {
			return errors.New("only a certificate can be had without attestation, and then no level is asked for")
		}
		return nil
	}
	if in.Least == 0 {
		in.Least = credentials.AttestationStated
	}
	if in.Least < credentials.AttestationStated || in.Least > credentials.AttestationCertified {
		return fmt.Errorf("no enrolment proves %v", in.Least)
	}
	return nil
}

// A Store keeps the invitations, in the database of the issuer's book: a code is
// spent in the commit that writes down the credential. It is safe for concurrent
// use, also by several processes.
type Store struct {
	db  *sqldb.DB
	now func() time.Time
}

// NewStore makes its table in the database of a book, which the caller closes.
// now may be nil.
func NewStore(ctx context.Context, book *registry.Store, now func() time.Time) (*Store, error) {
	db := book.Database()
	if err := db.Migrate(ctx, partName, migrations); err != nil {
		return nil, fmt.Errorf("invitations to enrol: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &Store{db, now}, nil
}

// partName is the part of the database that is ours.
const partName = "enrol"

// room is in place of a credential's id and of the time until the code is spent, so
// that the row does not grow then, and a full page is not split.
const room = "                                        "

// Invite keeps an invitation and returns its code and when that ends. A
// lifetime of 0 is DefaultCodeLifetime. Invitations that have ended are
// forgotten on the way: the registry has what was issued on them.
func (s *Store) Invite(ctx context.Context, in Invitation, lifetime time.Duration) (*Code, time.Time, error) {
	if lifetime == 0 {
		lifetime = DefaultCodeLifetime
	}
	if lifetime < time.Second || lifetime > MaxCodeLifetime {
		return nil, time.Time{}, fmt.Errorf("a code is good for up to %v, not %v", MaxCodeLifetime, lifetime)
	}
	if err := in.check(); err != nil {
		return nil, time.Time{}, err
	}
	code, now := NewCode(), s.now()
	expires := now.Add(lifetime)
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM enrol_invitation WHERE expires < ?`, now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO enrol_invitation (hash, client, user_uri, type, lifetime, least, expires, used, credential)
			VALUES (?, ?, ?, ?, ?, ?, ?, 0, '`+room+`')`, code.hash(), in.Names.Client.String(), in.Names.User.String(), string(in.Type),
			int64(in.Lifetime/time.Second), int64(in.Least), expires.UnixMicro())
		return err
	})
	return code, expires, err
}

// find returns the invitation of a code that is good, by the hash of the code.
func (s *Store) find(ctx context.Context, hash string) (*Invitation, error) {
	var client, user string
	var lifetime, expires, used int64
	var in Invitation
	err := s.db.Look(ctx, func(ctx context.Context, r sqldb.Rower) error {
		return r.QueryRow(ctx, `SELECT client, user_uri, type, lifetime, least, expires, used FROM enrol_invitation WHERE hash = ?`, hash).
			Scan(&client, &user, &in.Type, &lifetime, &in.Least, &expires, &used)
	})
	if errors.Is(err, sql.ErrNoRows) || err == nil && (used != 0 || s.now().UnixMicro() >= expires) {
		return nil, errCode()
	}
	if err != nil {
		return nil, err
	}
	in.Lifetime, in.Unattested = time.Duration(lifetime)*time.Second, in.Least == credentials.AttestationNone
	in.Names, err = certs.DeviceNames(client, user)
	return &in, err
}

// redeem spends a code for a credential, in the transaction that writes it down:
// of several who try, one succeeds.
func (s *Store) redeem(ctx context.Context, tx *sqldb.Tx, hash string, id registry.ID) error {
	now := s.now().UnixMicro()
	return tx.ExecOne(ctx, errCode(), `UPDATE enrol_invitation SET used = ?, credential = ? WHERE hash = ? AND used = 0 AND expires > ?`, now, string(id), hash, now)
}
