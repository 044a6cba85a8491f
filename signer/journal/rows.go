package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// maxRows is the most rows in one statement. Counts are powers of two, so that
// there are few statements to prepare.
const maxRows = 64

// chunks calls f with the rows, a power of two at a time.
func chunks[T any](rows []T, f func([]T) error) error {
	for n := maxRows; len(rows) > 0; {
		for n > len(rows) {
			n /= 2
		}
		if err := f(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// list returns n times unit, with commas between.
func list(unit string, n int) string { return strings.Repeat(unit+", ", n-1) + unit }

func flatten(rows [][]any) []any {
	args := make([]any, 0, len(rows)*len(rows[0]))
	for _, r := range rows {
		args = append(args, r...)
	}
	return args
}

// insert writes rows; into is the table with its columns, and tail what stands
// after VALUES. SQLite would keep a copy of every page that the statement
// touches, to take back its rows where one fails; since then the whole
// transaction is taken back, OR FAIL has it leave them.
func insert(ctx context.Context, tx *sqldb.Tx, into, unit, tail string, rows [][]any) error {
	verb := "INSERT INTO "
	if tx.Dialect() == sqldb.SQLite {
		verb = "INSERT OR FAIL INTO "
	}
	return chunks(rows, func(part [][]any) error {
		_, err := tx.Exec(ctx, verb+into+" VALUES "+list(unit, len(part))+tail, flatten(part)...)
		return err
	})
}

// store writes what was decided.
func (b *batch) store() error {
	if len(b.reservations)+len(b.entries) == 0 {
		return nil
	}
	return errors.Join(
		insert(b.ctx, b.tx, "journal_reservation (number, intent)", "(?, ?)", "", b.reservations),
		insert(b.ctx, b.tx, "journal_entry (position, reservation, signature, outcome, chain, answer)", "(?, ?, ?, ?, ?, ?)", "", b.entries),
		b.storeMarks(), b.storeIdems(), b.storeHead())
}

func (b *batch) storeHead() error {
	_, err := b.tx.Exec(b.ctx, `UPDATE journal_head SET reservations = ?, entries = ?, chain = ? WHERE id = 1`,
		b.head.reservations, b.head.entries, b.head.chain)
	return err
}

func (b *batch) storeMarks() error {
	var rows [][]any
	for s, m := range b.marks {
		switch {
		case !m.dirty:
		case !m.exists:
			if _, err := b.tx.Exec(b.ctx, `DELETE FROM journal_guard WHERE scope = ?`, s[:]); err != nil {
				return err
			}
		default:
			rows = append(rows, m.row(s[:]))
		}
	}
	return insert(b.ctx, b.tx, "journal_guard (scope, kind, name, number, content, owner, prior_number, prior_content)",
		"(?, ?, ?, ?, ?, ?, ?, ?)", ` ON CONFLICT (scope) DO UPDATE SET number = excluded.number, content = excluded.content,
		owner = excluded.owner, prior_number = excluded.prior_number, prior_content = excluded.prior_content`, rows)
}

func (m *mark) row(scope []byte) []any {
	var priorNumber, priorContent any
	if m.prior != nil {
		priorNumber, priorContent = m.prior.number[:], null(m.prior.content)
	}
	return []any{scope, string(m.kind), m.name, m.number[:], null(m.content), m.owner, priorNumber, priorContent}
}

// null returns NULL for nil, which the drivers would take for an empty string.
func null(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// load locks the head and reads what the ops touch.
func (b *batch) load(ops []*op) error {
	err := b.tx.QueryRow(b.ctx, `SELECT reservations, entries, chain FROM journal_head WHERE id = 1`+b.tx.ForUpdate()).
		Scan(&b.head.reservations, &b.head.entries, &b.head.chain)
	if errors.Is(err, sql.ErrNoRows) {
		err = &TamperError{Reason: "the row of journal_head is gone"}
	}
	if err != nil {
		return err
	}
	var keys []idemKey
	for _, o := range ops {
		if o.kind == opReserve || o.kind == opOnce {
			keys = append(keys, o.intent.idem)
		}
	}
	return errors.Join(b.loadEnded(ops), b.loadMarks(ops), b.loadIdems(keys))
}

func (b *batch) loadEnded(ops []*op) error {
	b.ended = make(map[int64]bool)
	var numbers []any
	var least, most int64
	for _, o := range ops {
		if o.kind != opComplete {
			continue
		}
		if len(numbers) == 0 {
			least, most = o.number, o.number
		}
		least, most = min(least, o.number), max(most, o.number)
		numbers = append(numbers, o.number)
	}
	ended := func(r *sql.Rows) error {
		var n int64
		err := r.Scan(&n)
		b.ended[n] = true
		return err
	}
	if len(numbers) > 1 && most-least < int64(4*len(numbers)) { // one look at those that lie together
		return b.scan(`SELECT reservation FROM journal_entry WHERE reservation BETWEEN ? AND ?`, []any{least, most}, ended)
	}
	return chunks(numbers, func(part []any) error {
		return b.scan(`SELECT reservation FROM journal_entry WHERE reservation IN (`+list("?", len(part))+`)`, part, ended)
	})
}

func (b *batch) loadMarks(ops []*op) error {
	b.marks = make(map[[32]byte]*mark)
	var scopes []any
	need := func(c *Claim) {
		if b.marks[c.Scope] == nil {
			b.marks[c.Scope] = &mark{}
			scopes = append(scopes, c.Scope[:])
		}
	}
	for _, o := range ops {
		for i := range o.intent.claims {
			need(&o.intent.claims[i])
		}
		if o.rejected != nil {
			need(o.rejected)
		}
	}
	return chunks(scopes, func(part []any) error {
		return b.scan(`SELECT scope, kind, name, number, content, owner, prior_number, prior_content
			FROM journal_guard WHERE scope IN (`+list("?", len(part))+`)`, part, b.scanMark)
	})
}

func (b *batch) scanMark(r *sql.Rows) error {
	var scope, number, content, priorNumber, priorContent []byte
	m := &mark{exists: true}
	if err := r.Scan(&scope, &m.kind, &m.name, &number, &content, &m.owner, &priorNumber, &priorContent); err != nil {
		return err
	}
	if len(scope) != 32 || len(number) != len(m.number) || priorNumber != nil && len(priorNumber) != len(m.number) {
		return &TamperError{Reason: "a row of journal_guard is not one of ours"}
	}
	m.number, m.content = Number(number), bytes.Clone(content)
	if priorNumber != nil {
		m.prior = &position{Number(priorNumber), bytes.Clone(priorContent)}
	}
	b.marks[[32]byte(scope)] = m
	return nil
}

func (b *batch) scan(query string, args []any, row func(*sql.Rows) error) error {
	rows, err := b.tx.Query(b.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// An idemRow is a row of journal_idempotency, with what the entry of its
// reservation says.
type idemRow struct {
	bound       []byte
	reservation int64
	result      *string // nil while it is under way
	signature   []byte
	device      *string

	exists, dirty bool
	damaged       error
}

// repeat returns the outcome to hand out again; neither, if the first attempt
// came to nothing and this one may begin anew.
func (r *idemRow) repeat(p *prepared) (*Outcome, error) {
	switch {
	case !bytes.Equal(r.bound, p.bound[:]):
		return nil, ErrIdempotency
	case r.damaged != nil:
		return nil, r.damaged
	case r.result == nil:
		return nil, ErrInFlight
	case Result(*r.result) != Signed:
		return nil, nil
	}
	out := &Outcome{Result: Signed, Signature: r.signature}
	if r.device != nil {
		out.Device = *r.device
	}
	return out, nil
}

// admit reports what of an idempotency key, if there is one, stands against a
// request that is written now.
func (r *idemRow) admit(p *prepared) error {
	if r == nil || !r.exists {
		return nil
	}
	again, err := r.repeat(p)
	if again != nil {
		return &RepeatedError{Outcome: again}
	}
	return err
}

func (r *idemRow) begin(p *prepared, number int64) {
	*r = idemRow{bound: p.bound[:], reservation: number, exists: true, dirty: true}
}

// end keeps the outcome for the rest of the batch, unless a later attempt has the
// key by now.
func (r *idemRow) end(number int64, out *Outcome) {
	if !r.exists || r.reservation != number {
		return
	}
	result := string(out.Result)
	r.result, r.signature, r.device = &result, out.Signature, &out.Device
}

// loadIdems reads the rows of idempotency keys, those of one caller together.
func (b *batch) loadIdems(wanted []idemKey) error {
	b.idems = make(map[idemKey]*idemRow)
	keys := make(map[idemKey][]any) // of a tenant and caller
	for _, k := range wanted {
		if k.key == "" || b.idems[k] != nil {
			continue
		}
		b.idems[k] = &idemRow{}
		of := idemKey{tenant: k.tenant, caller: k.caller}
		keys[of] = append(keys[of], k.key)
	}
	for of, all := range keys {
		err := chunks(all, func(part []any) error {
			return b.scan(`SELECT i.idem, i.bound, i.reservation, i.result, i.signature, i.device, e.position, e.outcome, e.signature, e.answer
				FROM journal_idempotency i LEFT JOIN journal_entry e ON e.reservation = i.reservation
				WHERE i.tenant = ? AND i.caller = ? AND i.idem IN (`+list("?", len(part))+`)`,
				append([]any{of.tenant, of.caller}, part...), func(r *sql.Rows) error { return b.scanIdem(r, of) })
		})
		if err != nil {
			return fmt.Errorf("idempotency key: %w", err)
		}
	}
	return nil
}

func (b *batch) scanIdem(rows *sql.Rows, k idemKey) error {
	r := &idemRow{exists: true}
	var position sql.NullInt64
	var outcome, digest, answer []byte
	err := rows.Scan(&k.key, &r.bound, &r.reservation, &r.result, &r.signature, &r.device, &position, &outcome, &digest, &answer)
	if err != nil {
		return err
	}
	if r.result == nil && position.Valid {
		r.damaged = r.answer(outcome, digest, answer, uint64(position.Int64))
	}
	b.idems[k] = r
	return nil
}

// answer takes the outcome from the entry at a position.
func (r *idemRow) answer(outcome, digest, answer []byte, position uint64) error {
	var o OutcomeRecord
	if err := strict(outcome, &o); err != nil {
		return &TamperError{Index: position, Reason: "its outcome is not one of ours"}
	}
	if o.Result == Signed && (digest != nil) != (answer != nil) || answer != nil && !bytes.Equal(sha(answer), digest) {
		return &TamperError{Index: position, Reason: "what its idempotency key gives again is not what was signed"}
	}
	result := string(o.Result)
	r.result, r.signature, r.device = &result, answer, &o.Device
	return nil
}

func (b *batch) storeIdems() error {
	var rows [][]any
	for k, r := range b.idems {
		if r.dirty {
			rows = append(rows, []any{k.tenant, k.caller, k.key, r.bound, r.reservation})
		}
	}
	slices.SortFunc(rows, func(a, b []any) int { return strings.Compare(a[2].(string), b[2].(string)) }) // neighbours one after another
	return insert(b.ctx, b.tx, "journal_idempotency (tenant, caller, idem, bound, reservation)",
		"(?, ?, ?, ?, ?)", ` ON CONFLICT (tenant, caller, idem) DO UPDATE SET bound = excluded.bound,
		reservation = excluded.reservation, result = NULL, signature = NULL, device = NULL`, rows)
}
