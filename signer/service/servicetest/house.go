// Package servicetest joins a whole signing service for tests: key store,
// keyring, journal and callers in SQLite files, and a device that the test
// chooses.
package servicetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
	"github.com/privyseal/privyseal/signer/service"
)

// A House is a service and its parts.
type House struct {
	T       testing.TB
	Keys    *signer.KeyStore
	Ring    *signer.Keyring
	Journal *journal.Journal
	Access  *access.Store
	Service *service.Service
}

// New joins a service over devices; "soft" among them is where callers make
// keys, or the only one. change, if not nil, adjusts the configuration.
func New(t testing.TB, devices map[string]signer.Device, change func(*service.Config)) *House {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	h := &House{T: t}
	var err error
	h.Keys, err = signer.OpenKeyStore(ctx, filepath.Join(dir, "keys.db"), nil)
	h.must(err)
	h.Journal, err = journal.Open(ctx, filepath.Join(dir, "journal.db"), nil)
	h.must(err)
	h.Access, err = access.Open(ctx, filepath.Join(dir, "access.db"), nil)
	h.must(err)
	h.Ring = signer.NewKeyring(h.Keys, devices)
	c := service.Config{Keys: h.Keys, Ring: h.Ring, Journal: h.Journal}
	for name := range devices {
		c.Devices = append(c.Devices, name)
	}
	if change != nil {
		change(&c)
	}
	h.Service, err = service.New(c)
	h.must(err)
	t.Cleanup(func() {
		h.Ring.Close()
		h.Access.Close()
		h.Journal.Close()
		h.Keys.Close()
	})
	return h
}

func (h *House) must(err error) {
	h.T.Helper()
	if err != nil {
		h.T.Fatal(err)
	}
}

// Key makes a key by its full id, in the device.
func (h *House) Key(id signer.KeyID, p signer.Purpose, device string) *signer.Key {
	h.T.Helper()
	k, err := h.Ring.Create(context.Background(), signer.NewKey{ID: id, Purpose: p, Device: device})
	h.must(err)
	return k
}

// Policy puts a policy to use.
func (h *House) Policy(text string) {
	h.T.Helper()
	p, err := policy.Parse([]byte(text))
	h.must(err)
	h.Service.SetPolicy(p)
}

// Client returns a caller with grants, which are as access.ParseGrant has them.
func Client(t testing.TB, tenant, name string, grants ...string) *access.Caller {
	t.Helper()
	c := &access.Caller{Tenant: tenant, Name: name, Role: access.Client, State: access.Active}
	for _, s := range grants {
		g, err := access.ParseGrant(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Grants = append(c.Grants, g)
	}
	return c
}
