package hsmtest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The places in which openCryptoki keeps its state. They belong to the system.
const (
	ockState  = "/var/lib/opencryptoki/swtok"
	ockShared = "/dev/shm/var.lib.opencryptoki.*" // one file for each kind of token
	ockPID    = "/var/run/pkcsslotd.pid"
	ockSocket = "/var/run/pkcsslotd.socket"
	ockSlot   = "3" // the software token's, by the configuration that Debian ships
)

// OpenCryptoki returns the software token of openCryptoki, or nil and the
// reason where it cannot be had: the package or the right to start its daemon
// is missing, or an administrator's daemon runs already. A test that has no
// module reports the reason as a condition of its result.
//
// The state of this module is system-wide: it is set aside and brought back,
// and two tests of any process take turns.
func OpenCryptoki(t testing.TB) (m *Module, missing string) {
	t.Helper()
	lib := findFile("pkcs11/libopencryptoki.so", "opencryptoki/libopencryptoki.so")
	daemon, err := exec.LookPath("/usr/sbin/pkcsslotd")
	switch {
	case lib == "" || err != nil:
		return nil, "openCryptoki is not installed; run: make deps"
	case os.Geteuid() != 0:
		return nil, "pkcsslotd needs root"
	}
	lock := lockOpenCryptoki(t)
	if pid := pkcsslotdPID(); pid != 0 && pid == startedBefore(lock) {
		killPkcsslotd(t) // left behind by a test that was killed
	} else if pid != 0 {
		return nil, "pkcsslotd already serves this machine as process " + strconv.Itoa(pid)
	}
	setAside(t)
	if out, err := exec.Command(daemon).CombinedOutput(); err != nil {
		return nil, "pkcsslotd does not start here: " + strings.TrimSpace(string(out)+" "+err.Error())
	}
	t.Cleanup(func() { killPkcsslotd(t) })
	if !waitFor(startWait, pkcsslotdListens) {
		return nil, "pkcsslotd does not listen on " + ockSocket
	}
	noteStarted(t, lock)
	m = newModule(t, "opencryptoki", lib, "privyseal-ock", UserPIN)
	m.initOpenCryptoki(t)
	m.Kill = killPkcsslotd
	m.Restart = func(t testing.TB) { t.Helper(); startPkcsslotd(t, daemon); noteStarted(t, lock) }
	return m, ""
}

// initOpenCryptoki initialises the token. Both PINs that were set by another
// must be changed before they are good for anything.
func (m *Module) initOpenCryptoki(t testing.TB) {
	t.Helper()
	const factory, initial = "87654321", "11111111"
	tool := func(args ...string) {
		t.Helper()
		m.run(t, "pkcs11-tool", append([]string{"--module", m.Path, "--slot", ockSlot}, args...)...)
	}
	tool("--init-token", "--label", m.Label, "--so-pin", factory)
	tool("--login", "--login-type", "so", "--so-pin", factory, "--change-pin", "--new-pin", soPIN)
	tool("--login", "--login-type", "so", "--so-pin", soPIN, "--init-pin", "--new-pin", initial)
	tool("--login", "--pin", initial, "--change-pin", "--new-pin", UserPIN)
}

func startPkcsslotd(t testing.TB, daemon string) {
	t.Helper()
	if out, err := exec.Command(daemon).CombinedOutput(); err != nil {
		t.Fatalf("pkcsslotd: %v\n%s", err, out)
	}
	if !waitFor(startWait, pkcsslotdListens) {
		t.Fatalf("pkcsslotd does not listen on %s", ockSocket)
	}
}

// pkcsslotdListens looks for the socket and leaves it alone: a connection that
// is closed without a word ends the daemon.
func pkcsslotdListens() bool {
	_, err := os.Stat(ockSocket)
	return err == nil
}

// lockOpenCryptoki holds a lock of the machine until the test ends.
func lockOpenCryptoki(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "privyseal-opencryptoki.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return f
}

// noteStarted writes the running daemon's process into the lock.
func noteStarted(t testing.TB, lock *os.File) {
	t.Helper()
	if _, err := lock.WriteAt(fmt.Appendf(nil, "%-10d", pkcsslotdPID()), 0); err != nil {
		t.Fatal(err)
	}
}

// startedBefore returns the process that the last test noted, or 0.
func startedBefore(lock *os.File) int {
	b := make([]byte, 10)
	if _, err := lock.ReadAt(b, 0); err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// setAside moves what the token had on this machine away until the test ends.
func setAside(t testing.TB) {
	t.Helper()
	saved := newDir(t)
	copyTree(t, ockState, saved)
	reset := func() {
		for _, pattern := range []string{ockShared, ockState + "/NVTOK.DAT", ockState + "/MK_*", ockState + "/TOK_OBJ/*"} {
			found, _ := filepath.Glob(pattern)
			for _, path := range found {
				os.Remove(path)
			}
		}
	}
	reset()
	t.Cleanup(func() { reset(); copyTree(t, saved, ockState) })
}

// copyTree copies regular files with their modes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		dest := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dest, info.Mode().Perm())
		}
		return copyFile(path, dest, info)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyFile keeps mode and owner: the module refuses files that are not its
// group's.
func copyFile(from, to string, info fs.FileInfo) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return os.Chown(to, int(st.Uid), int(st.Gid))
	}
	return nil
}

// killPkcsslotd ends the daemon and waits for its end.
func killPkcsslotd(t testing.TB) {
	t.Helper()
	pid := pkcsslotdPID()
	if pid == 0 {
		return
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if !waitFor(startWait, func() bool { return pkcsslotdPID() == 0 }) {
		t.Errorf("pkcsslotd, process %d, does not end", pid)
	}
	os.Remove(ockSocket)
	os.Remove(ockPID)
}

// pkcsslotdPID returns the process of a running daemon, or 0.
func pkcsslotdPID() int {
	b, err := os.ReadFile(ockPID)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil || !strings.Contains(string(stat), "(pkcsslotd)") || strings.Contains(string(stat), ") Z ") {
		return 0 // gone, another program, or a zombie that nobody reaped
	}
	return pid
}
