package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
)

// need refuses a caller that has none of the roles. Admins have them all.
func need(c *access.Caller, roles ...access.Role) error {
	if c.Is(access.Admin) || c.Is(roles...) {
		return nil
	}
	return &Forbidden{fmt.Sprintf("caller %s has role %s; this needs %v", c.Name, c.Role, append(roles, access.Admin))}
}

// tenantKey returns the record of a key of the caller's tenant, for one who
// sees it.
func (s *Service) tenantKey(ctx context.Context, c *access.Caller, name string) (*signer.Key, error) {
	if err := access.CheckKey(name); err != nil {
		return nil, err
	}
	if !c.Sees(name) {
		return nil, notFound(name)
	}
	key, err := s.c.Keys.Key(ctx, keyID(c.Tenant, name))
	if errors.Is(err, signer.ErrNoKey) {
		return nil, notFound(name)
	}
	return key, err
}

// Name returns the name of a key within the caller's tenant.
func Name(c *access.Caller, k *signer.Key) string {
	name, _ := nameOf(c.Tenant, k.ID)
	return name
}

// CreateKey makes a key. The ID of n is its name within the tenant.
func (s *Service) CreateKey(ctx context.Context, c *access.Caller, n signer.NewKey) (*signer.Key, error) {
	if err := need(c, access.Operator); err != nil {
		return nil, err
	}
	name := string(n.ID)
	if err := access.CheckKey(name); err != nil {
		return nil, err
	}
	if n.Device == "" && len(s.c.Devices) > 0 {
		n.Device = s.c.Devices[0]
	}
	if !slices.Contains(s.c.Devices, n.Device) {
		return nil, fmt.Errorf("%w: callers make no keys in device %q; use one of %v", signer.ErrUsage, clip(n.Device), s.c.Devices)
	}
	n.ID, n.Unverified = keyID(c.Tenant, name), false
	key, err := s.c.Ring.Create(ctx, n)
	if errors.Is(err, signer.ErrKeyExists) {
		return nil, fmt.Errorf("%w: %s", signer.ErrKeyExists, name)
	}
	return s.changed(ctx, c, "create", name, key, err)
}

// changed forgets what was looked up of a key, and tells the hook.
func (s *Service) changed(ctx context.Context, c *access.Caller, what, name string, key *signer.Key, err error) (*signer.Key, error) {
	s.forget(keyID(c.Tenant, name))
	if err != nil {
		return nil, err
	}
	if s.c.Hooks.Changed != nil {
		s.c.Hooks.Changed(ctx, c, what, name)
	}
	return key, nil
}

// Key returns one key.
func (s *Service) Key(ctx context.Context, c *access.Caller, name string) (*signer.Key, error) {
	return s.tenantKey(ctx, c, name)
}

// Bounds of a page of keys.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Keys returns up to most keys of the tenant that the caller sees, by name,
// after the key of that name; and whether there are more.
func (s *Service) Keys(ctx context.Context, c *access.Caller, after string, most int) ([]*signer.Key, bool, error) {
	if most == 0 {
		most = defaultPage
	}
	if most < 0 || most > maxPage {
		return nil, false, fmt.Errorf("%w: a page has 1 to %d keys", signer.ErrUsage, maxPage)
	}
	if after != "" {
		if err := access.CheckKey(after); err != nil {
			return nil, false, err
		}
	}
	seen, err := s.seen(ctx, c, keyID(c.Tenant, after), most+1)
	if err != nil {
		return nil, false, err
	}
	return seen[:min(len(seen), most)], len(seen) > most, nil
}

// seen returns the first keys of the tenant after an id that the caller sees,
// at least most if there are so many.
func (s *Service) seen(ctx context.Context, c *access.Caller, after signer.KeyID, most int) (keys []*signer.Key, err error) {
	for len(keys) < most {
		page, err := s.c.Keys.KeysPage(ctx, c.Tenant+".", after, most)
		if err != nil {
			return nil, err
		}
		for _, k := range page {
			if name, ours := nameOf(c.Tenant, k.ID); ours && c.Sees(name) {
				keys = append(keys, k)
			}
		}
		if len(page) < most {
			return keys, nil
		}
		after = page[len(page)-1].ID
	}
	return keys, nil
}

// RotateKey makes a new active version.
func (s *Service) RotateKey(ctx context.Context, c *access.Caller, name, device string) (*signer.Key, error) {
	if err := need(c, access.Operator); err != nil {
		return nil, err
	}
	key, err := s.tenantKey(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if device != "" && !slices.Contains(s.c.Devices, device) {
		return nil, fmt.Errorf("%w: callers make no keys in device %q; use one of %v", signer.ErrUsage, clip(device), s.c.Devices)
	}
	key, err = s.c.Ring.Rotate(ctx, key.ID, device)
	return s.changed(ctx, c, "rotate", name, key, err)
}

// DisableKey ends signing with a key until it is rotated.
func (s *Service) DisableKey(ctx context.Context, c *access.Caller, name, reason string) (*signer.Key, error) {
	if err := need(c, access.Operator); err != nil {
		return nil, err
	}
	key, err := s.tenantKey(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if len(reason) > 512 {
		return nil, fmt.Errorf("%w: a reason has up to 512 octets", signer.ErrUsage)
	}
	if err = s.c.Keys.Retire(ctx, key.ID, fmt.Sprintf("disabled by %s: %s", c.Name, reason)); err == nil {
		key, err = s.c.Keys.Key(ctx, key.ID)
	}
	return s.changed(ctx, c, "disable", name, key, err)
}

// DestroyKeyVersion destroys the device object of a version.
func (s *Service) DestroyKeyVersion(ctx context.Context, c *access.Caller, name string, version int) (*signer.Key, error) {
	if err := need(c); err != nil {
		return nil, err
	}
	key, err := s.tenantKey(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if key.Version(version) == nil {
		return nil, fmt.Errorf("%w: %s has no version %d", signer.ErrNoKey, name, version)
	}
	if err = s.c.Ring.Destroy(ctx, key.ID, version); err == nil {
		key, err = s.c.Keys.Key(ctx, key.ID)
	}
	return s.changed(ctx, c, "destroy", name, key, err)
}

// AttestKeyVersion has the device make evidence; version 0 is the active one.
func (s *Service) AttestKeyVersion(ctx context.Context, c *access.Caller, name string, version int, nonce []byte) (*signer.Evidence, error) {
	key, v, err := s.KeyVersion(ctx, c, name, version)
	if err != nil {
		return nil, err
	}
	if err := s.budget.Take(s.c.Now(), c.Tenant, c.Name, name, 1); err != nil {
		return nil, err
	}
	leave, err := s.gate(v.Device).Enter(ctx, c.Tenant, c.Name)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.c.Ring.Attest(ctx, key.ID, v.Number, nonce)
}

// KeyVersion returns a version of a key; 0 is the active one.
func (s *Service) KeyVersion(ctx context.Context, c *access.Caller, name string, version int) (*signer.Key, *signer.Version, error) {
	key, err := s.tenantKey(ctx, c, name)
	if err != nil {
		return nil, nil, err
	}
	if version == 0 {
		if v := key.Active(); v != nil {
			return key, v, nil
		}
		return nil, nil, fmt.Errorf("%w: key %s has no active version", signer.ErrKeyState, name)
	}
	v := key.Version(version)
	if v == nil {
		return nil, nil, fmt.Errorf("%w: %s has no version %d", signer.ErrNoKey, name, version)
	}
	return key, v, nil
}
