package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// The keys component watches the devices and the keys that must be there.
type keysComponent struct {
	wiring *wiring
	config *ServeConfig
	deps   deps

	journal *journal.Journal

	mu       sync.Mutex // guards what follows
	devices  map[string]deviceState
	suspects map[string]string // reasons, by device
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

	suspectsEvery = time.Second
)

func newKeysComponent(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	j, err := w.openJournal(ctx)
	if err != nil {
		return nil, err
	}
	w.ring.SetSelfTestJournal(selfTestJournal{j, d.metrics})
	return &keysComponent{wiring: w, config: s, deps: d, journal: j, devices: make(map[string]deviceState)}, nil
}

// Mounts is empty: the pages of the operator show the state of the keys.
func (k *keysComponent) Mounts() []daemon.Mount { return nil }

// Run looks at the devices, each on its own: one that hangs delays no other. It
// also has every key tested, what is left out taken in again, and the journal
// reconciled.
func (k *keysComponent) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for name, d := range k.wiring.devices {
		work.Go(func() { k.watch(ctx, name, d) })
	}
	work.Go(func() {
		k.wiring.ring.Tend(ctx, signer.TendOptions{Interval: k.testInterval(), Failed: func(err error) {
			k.deps.log.Error("the keys are not looked after", "err", err)
		}})
	})
	work.Go(func() { k.watchSuspects(ctx) })
	work.Go(func() { k.reconcile(ctx) })
	work.Wait()
	return nil
}

func (k *keysComponent) testInterval() time.Duration {
	switch s := k.config.SelfTest; {
	case s == nil:
		return 0 // the default
	case *s == 0:
		return -1
	default:
		return time.Duration(*s)
	}
}

