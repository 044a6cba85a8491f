package client

import (
	"context"
	"errors"

	"github.com/privyseal/privyseal/internal/sqldb"
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
	group, epoch := r.groupID, int64(r.group.Epoch())
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM past_leaf WHERE group_id = ? AND epoch < ?`, group, epoch-pastEpochs)
		return err
	})
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
