package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

// A Caller is a registered client of ours.
type Caller struct {
	Client     mimi.URI
	User       mimi.URI
	Suite      mls.CipherSuite
	Key        []byte // MLS signature key
	Credential mls.Credential
}

func (c *Caller) from() hub.From { return hub.From{Provider: c.Client.Host(), Client: c.Client} }

// Invite makes an invitation for a client of a user of ours whose credential
// proves nothing. Only its hash is stored.
func (s *Service) Invite(ctx context.Context, user mimi.URI, lifetime time.Duration) ([]byte, error) {
	if user.Host() != s.cfg.Domain || user.Kind() != mimi.KindUser {
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "%s is no user of %s", user, s.cfg.Domain)
	}
	code := []byte(rand.Text())
	hash := sha256.Sum256(code)
	err := s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		_, err := tx.Exec(ctx, `INSERT INTO invitation (hash, user_uri, expires) VALUES (?, ?, ?)`, hash[:], user.String(), s.cfg.Now().Add(lifetime).UnixMilli())
		return err
	})
	return code, err
}

// Register binds the TLS key that a request came on to the client that its
// credential names.
func (s *Service) Register(ctx context.Context, tlsKey [32]byte, q *clientapi.RegisterRequest) (*clientapi.Registration, error) {
	v, err := s.registrable(ctx, tlsKey, q)
	if err != nil {
		return nil, err
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error { return s.register(context.WithoutCancel(ctx), tx, tlsKey, q, v) })
	s.callers.forget()
	if sqldb.IsUnique(err) {
		return nil, clientapi.Problemf(clientapi.CodeClientTaken, "the TLS key is another client's")
	}
	if err != nil {
		return nil, err
	}
	return s.Registration(ctx, v.Client, v.User)
}

func (s *Service) registrable(ctx context.Context, tlsKey [32]byte, q *clientapi.RegisterRequest) (*identity.Identity, error) {
	if q.Provider != s.hub.Provider || q.TLSKeyHash != tlsKey {
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "the registration is for another provider or another TLS key")
	}
	if at := time.UnixMilli(int64(q.Time)); at.Sub(s.cfg.Now()).Abs() > clientapi.RegistrationSkew {
		return nil, clientapi.Problemf(clientapi.CodeClock, "the registration was signed at %s; set the clock", at.UTC().Format(time.RFC3339))
	}
	if err := q.Verify(); err != nil {
		return nil, clientapi.Problemf(clientapi.CodeCredential, "the signature does not verify: %w", err)
	}
	v, err := s.cfg.Evaluator.Evaluate(ctx, &hub.Question{Suite: q.CipherSuite, Credential: q.Credential, SignatureKey: q.SignatureKey, Voucher: s.cfg.Domain})
	if err != nil {
		return nil, clientapi.Problemf(clientapi.CodeCredential, "the credential is not believed: %w", err)
	}
	if v.Identity.Client.Host() != s.cfg.Domain {
		return nil, clientapi.Problemf(clientapi.CodeCredential, "%s is not a client of %s", v.Identity.Client, s.cfg.Domain)
	}
	return v.Identity, nil
}

func (s *Service) register(ctx context.Context, tx *sqldb.Tx, tlsKey [32]byte, q *clientapi.RegisterRequest, id *identity.Identity) error {
	var oldTLS []byte
	err := tx.QueryRow(ctx, `SELECT tls_key FROM device WHERE client = ?`, id.Client.String()).Scan(&oldTLS)
	known := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	same := known && [32]byte(oldTLS) == tlsKey
	if !id.Proven() && !same && !s.cfg.OpenRegistration {
		if err := s.useInvitation(ctx, tx, q.Invitation, id); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO device (client, user_uri, tls_key, suite, signature_key, credential_type, credential, registered) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (client) DO UPDATE SET user_uri = excluded.user_uri, tls_key = excluded.tls_key, suite = excluded.suite, signature_key = excluded.signature_key,
		credential_type = excluded.credential_type, credential = excluded.credential`,
		id.Client.String(), id.User.String(), tlsKey[:], int64(q.CipherSuite), q.SignatureKey, int64(q.Credential.Type), q.Credential.Body, s.nowMS())
	return err
}

// useInvitation takes an invitation for one client of its user.
func (s *Service) useInvitation(ctx context.Context, tx *sqldb.Tx, code []byte, id *identity.Identity) error {
	hash := sha256.Sum256(code)
	no := clientapi.Problemf(clientapi.CodeInvitation, "a client whose credential proves nothing needs an invitation for its user that was not used and is not over")
	return tx.ExecOne(ctx, no, `UPDATE invitation SET client = ? WHERE hash = ? AND user_uri = ? AND expires > ? AND (client IS NULL OR client = ?)`,
		id.Client.String(), hash[:], id.User.String(), s.nowMS(), id.Client.String())
}

// Registration returns what the provider knows of a client.
func (s *Service) Registration(ctx context.Context, client, user mimi.URI) (*clientapi.Registration, error) {
	p := &clientapi.Registration{Client: client, User: user}
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var seq int64
		if err := tx.QueryRow(ctx, `SELECT seq FROM counter WHERE id = 1`).Scan(&seq); err != nil {
			return err
		}
		oldest, err := oldestCursor(ctx, tx)
		if err != nil {
			return err
		}
		p.Cursor, p.Oldest = uint64(seq), uint64(oldest)
		p.KeyPackages, err = s.counts(ctx, tx, client)
		return err
	})
	return p, err
}

// oldestCursor is the newest event that is not kept any more, or 0.
func oldestCursor(ctx context.Context, tx *sqldb.Tx) (oldest int64, err error) {
	err = tx.QueryRow(ctx, `SELECT seq FROM counter WHERE id = 2`).Scan(&oldest)
	return oldest, err
}

// Unregister forgets a client, and with the last of a user what else is known of
// that (Config.Departing). Its leaves stay until its user's other clients, or the
// hub, remove them.
func (s *Service) Unregister(ctx context.Context, client mimi.URI) error {
	if err := s.departing(ctx, client); err != nil {
		return err
	}
	defer s.callers.forget()
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		for _, q := range []string{
			`DELETE FROM device WHERE client = ?`, `DELETE FROM key_package WHERE client = ? AND taken IS NULL`,
			`DELETE FROM subscription WHERE client = ?`, `DELETE FROM direct WHERE client = ?`,
		} {
			if _, err := tx.Exec(ctx, q, client.String()); err != nil {
				return err
			}
		}
		return nil
	})
}

// departing calls Config.Departing if a client is the last of its user.
func (s *Service) departing(ctx context.Context, client mimi.URI) error {
	if s.cfg.Departing == nil {
		return nil
	}
	var raw string
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT d.user_uri FROM device d WHERE d.client = ? AND NOT EXISTS (SELECT 1 FROM device o WHERE o.user_uri = d.user_uri AND o.client <> d.client)`,
			client.String()).Scan(&raw)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	user, err := mimi.ParseURI(raw)
	if err != nil {
		return err
	}
	return s.cfg.Departing(ctx, user)
}
