package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// A Filter says which records are wanted. The zero Filter wants all.
type Filter struct {
	Type           Type
	Kind           certs.Kind
	State          State
	Client         string
	User           string
	Holder         string
	IssuerKey      *certs.KeyID
	Unfinished     bool                         // only what may or may not have been signed
	MinAttestation credentials.AttestationLevel // this level or a higher one
	ValidAt        time.Time                    // within the lifetime, whatever the state
	IssuedFrom     time.Time                    // prepared then or later
	IssuedBefore   time.Time
}

// MaxPage is the most records of one page.
const MaxPage = 1000

// A Page asks for the records after a cursor, in the order in which they were
// prepared.
type Page struct {
	After string // Cursor of the page before; "" for the first
	Size  int    // 0 means MaxPage
}

// A cursor is that of a record: "MICROSECONDS.ID".
func cursorOf(r *Record) string { return fmt.Sprintf("%d.%s", r.Prepared.UnixMicro(), r.ID) }

func parseCursor(s string) (prepared int64, id string, err error) {
	if s == "" {
		return -1 << 62, "", nil
	}
	at, rest, ok := strings.Cut(s, ".")
	if _, e := fmt.Sscanf(at, "%d", &prepared); e != nil || !ok {
		return 0, "", fmt.Errorf("registry: %.60q is no cursor", s)
	}
	if _, err := ParseID(rest); err != nil {
		return 0, "", fmt.Errorf("registry: %.60q is no cursor", s)
	}
	return prepared, rest, nil
}

// List returns one page, and the cursor of the next; "" after the last.
func (s *Store) List(ctx context.Context, f Filter, p Page) (records []*Record, next string, err error) {
	prepared, id, err := parseCursor(p.After)
	if err != nil {
		return nil, "", err
	}
	size := pageSize(p.Size, MaxPage)
	where, args := f.where()
	where = append(where, `(prepared > ? OR prepared = ? AND id > ?)`)
	args = append(args, prepared, prepared, id, size+1)
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		records = nil
		rows, err := tx.Query(ctx, `SELECT `+columns+` FROM credential WHERE `+strings.Join(where, " AND ")+` ORDER BY prepared, id LIMIT ?`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scan(rows)
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return rows.Err()
	})
	if err == nil && len(records) > size {
		records = records[:size]
		next = cursorOf(records[size-1])
	}
	return records, next, err
}

func (f Filter) where() (where []string, args []any) {
	add := func(clause string, more ...any) {
		where = append(where, clause)
		args = append(args, more...)
	}
	for _, c := range []struct{ column, value string }{
		{"type", string(f.Type)}, {"kind", string(f.Kind)}, {"state", string(f.State)}, {"client", f.Client}, {"user_uri", f.User}, {"holder", f.Holder},
	} {
		if c.value != "" {
			add(c.column+` = ?`, c.value)
		}
	}
	if f.IssuerKey != nil {
		add(`issuer_key = ?`, f.IssuerKey.String())
	}
	if f.Unfinished {
		add(`issued IS NULL`)
	}
	if f.MinAttestation > 0 {
		add(`attestation >= ?`, int64(f.MinAttestation))
	}
	if !f.ValidAt.IsZero() {
		add(`not_before <= ? AND not_after > ?`, f.ValidAt.Unix(), f.ValidAt.Unix())
	}
	if !f.IssuedFrom.IsZero() {
		add(`prepared >= ?`, f.IssuedFrom.UnixMicro())
	}
	if !f.IssuedBefore.IsZero() {
		add(`prepared < ?`, f.IssuedBefore.UnixMicro())
	}
	return where, args
}
