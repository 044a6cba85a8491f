// Package swtpm runs throwaway software TPMs: one swtpm process with its state
// in a temporary folder, reached over a Unix socket. Tests and the
// demonstration use it; it is no place for keys that matter, since the state
// can be copied and rolled back by whoever owns the folder.
package swtpm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrMissing is returned when the programs are not installed.
var ErrMissing = errors.New("swtpm is not installed; run: make deps")

// Config says what TPM to make. The zero value is a TPM without endorsement
// certificates, ready in a few hundredths of a second.
type Config struct {
	// Dir is the folder for state and sockets. It is made by Start, in the
	// system's place for temporary files, if it is empty. The path must be
	// short: socket paths have at most 107 octets.
	Dir string

	// Endorsement makes endorsement keys with certificates from a CA that
	// is made with the TPM (about a second).
	Endorsement bool

	// TCP listens on a free port of 127.0.0.1 instead of a Unix socket.
	TCP bool
}

// A Server is a running swtpm, or a stopped one that can be started again with
// the same state.
type Server struct {
	dir     string
	ownDir  bool
	address string
	args    []string

	mu      sync.Mutex // guards cmd and stopped
	cmd     *exec.Cmd
	stopped chan struct{} // closed when the process has ended
}

// How long swtpm may take to listen, and to stop when asked.
const (
	startTimeout = 10 * time.Second
	stopTimeout  = 5 * time.Second
)

// New makes a TPM and starts it.
func New(ctx context.Context, config Config) (*Server, error) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		return nil, ErrMissing
	}
	s := &Server{dir: config.Dir}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "swtpm")
		if err != nil {
			return nil, err
		}
		s.dir, s.ownDir = dir, true
	}
	if err := s.make(ctx, config); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) make(ctx context.Context, config Config) error {
	if err := os.MkdirAll(s.stateDir(), 0o700); err != nil {
		return err
	}
	if config.Endorsement {
		if err := s.endorse(ctx); err != nil {
			return err
		}
	}
	if err := s.listenOn(config.TCP); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.relaxLockout(ctx)
}

func (s *Server) stateDir() string { return filepath.Join(s.dir, "state") }
func (s *Server) caDir() string    { return filepath.Join(s.dir, "ca") }
func (s *Server) socket() string   { return filepath.Join(s.dir, "tpm.sock") }

// listenOn decides the address and the command line. The control socket has to
// be named after the other one for the libraries of tpm2-tools to find it.
func (s *Server) listenOn(tcp bool) error {
	server := "type=unixio,path=" + s.socket()
	s.address = "unix:" + s.socket()
	if tcp {
		port, err := freePort()
		if err != nil {
			return err
		}
		server = fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port)
		s.address = fmt.Sprintf("tcp:127.0.0.1:%d", port)
	}
	s.args = []string{"socket", "--tpm2",
		"--tpmstate", "dir=" + s.stateDir(),
		"--server", server,
		"--ctrl", "type=unixio,path=" + s.socket() + ".ctrl",
		"--flags", "not-need-init,startup-clear",
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Address returns the address in the form that tpm.Open takes.
func (s *Server) Address() string { return s.address }

// TCTI returns what the TPM2TOOLS_TCTI and TPM2OPENSSL_TCTI variables of other
// programs have to be set to.
func (s *Server) TCTI() string { return "swtpm:path=" + s.socket() }

// Start starts the process, which must not be running, and waits until it
// listens.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return errors.New("swtpm is running already")
	}
	for _, stale := range []string{s.socket(), s.socket() + ".ctrl"} {
		os.Remove(stale)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("swtpm", s.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() { cmd.Wait(); close(stopped) }()
	s.cmd, s.stopped = cmd, stopped
	return s.waitUntilListening(ctx, stopped)
}

func (s *Server) waitUntilListening(ctx context.Context, stopped <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		c, err := s.dial(ctx)
		if err == nil {
			return c.Close()
		}
		select {
		case <-stopped:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("swtpm ended at once: %s", log)
		case <-ctx.Done():
			return fmt.Errorf("swtpm does not listen: %w", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if port, ok := strings.CutPrefix(s.address, "tcp:"); ok {
		return d.DialContext(ctx, "tcp", port)
	}
	return d.DialContext(ctx, "unix", s.socket())
}

// Stop ends the process as a shutdown of the machine would (SIGTERM) and waits
// for it.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends the process at once, as a power cut would.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	cmd, stopped := s.cmd, s.stopped
	s.cmd = nil
	cmd.Process.Signal(sig)
	select {
	case <-stopped:
		return nil
	case <-time.After(stopTimeout):
		cmd.Process.Kill()
		<-stopped
		return errors.New("swtpm had to be killed")
	}
}

// Restart stops the process and starts it again: a reset of the TPM, which
// loses everything that is not persistent.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause makes the TPM hang until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends what Pause began.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return errors.New("swtpm is not running")
	}
	return s.cmd.Process.Signal(sig)
}

// CPUTime returns the CPU time that the process has taken since it was started:
// over the time that passed it is how busy the TPM is, which is one thread.
func (s *Server) CPUTime() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0, errors.New("swtpm is not running")
	}
	// The clock of another process, as clock_getcpuclockid(3) names it.
	const cpuClockScheduler = 2
	clock := int32(^s.cmd.Process.Pid)<<3 | cpuClockScheduler
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("the CPU time of swtpm: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// Close ends the process and removes the state, if Dir was made by New.
func (s *Server) Close() error {
	s.Resume() // a paused process does not end
	err := s.Kill()
	if s.ownDir {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// Roots returns the CA certificates that the endorsement certificates lead to.
func (s *Server) Roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	pem, err := s.RootsPEM()
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA of swtpm has no certificate")
	}
	return pool, nil
}

// RootsPEM returns what Roots has in PEM.
func (s *Server) RootsPEM() ([]byte, error) {
	return os.ReadFile(filepath.Join(s.caDir(), "swtpm-localca-rootca-cert.pem"))
}

// Issuer returns the certificate between the root and the endorsement
// certificates.
func (s *Server) Issuer() ([]byte, error) {
	return os.ReadFile(filepath.Join(s.caDir(), "issuercert.pem"))
}
