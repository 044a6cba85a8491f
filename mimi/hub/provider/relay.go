package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/peer"
)

// ask calls an endpoint of another provider for a client of ours.
func (s *Service) ask(ctx context.Context, provider string, e peer.Endpoint, variable string, body []byte) ([]byte, error) {
	if s.cfg.Peers == nil {
		return nil, clientapi.Problemf(clientapi.CodeHubUnreachable, "this provider speaks to no other")
	}
	answer, err := s.cfg.Peers.Do(ctx, provider, e, variable, body)
	if err == nil {
		return answer, nil
	}
	var p *problem.Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound && p.Code == codeNoRoom {
		return nil, s.noRoomAtHub(ctx, variable)
	}
	if errors.As(err, &p) && p.Status < 500 && p.Status != 429 {
		return nil, clientapi.Problemf(clientapi.CodeRefused, "%s refused: %s", provider, p.Code)
	}
	return nil, noAnswer(provider, err)
}

// noAnswer tells a client that another provider did not answer, and not why:
// addresses that names have for us are not for who can have us look them up.
func noAnswer(provider string, err error) error {
	after, _ := peer.Retry(err)
	p := clientapi.Problemf(clientapi.CodeHubUnreachable, "%s did not answer", provider).After(after)
	p.Err = err
	return p
}

// codeNoRoom is the code with which a hub says that it has no such room.
const codeNoRoom = "no-such-room"

// noRoomAtHub ends a room that its hub does not have any more, whose last event
// has not come.
func (s *Service) noRoomAtHub(ctx context.Context, room string) error {
	if uri, err := mimi.ParseURI(room); err == nil {
		if err := s.unfollow(ctx, uri); err != nil {
			return err
		}
	}
	return clientapi.Problemf(clientapi.CodeNotFound, "the hub has no such room")
}

func badAnswer(provider string, err error) error {
	return clientapi.Problemf(clientapi.CodeHubUnreachable, "%s gave no proper answer: %w", provider, err)
}

// RelayUpdate passes a HandshakeBundle of a client of ours on to the room's hub.
// A client that joins by it hears the room from before the hub has answered:
// the hub may be faster to notify than we are to read.
func (s *Service) RelayUpdate(ctx context.Context, client, room mimi.URI, u *mimi.HandshakeBundle) (*mimi.UpdateRoomResponse, error) {
	begun := false
	if u.IsCommit() {
		var err error
		if begun, err = s.follow(ctx, client, room); err != nil {
			return nil, err
		}
	}
	body, err := s.ask(ctx, room.Host(), peer.Update, room.String(), u.Marshal())
	if begun && (clientapi.CodeRefused.Is(err) || clientapi.CodeNotFound.Is(err)) { // it is known that nobody joined
		err = errors.Join(err, s.Unsubscribe(ctx, client, room))
	}
	if err != nil {
		return nil, err
	}
	p, err := mimi.ParseUpdateRoomResponse(body)
	if err != nil {
		return nil, badAnswer(room.Host(), err)
	}
	if p.ResponseCode != mimi.UpdateSuccess && begun {
		return p, s.Unsubscribe(ctx, client, room)
	}
	return p, nil
}

// follow lets a client hear a room of another hub from now on, and reports
// whether it did not before. Of the room only what its hub tells is noted.
func (s *Service) follow(ctx context.Context, client, room mimi.URI) (begun bool, err error) {
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		id, err := s.followed(ctx, tx, room)
		if err != nil {
			return err
		}
		var heard, seq int64
		err = tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM subscription WHERE client = ? AND room = ? AND until_seq IS NULL), seq FROM counter WHERE id = 1`, client.String(), id).Scan(&heard, &seq)
		if err != nil || heard > 0 {
			begun = false
			return err
		}
		begun = true
		if err := hear(ctx, tx, client, id, seq); err != nil {
			return err
		}
		return fewEnough(ctx, tx, client)
	})
	if begun {
		s.wake.client(client)
	}
	return begun, err
}

// fewEnough refuses a client that would hear more rooms than are listed.
func fewEnough(ctx context.Context, tx *sqldb.Tx, client mimi.URI) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM subscription WHERE client = ? AND until_seq IS NULL`, client.String()).Scan(&n)
	if err == nil && n > clientapi.MaxRoomsListed {
		err = clientapi.Problemf(clientapi.CodeTooMany, "the client is in %d rooms; leave some", n-1)
	}
	return err
}

// followed returns the id of a room of another hub, and makes its row if there
// is none.
func (s *Service) followed(ctx context.Context, tx *sqldb.Tx, room mimi.URI) (id int64, err error) {
	_, err = tx.Exec(ctx, `INSERT INTO room (uri, hub, group_id, epoch, version, last_ts, head, snapshot_seq, snapshot_ts, snapshot_len, log_len, log_commits, created, closed)
		VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, ?, 0) ON CONFLICT (uri) DO NOTHING`, room.String(), room.Host(), []byte{}, s.nowMS())
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, `SELECT id FROM room WHERE uri = ? AND hub = ?`, room.String(), room.Host()).Scan(&id)
	return id, err
}

// Unsubscribe ends the events of a room for a client.
func (s *Service) Unsubscribe(ctx context.Context, client, room mimi.URI) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		_, err := tx.Exec(ctx, `UPDATE subscription SET until_seq = (SELECT seq FROM counter WHERE id = 1)
			WHERE client = ? AND until_seq IS NULL AND room = (SELECT id FROM room WHERE uri = ?)`, client.String(), room.String())
		return err
	})
}

// RelaySubmit passes a message of a client of ours on to the room's hub.
func (s *Service) RelaySubmit(ctx context.Context, room mimi.URI, q *mimi.SubmitMessageRequest) (*mimi.SubmitMessageResponse, error) {
	body, err := s.ask(ctx, room.Host(), peer.SubmitMessage, room.String(), q.Marshal())
	if err != nil {
		return nil, err
	}
	p, err := mimi.ParseSubmitMessageResponse(body)
	if err != nil {
		return nil, badAnswer(room.Host(), err)
	}
	return p, nil
}

// RelayGroupInfo passes a groupInfo request of a client of ours on.
func (s *Service) RelayGroupInfo(ctx context.Context, room mimi.URI, q *mimi.GroupInfoRequest) (*mimi.GroupInfoResponse, error) {
	body, err := s.ask(ctx, room.Host(), peer.GroupInfo, room.String(), q.Marshal())
	if err != nil {
		return nil, err
	}
	p, err := mimi.ParseGroupInfoResponse(body)
	if err != nil {
		return nil, badAnswer(room.Host(), err)
	}
	if p.RoomID != room {
		return nil, badAnswer(room.Host(), fmt.Errorf("the answer is about %s", p.RoomID))
	}
	return p, nil
}

// RelayAbuse passes a report of a client of ours on.
func (s *Service) RelayAbuse(ctx context.Context, room mimi.URI, q *mimi.AbuseReport) error {
	known := *q
	known.Extensions = nil // none is defined
	_, err := s.ask(ctx, room.Host(), peer.ReportAbuse, room.String(), known.Marshal())
	return err
}
