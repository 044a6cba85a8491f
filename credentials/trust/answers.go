package trust

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// A said is what a document said of a subject that was suspended once.
type said struct {
	issue     order
	suspended bool
	detail    string
}

// answers are the newest answers about all that was ever suspended, in the
// database or, without one, in memory. All that share a database go by them: one
// that holds an older document ends no suspension, and begins none that a newer
// document has ended.
type answers struct {
	mu  sync.Mutex // guards all
	all map[subject]said
}

const maxAnswers = 1 << 16 // in memory

// settle weighs what was just learned of a subject against the newest that is
// known. That nothing can be learned, or only what is out of date, ends no
// suspension.
func (a *answers) settle(ctx context.Context, db store, about subject, st Status, ends, now time.Time) Status {
	if st.Standing == Revoked || st.Standing == Invalid {
		return st
	}
	known, err := a.of(ctx, db, about)
	if err != nil {
		return a.failed(st, err)
	}
	definite := st.Standing == Good || st.Standing == Suspended
	if known == nil && st.Standing != Suspended {
		return st // never suspended
	}
	if !definite || known != nil && st.issue.compare(known.issue) < 0 {
		return known.over(st)
	}
	if known != nil && st.issue.compare(known.issue) == 0 && known.suspended == (st.Standing == Suspended) {
		return st
	}
	next := said{issue: st.issue, suspended: st.Standing == Suspended}
	if next.suspended {
		next.detail = st.Err.Error()
	}
	newest, err := a.put(context.WithoutCancel(ctx), db, about, next, ends, now)
	if err != nil {
		return a.failed(st, err)
	}
	if newest.issue.compare(next.issue) > 0 { // somebody else was faster
		return newest.over(st)
	}
	return st
}

// over is a status where the answer k counts instead of what st says.
func (k *said) over(st Status) Status {
	switch {
	case k.suspended && st.Standing != Suspended:
		st.Standing = Suspended
		st.Err = credentials.Errorf(credentials.CodeSuspended, "status", "%s; what is at hand is not newer", k.detail)
	case !k.suspended && st.Standing == Suspended:
		st.Standing, st.Err = Good, nil
	}
	return st
}

// failed is a status where the newest answer cannot be had: a suspension counts,
// and nothing else is known.
func (a *answers) failed(st Status, err error) Status {
	if st.Standing != Suspended {
		st.Standing, st.Err = Unavailable, credentials.Errorf(credentials.CodeStatusUnavailable, "status", "%w", err)
	}
	return st
}

func (a *answers) of(ctx context.Context, db store, about subject) (*said, error) {
	if db.db != nil {
		return db.answer(ctx, about)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.all[about]; ok {
		return &k, nil
	}
	return nil, nil
}

// put keeps an answer unless a newer one is there, and returns the one that is
// there then.
func (a *answers) put(ctx context.Context, db store, about subject, next said, ends, now time.Time) (*said, error) {
	if db.db != nil {
		return db.putAnswer(ctx, about, next, ends, now)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.all[about]; ok && next.issue.compare(k.issue) < 0 {
		return &k, nil
	}
	if a.all == nil || len(a.all) >= maxAnswers {
		a.all = make(map[subject]said)
	}
	a.all[about] = next
	return &next, nil
}

const selectAnswer = `SELECT issue, suspended, detail FROM trust_answer WHERE subject = ?`

func scanAnswer(row *sql.Row) (*said, error) {
	var k said
	var suspended int64
	err := row.Scan((*[]byte)(&k.issue), &suspended, &k.detail)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	k.suspended = suspended != 0
	return &k, err
}

func (s store) answer(ctx context.Context, about subject) (*said, error) {
	return scanAnswer(s.db.QueryRow(ctx, selectAnswer, about[:]))
}

// putAnswer has the database decide which answer is the newest.
func (s store) putAnswer(ctx context.Context, about subject, next said, ends, now time.Time) (newest *said, err error) {
	suspended := 0
	if next.suspended {
		suspended = 1
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM trust_answer WHERE forget < ?`, now.UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO trust_answer (subject, issue, suspended, detail, forget) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (subject) DO UPDATE SET issue = excluded.issue, suspended = excluded.suspended, detail = excluded.detail, forget = excluded.forget
			WHERE excluded.issue >= trust_answer.issue`, about[:], []byte(next.issue), suspended, next.detail, forget(ends).UnixMicro())
		if err != nil {
			return err
		}
		newest, err = scanAnswer(tx.QueryRow(ctx, selectAnswer, about[:]))
		if err == nil && newest == nil {
			err = errors.New("an answer that was stored is gone")
		}
		return err
	})
	return newest, err
}

// forget is when nothing need be kept of a credential: a while after it ended.
// One without an end is remembered for good.
func forget(ends time.Time) time.Time {
	if ends.IsZero() {
		return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return ends.Add(30 * 24 * time.Hour)
}
