package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// A chain is the newest trees of a room that are kept: a whole one, and later
// ones by what has changed since the one before.
type chain struct {
	base    int64  // seq of the whole tree; 0: none is kept
	whole   int    // its octets
	changed int    // octets of all changes since
	epoch   uint64 // of the newest, which hub.Room has marked
	last    int64  // seq of the newest
}

// minChanged are octets of changes for which no tree is stored anew, however
// small it is.
const minChanged = 16 << 10

// A treeWrite is a tree of a room on its way to the store.
type treeWrite struct {
	data  []byte
	whole bool
	epoch uint64
}

// nextTree returns what is to be stored of the room's present tree: what has
// changed, until that is half of the whole.
func (e *entry) nextTree() *treeWrite {
	if c := &e.trees; c.base != 0 {
		if changes := e.room.TreeChanges(); c.changed+len(changes) <= max(minChanged, c.whole/2) {
			return &treeWrite{changes, false, e.room.Epoch()}
		}
	}
	return &treeWrite{e.room.Tree(), true, e.room.Epoch()}
}

// with is the chain after a tree was stored at seq.
func (c chain) with(w *treeWrite, seq int64) chain {
	if w.whole {
		return chain{seq, len(w.data), 0, w.epoch, seq}
	}
	return chain{c.base, c.whole, c.changed + len(w.data), w.epoch, seq}
}

func putTree(ctx context.Context, tx *sqldb.Tx, room, seq, base int64, w *treeWrite) error {
	if w.whole {
		base = seq
	}
	_, err := tx.Exec(ctx, `INSERT INTO room_tree (room, seq, base, epoch, data) VALUES (?, ?, ?, ?, ?)`, room, seq, base, int64(w.epoch), w.data)
	return err
}

// readChain returns the newest chain of a room.
func readChain(ctx context.Context, tx *sqldb.Tx, room int64) (c chain, err error) {
	rows, err := tx.Query(ctx, `SELECT seq, base, epoch, length(data) FROM room_tree
		WHERE room = ? AND seq >= (SELECT max(base) FROM room_tree WHERE room = ?) ORDER BY seq`, room, room)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	for rows.Next() {
		var seq, base, epoch int64
		var size int
		if err := rows.Scan(&seq, &base, &epoch, &size); err != nil {
			return c, err
		}
		c.base, c.epoch, c.last = base, uint64(epoch), seq
		if seq == base {
			c.whole, c.changed = size, 0
		} else {
			c.changed += size
		}
	}
	return c, rows.Err()
}

