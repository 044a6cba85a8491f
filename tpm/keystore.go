package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
)

// authSuffix is what the name of a key file is extended by for the file with
// its authorization value.
const authSuffix = ".auth"

// File returns the key as a TSS2 file. A persistent key has none.
func (k *Key) File(description string) (*KeyFile, error) {
	if k.object.isPersistent() {
		return nil, k.d.inputError(ErrKeyUse, "a persistent key has no wrapped form")
	}
	parent := ParentOwner
	if k.object.parent.isPersistent() {
		parent = uint32(k.object.parent.persistent)
	}
	return &KeyFile{
		EmptyAuth:   k.auth.IsEmpty(),
		Description: description,
		Parent:      parent,
		Public:      k.PublicArea(),
		Private:     bytes.Clone(k.object.private),
		policy:      k.policy,
	}, nil
}

// LoadKey loads a key from its file. The TPM checks that it is one of its own
// before LoadKey returns.
func (d *Device) LoadKey(ctx context.Context, f *KeyFile, auth Auth) (*Key, error) {
	public, name, err := readPublicArea(f.Public)
	if err != nil {
		return nil, d.inputError(ErrKeyFile, "%v", err)
	}
	if len(f.policy) > 0 && public.NameAlg != tpm2.TPMAlgSHA256 {
		return nil, d.inputError(ErrKeyFile, "a policy of another hash than SHA-256")
	}
	if auth.IsEmpty() && !f.EmptyAuth && (len(f.policy) == 0 || f.policy.needsAuth()) {
		return nil, d.inputError(ErrAuth, "the key needs an authorization value and none was given")
	}
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Key, error) {
		parent := a.srk
		if f.Parent != ParentOwner {
			var err error
			if parent, err = a.readPersistent(ctx, tpm2.TPMHandle(f.Parent)); err != nil {
				return nil, err
			}
		}
		o := &object{public: public, name: *name, private: bytes.Clone(f.Private), parent: parent}
		l, err := a.slots.lease(ctx, 0, o)
		if err != nil {
			return nil, err
		}
		l.release()
		return d.newKey(o, auth, f.policy)
	})
}

// SaveKeyFile writes the key's TSS2 file and, unless it is empty, the
// authorization value beside it, both with mode 0600. It replaces neither: an
// existing file is an error.
func SaveKeyFile(path string, k *Key, description string) error {
	f, err := k.File(description)
	if err != nil {
		return err
	}
	encoded, err := f.Encode()
	if err != nil {
		return err
	}
	if k.auth.IsEmpty() {
		return writeNew(path, encoded)
	}
	// The value first: a key file without it would look usable and not be.
	if err := writeNew(path+authSuffix, append(k.auth.Bytes(), '\n')); err != nil {
		return err
	}
	if err := writeNew(path, encoded); err != nil {
		return errors.Join(err, os.Remove(path+authSuffix))
	}
	return nil
}

// writeNew makes a file that did not exist and is on the disk when it returns.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// OpenKey opens the key that a URI names, see [KeyURI].
func (d *Device) OpenKey(ctx context.Context, uri string) (*Key, error) {
	u, err := ParseKeyURI(uri)
	if err != nil {
		return nil, err
	}
	if u.Handle != 0 {
		var auth Auth
		if u.Auth != "" {
			if auth, err = ReadAuthFile(u.Auth); err != nil {
				return nil, fmt.Errorf("tpm: authorization value of %s: %w", uri, err)
			}
		}
		return d.OpenPersistent(ctx, u.Handle, auth)
	}
	return d.openKeyFile(ctx, u)
}

func (d *Device) openKeyFile(ctx context.Context, u KeyURI) (*Key, error) {
	content, err := readSmallFile(u.File, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	f, err := ParseKeyFile(content)
	if err != nil {
		return nil, fmt.Errorf("tpm: %s: %w", u.File, err)
	}
	auth, err := d.findAuth(u, f)
	if err != nil {
		return nil, fmt.Errorf("tpm: authorization value of %s: %w", u, err)
	}
	return d.LoadKey(ctx, f, auth)
}

// findAuth looks for the authorization value where the URI says, then where
// the configuration says, then beside the file.
func (d *Device) findAuth(u KeyURI, f *KeyFile) (Auth, error) {
	switch {
	case u.Auth != "":
		return ReadAuthFile(u.Auth)
	case d.config.AuthSource != nil && !f.EmptyAuth:
		return d.config.AuthSource(u.File)
	}
	// A file that is there is used even if emptyAuth is TRUE: tpm2_encodeobject
	// 5.4 sets that for a key with an authorization value.
	auth, err := ReadAuthFile(u.File + authSuffix)
	needless := f.EmptyAuth || len(f.policy) > 0 && !f.policy.needsAuth()
	if needless && errors.Is(err, fs.ErrNotExist) {
		return Auth{}, nil
	}
	return auth, err
}
