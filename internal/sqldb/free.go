package sqldb

import (
	"path/filepath"
	"syscall"
)

// Free returns how many octets the file system of a SQLite database has for us.
// Of PostgreSQL nothing is known.
func (db *DB) Free() (octets uint64, known bool) {
	if db.dialect == PostgreSQL {
		return 0, false
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(db.where), &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}