// readTree puts the tree of a room together that was stored at seq.
func readTree(ctx context.Context, tx *sqldb.Tx, room, seq int64) ([]byte, error) {
	rows, err := tx.Query(ctx, `SELECT data FROM room_tree
		WHERE room = ? AND seq >= (SELECT base FROM room_tree WHERE room = ? AND seq = ?) AND seq <= ? ORDER BY seq`, room, room, seq, seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var parts [][]byte
	for rows.Next() {
		var part []byte
		if err := rows.Scan(&part); err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	switch err := rows.Err(); {
	case err != nil:
		return nil, err
	case len(parts) == 0:
		return nil, fmt.Errorf("provider: the tree %d of room %d is not stored", seq, room)
	case len(parts) == 1:
		return parts[0], nil
	}
	return mls.PatchTree(parts[0], parts[1:]...)
}

// keepTree stores the tree of a Welcome that another hub sent, if it is one, beside
// it: in a large room it is nearly that of the Welcome before, and only what
// differs is stored.
func keepTree(ctx context.Context, tx *sqldb.Tx, room, seq int64, m *mimi.FanoutMessage, e *stored) error {
	if e.Kind != hub.EventWelcome || m.RatchetTree == nil || m.RatchetTree.Representation != mls.TreeFull {
		return nil
	}
	tree := m.RatchetTree.Tree
	if _, err := mls.DiffTrees(tree, tree); err != nil {
		return nil // the newcomer will see it, too, and say so
	}
	w := &treeWrite{tree, true, 0} // the epoch of a Welcome is encrypted
	c, err := readChain(ctx, tx, room)
	if err != nil {
		return err
	}
	if c.base != 0 {
		before, err := readTree(ctx, tx, room, c.last)
		if err != nil {
			return err
		}
		if changes, err := mls.DiffTrees(before, tree); err == nil && c.changed+len(changes) <= max(minChanged, c.whole/2) {
			w.data, w.whole = changes, false
		}
	}
	bare := *m
	bare.RatchetTree = nil
	e.Fanout, e.tree = mimi.Fanout{&bare}.Marshal(), seq
	return putTree(ctx, tx, room, seq, c.base, w)
}

// dropFollowedTrees deletes the trees of rooms of other hubs of which no Welcome
// is kept.
func dropFollowedTrees(ctx context.Context, tx *sqldb.Tx) error {
	if _, err := advance(ctx, tx, 0); err != nil { // who takes a Welcome has it, and builds on a tree
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM room_tree WHERE room IN (SELECT r.id FROM room r WHERE r.hub <> '')
		AND NOT EXISTS (SELECT 1 FROM event e WHERE e.room = room_tree.room AND e.tree <> 0)`)
	return err
}

// completed returns the body of a Welcome with its tree.
func completed(ctx context.Context, tx *sqldb.Tx, room, tree int64, body []byte) ([]byte, error) {
	t, err := readTree(ctx, tx, room, tree)
	if err != nil {
		return nil, err
	}
	return mimi.CompleteWelcome(body, t)
}

// readSnapshot returns the stored form of a room's group.
func readSnapshot(ctx context.Context, tx *sqldb.Tx, room int64) (st mls.PublicGroupState, err error) {
	var data []byte
	var tree int64
	if err := tx.QueryRow(ctx, `SELECT data, tree FROM room_snapshot WHERE room = ?`, room).Scan(&data, &tree); err != nil {
		return st, err
	}
	if tree == 0 {
		return mls.SplitPublicGroup(data)
	}
	st.Rest = data
	st.Tree, err = readTree(ctx, tx, room, tree)
	return st, err
}

// dropTrees deletes the trees to which nothing refers any more: neither the
// snapshot of a room, nor a Welcome.
func (s *Service) dropTrees(ctx context.Context) error {
	type bound struct{ room, first int64 }
	var list []bound
	err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
		list = nil
		rows, err := tx.Query(ctx, `SELECT room, coalesce((SELECT max(x.base) FROM room_snapshot s JOIN room_tree x ON x.room = s.room AND x.seq = s.tree WHERE s.room = t.room), max(t.base)),
			coalesce((SELECT min(x.base) FROM event e JOIN room_tree x ON x.room = e.room AND x.seq = e.tree WHERE e.room = t.room AND e.tree <> 0), max(t.base))
			FROM room_tree t GROUP BY room HAVING min(t.base) < max(t.base)`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var room, snapshot, welcome int64
			if err := rows.Scan(&room, &snapshot, &welcome); err != nil {
				return err
			}
			list = append(list, bound{room, min(snapshot, welcome)})
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	failures := []error{s.db.Batch(ctx, func(tx *sqldb.Tx) error { return dropFollowedTrees(context.WithoutCancel(ctx), tx) })}
	for _, b := range list {
		failures = append(failures, s.db.Batch(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(context.WithoutCancel(ctx), `DELETE FROM room_tree WHERE room = ? AND seq < ?`, b.room, b.first)
			return err
		}))
	}
	return errors.Join(failures...)
}

// welcomes reports whether an update lets somebody in who needs the tree.
func (w *updateWrite) welcomes() bool {
	for i := range w.out.Events {
		if w.out.Events[i].Kind == hub.EventWelcome {
			return true
		}
	}
	return false
}
