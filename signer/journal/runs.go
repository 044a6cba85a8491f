package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Sizes of journal_signature. They are part of its form.
const (
	runSize    = 1 << 13 // entries
	runPrefix  = 6       // octets of a SHA-256 behind the first
	runItem    = runPrefix + 2
	runBuckets = 256
)

// A sortedRun is what journal_signature has of a run, by the first octet.
type sortedRun [runBuckets][]byte

// sortRun sorts the SHA-256 of the signatures of a run, which are nil for
// entries without one.
func sortRun(signatures [][]byte) *sortedRun {
	items := make([][1 + runItem]byte, 0, len(signatures))
	for place, s := range signatures {
		if len(s) != sha256.Size {
			continue
		}
		var item [1 + runItem]byte
		copy(item[:], s[:1+runPrefix])
		binary.BigEndian.PutUint16(item[1+runPrefix:], uint16(place))
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b [1 + runItem]byte) int { return bytes.Compare(a[:], b[:]) })
	r := new(sortedRun)
	for i := range r {
		r[i] = []byte{}
	}
	for _, item := range items {
		r[item[0]] = append(r[item[0]], item[1:]...)
	}
	return r
}

// placesIn returns the places of those signatures of a bucket that may be the
// one with that SHA-256, in order.
func placesIn(bucket, digest []byte) (places []int, err error) {
	if len(bucket)%runItem != 0 {
		return nil, fmt.Errorf("a row of %d octets", len(bucket))
	}
	for ; len(bucket) > 0; bucket = bucket[runItem:] {
		if bytes.Equal(bucket[:runPrefix], digest[1:1+runPrefix]) {
			places = append(places, int(binary.BigEndian.Uint16(bucket[runPrefix:])))
		}
	}
	return places, nil
}

// index sorts runs that are full: what is there at first, and then whenever the
// writer says that there is another.
func (j *Journal) index() {
	defer close(j.indexed)
	ctx := j.closing
	for {
		for more, err := true, error(nil); more && err == nil; {
			more, err = j.sortNext(ctx)
		} // after an error again with the next run; until then it is searched one by one
		select {
		case <-j.full:
		case <-ctx.Done():
			return
		}
	}
}

// sortNext sorts one run and reports whether there was one.
func (j *Journal) sortNext(ctx context.Context) (bool, error) {
	var run int64
	var signatures [][]byte
	err := j.db.Read(ctx, func(tx *sqldb.Tx) (err error) {
		if run, err = sortedRuns(ctx, tx, 0); err != nil {
			return err
		}
		signatures, err = runSignatures(ctx, tx, run)
		return err
	})
	if err != nil || len(signatures) < runSize {
		return false, err
	}
	r := sortRun(signatures)
	return true, j.db.Batch(ctx, func(tx *sqldb.Tx) error { return r.store(ctx, tx, run) })
}

// sortedRuns returns how many runs are sorted, as far as the rows of one octet
// tell.
func sortedRuns(ctx context.Context, tx *sqldb.Tx, octet byte) (n int64, err error) {
	err = tx.QueryRow(ctx, `SELECT count(*) FROM journal_signature WHERE octet = ?`, int64(octet)).Scan(&n)
	return n, err
}

func runSignatures(ctx context.Context, tx *sqldb.Tx, run int64) (signatures [][]byte, err error) {
	rows, err := tx.Query(ctx, `SELECT signature FROM journal_entry WHERE position >= ? AND position < ? ORDER BY position`,
		run*runSize, (run+1)*runSize)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s []byte
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		signatures = append(signatures, s)
	}
	return signatures, rows.Err()
}

// store writes a run, unless another node has.
func (r *sortedRun) store(ctx context.Context, tx *sqldb.Tx, run int64) error {
	rows := make([][]any, runBuckets)
	for octet, bucket := range r {
		rows[octet] = []any{int64(octet), run, bucket}
	}
	return insert(ctx, tx, "journal_signature (octet, run, signatures)", "(?, ?, ?)", " ON CONFLICT (octet, run) DO NOTHING", rows)
}

// findDigest returns the first entry of a signature with that SHA-256.
func findDigest(ctx context.Context, tx *sqldb.Tx, digest []byte) ([]*Entry, error) {
	positions, from, err := candidates(ctx, tx, digest)
	if err != nil {
		return nil, err
	}
	for _, p := range positions {
		if found, err := entriesOf(ctx, tx, `WHERE e.position = ? AND e.signature = ?`, p, digest); err != nil || len(found) > 0 {
			return found, err
		}
	}
	return entriesOf(ctx, tx, `WHERE e.position >= ? AND e.signature = ? ORDER BY e.position LIMIT 1`, from, digest)
}

// candidates returns where the runs may have a signature, in order, and from
// where on there are none.
func candidates(ctx context.Context, tx *sqldb.Tx, digest []byte) (positions []int64, from int64, err error) {
	rows, err := tx.Query(ctx, `SELECT run, signatures FROM journal_signature WHERE octet = ? ORDER BY run`, int64(digest[0]))
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var run int64
		var bucket sql.RawBytes
		if err := rows.Scan(&run, &bucket); err != nil {
			return nil, 0, err
		}
		if run*runSize != from {
			break // a row is missing: from here on one by one
		}
		places, err := placesIn(bucket, digest)
		if err != nil {
			return nil, 0, &TamperError{Index: uint64(from), Reason: "the sorted signatures from here on are not ours: " + err.Error()}
		}
		for _, p := range places {
			positions = append(positions, from+int64(p))
		}
		from += runSize
	}
	return positions, from, rows.Err()
}

// everyOctet are all values of journal_signature's octet, for a look at one run.
var everyOctet = func() string {
	all := make([]string, runBuckets)
	for i := range all {
		all[i] = fmt.Sprint(i)
	}
	return strings.Join(all, ", ")
}()

// verifyRun holds what is sorted of a run against the signatures that its
// entries have.
func (j *Journal) verifyRun(ctx context.Context, run int64, signatures [][]byte) error {
	want := sortRun(signatures)
	return j.db.Read(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, `SELECT octet, signatures FROM journal_signature
			WHERE octet IN (`+everyOctet+`) AND run = ?`, run)
		if err != nil {
			return err
		}
		defer rows.Close()
		n, wrong := 0, false
		for ; rows.Next(); n++ {
			var octet int64
			var bucket sql.RawBytes
			if err := rows.Scan(&octet, &bucket); err != nil {
				return err
			}
			wrong = wrong || !bytes.Equal(bucket, want[octet])
		}
		if err := rows.Err(); err == nil && n > 0 && (wrong || n != runBuckets) {
			return &TamperError{Index: uint64(run * runSize), Reason: "the sorted signatures of the entries from here on are not theirs"}
		}
		return rows.Err()
	})
}
