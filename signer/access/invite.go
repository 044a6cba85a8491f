package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Lifetimes of an invitation.
const (
	DefaultInvitation = time.Hour
	MaxInvitation     = 7 * 24 * time.Hour
)

// A Token is the secret of an invitation. It prints as a placeholder; Reveal
// returns it, once for the one who invites.
type Token struct {
	id     [8]byte
	secret [24]byte
}

// tokenPrefix lets people, and scanners for leaked secrets, tell what it is.
const tokenPrefix = "pvsinvite_"

// Reveal returns the token as text.
func (t *Token) Reveal() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.id[:], t.secret[:]...))
}

// String keeps the token out of prints.
func (t *Token) String() string { return "[invitation]" }

// Format keeps the token out of every print.
func (t *Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[invitation]") }

// ParseToken reads a token.
func ParseToken(s string) (*Token, error) {
	text, ok := strings.CutPrefix(s, tokenPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	var t Token
	if !ok || err != nil || len(b) != len(t.id)+len(t.secret) {
		return nil, fmt.Errorf("%w: this is no invitation; it begins with %s", ErrUsage, tokenPrefix)
	}
	copy(t.secret[:], b[copy(t.id[:], b):])
	return &t, nil
}

// An Invitation asks for a new caller.
type Invitation struct {
	Tenant, Name string
	Role         Role
	Grants       []Grant
	Lifetime     time.Duration // DefaultInvitation if 0
}

// Invite makes a caller and returns the token for its first certificate. A
// caller that was revoked, or invited and never came, may be invited again; its
// role and grants are then the new ones.
func (s *Store) Invite(ctx context.Context, in Invitation) (*Token, time.Time, error) {
	c := Caller{Tenant: in.Tenant, Name: in.Name, Role: in.Role, Grants: in.Grants}
	if err := c.check(); err != nil {
		return nil, time.Time{}, err
	}
	if in.Lifetime == 0 {
		in.Lifetime = DefaultInvitation
	}
	if in.Lifetime < time.Second || in.Lifetime > MaxInvitation {
		return nil, time.Time{}, fmt.Errorf("%w: an invitation is good for up to %v", ErrUsage, MaxInvitation)
	}
	grants, err := json.Marshal(nonNil(in.Grants))
	if err != nil {
		return nil, time.Time{}, err
	}
	t := new(Token)
	rand.Read(t.id[:])
	rand.Read(t.secret[:])
	expires := s.db.Now().Add(in.Lifetime)
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error { return s.invite(ctx, tx, &c, string(grants), t, expires) })
	if err != nil {
		return nil, time.Time{}, storeError(err)
	}
	return t, expires, nil
}

func (s *Store) invite(ctx context.Context, tx *sqldb.Tx, c *Caller, grants string, t *Token, expires time.Time) error {
	now := s.db.Now().UnixMicro()
	taken := fmt.Errorf("%w: %s in tenant %s; revoke it first", ErrExists, c.Name, c.Tenant)
	err := tx.ExecOne(ctx, taken, `INSERT INTO access_caller (tenant, name, role, grants, state, reason, created_at)
		VALUES (?, ?, ?, ?, 'invited', '', ?)
		ON CONFLICT (tenant, name) DO UPDATE SET role = excluded.role, grants = excluded.grants, state = 'invited', reason = '', created_at = excluded.created_at
		WHERE access_caller.state <> 'active'`, c.Tenant, c.Name, string(c.Role), grants, now)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM access_invitation WHERE expires_at < ? OR tenant = ? AND name = ?`, now, c.Tenant, c.Name); err != nil {
		return err
	}
	hash := sha256.Sum256(t.secret[:])
	_, err = tx.Exec(ctx, `INSERT INTO access_invitation (id, secret_hash, tenant, name, expires_at) VALUES (?, ?, ?, ?, ?)`,
		hex.EncodeToString(t.id[:]), hash[:], c.Tenant, c.Name, expires.UnixMicro())
	return err
}

// invited is what a token stands for.
type invited struct {
	tenant, name string
	keyHash      []byte
}

// invitation finds what a token stands for, or ErrUnknown: it never was, has
// expired, or went to another public key. Which of these is not told.
func (s *Store) invitation(ctx context.Context, tx *sqldb.Tx, t *Token, keyHash [sha256.Size]byte) (*invited, error) {
	var in invited
	hash := make([]byte, sha256.Size)
	var expires int64
	err := tx.QueryRow(ctx, `SELECT secret_hash, tenant, name, expires_at, key_hash FROM access_invitation WHERE id = ?`+tx.ForUpdate(),
		hex.EncodeToString(t.id[:])).Scan(&hash, &in.tenant, &in.name, &expires, &in.keyHash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	given := sha256.Sum256(t.secret[:])
	same := subtle.ConstantTimeCompare(given[:], hash) == 1
	fresh := s.db.Now().UnixMicro() < expires
	ours := in.keyHash == nil || subtle.ConstantTimeCompare(in.keyHash, keyHash[:]) == 1
	if err != nil || !same || !fresh || !ours {
		return nil, fmt.Errorf("%w: the invitation is wrong, has expired or was used; ask for a new one", ErrUnknown)
	}
	return &in, nil
}
