package hsm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

const secretPIN = "hunter2secret"

func TestPINNeverPrints(t *testing.T) {
	pin := hsm.NewPIN([]byte(secretPIN))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("login", "pin", pin)
	encoded, err := json.Marshal(struct{ P hsm.PIN }{pin})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		fmt.Sprint(pin), fmt.Sprintf("%v %+v %#v %s %q %x %d", pin, pin, pin, pin, pin, pin, pin), fmt.Sprint(&pin),
		fmt.Sprintf("%+v", struct{ P hsm.PIN }{pin}), log.String(), string(encoded), fmt.Sprintf("%+v", hsm.PINValue(pin)),
	} {
		if strings.Contains(s, secretPIN) || strings.Contains(s, fmt.Sprintf("%x", secretPIN)) || strings.Contains(s, "104 117") {
			t.Errorf("printed: %s", s)
		}
	}
}

func TestPINFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		says       string
	}{
		{"its owner's", secretPIN + "\n", 0o600, ""},
		{"read-only", secretPIN, 0o400, ""},
		{"with a line end of DOS", secretPIN + "\r\n", 0o600, ""},
		{"readable by the group", secretPIN, 0o640, "chmod 600"},
		{"readable by all", secretPIN, 0o604, "chmod 600"},
		{"writable by the group", secretPIN, 0o620, "chmod 600"},
		{"empty", "\n", 0o600, "empty"},
		{"of two lines", "1234\n5678\n", 0o600, "one line"},
		{"too long", strings.Repeat("1", 256), 0o600, "more than 255"},
		{"with a NUL", "12\x0034", 0o600, "one line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pin")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			source, err := hsm.ParsePINSource("file:" + path)
			if err != nil {
				t.Fatal(err)
			}
			checkSource(t, source, c.says)
		})
	}
}

// checkSource reads a source and wants the PIN, or an error that says why not
// and does not repeat what was read.
func checkSource(t *testing.T, source hsm.PINSource, says string) {
	t.Helper()
	_, err := source.PIN(t.Context())
	switch {
	case says == "" && err != nil:
		t.Errorf("the PIN was not read: %v", err)
	case says != "" && (!errors.Is(err, hsm.ErrPINSource) || !strings.Contains(err.Error(), says)):
		t.Errorf("got %v, want an error with %q", err, says)
	case err != nil && (strings.Contains(err.Error(), secretPIN) || strings.Contains(err.Error(), "5678")):
		t.Errorf("the error repeats the PIN: %v", err)
	}
}

func TestPINFileMustBeAFile(t *testing.T) {
	checkSource(t, hsm.PINFile(t.TempDir()), "regular file")
	checkSource(t, hsm.PINFile(filepath.Join(t.TempDir(), "none")), "no such file")
}

func TestPINCredential(t *testing.T) {
	dir := t.TempDir()
	source, err := hsm.ParsePINSource("credential:token-pin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	checkSource(t, source, "LoadCredential=")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	checkSource(t, source, "LoadCredential=")
	if err := os.WriteFile(filepath.Join(dir, "token-pin"), []byte(secretPIN), 0o400); err != nil {
		t.Fatal(err)
	}
	checkSource(t, source, "")
}

func TestPINDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := syscall.Dup(int(r.Fd())) // the source closes it
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, secretPIN)
	w.Close()
	source, err := hsm.ParsePINSource(fmt.Sprintf("fd:%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	checkSource(t, source, "")
	checkSource(t, source, "") // kept, as it can be read only once
}

func TestParsePINSourceRefuses(t *testing.T) {
	for _, s := range []string{"", "1234", "env:PIN", "fd:", "fd:0", "fd:2", "fd:x", "fd:-1", "credential:", "credential:../x", "credential:a/b",
		"file:", "file://host/pin", "exec:cat", "|cat /pin", "prompt:now"} {
		if _, err := hsm.ParsePINSource(s); !errors.Is(err, hsm.ErrPINSource) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"/run/pin", "file:/run/pin", "file:///run/pin", "file://localhost/run/pin", "file:pin", "fd:3", "credential:pin", "prompt"} {
		if _, err := hsm.ParsePINSource(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}
