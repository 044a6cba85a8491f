package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/privyseal/privyseal/hsm"
)

// slowTokenEnv names a file to the module in a worker: as long as it is there, a
// login does not end; each login adds a line to it and to the one beside it.
const slowTokenEnv = "PRIVYSEAL_TEST_SLOW_TOKEN"

// A slowToken is a layer around the real module of a worker.
type slowToken struct {
	hsm.API
	file string
}

func newSlowToken(api hsm.API) hsm.API {
	if file := os.Getenv(slowTokenEnv); file != "" {
		return slowToken{api, file}
	}
	return api
}

func (s slowToken) Login(sh pkcs11.SessionHandle, user uint, pin string) error {
	f, err := os.OpenFile(s.file+".logins", os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.WriteString("login\n")
	f.Close()
	for {
		if _, err := os.Stat(s.file); errors.Is(err, os.ErrNotExist) {
			return s.API.Login(sh, user, pin)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// slowWiring has a token that does not open while the file is there.
func slowWiring(t *testing.T) (w *wiring, file string) {
	t.Helper()
	w = wireTest(t, initOptions{softHSM: true})
	file = filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.config.Devices["softhsm"].Env[slowTokenEnv] = file
	return w, file
}

// A token that takes longer to open than those who want it wait is opened all the
// same, and once.
func TestDeviceOpensSlowly(t *testing.T) {
	w, file := slowWiring(t)
	device := w.devices["softhsm"]
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := device.Info(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "being opened") {
			t.Errorf("who does not wait for the token: %v", err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Info(t.Context()); err != nil {
		t.Errorf("who waits: %v", err)
	}
	logins, err := os.ReadFile(file + ".logins")
	if err != nil || bytes.Count(logins, []byte("\n")) != 1 {
		t.Errorf("logins %q, %v; want one", logins, err)
	}
}

// A device that is being opened can be closed.
func TestDeviceClosesAsItOpens(t *testing.T) {
	w, file := slowWiring(t)
	device := w.devices["softhsm"]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := device.Info(ctx); err == nil {
		t.Error("it was opened")
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := device.Info(t.Context())
		waiting <- err
	}()
	time.Sleep(10 * time.Millisecond) // so that it most likely waits
	if err := device.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("who waited: %v", err)
	}
	if _, err := device.Info(t.Context()); err != nil {
		t.Errorf("opened again: %v", err)
	}
}
