package provider

import (
	"context"
	"database/sql"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// A followed room is what a follower knows of the leaves of a room of another
// hub: which are taken. The tree that comes with a Welcome shows it, and the
// commits after it say what changes. So it is known where our own clients are,
// and in which epoch they are gone (Service.Whereabouts). It is not known where
// no Welcome has come for a client of ours yet, nor where commits are
// SemiPrivateMessages.
//
// What the hub says is not verified: it decides who is in the room.
type followed struct {
	room  int64
	suite mls.CipherSuite
	epoch int64 // or -1: that of the next commit
	taken leaves
}

// errUnfollowed says that a commit could not be followed.
var errUnfollowed = errors.New("the leaves of the room are not known any more")

// leaves has a bit for each leaf that is not blank.
type leaves []byte

func (l leaves) has(i uint32) bool { return int(i/8) < len(l) && l[i/8]>>(i%8)&1 == 1 }

// maxFollowed bounds the leaves that are followed; package mls decodes no larger
// tree.
const maxFollowed = 1 << 17

func (l *leaves) set(i uint32) {
	for int(i/8) >= len(*l) {
		*l = append(*l, 0)
	}
	(*l)[i/8] |= 1 << (i % 8)
}

func (l leaves) clear(i uint32) {
	if l.has(i) {
		l[i/8] &^= 1 << (i % 8)
	}
}

// free is the leftmost blank leaf, where the next newcomer sits (RFC 9420,
// section 12.1.1).
func (l leaves) free() uint32 {
	for i, octet := range l {
		if octet != 0xff {
			for bit := range uint32(8) {
				if octet>>bit&1 == 0 {
					return uint32(i)*8 + bit
				}
			}
		}
	}
	return uint32(len(l)) * 8
}

func readFollowed(ctx context.Context, tx *sqldb.Tx, room int64) (*followed, error) {
	f := &followed{room: room}
	var suite int64
	err := tx.QueryRow(ctx, `SELECT suite, epoch, leaves FROM followed WHERE room = ?`, room).Scan(&suite, &f.epoch, &f.taken)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	f.suite = mls.CipherSuite(suite)
	return f, err
}

func (f *followed) store(ctx context.Context, tx *sqldb.Tx) error {
	_, err := tx.Exec(ctx, `INSERT INTO followed (room, suite, epoch, leaves) VALUES (?, ?, ?, ?)
		ON CONFLICT (room) DO UPDATE SET suite = excluded.suite, epoch = excluded.epoch, leaves = excluded.leaves`, f.room, int64(f.suite), f.epoch, []byte(f.taken))
	return err
}

// followCommit notes what a commit of another hub's room, which was accepted at
// a time, does to the leaves of our clients.
func (s *Service) followCommit(ctx context.Context, tx *sqldb.Tx, room int64, m *mimi.FanoutMessage) error {
	f, err := readFollowed(ctx, tx, room)
	if err != nil || f == nil {
		return err
	}
	out, err := s.seat(ctx, tx, f, m)
	if errors.Is(err, errUnfollowed) {
		_, err := tx.Exec(ctx, `DELETE FROM followed WHERE room = ?`, room)
		return err
	}
	if err != nil {
		return err
	}
	f.epoch = int64(m.Message.Epoch) + 1
	if err := writeMembers(ctx, tx, room, out, uint64(f.epoch), int64(m.Timestamp)); err != nil {
		return err
	}
	return f.store(ctx, tx)
}

// A movement is a proposal with its sender.
type movement struct {
	proposal mls.Proposal
	sender   mls.Sender
}

// seat applies a commit to the leaves and returns which of our clients came and
// went.
func (s *Service) seat(ctx context.Context, tx *sqldb.Tx, f *followed, m *mimi.FanoutMessage) (*hub.Outcome, error) {
	parsed, err := mls.ParseMessage(m.Message.Bytes())
	if err != nil || parsed.PublicMessage == nil || parsed.PublicMessage.Content.Commit == nil {
		return nil, errUnfollowed
	}
	content := &parsed.PublicMessage.Content
	if f.epoch >= 0 && uint64(f.epoch) != content.Epoch {
		return nil, errUnfollowed
	}
	f.epoch = int64(content.Epoch)
	list, err := s.movements(ctx, tx, f, content)
	if err != nil {
		return nil, err
	}
	out := &hub.Outcome{Suite: f.suite}
	for _, v := range list {
		if u, ok := v.proposal.(*mls.Update); ok {
			if err := replaceLeaf(ctx, tx, f, v.sender.Index, u.LeafNode, out); err != nil {
				return nil, err
			}
		}
	}
	for _, v := range list {
		switch p := v.proposal.(type) {
		case *mls.Remove:
			f.leave(uint32(p.Removed), out)
		case *mls.SelfRemove:
			f.leave(v.sender.Index, out)
		}
	}
	for _, v := range list {
		if p, ok := v.proposal.(*mls.Add); ok {
			err := f.arrive(ctx, tx, p.KeyPackage.LeafNode, `SELECT k.client, d.user_uri FROM key_package k JOIN device d ON d.client = k.client WHERE k.ref = ?`, p.KeyPackage.Ref(), out)
			if err != nil {
				return nil, err
			}
		}
	}
	if content.Commit.Path == nil {
		return out, nil
	}
	leaf := content.Commit.Path.LeafNode
	if content.Sender.Type == mls.SenderNewMemberCommit {
		return out, f.arrive(ctx, tx, leaf, `SELECT client, user_uri FROM device WHERE signature_key = ?`, leaf.SignatureKey, out)
	}
	return out, replaceLeaf(ctx, tx, f, content.Sender.Index, leaf, out)
}

// movements lists the proposals of a commit.
func (s *Service) movements(ctx context.Context, tx *sqldb.Tx, f *followed, content *mls.FramedContent) (list []movement, err error) {
	var pending map[string]movement
	for _, p := range content.Commit.Proposals {
		if p.Proposal != nil {
			list = append(list, movement{p.Proposal, content.Sender})
			continue
		}
		if pending == nil {
			if pending, err = proposedIn(ctx, tx, f); err != nil {
				return nil, err
			}
		}
		v, ok := pending[string(p.Reference)]
		if !ok {
			return nil, errUnfollowed
		}
		list = append(list, v)
	}
	return list, nil
}

// proposedIn returns the proposals of the room's epoch by their references: the
// events since the commit that began it, and what is stapled to that.
func proposedIn(ctx context.Context, tx *sqldb.Tx, f *followed) (map[string]movement, error) {
	rows, err := tx.Query(ctx, `SELECT body FROM event WHERE room = ? AND kind IN (?, ?)
		AND seq >= coalesce((SELECT max(c.seq) FROM event c WHERE c.room = ? AND c.kind = ? AND c.epoch < ?), 0)`,
		f.room, int64(hub.EventProposal), int64(hub.EventCommit), f.room, int64(hub.EventCommit), f.epoch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := make(map[string]movement)
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		fanout, err := mimi.ParseFanout(body)
		if err != nil {
			return nil, errUnfollowed
		}
		proposals := fanout[0].ExternalProposals
		if fanout[0].Message.ContentType == mls.ContentProposal {
			proposals = append([]*mimi.MLSMessage{fanout[0].Message}, fanout[0].MoreProposals...)
		}
		for _, m := range proposals {
			parsed, err := mls.ParseMessage(m.Bytes())
			if err != nil || parsed.PublicMessage == nil {
				return nil, errUnfollowed
			}
			ref, err := parsed.PublicMessage.ProposalRef(f.suite)
			if err != nil {
				return nil, errUnfollowed
			}
			list[string(ref)] = movement{parsed.PublicMessage.Content.Proposal, parsed.PublicMessage.Content.Sender}
		}
	}
	return list, rows.Err()
}

// leave empties a leaf.
func (f *followed) leave(leaf uint32, out *hub.Outcome) {
	f.taken.clear(leaf)
	out.Went = append(out.Went, hub.Member{Leaf: leaf})
}

// arrive seats a newcomer at the leftmost blank leaf; who names the query by which
// it may be found to be a client of ours.
func (f *followed) arrive(ctx context.Context, tx *sqldb.Tx, leaf *mls.LeafNode, who string, arg any, out *hub.Outcome) error {
	at := f.taken.free()
	if at >= maxFollowed {
		return errUnfollowed
	}
	f.taken.set(at)
	m, err := ourMember(ctx, tx, at, leaf, who, arg)
	if err == nil && m != nil {
		out.Came, out.Leaves = append(out.Came, *m), append(out.Leaves, leaf)
	}
	return err
}

// ourMember returns the member that a leaf is, if the query finds a client of
// ours.
func ourMember(ctx context.Context, tx *sqldb.Tx, at uint32, leaf *mls.LeafNode, who string, args ...any) (*hub.Member, error) {
	var client, user string
	err := tx.QueryRow(ctx, who, args...).Scan(&client, &user)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &hub.Member{Leaf: at, Credential: hub.CredentialIDOf(leaf.SignatureKey, leaf.Credential), Type: leaf.Credential.Type}
	if m.Client, err = mimi.ParseURI(client); err != nil {
		return nil, err
	}
	m.User, err = mimi.ParseURI(user)
	return m, err
}

// replaceLeaf notes the credential that a leaf of a client of ours has now.
func replaceLeaf(ctx context.Context, tx *sqldb.Tx, f *followed, at uint32, leaf *mls.LeafNode, out *hub.Outcome) error {
	id := hub.CredentialIDOf(leaf.SignatureKey, leaf.Credential)
	m, err := ourMember(ctx, tx, at, leaf, `SELECT client, user_uri FROM member WHERE room = ? AND leaf = ? AND until IS NULL AND credential <> ?`, f.room, at, id[:])
	if err == nil && m != nil {
		out.Went = append(out.Went, hub.Member{Leaf: at})
		out.Came, out.Leaves = append(out.Came, *m), append(out.Leaves, leaf)
	}
	return err
}

// followTree takes the tree of a Welcome for clients of ours: who is where in
// the epoch. If that is -1, it is the one of the next commit, and since is the
// newest that was seen.
func (s *Service) followTree(ctx context.Context, tx *sqldb.Tx, room int64, m *mimi.FanoutMessage, welcome *mls.Welcome, epoch, since int64) error {
	if m.RatchetTree == nil || m.RatchetTree.Representation != mls.TreeFull {
		return nil
	}
	nodes, err := mls.TreeLeaves(m.RatchetTree.Tree)
	if err != nil {
		return nil // the newcomer will see it, too, and say so
	}
	keys, err := ourKeys(ctx, tx, room, welcome)
	if err != nil {
		return err
	}
	f := &followed{room: room, suite: welcome.CipherSuite, epoch: epoch}
	gone, err := vanished(ctx, tx, room, nodes)
	if err != nil {
		return err
	}
	if err := writeMembers(ctx, tx, room, &hub.Outcome{Went: gone}, uint64(max(epoch, 0)), int64(m.Timestamp)); err != nil {
		return err
	}
	out := &hub.Outcome{Suite: f.suite}
	for i, leaf := range nodes {
		if leaf == nil {
			continue
		}
		f.taken.set(uint32(i))
		client, ok := keys[string(leaf.SignatureKey)]
		if !ok {
			continue
		}
		v, err := ourMember(ctx, tx, uint32(i), leaf, `SELECT client, user_uri FROM device WHERE client = ?
			AND NOT EXISTS (SELECT 1 FROM member WHERE room = ? AND leaf = ? AND until IS NULL)`, client, room, i)
		if err != nil {
			return err
		}
		if v != nil {
			out.Came, out.Leaves = append(out.Came, *v), append(out.Leaves, leaf)
		}
	}
	if err := writeMembers(ctx, tx, room, out, uint64(max(epoch, since)), int64(m.Timestamp)); err != nil {
		return err
	}
	return f.store(ctx, tx)
}

// vanished are the members of ours that the tree does not have where they were:
// what removed them was not seen.
func vanished(ctx context.Context, tx *sqldb.Tx, room int64, nodes []*mls.LeafNode) (list []hub.Member, err error) {
	members, err := readMembers(ctx, tx, room)
	for _, m := range members {
		var now *mls.LeafNode
		if int(m.Leaf) < len(nodes) {
			now = nodes[m.Leaf]
		}
		if now == nil || hub.CredentialIDOf(now.SignatureKey, now.Credential) != m.Credential {
			list = append(list, m)
		}
	}
	return list, err
}

// ourKeys are the signature keys of clients of ours that a tree may have: of those
// that a Welcome is for, as in their KeyPackages, and of those that hear the room.
func ourKeys(ctx context.Context, tx *sqldb.Tx, room int64, welcome *mls.Welcome) (map[string]string, error) {
	keys := make(map[string]string)
	for _, secret := range welcome.Secrets {
		var client string
		var data []byte
		err := tx.QueryRow(ctx, `SELECT client, data FROM key_package WHERE ref = ?`, secret.NewMember).Scan(&client, &data)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k, err := mls.ParseKeyPackage(data)
		if err != nil {
			return nil, err
		}
		keys[string(k.LeafNode.SignatureKey)] = client
	}
	rows, err := tx.Query(ctx, `SELECT d.client, d.signature_key FROM subscription s JOIN device d ON d.client = s.client WHERE s.room = ? AND s.until_seq IS NULL`, room)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var client string
		var key []byte
		if err := rows.Scan(&client, &key); err != nil {
			return nil, err
		}
		keys[string(key)] = client
	}
	return keys, rows.Err()
}

// Unfollowed lists the rooms of other hubs that a client of ours hears, and of
// which we do not know whether it is in them: it came by an external commit and
// none of our clients by a Welcome since, or commits are SemiPrivateMessages.
func (s *Service) Unfollowed(ctx context.Context, client mimi.URI) ([]mimi.URI, error) {
	return s.roomsOfQuery(ctx, `SELECT DISTINCT r.uri FROM subscription s JOIN room r ON r.id = s.room
		WHERE s.client = ? AND s.until_seq IS NULL AND r.hub <> '' AND r.closed = 0 AND NOT (
			EXISTS (SELECT 1 FROM member m WHERE m.room = r.id AND m.client = s.client) AND (
			EXISTS (SELECT 1 FROM followed f WHERE f.room = r.id) OR
			NOT EXISTS (SELECT 1 FROM member m WHERE m.room = r.id AND m.client = s.client AND m.until IS NULL))) ORDER BY r.uri`, client.String())
}
