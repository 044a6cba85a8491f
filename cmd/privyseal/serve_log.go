package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/translog"
)

// A TransparencyLogSection publishes the journal as a transparency log.
type TransparencyLogSection struct {
	// Origin is the log's name: a host name and path without a scheme, such as
	// signer.example.com/log. Required, and never changed.
	Origin string `json:"origin"`
	// Key is the key of purpose log-checkpoint. Required.
	Key signer.KeyID `json:"key"`
	// Dir is the folder of the log; by default "log" in the state folder.
	Dir string `json:"dir,omitempty"`
	// Listener is where the log can be read, at /log/; by default nowhere.
	Listener string `json:"listener,omitempty"`
	// Interval is the time between checkpoints while the log grows; default 1s.
	Interval Duration `json:"interval,omitzero"`
	// Witnesses is a file with the witnesses and their quorum (C2SP
	// tlog-policy). Without a quorum no checkpoint is published, unless
	// WitnessesOptional is set.
	Witnesses         string `json:"witnesses,omitempty"`
	WitnessesOptional bool   `json:"witnesses_optional,omitempty"`
}

func (t *TransparencyLogSection) check(s *ServeConfig) error {
	const at = "serve.transparency_log"
	if t == nil {
		return nil
	}
	if t.Origin == "" || t.Origin[0] < 'a' || t.Origin[0] > 'z' || strings.ContainsAny(t.Origin, " +\t\n") {
		return configErrorf(at+".origin", "%q; use a host name and path, such as signer.example.com/log", t.Origin)
	}
	if _, err := signer.ParseKeyID(string(t.Key)); err != nil {
		return configErrorf(at+".key", "%w", err)
	}
	if t.Interval > 0 && time.Duration(t.Interval) < 100*time.Millisecond {
		return configErrorf(at+".interval", "less than 100ms")
	}
	if t.Listener != "" {
		return s.checkListener(at+".listener", t.Listener)
	}
	return nil
}

// logDir is the folder of the log.
func (c *Config) logDir() string {
	if c.Serve != nil && c.Serve.TransparencyLog != nil && c.Serve.TransparencyLog.Dir != "" {
		return resolve(c.dir, c.Serve.TransparencyLog.Dir)
	}
	return filepath.Join(c.stateDir(), "log")
}

// vkeyPath is the file with the log's verifier key.
func (c *Config) vkeyPath() string { return filepath.Join(c.stateDir(), "log.vkey") }

// The log component feeds the log. It starts when the key can be had, and
// again when that ends: a device may be away, and a key may be rotated.
type logComponent struct {
	wiring  *wiring
	config  *TransparencyLogSection
	deps    deps
	journal *journal.Journal
	policy  []byte

	mu  sync.Mutex // guards err
	err error
}

func newLogComponent(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error) {
	t := s.TransparencyLog
	if t == nil {
		return nil, nil
	}
	l := &logComponent{wiring: w, config: t, deps: d, err: errors.New("not started yet")}
	var err error
	if t.Witnesses != "" {
		if l.policy, err = readBounded(resolve(w.config.dir, t.Witnesses), maxCredentialFile); err != nil {
			return nil, configErrorf("serve.transparency_log.witnesses", "%w", err)
		}
	}
	l.journal, err = w.openJournal(ctx)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Mounts shows the log.
func (l *logComponent) Mounts() []daemon.Mount {
	if l.config.Listener == "" {
		return nil
	}
	return []daemon.Mount{{Listener: l.config.Listener, Pattern: "GET /log/", Handler: translog.Mounted("/log/", l.wiring.config.logDir())}}
}

const (
	logPoll  = 200 * time.Millisecond
	logRetry = 5 * time.Second
)

// Run feeds the log until ctx ends.
func (l *logComponent) Run(ctx context.Context) error {
	for {
		err := l.feed(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.set(err)
		l.deps.log.Error("transparency log stands still", "err", err)
		select {
		case <-time.After(logRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *logComponent) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *logComponent) feed(ctx context.Context) error {
	key, err := l.wiring.ring.Signer(ctx, l.config.Key, signer.PurposeLogCheckpoint)
	if err != nil {
		return err
	}
	if err := addVKey(l.wiring.config.vkeyPath(), l.config.Origin, key); err != nil {
		return err
	}
	sign, err := translog.NewJournalSigner(context.WithoutCancel(ctx), l.journal, key, l.config.Origin)
	if err != nil {
		return err
	}
	return l.run(ctx, key, sign)
}

func (l *logComponent) run(ctx context.Context, key *signer.Signer, sign note.Signer) error {
	log, err := translog.Open(ctx, l.journal, translog.Options{Dir: l.wiring.config.logDir(), Signer: sign, Log: l.deps.log,
		Interval: time.Duration(l.config.Interval), Witnesses: l.policy, WitnessesOptional: l.config.WitnessesOptional})
	if err != nil {
		return err
	}
	l.set(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go l.watchKey(ctx, key, cancel)
	err = log.Run(ctx, logPoll)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return errors.Join(err, log.Close(context.WithoutCancel(ctx)))
}

// watchKey ends a run when another version of the key has become active.
func (l *logComponent) watchKey(ctx context.Context, key *signer.Signer, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(logRetry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := l.wiring.store.Key(ctx, key.Key().ID)
		if err == nil && (now.Active() == nil || now.Active().Number != key.Version()) {
			cancel(fmt.Errorf("version %d of key %s is not active any more; the log starts again with the new one", key.Version(), now.ID))
			return
		}
	}
}

// addVKey puts the log's verifier key at the end of a file, if it is not there:
// after a rotation, older checkpoints are by older keys.
func addVKey(path, origin string, key *signer.Signer) error {
	vkey, err := translog.VerifierKey(origin, key.Public())
	if err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if strings.Contains(string(old), vkey) {
		return nil
	}
	return durable.WriteFile(path, append(old, vkey+"\n"...), 0o644)
}

// Health says whether the log grows.
func (l *logComponent) Health(context.Context) []daemon.Check {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := daemon.Check{Name: "transparency log", Status: daemon.Up}
	if l.err != nil {
		c.Status, c.Detail = daemon.Degraded, l.err.Error()
	}
	return []daemon.Check{c}
}

// Reload has nothing to read again.
func (l *logComponent) Reload(context.Context) (func(), error) { return nil, nil }
