package client

import (
	"bytes"
	"context"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A pastLeaf is a leaf as it was up to and in an epoch.
type pastLeaf struct {
	epoch uint64
	leaf  mls.LeafIndex
	node  *mls.LeafNode
}

// maxPast bounds the past leaves in memory; all are in the state.
const maxPast = 256

// keepPast is the step that keeps the leaves which a commit changes, so that
// the senders of late messages are known.
func (r *Room) keepPast(ctx context.Context, u *unit, s *mls.StagedCommit) {
	for _, m := range s.Removed() {
		r.keepLeaf(ctx, u, m.Leaf, m.Node)
	}
	for _, m := range s.Updated() {
		r.keepLeaf(ctx, u, m.Leaf, m.Old)
	}
	if by := s.Committer(); by.New != nil && by.Old != nil && !by.New.Credential.Equal(&by.Old.Credential) {
		r.keepLeaf(ctx, u, by.Leaf, by.Old)
	}
	if len(r.past) > maxPast {
		r.past = r.past[len(r.past)-maxPast:]
	}
	r.keepAgent(ctx, u, s)
	group, epoch := r.groupID, int64(r.group.Epoch())
	u.add(func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM past_agent WHERE group_id = ? AND epoch < ?`, group, epoch-pastEpochs); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM past_leaf WHERE group_id = ? AND epoch < ?`, group, epoch-pastEpochs)
		return err
	})
}

// A pastAgent is the franking agent up to and in an epoch.
type pastAgent struct {
	epoch uint64
	agent *mimi.FrankingAgent
}

// keepAgent is the step that keeps the franking agent which a commit replaces. Of a
// commit of this client, messages that the hub accepted before it are taken in
// after it.
func (r *Room) keepAgent(ctx context.Context, u *unit, s *mls.StagedCommit) {
	before, after := r.group.Context(), s.Context()
	old, err := room.Franking(before.Extensions)
	if err != nil {
		return
	}
	if next, err := room.Franking(after.Extensions); err == nil && bytes.Equal(old.Marshal(), next.Marshal()) {
		return
	}
	group, epoch := r.groupID, r.group.Epoch()
	r.agents = append(r.agents, pastAgent{epoch, old})
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO past_agent (group_id, epoch, agent) VALUES (?, ?, ?) ON CONFLICT (group_id, epoch) DO NOTHING`, group, int64(epoch), old.Marshal())
		return err
	})
}

// agentIn returns the franking agent of an epoch that is not long past. It is that
// by which the hub franked every message of the epoch: it takes none any more when
// it has another.
func (r *Room) agentIn(ctx context.Context, epoch uint64) (*mimi.FrankingAgent, error) {
	if epoch < r.group.Epoch() {
		for _, p := range r.agents {
			if p.epoch >= epoch {
				return p.agent, nil
			}
		}
		var b []byte
		err := r.c.store.one(ctx, `SELECT agent FROM past_agent WHERE group_id = ? AND epoch >= ? ORDER BY epoch LIMIT 1`, []any{r.groupID, int64(epoch)}, &b)
		if err == nil {
			return mimi.ParseFrankingAgent(b)
		}
		if !errors.Is(err, mls.ErrNotFound) {
			return nil, err
		}
	}
	gc := r.group.Context()
	return room.Franking(gc.Extensions)
}

func (r *Room) keepLeaf(ctx context.Context, u *unit, leaf mls.LeafIndex, node *mls.LeafNode) {
	group, epoch := r.groupID, r.group.Epoch()
	r.past = append(r.past, pastLeaf{epoch, leaf, node})
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO past_leaf (group_id, epoch, leaf, type, credential, signature_key) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (group_id, leaf, epoch) DO NOTHING`,
			group, int64(epoch), int64(leaf), int64(node.Credential.Type), node.Credential.Body, node.SignatureKey)
		return err
	})
}

var errUnknownLeaf = errors.New("its sender's leaf is not known any more")

// leafIn returns the leaf that a member had in an epoch that is not long past.
func (r *Room) leafIn(ctx context.Context, epoch uint64, leaf mls.LeafIndex) (*mls.LeafNode, error) {
	if epoch < r.group.Epoch() {
		for _, p := range r.past {
			if p.leaf == leaf && p.epoch >= epoch {
				return p.node, nil
			}
		}
		var t int64
		node := new(mls.LeafNode)
		err := r.c.store.one(ctx, `SELECT type, credential, signature_key FROM past_leaf WHERE group_id = ? AND leaf = ? AND epoch >= ? ORDER BY epoch LIMIT 1`,
			[]any{r.groupID, int64(leaf), int64(epoch)}, &t, &node.Credential.Body, &node.SignatureKey)
		node.Credential.Type = mls.CredentialType(t)
		if err == nil || !errors.Is(err, mls.ErrNotFound) {
			return node, err
		}
	}
	if node := r.group.Member(leaf); node != nil {
		return node, nil
	}
	return nil, errUnknownLeaf
}
