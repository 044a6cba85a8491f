package directory

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
)

//go:embed migrations
var migrations embed.FS

// ErrInvalid is found in the errors of Put that say what is wrong with a profile.
var ErrInvalid = errors.New("directory: it is no profile")

// ErrNoProfile is returned for a user without a profile.
var ErrNoProfile = errors.New("directory: the user has no profile")

// A Directory keeps the profiles of a provider's users.
type Directory struct {
	db     *sqldb.DB
	policy Policy
}

// Open opens a directory on a database; see sqldb.Open for the source.
func Open(ctx context.Context, source string, policy Policy, opt sqldb.Options) (*Directory, error) {
	opt.Name, opt.Migrations = "directory", migrations
	db, err := sqldb.Open(ctx, source, opt)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return &Directory{db, policy}, nil
}

// Close closes the database.
func (d *Directory) Close() error { return d.db.Close() }

func wrap(err error) error {
	if err == nil || errors.Is(err, ErrNoProfile) {
		return err
	}
	return fmt.Errorf("directory: %w", err)
}

// Put sets a user's profile in place of the one before.
func (d *Directory) Put(ctx context.Context, p *Profile) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return wrap(d.db.Write(ctx, func(tx *sqldb.Tx) error {
		id, err := userID(ctx, tx, p.User)
		if err != nil {
			return err
		}
		if err := clearUser(ctx, tx, id); err != nil {
			return err
		}
		if err := putFields(ctx, tx, id, p.Fields); err != nil {
			return err
		}
		return putTerms(ctx, tx, id, p.terms())
	}))
}

// userID returns the row of a user, made if there is none, and locks it.
func userID(ctx context.Context, tx *sqldb.Tx, user mimi.URI) (id int64, err error) {
	_, err = tx.Exec(ctx, `INSERT INTO directory_user (uri) VALUES (?) ON CONFLICT (uri) DO NOTHING`, user.String())
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT id FROM directory_user WHERE uri = ?`+tx.ForUpdate(), user.String()).Scan(&id)
	}
	return id, err
}

func clearUser(ctx context.Context, tx *sqldb.Tx, id int64) error {
	for _, statement := range []string{
		`DELETE FROM directory_gram WHERE term_id IN (SELECT id FROM directory_term WHERE user_id = ?)`,
		`DELETE FROM directory_term WHERE user_id = ?`,
		`DELETE FROM directory_field WHERE user_id = ?`,
	} {
		if _, err := tx.Exec(ctx, statement, id); err != nil {
			return err
		}
	}
	return nil
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func putFields(ctx context.Context, tx *sqldb.Tx, id int64, fields []Field) error {
	for i, f := range fields {
		_, err := tx.Exec(ctx, `INSERT INTO directory_field (user_id, position, source, name, value, searchable, disclosable) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			id, i, int(f.Source), f.Name, f.Value, truth(f.Searchable), truth(f.Disclosable))
		if err != nil {
			return err
		}
	}
	return nil
}

func putTerms(ctx context.Context, tx *sqldb.Tx, user int64, terms []Field) error {
	for _, f := range terms {
		folded := fold(f.Value)
		var id int64
		err := tx.QueryRow(ctx, `INSERT INTO directory_term (user_id, source, name, value, folded) VALUES (?, ?, ?, ?, ?) RETURNING id`,
			user, int(f.Source), f.Name, f.Value, folded).Scan(&id)
		if err != nil {
			return err
		}
		for _, g := range grams(folded) {
			if _, err := tx.Exec(ctx, `INSERT INTO directory_gram (gram, term_id) VALUES (?, ?)`, g, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete forgets a user's profile. A user without one is no error.
func (d *Directory) Delete(ctx context.Context, user mimi.URI) error {
	return wrap(d.db.Write(ctx, func(tx *sqldb.Tx) error {
		var id int64
		err := tx.QueryRow(ctx, `SELECT id FROM directory_user WHERE uri = ?`+tx.ForUpdate(), user.String()).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := clearUser(ctx, tx, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM directory_user WHERE id = ?`, id)
		return err
	}))
}

// Get returns a user's profile, or ErrNoProfile.
func (d *Directory) Get(ctx context.Context, user mimi.URI) (p *Profile, err error) {
	err = d.db.Read(ctx, func(tx *sqldb.Tx) error {
		var id int64
		err := tx.QueryRow(ctx, `SELECT id FROM directory_user WHERE uri = ?`, user.String()).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNoProfile
		}
		if err != nil {
			return err
		}
		p = &Profile{User: user}
		var own int
		err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM directory_term WHERE user_id = ? AND source = ? AND value = ?`,
			id, int(Handle), user.String()).Scan(&own)
		if err != nil {
			return err
		}
		p.SearchableURI = own > 0
		p.Fields, err = readFields(ctx, tx, id)
		return err
	})
	return p, wrap(err)
}

func readFields(ctx context.Context, tx *sqldb.Tx, id int64) (fields []Field, err error) {
	rows, err := tx.Query(ctx, `SELECT source, name, value, searchable, disclosable FROM directory_field WHERE user_id = ? ORDER BY position`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f Field
		var searchable, disclosable int
		if err := rows.Scan(&f.Source, &f.Name, &f.Value, &searchable, &disclosable); err != nil {
			return nil, err
		}
		f.Searchable, f.Disclosable = searchable == 1, disclosable == 1
		fields = append(fields, f)
	}
	return fields, rows.Err()
}