// watchSuspects keeps the list of suspect devices for health and metrics.
func (k *keysComponent) watchSuspects(ctx context.Context) {
	tick := time.NewTicker(suspectsEvery)
	defer tick.Stop()
	for {
		list, err := k.wiring.store.Suspects(ctx)
		if err == nil {
			k.setSuspects(list)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (k *keysComponent) setSuspects(list []signer.Suspect) {
	now := make(map[string]string, len(list))
	for _, s := range list {
		now[s.Device] = s.Reason
	}
	k.mu.Lock()
	k.suspects = now
	k.mu.Unlock()
	for name := range k.wiring.devices {
		_, suspect := now[name]
		k.deps.metrics.Suspect(name, suspect)
	}
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

// look asks a device for its description, which takes a token a round trip.
func (k *keysComponent) look(ctx context.Context, name string, d signer.Device) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, err := d.Info(ctx)
	k.mu.Lock()
	before, known := k.devices[name]
	k.devices[name] = deviceState{err, time.Now()}
	k.mu.Unlock()
	k.count(name, d)
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled): // we are ending
	case err != nil && (!known || before.err == nil):
		k.deps.log.Error("device is away", "device", name, "err", err)
	case err == nil && before.err != nil:
		k.deps.log.Info("device is back", "device", name)
	}
}

// count keeps the metrics of a device.
func (k *keysComponent) count(name string, d signer.Device) {
	k.deps.metrics.DeviceUp(moduleOf(k.wiring.config.Devices[name]), name, k.deviceError(name) == nil)
	if p, ok := d.(*pkcs11Device); ok {
		k.deps.metrics.DeviceSessions(name, "limit", max(p.config.Sessions, 1)*max(p.config.Workers, 1))
	}
}

// deviceError says why a device cannot be used now, from looking at it and from
// what the ring met.
func (k *keysComponent) deviceError(name string) error {
	k.mu.Lock()
	s, reason := k.devices[name], k.suspects[name]
	k.mu.Unlock()
	switch away := k.wiring.ring.Health()[name].Away; {
	case s.err != nil:
		return s.err
	case away != nil:
		return away
	case reason != "":
		return fmt.Errorf("%w: %s", signer.ErrDeviceSuspect, reason)
	case s.looked.IsZero():
		return errNotLooked
	}
	return nil
}

var errNotLooked = errors.New("not looked at yet")

// Health shows the devices, and the critical keys.
func (k *keysComponent) Health(ctx context.Context) []daemon.Check {
	var checks []daemon.Check
	for _, name := range slices.Sorted(maps.Keys(k.wiring.devices)) {
		checks = append(checks, k.deviceCheck(name))
	}
	for _, id := range k.config.CriticalKeys {
		checks = append(checks, k.keyCheck(ctx, id))
	}
	return checks
}

func (k *keysComponent) deviceCheck(name string) daemon.Check {
	c := daemon.Check{Name: "device " + name, Status: daemon.Up}
	switch err := k.deviceError(name); {
	case errors.Is(err, errNotLooked):
		c.Status, c.Detail = daemon.Degraded, err.Error()
	case err != nil:
		c.Status, c.Detail, c.Remedy = daemon.Down, err.Error(), remedy(err)
	}
	return c
}

// remedy says what helps after a device failed.
func remedy(err error) string {
	d, ok := errors.AsType[*signer.DeviceError](err)
	switch {
	case errors.Is(err, signer.ErrDeviceSuspect):
		return "it comes back when it has passed its self-tests; else look into it, then: privyseal token trust DEVICE"
	case !ok:
		return ""
	case d.Remedy == signer.RemedyRetry:
		return "wait: it is tried again"
	case d.Remedy == signer.RemedyLogin:
		return "check the PIN source, then restart"
	}
	return "an operator must act; see: privyseal token doctor"
}

// keyCheck is down while no device has the key, and degraded while one of
// several is away.
func (k *keysComponent) keyCheck(ctx context.Context, id signer.KeyID) daemon.Check {
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
	var away []string
	for _, device := range v.Devices() {
		if k.wiring.devices[device] == nil || k.deviceError(device) != nil {
			away = append(away, device)
		}
	}
	switch len(away) {
	case 0:
		c.Status = daemon.Up
	case len(v.Devices()):
		c.Detail = "no device that holds it can be used: " + strings.Join(away, ", ")
	default:
		c.Status, c.Detail = daemon.Degraded, "devices that cannot be used: "+strings.Join(away, ", ")
	}
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

// selfTestJournal keeps self-tests in the journal, as what they are.
type selfTestJournal struct {
	journal *journal.Journal
	metrics *telemetry.Metrics
}

// selfTestCaller stands in the journal where a request has its caller.
const selfTestCaller = "self-test"

func (j selfTestJournal) BeginSelfTest(ctx context.Context, t *signer.SelfTest) (func(context.Context, []byte, error) error, error) {
	in := journal.Intent{Caller: selfTestCaller, Key: t.Key, Version: t.Version, Purpose: t.Purpose, Rule: selfTestCaller, Input: t.Octets()}
	switch t.Purpose.Use() {
	case signer.UseMAC:
		in.Operation = journal.OpMAC
	case signer.UseAgree:
		in.Operation = journal.OpAgree
	default:
		r, err := signer.ParseRequest(t.Octets())
		if err != nil {
			return nil, err
		}
		in.Operation, in.Request, in.Input = journal.OpSign, r, nil
	}
	reserved, err := j.journal.Reserve(ctx, in)
	if err != nil {
		j.metrics.AuditWriteFailed()
		return nil, err
	}
	return func(ctx context.Context, sig []byte, err error) error {
		out := journal.Outcome{Result: journal.Signed, Device: t.Device, Signature: sig}
		if err != nil {
			out = journal.Outcome{Result: journal.Unknown, Device: t.Device, ErrorClass: "self-test-failed"}
		}
		kept := reserved.Complete(ctx, out)
		if kept != nil {
			j.metrics.AuditWriteFailed()
		}
		return kept
	}, nil
}
