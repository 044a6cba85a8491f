package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Persistent handles of the owner hierarchy (Part 2, 7.4 and the TCG's
// registry of reserved handles).
const (
	FirstOwnerHandle = 0x81000000
	LastOwnerHandle  = 0x817fffff
)

// Persist makes a copy of the key permanent under a handle and returns the
// key as it is found there. The handle must be free.
func (d *Device) Persist(ctx context.Context, k *Key, handle uint32) (*Key, error) {
	if err := d.checkOwnerHandle(handle); err != nil {
		return nil, err
	}
	if k.object.isPersistent() {
		return nil, d.inputError(ErrKeyUse, "the key is persistent already")
	}
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Key, error) {
		if err := a.evictControl(ctx, k.object, tpm2.TPMHandle(handle)); err != nil {
			return nil, err
		}
		o := *k.object
		o.persistent, o.private, o.parent = tpm2.TPMHandle(handle), nil, nil
		return &Key{d: d, object: &o, kind: k.kind, public: k.public, auth: k.auth, policy: k.policy, creation: k.creation}, nil
	})
}

// RemovePersistent removes the key under a persistent handle for good.
func (d *Device) RemovePersistent(ctx context.Context, handle uint32) error {
	if err := d.checkOwnerHandle(handle); err != nil {
		return err
	}
	_, err := perform(ctx, d, func(ctx context.Context, a *attachment) (struct{}, error) {
		o, err := a.readPersistent(ctx, tpm2.TPMHandle(handle))
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, a.evictControl(ctx, o, tpm2.TPMHandle(handle))
	})
	return err
}

// PersistentHandles lists the persistent handles in use.
func (d *Device) PersistentHandles(ctx context.Context) ([]uint32, error) {
	return perform(ctx, d, func(_ context.Context, a *attachment) ([]uint32, error) {
		handles, err := a.handles(firstPersistent)
		list := make([]uint32, len(handles))
		for i, h := range handles {
			list[i] = uint32(h)
		}
		return list, err
	})
}

// OpenPersistent opens the key under a persistent handle. Its policy, if it
// has one, is not known to the TPM: a key that may be used by its policy only
// has to be opened from its file.
func (d *Device) OpenPersistent(ctx context.Context, handle uint32, auth Auth) (*Key, error) {
	if handle>>24 != uint32(firstPersistent>>24) {
		return nil, d.inputError(ErrKeyURI, "%#x is no persistent handle", handle)
	}
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Key, error) {
		o, err := a.readPersistent(ctx, tpm2.TPMHandle(handle))
		if err != nil {
			return nil, err
		}
		return d.newKey(o, auth, nil)
	})
}

func (d *Device) checkOwnerHandle(h uint32) error {
	if h < FirstOwnerHandle || h > LastOwnerHandle {
		return d.inputError(ErrKeyURI, "%#x is not a handle of the owner, %#x to %#x", h, FirstOwnerHandle, LastOwnerHandle)
	}
	return nil
}

// evictControl makes an object persistent, or a persistent one no more (Part
// 3, 28.5).
func (a *attachment) evictControl(ctx context.Context, o *object, handle tpm2.TPMHandle) error {
	sessions, giveBack, err := a.borrow(ctx, 1)
	if err != nil {
		return err
	}
	defer giveBack()
	l, err := a.slots.lease(ctx, 0, o)
	if err != nil {
		return err
	}
	defer l.release()
	h := l.handle(0)
	_, err = run(a, tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: sessions[0].with(nil, plain)},
		ObjectHandle:     &h,
		PersistentHandle: handle,
	})
	return handleError(err, "the handle is in use; choose another one or remove what is there")
}

// readPersistent reads the public area under a persistent handle.
func (a *attachment) readPersistent(ctx context.Context, h tpm2.TPMHandle) (*object, error) {
	l, err := a.slots.lease(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer l.release()
	rsp, err := run(a, tpm2.ReadPublic{ObjectHandle: h})
	if err != nil {
		return nil, notFound(err)
	}
	public, name, err := readPublicArea(rsp.OutPublic.Bytes())
	if err != nil {
		return nil, a.malformed("TPM2_ReadPublic", "%v", err)
	}
	if !bytes.Equal(name.Buffer, rsp.Name.Buffer) {
		return nil, a.malformed("TPM2_ReadPublic", "the name is not that of the public area")
	}
	return &object{public: public, name: *name, persistent: h}, nil
}

// notFound: a persistent handle or NV index that does not exist is
// TPM_RC_HANDLE.
func notFound(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.RC == 0 || !errors.Is(err, tpm2.TPMRCHandle) {
		return err
	}
	missing := *e
	missing.Class, missing.Err = ClassInput, fmt.Errorf("%w: %w", ErrNotFound, e.RC)
	return &missing
}

func handleError(err error, advice string) error {
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, tpm2.TPMRCNVDefined) {
		return err
	}
	taken := *e
	taken.Class, taken.Advice = ClassInput, advice
	return &taken
}
