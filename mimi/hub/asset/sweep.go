package asset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// young is the age up to which a file without a record is left alone: its
// upload may be under way.
const young = time.Hour

// Sweep forgets assets that have expired and removes files that nobody has any
// more, with those that a crash has left. It returns how many files went.
func (s *Store) Sweep(ctx context.Context) (removed int, err error) {
	for more := true; more && err == nil; {
		more, err = s.expire(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("asset: %w", err)
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return 0, fmt.Errorf("asset: %w", err)
	}
	for _, e := range entries {
		gone, err := s.removeUnless(ctx, e)
		if err != nil {
			return removed, fmt.Errorf("asset: %w", err)
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

// expire forgets some expired assets, and reports whether there may be more.
func (s *Store) expire(ctx context.Context) (more bool, err error) {
	const most = 500
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		rows, err := tx.Query(ctx, `SELECT name, owner, size FROM asset WHERE expires <= ? ORDER BY owner, name LIMIT ?`+tx.SkipLocked(), s.db.Now().UnixMicro(), most)
		if err != nil {
			return err
		}
		defer rows.Close()
		type row struct {
			name, owner string
			size        int64
		}
		var list []row
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.name, &r.owner, &r.size); err != nil {
				return err
			}
			list = append(list, r)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
		more = len(list) == most
		for _, r := range list {
			if _, err := tx.Exec(ctx, `DELETE FROM asset WHERE name = ? AND owner = ?`, r.name, r.owner); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `UPDATE asset_owner SET size = size - ?, count = count - 1 WHERE owner = ?`, r.size, r.owner); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// removeUnless removes an old file that has no record.
func (s *Store) removeUnless(ctx context.Context, e os.DirEntry) (bool, error) {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || s.db.Now().Sub(info.ModTime()) < young {
		return false, err
	}
	if _, ok := s.path(e.Name()); ok {
		if _, known, err := s.lookUp(ctx, e.Name()); known || err != nil {
			return false, err
		}
	}
	err = os.Remove(filepath.Join(s.cfg.Dir, e.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
