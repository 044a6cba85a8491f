package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/signer"
)

// The keys component watches the devices and the keys that must be there.
type keysComponent struct {
	wiring *wiring
	config *ServeConfig
	deps   deps

	mu      sync.Mutex // guards devices
	devices map[string]deviceState
}

// A deviceState is how the last look at a device went.
type deviceState struct {
	err    error
	looked time.Time
}

// Bounds of looking at devices.
const (
	lookEvery = 10 * time.Second
	lookTime  = 8 * time.Second
)

func newKeysComponent(_ context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	return &keysComponent{wiring: w, config: s, deps: d, devices: make(map[string]deviceState)}, nil
}

// Mounts is empty: the pages of the operator show the state of the keys.
func (k *keysComponent) Mounts() []daemon.Mount { return nil }

// Run looks at the devices, each on its own: one that hangs delays no other.
func (k *keysComponent) Run(ctx context.Context) error {
	var looks sync.WaitGroup
	for name, d := range k.wiring.devices {
		looks.Go(func() { k.watch(ctx, name, d) })
	}
	looks.Wait()
	<-ctx.Done()
	return nil
}

func (k *keysComponent) watch(ctx context.Context, name string, d signer.Device) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		k.look(ctx, name, d)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look asks a device for its description, which takes it a round trip.
func (k *keysComponent) look(ctx context.Context, name string, d signer.Device) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, err := d.Info(ctx)
	k.mu.Lock()
	before, known := k.devices[name]
	k.devices[name] = deviceState{err, time.Now()}
	k.mu.Unlock()
	switch {
	case err != nil && (!known || before.err == nil):
		k.deps.log.Error("device is away", "device", name, "err", err)
	case err == nil && before.err != nil:
		k.deps.log.Info("device is back", "device", name)
	}
}

// Health shows the devices, and the critical keys.
func (k *keysComponent) Health(ctx context.Context) []daemon.Check {
	var checks []daemon.Check
	k.mu.Lock()
	devices := maps.Clone(k.devices)
	k.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(k.wiring.devices)) {
		checks = append(checks, deviceCheck(name, devices[name]))
	}
	for _, id := range k.config.CriticalKeys {
		checks = append(checks, k.keyCheck(ctx, id, devices))
	}
	return checks
}

func deviceCheck(name string, s deviceState) daemon.Check {
	c := daemon.Check{Name: "device " + name, Status: daemon.Up}
	switch {
	case s.looked.IsZero():
		c.Status, c.Detail = daemon.Degraded, "not looked at yet"
	case s.err != nil:
		c.Status, c.Detail, c.Remedy = daemon.Down, s.err.Error(), remedy(s.err)
	}
	return c
}

// remedy says what helps after a device failed.
func remedy(err error) string {
	d, ok := errors.AsType[*signer.DeviceError](err)
	switch {
	case !ok:
		return ""
	case d.Remedy == signer.RemedyRetry:
		return "wait: it is tried again"
	case d.Remedy == signer.RemedyLogin:
		return "check the PIN source, then restart"
	}
	return "an operator must act; see: privyseal token doctor"
}

// keyCheck is down while no device has the key.
func (k *keysComponent) keyCheck(ctx context.Context, id signer.KeyID, devices map[string]deviceState) daemon.Check {
	c := daemon.Check{Name: "key " + string(id), Status: daemon.Down, Critical: true}
	key, err := k.wiring.store.Key(ctx, id)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	v := key.Active()
	if v == nil {
		c.Detail, c.Remedy = "it has no active version", fmt.Sprintf("privyseal key rotate %s", id)
		return c
	}
	if s, ok := devices[v.Device]; !ok || s.err != nil || s.looked.IsZero() {
		c.Detail = "no device that holds it is there: " + v.Device
		return c
	}
	c.Status = daemon.Up
	return c
}

// Reload has nothing to read again.
func (k *keysComponent) Reload(context.Context) (func(), error) { return nil, nil }

// sameConfig compares two configurations as they would be written.
func sameConfig(a, b *Config) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
