package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/signer"
)

// A Head is how far a journal has come.
type Head struct {
	Reservations int64
	Entries      uint64
	Chain        []byte // of the newest entry
}

// Head returns how far the journal has come.
func (j *Journal) Head(ctx context.Context) (h Head, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		h, err = readHead(ctx, tx)
		return err
	})
	return h, err
}

func readHead(ctx context.Context, tx *sqldb.Tx) (h Head, err error) {
	err = tx.QueryRow(ctx, `SELECT reservations, entries, chain FROM journal_head WHERE id = 1`).Scan(&h.Reservations, &h.Entries, &h.Chain)
	return h, err
}

const entryQuery = `SELECT e.position, e.reservation, r.intent, e.outcome, e.chain
	FROM journal_entry e JOIN journal_reservation r ON r.number = e.reservation `

func scanEntry(rows *sql.Rows) (*Entry, error) {
	var number, position int64
	var intent, outcome, chain []byte
	if err := rows.Scan(&position, &number, &intent, &outcome, &chain); err != nil {
		return nil, err
	}
	e, err := ParseEntry(entryOctets(number, intent, outcome))
	if err != nil {
		return nil, &TamperError{Index: uint64(position), Reason: err.Error()}
	}
	e.Index, e.Chain = uint64(position), chain
	return e, nil
}

// query returns the entries of a WHERE clause.
func (j *Journal) query(ctx context.Context, where string, args ...any) (found []*Entry, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		found, err = entriesOf(ctx, tx, where, args...)
		return err
	})
	return found, err
}

func entriesOf(ctx context.Context, tx *sqldb.Tx, where string, args ...any) (found []*Entry, err error) {
	rows, err := tx.Query(ctx, entryQuery+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, rows.Err()
}

// Entry returns the entry with that index, or ErrNotFound.
func (j *Journal) Entry(ctx context.Context, index uint64) (*Entry, error) {
	return one(j.query(ctx, `WHERE e.position = ?`, int64(index)))
}

func one(found []*Entry, err error) (*Entry, error) {
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// chunk is how many entries are read at once.
const chunk = 1000

// Entries returns the entries from an index on, in order.
func (j *Journal) Entries(ctx context.Context, from uint64) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		for {
			found, err := j.query(ctx, `WHERE e.position >= ? ORDER BY e.position LIMIT ?`, int64(from), chunk)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range found {
				if !yield(e, nil) {
					return
				}
			}
			if len(found) < chunk {
				return
			}
			from = found[len(found)-1].Index + 1
		}
	}
}

// A Leaf is what the transparency log needs of an entry.
type Leaf struct {
	Commitment [32]byte
	Checkpoint string // origin, if the entry is of a log's checkpoint
}

// Leaves returns up to n leaves from an index on. It fails with a *TamperError
// on a gap. It does not look into the entries: what they are is for those who
// read them.
func (j *Journal) Leaves(ctx context.Context, from uint64, n int) (out []Leaf, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, entryQuery+`WHERE e.position >= ? ORDER BY e.position LIMIT ?`, int64(from), n)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			l, err := scanLeaf(rows, from+uint64(len(out)))
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return rows.Err()
	})
	return out, err
}

func scanLeaf(rows *sql.Rows, want uint64) (l Leaf, err error) {
	var number, position int64
	var intent, outcome, chain sql.RawBytes
	if err := rows.Scan(&position, &number, &intent, &outcome, &chain); err != nil {
		return l, err
	}
	if uint64(position) != want {
		return l, &TamperError{Index: want, Reason: "the row is missing"}
	}
	octets := entryOctets(number, intent, outcome)
	l.Commitment = Commitment(octets)
	if !bytes.Contains(intent, []byte(`"shape":"`+signer.ShapeCheckpoint+`"`)) {
		return l, nil
	}
	e, err := ParseEntry(octets)
	if err != nil {
		return l, &TamperError{Index: want, Reason: err.Error()}
	}
	if e.Intent.Shape == string(signer.ShapeCheckpoint) {
		l.Checkpoint = e.Intent.Type
	}
	return l, nil
}

// Verify reads the whole journal as of now and checks every row against its
// neighbours and the head, and what Find goes by against the entries. visit, if
// not nil, sees every entry. What it finds wrong is a *TamperError.
func (j *Journal) Verify(ctx context.Context, visit func(*Entry) error) (Head, error) {
	h, err := j.Head(ctx)
	if err != nil {
		return h, err
	}
	chain, next := firstChain(), uint64(0)
	var run [][]byte // signatures of the one that next is in
	for e, err := range j.Entries(ctx, 0) {
		if err != nil {
			return h, err
		}
		if next == h.Entries {
			break // written since
		}
		if chain, err = e.follows(chain, next); err != nil {
			return h, err
		}
		if visit != nil {
			if err := visit(e); err != nil {
				return h, err
			}
		}
		if run, err = j.verifyRuns(ctx, run, e); err != nil {
			return h, err
		}
		next++
	}
	switch {
	case next != h.Entries:
		return h, &TamperError{Index: next, Reason: fmt.Sprintf("the rows end here and the head counts %d", h.Entries)}
	case !bytes.Equal(chain, h.Chain):
		return h, &TamperError{Index: next, Reason: "the head has another running hash than the last entry"}
	}
	return h, j.verifyReservations(ctx, h)
}

// verifyRuns collects the signatures of a run, and with the last of it holds
// what is sorted against them.
func (j *Journal) verifyRuns(ctx context.Context, run [][]byte, e *Entry) ([][]byte, error) {
	digest, err := hex.DecodeString(e.Outcome.Signature)
	if err != nil {
		return nil, &TamperError{Index: e.Index, Reason: "the SHA-256 of its signature is no hexadecimal"}
	}
	if run = append(run, digest); len(run) < runSize {
		return run, nil
	}
	return run[:0], j.verifyRun(ctx, int64(e.Index/runSize), run)
}

func (e *Entry) follows(chain []byte, next uint64) ([]byte, error) {
	chain = nextChain(chain, e.Commitment())
	switch {
	case e.Index != next:
		return nil, &TamperError{Index: next, Reason: "the row is missing"}
	case !bytes.Equal(chain, e.Chain):
		return nil, &TamperError{Index: next, Reason: "its running hash does not follow from what is before it"}
	}
	return chain, nil
}

// verifyReservations looks for one that was cut out.
func (j *Journal) verifyReservations(ctx context.Context, h Head) error {
	return j.db.Read(ctx, func(tx *sqldb.Tx) error {
		var n, newest int64
		err := tx.QueryRow(ctx, `SELECT count(*), coalesce(max(number), 0) FROM journal_reservation WHERE number <= ?`, h.Reservations).Scan(&n, &newest)
		if err == nil && (n != h.Reservations || newest != h.Reservations) {
			err = &TamperError{Index: h.Entries, Reason: fmt.Sprintf("there are %d reservations and the head counts %d", n, h.Reservations)}
		}
		return err
	})
}

// An Unfinished is a reservation without an outcome: a device is at work on
// it, or was when its node ended. It counts as signed.
type Unfinished struct {
	Number int64
	Time   time.Time
	Intent IntentRecord
	Octets []byte // of the intent
	idem   idemKey
}

// Unfinished returns the reservations without an outcome, oldest first.
func (j *Journal) Unfinished(ctx context.Context) (open []*Unfinished, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		open, err = unfinished(ctx, tx)
		return err
	})
	return open, err
}

func unfinished(ctx context.Context, tx *sqldb.Tx) (open []*Unfinished, err error) {
	rows, err := tx.Query(ctx, `SELECT r.number, r.intent FROM journal_reservation r
		WHERE r.number > (SELECT settled FROM journal_head WHERE id = 1)
		AND NOT EXISTS (SELECT 1 FROM journal_entry e WHERE e.reservation = r.number) ORDER BY r.number`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		u := &Unfinished{}
		if err := rows.Scan(&u.Number, &u.Octets); err != nil {
			return nil, err
		}
		if err := u.parse(); err != nil {
			return nil, err
		}
		open = append(open, u)
	}
	return open, rows.Err()
}

func (u *Unfinished) parse() (err error) {
	if err = strict(u.Octets, &u.Intent); err == nil {
		u.Time, err = time.Parse(timeLayout, u.Intent.Time)
	}
	if err != nil {
		return &TamperError{Reason: fmt.Sprintf("reservation %d cannot be read: %v", u.Number, err)}
	}
	u.idem = idemKey{u.Intent.Tenant, u.Intent.Caller, u.Intent.IdempotencyKey}
	return nil
}

// claims reports whether the intent has that claim of the same content.
func (u *Unfinished) claims(want ClaimRecord) bool {
	for _, c := range u.Intent.Claims {
		if c.Kind == want.Kind && c.Content == want.Content && c.Number == want.Number {
			return true
		}
	}
	return false
}

// settle notes up to where every reservation has an entry, so that nobody
// looks there again.
func (j *Journal) settle(ctx context.Context) error {
	return j.db.Write(ctx, func(tx *sqldb.Tx) error {
		var reservations int64
		err := tx.QueryRow(ctx, `SELECT reservations FROM journal_head WHERE id = 1`+tx.ForUpdate()).Scan(&reservations)
		if err != nil {
			return err
		}
		open, err := unfinished(ctx, tx)
		if err != nil {
			return err
		}
		if len(open) > 0 {
			reservations = open[0].Number - 1
		}
		_, err = tx.Exec(ctx, `UPDATE journal_head SET settled = ? WHERE id = 1`, reservations)
		return err
	})
}

// A Mark is how far one guarded thing has come.
type Mark struct {
	Kind    Kind
	Name    string
	Number  Number
	Content string // hex; "" where there may be several, or the one was rejected
}

// Marks returns what the guard has, by kind and name.
func (j *Journal) Marks(ctx context.Context) (out []Mark, err error) {
	err = j.db.Read(ctx, func(tx *sqldb.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT kind, name, number, content FROM journal_guard ORDER BY kind, name, scope`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var m Mark
			var number, content []byte
			if err := rows.Scan(&m.Kind, &m.Name, &number, &content); err != nil {
				return err
			}
			if len(number) != len(m.Number) {
				return errors.New("a row of journal_guard is not one of ours")
			}
			m.Number, m.Content = Number(number), hex.EncodeToString(content)
			out = append(out, m)
		}
		return rows.Err()
	})
	return out, err
}
