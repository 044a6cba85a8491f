package hsmtest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A daemon is a background process in a process group of its own, so that it
// and what it forked can be killed together.
type daemon struct {
	env    []string
	name   string
	args   []string
	socket string // appears when the daemon is ready

	mu    sync.Mutex // guards all below
	cmd   *exec.Cmd  // nil while it does not run
	ended chan struct{}
	log   bytes.Buffer
}

// startWait bounds how long a daemon may take to listen on a busy machine.
const startWait = 20 * time.Second

func (d *daemon) start(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		t.Fatalf("%s runs already", d.name)
	}
	os.Remove(d.socket)
	cmd := command(t, d.env, d.name, d.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	started := make(chan error)
	d.ended = make(chan struct{})
	go d.run(cmd, started)
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", d.name, err)
	}
	d.cmd = cmd
	if !waitFor(startWait, func() bool { return listens(d.socket) }) {
		d.stopLocked()
		t.Fatalf("%s did not listen on %s; %s", d.name, d.socket, tail(&d.log))
	}
}

// listens reports whether a socket takes connections. Its file is there earlier:
// a client that comes in between finds a module without a token.
func listens(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// run starts the process and waits for its end on one thread: the kernel kills
// the process when the thread ends that started it, so that a test binary which
// is killed leaves nothing behind.
func (d *daemon) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer close(d.ended)
	err := cmd.Start()
	started <- err
	if err == nil {
		cmd.Wait()
	}
}

// kill ends the daemon and every process that it forked, without a warning.
func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopLocked()
}

func (d *daemon) stopLocked() {
	if d.cmd == nil {
		return
	}
	syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	<-d.ended
	d.cmd = nil
}

// waitFor asks until it is answered yes, and reports whether it was.
func waitFor(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// accepts reports whether something answers a connection to a Unix socket.
func accepts(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
