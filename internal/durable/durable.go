// Package durable is the one place that knows how a small file is replaced so
// that a crash leaves either the old one or the new one, whole.
package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile writes data to path with mode perm and returns when it is on disk.
// A file that is there is replaced at once; after a crash there is the old one
// or the new one.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := Create(filepath.Dir(path), perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit(path)
}

// A File is one that is being written, without its name.
type File struct {
	f    *os.File
	done bool
}

// tempPattern names a File until it has its own name.
const tempPattern = ".durable.*"

// Create begins a file in the folder where it will be. Abort must be called
// when it is done with, committed or not.
func Create(dir string, perm os.FileMode) (*File, error) {
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return &File{f: f}, nil
}

// Write adds to the file.
func (f *File) Write(b []byte) (int, error) { return f.f.Write(b) }

// Commit gives the file its name, in place of one that is there, and returns
// when both are on disk. The path must be in the folder given to Create.
func (f *File) Commit(path string) error {
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.f.Name(), err)
	}
	if err := f.f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.f.Name(), path); err != nil {
		return err
	}
	f.done = true
	return SyncDir(filepath.Dir(path))
}

// CommitNew is Commit that replaces nothing: it fails with fs.ErrExist where there
// is a file, or a symbolic link, of that name.
func (f *File) CommitNew(path string) error {
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.f.Name(), err)
	}
	if err := os.Link(f.f.Name(), path); err != nil { // unlike rename, replaces nothing
		return err
	}
	f.Abort()
	return SyncDir(filepath.Dir(path))
}

// Abort removes a file that was not committed.
func (f *File) Abort() {
	if !f.done {
		f.done = true
		f.f.Close()
		os.Remove(f.f.Name())
	}
}

// RemoveUnfinished removes files that a crash has left without a name.
func RemoveUnfinished(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, tempPattern))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
