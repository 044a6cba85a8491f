package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
)

// hashOf names what was accepted, to recognise a request that is repeated.
func hashOf(octets []byte) []byte {
	h := sha256.Sum256(octets)
	return h[:16]
}

// advance takes the next n sequence numbers and returns the first. From here to
// the commit no other transaction of any node takes one, so that whoever reads
// up to a number has seen all before it.
func advance(ctx context.Context, tx *sqldb.Tx, n int) (int64, error) {
	var last int64
	err := tx.QueryRow(ctx, `UPDATE counter SET seq = seq + ? WHERE id = 1 RETURNING seq`, n).Scan(&last)
	return last - int64(n) + 1, err
}

// A stored event is one that gets its row.
type stored struct {
	hub.Event
	hash      []byte
	providers []string // of a Welcome
	deaf      []string
	tree      int64 // of a Welcome whose body is without: see room_tree
}

// A numbered event has its place among all.
type numbered struct {
	seq, room int64
	*stored
}

func (s *Service) putEvent(ctx context.Context, tx *sqldb.Tx, room, seq int64, e *stored) error {
	return s.putEvents(ctx, tx, []numbered{{seq, room, e}})
}

// putEvents stores events, with few statements for many and with few texts of
// statements, which stay prepared.
func (s *Service) putEvents(ctx context.Context, tx *sqldb.Tx, events []numbered) error {
	now := s.nowMS()
	for len(events) > 0 {
		i := slices.IndexFunc(insertEvents, func(q insert) bool { return q.rows <= len(events) })
		q := insertEvents[i]
		args := make([]any, 0, q.rows*eventColumns)
		for _, e := range events[:q.rows] {
			args = append(args, e.seq, e.room, int64(e.Kind), int64(e.Timestamp), int64(e.Epoch), e.hash, e.Fanout, e.Partial, hostList(e.providers), hostList(e.deaf), now, e.tree)
		}
		if _, err := tx.Exec(ctx, q.text, args...); err != nil {
			return err
		}
		events = events[q.rows:]
	}
	return nil
}

// An insert is a statement for so many rows.
type insert struct {
	rows int
	text string
}

const eventColumns = 12

// insertEvents has the statements, from many rows to one.
var insertEvents = []insert{eventRows(32), eventRows(8), eventRows(2), eventRows(1)}

func eventRows(n int) insert {
	row := "(?" + strings.Repeat(", ?", eventColumns-1) + ")"
	return insert{n, `INSERT INTO event (seq, room, kind, ts, epoch, hash, body, partial, providers, deaf, at, tree) VALUES ` + row + strings.Repeat(", "+row, n-1)}
}

// hostList writes hosts so that each can be found with its commas around it.
func hostList(hosts []string) string {
	if len(hosts) == 0 {
		return ""
	}
	return "," + strings.Join(hosts, ",") + ","
}

// wakeFollowers makes all deliveries of the room due that wait for nothing.
func (s *Service) wakeFollowers(ctx context.Context, tx *sqldb.Tx, room int64) error {
	_, err := tx.Exec(ctx, `UPDATE follower SET due = ? WHERE room = ? AND due IS NULL`, s.nowMS(), room)
	return err
}

// An updateWrite is an accepted update on its way to the store.
type updateWrite struct {
	e        *entry
	out      *hub.Outcome
	hash     []byte
	snapshot []byte     // nil if none is due
	tree     *treeWrite // with a snapshot or a Welcome, or nil
	row      roomRow
	muted    []mimi.URI // clients
	unmuted  []mimi.URI
	code     *mimi.URI // the client whose join code was used
	refix    bool      // its membership becomes fixed, or is not any more
	first    int64     // sequence number, once it is stored
}

// from is the sequence number after which those who come with the update hear
// the room. Who joined by an external commit hears that too.
func (w *updateWrite) from() int64 {
	if w.out.External {
		return w.first - 1
	}
	return w.first
}

// store writes an update. The room's version makes sure that nobody else has
// changed it since it was loaded.
func (s *Service) store(ctx context.Context, w *updateWrite) error {
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		first, err := advance(ctx, tx, len(w.out.Events))
		if err != nil {
			return err
		}
		w.first = first
		if err := s.storeRoom(ctx, tx, w); err != nil {
			return err
		}
		if w.tree != nil {
			if err := putTree(ctx, tx, w.e.id, first, w.e.trees.base, w.tree); err != nil {
				return err
			}
		}
		if err := storeFixed(ctx, tx, w); err != nil {
			return err
		}
		for i := range w.out.Events {
			if err := s.storeUpdateEvent(ctx, tx, w, i); err != nil {
				return err
			}
		}
		if err := s.storeMembers(ctx, tx, w); err != nil {
			return err
		}
		return s.wakeFollowers(ctx, tx, w.e.id)
	})
}

