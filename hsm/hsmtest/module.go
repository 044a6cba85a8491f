package hsmtest

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A Module is a real PKCS#11 module with one throwaway token behind it. What
// it keeps on disk is removed when the test ends.
type Module struct {
	Name       string     // as in docs/pkcs11-deviations.md, such as "softhsm"
	Path       string     // the shared object
	Env        []string   // what the process that loads it needs, as KEY=value
	InitArgs   string     // the string behind C_Initialize's pReserved, or ""
	Label      string     // CK_TOKEN_INFO.label of the token
	PINFile    string     // holds the user PIN; mode 0600
	Deviations Deviations // where this module leaves the contract of TestToken
	Dir        string     // holds all of the above and the sockets of its daemons

	Controls // what can be done to it from outside
}

// Controls are what a test can do to a token behind the module's back. A nil
// function means that there is no such thing for this module.
type Controls struct {
	// Kill stops the daemons behind the module, as a crash would.
	Kill func(t testing.TB)
	// Restart starts them again, over the same state.
	Restart func(t testing.TB)
	// Remove takes the token away, and Restore brings the same token back.
	Remove, Restore func(t testing.TB)
	// Reinit initialises the token anew, with the same label and PIN: its
	// objects are gone.
	Reinit func(t testing.TB)
	// MaxTries sets how many wrong PINs lock the device, and unlocks it.
	MaxTries func(t testing.TB, n int)
}

// URI returns the RFC 7512 URI of the token: by label, with its PIN source.
// It names no module, which is a matter of the configuration.
func (m *Module) URI() string {
	return "pkcs11:token=" + url.PathEscape(m.Label) + "?pin-source=" + url.PathEscape("file:"+m.PINFile)
}

// KeyURI returns the URI of one object of the token, by its label.
func (m *Module) KeyURI(object, class string) string {
	return "pkcs11:token=" + url.PathEscape(m.Label) + ";object=" + url.PathEscape(object) +
		";type=" + class + "?pin-source=" + url.PathEscape("file:"+m.PINFile)
}

// PIN returns the user PIN.
func (m *Module) PIN(t testing.TB) string {
	t.Helper()
	pin, err := os.ReadFile(m.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(pin)
}

// Setenv puts the module's environment into that of this process, for a test
// that loads it in process. Such a test cannot be parallel.
func (m *Module) Setenv(t testing.TB) {
	t.Helper()
	for _, kv := range m.Env {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
}

// WriteFile writes a file of mode 0600 below the module's directory and
// returns its path.
func (m *Module) WriteFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a command in the module's environment and returns what it prints.
func (m *Module) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := command(t, m.Env, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// command returns name as a command in the environment env beside the
// process's own. A program that is missing ends the test.
func command(t testing.TB, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(need(t, name), args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// need finds a program. Debian keeps daemons out of an ordinary user's PATH.
func need(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed; run: make deps", name)
	return ""
}

// needFile finds the first file that matches one of the patterns below the
// usual library folders.
func needFile(t testing.TB, patterns ...string) string {
	t.Helper()
	path := findFile(patterns...)
	if path == "" {
		t.Fatalf("%s is not installed; run: make deps", patterns[0])
	}
	return path
}

func findFile(patterns ...string) string {
	for _, dir := range []string{"/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib"} {
		for _, p := range patterns {
			found, _ := filepath.Glob(filepath.Join(dir, p))
			if slices.Sort(found); len(found) > 0 {
				return found[0]
			}
		}
	}
	return ""
}

// newDir makes a directory that is removed when the test ends: in memory where
// there is a place, since token files are synced at every write, and with a
// short name, since the sockets in it must stay below 108 octets.
func newDir(t testing.TB) string {
	t.Helper()
	parent := ""
	if probe, err := os.MkdirTemp("/dev/shm", "ps"); err == nil {
		os.Remove(probe)
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newModule returns a Module with its directory and PIN file, and no token.
func newModule(t testing.TB, name, path, label, pin string) *Module {
	t.Helper()
	m := &Module{Name: name, Path: path, Label: label, Dir: newDir(t), Deviations: deviations(name)}
	m.PINFile = m.WriteFile(t, "pin", pin)
	return m
}

// tail returns the end of a daemon's log for an error message.
func tail(log *bytes.Buffer) string {
	s := log.String()
	if len(s) > 2000 {
		s = "..." + s[len(s)-2000:]
	}
	return fmt.Sprintf("log:\n%s", s)
}
