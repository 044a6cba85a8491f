package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// keyStorePart is the key store's name among the databases, and storeName its
// file below the state folder where there is no other.
const (
	keyStorePart = "keys"
	storeName    = keyStorePart + ".db"
)

// A wiring is the program's parts joined as the configuration says: the key
// store, the devices behind adapters, and the Keyring over both. The devices
// open when they are first used, so that commands that only read records work
// without them.
type wiring struct {
	config  *Config
	store   *signer.KeyStore
	ring    *signer.Keyring
	devices map[string]openDevice
	journal *journal.Journal // nil until openJournal
	// clientCA has the authorities of listeners whose service knows them.
	clientCA map[string]*ownClients
	// dialPeers connects to other providers; nil dials as they are named, and
	// the configuration says where they may be.
	dialPeers func(ctx context.Context, network, addr string) (net.Conn, error)
}

// An openDevice is a signer.Device with an end.
type openDevice interface {
	signer.Device
	signer.Attester
	Close(ctx context.Context) error
}

// wire reads the configuration and joins the parts.
func (a *app) wire(ctx context.Context) (*wiring, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	return newWiring(ctx, c)
}

// newWiring joins the parts of a configuration that is already read, or that
// was made in memory with its dir set. The state folder must exist.
func newWiring(ctx context.Context, c *Config) (*wiring, error) {
	if err := checkPrivateDir(c.stateDir()); err != nil {
		return nil, err
	}
	store, err := signer.OpenKeyStore(ctx, c.databaseSource(keyStorePart), nil)
	if err != nil {
		return nil, err
	}
	w := &wiring{config: c, store: store, devices: make(map[string]openDevice), clientCA: make(map[string]*ownClients)}
	plain := make(map[string]signer.Device)
	for name, d := range c.Devices {
		w.devices[name] = newDevice(name, d, c)
		plain[name] = w.devices[name]
	}
	w.ring = signer.NewKeyring(store, plain)
	return w, nil
}

func newDevice(name string, d *DeviceConfig, c *Config) openDevice {
	if d.Kind == kindTPM {
		return newTPMDevice(name, d, filepath.Join(c.stateDir(), "tpm", name))
	}
	return newPKCS11Device(name, d, c.dir)
}

// closeTime bounds how long the devices may take to close.
const closeTime = 10 * time.Second

// Close closes the keys, the devices and the store, also after ctx has ended.
func (w *wiring) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	errs := []error{w.ring.Close()}
	for _, d := range w.devices {
		errs = append(errs, d.Close(ctx))
	}
	if w.journal != nil {
		errs = append(errs, w.journal.Close())
	}
	return errors.Join(append(errs, w.store.Close())...)
}

// withWiring runs f with the parts joined, and closes them.
func (a *app) withWiring(ctx context.Context, f func(*wiring) error) error {
	w, err := a.wire(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(w), w.Close(ctx))
}

// checkPrivateDir refuses a state folder that others may look into.
func checkPrivateDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("state folder: %w; run: privyseal init", err)
	case err != nil:
		return fmt.Errorf("state folder: %w", err)
	case !info.IsDir():
		return fmt.Errorf("state folder %s is no folder", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("state folder %s has mode %04o and others may use it; if it is for Privyseal alone, run: chmod 700 %s; else choose a folder of its own", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// A gate lets one goroutine through at a time; those who wait obey their
// context, as a mutex does not let them.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) enter(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }
