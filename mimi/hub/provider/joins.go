package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
)

// GroupInfo answers a groupInfo request about a room of ours. A room that is
// not there is answered as one that the requester may not join.
func (s *Service) GroupInfo(ctx context.Context, from hub.From, room mimi.URI, q *mimi.GroupInfoRequest) (p *mimi.GroupInfoResponse, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error {
		p, err = s.groupInfo(ctx, e, from, q)
		return err
	})
	if errors.Is(err, ErrNoRoom) {
		return &mimi.GroupInfoResponse{Version: mimi.ProtocolMLS10, RoomID: room, Status: mimi.GroupInfoNotAuthorized}, nil
	}
	return p, err
}

func (s *Service) groupInfo(ctx context.Context, e *entry, from hub.From, q *mimi.GroupInfoRequest) (*mimi.GroupInfoResponse, error) {
	var codeErr error
	told, err := e.room.GroupInfo(ctx, from, q, func(code []byte) (c policy.JoinCode) {
		c, codeErr = s.lookupCode(ctx, e.id, hashCode(code))
		return c
	})
	if err = errors.Join(err, codeErr); err != nil || told.Client.IsZero() {
		return refusedInfo(told), err
	}
	fresh, err := s.remember(ctx, e.id, q, told)
	if err != nil {
		return nil, err
	}
	if !fresh { // the request was seen before: somebody repeats it
		return &mimi.GroupInfoResponse{Version: mimi.ProtocolMLS10, RoomID: e.uri, Status: mimi.GroupInfoNotAuthorized}, nil
	}
	return told.Response, nil
}

func refusedInfo(told *hub.Told) *mimi.GroupInfoResponse {
	if told == nil {
		return nil
	}
	return told.Response
}

// remember notes what a joiner was told, and reports whether its HPKE key was
// never seen before.
func (s *Service) remember(ctx context.Context, room int64, q *mimi.GroupInfoRequest, told *hub.Told) (fresh bool, err error) {
	var code []byte
	if q.JoiningCode != nil {
		code = hashCode(q.JoiningCode)
	}
	seen := sha256.Sum256(append([]byte("groupInfoPublicKey\n"), q.GroupInfoPublicKey...))
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		fresh, err = s.once(ctx, tx, seen[:])
		if err != nil || !fresh {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO joining (room, client, epoch, refs, code) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (room, client) DO UPDATE SET epoch = excluded.epoch, refs = excluded.refs, code = excluded.code`,
			room, told.Client.String(), int64(told.Joining.Epoch), marshalRefs(told.Joining.Refs), code)
		return err
	})
	return fresh, err
}

// once reports whether something is seen for the first time.
func (s *Service) once(ctx context.Context, tx *sqldb.Tx, hash []byte) (bool, error) {
	res, err := tx.Exec(ctx, `INSERT INTO seen (hash, at) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING`, hash, s.nowMS())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// joining returns what a client was told in its last groupInfo answer, or nil.
func (s *Service) joining(ctx context.Context, room int64, client mimi.URI) (*hub.Joining, error) {
	j := new(hub.Joining)
	var epoch int64
	var refs, code []byte
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		return tx.QueryRow(ctx, `SELECT epoch, refs, code FROM joining WHERE room = ? AND client = ?`, room, client.String()).Scan(&epoch, &refs, &code)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j.Epoch = uint64(epoch)
	if j.Refs, err = parseRefs(refs); err != nil {
		return nil, err
	}
	if code != nil {
		j.Code, err = s.lookupCode(ctx, room, code)
	}
	return j, err
}

func hashCode(code []byte) []byte {
	h := sha256.Sum256(append([]byte("join code\n"), code...))
	return h[:]
}

func (s *Service) lookupCode(ctx context.Context, room int64, hash []byte) (policy.JoinCode, error) {
	c := policy.JoinCode{Shown: true}
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		err := tx.QueryRow(ctx, `SELECT role FROM join_code WHERE hash = ? AND room = ? AND expires > ? AND uses > 0`, hash, room, s.nowMS()).Scan(&c.Role)
		c.Valid = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return c, err
}

// useCode takes one use of the code with which a client joined. If another used
// it up meanwhile, the commit is not stored.
func useCode(ctx context.Context, tx *sqldb.Tx, room int64, client mimi.URI) error {
	return tx.ExecOne(ctx, hub.ErrStale, `UPDATE join_code SET uses = uses - 1 WHERE uses > 0 AND hash = (SELECT code FROM joining WHERE room = ? AND client = ?)`, room, client.String())
}

// JoinCode makes a join code for a room of ours.
func (s *Service) JoinCode(ctx context.Context, from hub.From, room mimi.URI, q *clientapi.JoinCodeRequest) (c *clientapi.JoinCode, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error {
		if err := e.mayDo(from, policy.CanCreateJoinCode); err != nil {
			return err
		}
		door := e.room.State().Role(mimi.RoleNone)
		if door == nil || !door.Has(policy.CanUseJoinCode) || !door.MayChange(mimi.RoleNone, q.Role) {
			return fmt.Errorf("%w: nobody may join the room by a code with role %d", hub.ErrMalformed, q.Role)
		}
		code := []byte(rand.Text())
		expires := s.cfg.Now().Add(time.Duration(q.Lifetime) * time.Second).UnixMilli()
		c = &clientapi.JoinCode{Code: code, Expires: uint64(expires)}
		return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
			ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
			_, err := tx.Exec(ctx, `INSERT INTO join_code (hash, room, role, expires, uses) VALUES (?, ?, ?, ?, ?)`, hashCode(code), e.id, int64(q.Role), expires, int64(q.Uses))
			return err
		})
	})
	return c, err
}