func (s *Service) storeRoom(ctx context.Context, tx *sqldb.Tx, w *updateWrite) error {
	r, n := w.e.room, int64(len(w.out.Events))
	w.row = w.e.row
	w.row.version++
	w.row.head = w.first + n - 1
	commit := w.out.Events[0].Kind == hub.EventCommit
	if w.snapshot != nil {
		w.row.snapshotSeq, w.row.snapshotTS, w.row.snapshotLen, w.row.logLen, w.row.logN = w.first, int64(r.LastTimestamp()), int64(len(w.snapshot)), 0, 0
		_, err := tx.Exec(ctx, `UPDATE room_snapshot SET data = ?, tree = ? WHERE room = ?`, w.snapshot, w.first, w.e.id)
		if err != nil {
			return err
		}
	} else {
		w.row.logLen += int64(len(w.out.Events[0].Fanout))
		if commit {
			w.row.logN++
		}
	}
	return tx.ExecOne(ctx, hub.ErrStale, `UPDATE room SET epoch = ?, version = ?, last_ts = ?, head = ?, snapshot_seq = ?, snapshot_ts = ?, snapshot_len = ?, log_len = ?, log_commits = ?, newest = ?, parent = ?, franking = ?
		WHERE id = ? AND version = ? AND last_ts < ? AND closed = 0`,
		int64(r.Epoch()), w.row.version, int64(r.LastTimestamp()), w.row.head, w.row.snapshotSeq, w.row.snapshotTS, w.row.snapshotLen, w.row.logLen, w.row.logN, int64(r.Newest()), r.Parent().String(), frankingID(r.FrankingKey()),
		w.e.id, w.e.row.version, int64(w.out.Events[0].Timestamp))
}

func (s *Service) storeUpdateEvent(ctx context.Context, tx *sqldb.Tx, w *updateWrite, i int) error {
	e := &stored{Event: w.out.Events[i]}
	if i == 0 {
		e.hash = w.hash
	}
	seq := w.first + int64(i)
	if e.Kind == hub.EventWelcome {
		e.tree = w.first
		for _, a := range e.To {
			if host := a.Client.Host(); host != s.cfg.Domain && !slices.Contains(e.providers, host) {
				e.providers = append(e.providers, host)
			}
		}
	}
	if err := s.putEvent(ctx, tx, w.e.id, seq, e); err != nil {
		return err
	}
	for _, a := range e.To {
		if a.Client.Host() != s.cfg.Domain {
			continue
		}
		if err := s.putDirect(ctx, tx, a.Client, seq, clientapi.EventFanout, w.e.id, seq, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) putDirect(ctx context.Context, tx *sqldb.Tx, client mimi.URI, seq int64, kind clientapi.EventKind, room, event int64, payload []byte) error {
	_, err := tx.Exec(ctx, `INSERT INTO direct (seq, client, kind, room, event, payload, at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		seq, client.String(), int64(kind), room, event, payload, s.nowMS())
	return err
}

func (s *Service) storeMembers(ctx context.Context, tx *sqldb.Tx, w *updateWrite) error {
	r, at := w.e.room, int64(w.out.Events[0].Timestamp)
	if err := writeMembers(ctx, tx, w.e.id, w.out, r.Epoch(), at); err != nil {
		return err
	}
	if err := s.subscribe(ctx, tx, w.e.id, w.first, w.from(), w.out); err != nil {
		return err
	}
	if err := errors.Join(mute(ctx, tx, w.e.id, w.first, w.muted, true), mute(ctx, tx, w.e.id, w.first, w.unmuted, false)); err != nil {
		return err
	}
	if w.code != nil {
		if err := useCode(ctx, tx, w.e.id, *w.code); err != nil {
			return err
		}
	}
	if w.out.Events[0].Kind != hub.EventCommit {
		return nil
	}
	if _, err := tx.Exec(ctx, `DELETE FROM joining WHERE room = ? AND epoch < ?`, w.e.id, int64(r.Epoch())); err != nil {
		return err
	}
	if err := s.storeSenders(ctx, tx, w); err != nil {
		return err
	}
	return s.storeFollowers(ctx, tx, w)
}

// storeFollowers begins deliveries to providers that came with a commit, and
// ends those to providers that went with it, who still get it.
func (s *Service) storeFollowers(ctx context.Context, tx *sqldb.Tx, w *updateWrite) error {
	after := w.e.room.Providers()
	for _, host := range after {
		if host == s.cfg.Domain || slices.Contains(w.out.Before, host) {
			continue
		}
		_, err := tx.Exec(ctx, `INSERT INTO follower (room, provider, sent, lease, attempts) VALUES (?, ?, ?, 0, 0)
			ON CONFLICT (room, provider) DO UPDATE SET until_seq = NULL, sent = CASE WHEN follower.until_seq <= follower.sent THEN excluded.sent ELSE follower.sent END`,
			w.e.id, host, w.from())
		if err != nil {
			return err
		}
	}
	for _, host := range w.out.Before {
		if host == s.cfg.Domain || slices.Contains(after, host) {
			continue
		}
		if _, err := tx.Exec(ctx, `UPDATE follower SET until_seq = ? WHERE room = ? AND provider = ?`, w.first, w.e.id, host); err != nil {
			return err
		}
	}
	return nil
}

// repeated returns the stored event of a request that was accepted before.
func (s *Service) repeated(ctx context.Context, room int64, hash []byte) (ts uint64, body []byte, err error) {
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		var at int64
		err := tx.QueryRow(ctx, `SELECT ts, body FROM event WHERE room = ? AND hash = ?`, room, hash).Scan(&at, &body)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		ts = uint64(at)
		return err
	})
	return ts, body, err
}

// marshalRefs and parseRefs store a list of references.
func marshalRefs(refs [][]byte) []byte {
	b := tlsvec.NewBuilder(64)
	for _, ref := range refs {
		b.Vector(ref)
	}
	return b.Bytes()
}

func parseRefs(b []byte) (refs [][]byte, err error) {
	r := tlsvec.NewReader(b)
	for !r.Empty() {
		refs = append(refs, bytes.Clone(r.Vector()))
	}
	return refs, r.Done()
}

func inHosts(list, host string) bool { return strings.Contains(list, ","+host+",") }
