// Package pgtest runs a throw-away PostgreSQL for tests: Debian's own, its data
// in a temporary folder, reached over a Unix socket. One server serves a whole
// test binary, and each test has a database of its own in it.
//
// A package that uses it has a TestMain:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"
)

// ErrMissing is returned when PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL is not installed; run: make deps")

// startTimeout bounds how long the server may take to answer.
const startTimeout = 60 * time.Second

// A Server is a running PostgreSQL, or a stopped one that can be started again
// with the same data.
type Server struct {
	dir, bin string
	owner    *syscall.Credential // nil unless we are root, whom PostgreSQL refuses

	mu      sync.Mutex // guards cmd and stopped
	cmd     *exec.Cmd
	stopped chan struct{} // closed when the process has ended
}

var shared struct {
	sync.Mutex
	inMain bool
	server *Server
	err    error
}

var databases atomic.Int64

// Main runs the tests and stops the server that they shared.
func Main(m *testing.M) {
	shared.Lock()
	shared.inMain = true
	shared.Unlock()
	code := m.Run()
	if shared.server != nil {
		shared.server.Close()
	}
	os.Exit(code)
}

// Database makes an empty database in the shared server and returns its URL.
func Database(tb testing.TB) string {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		tb.Fatal("pgtest: the package's TestMain must call pgtest.Main")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start()
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	source, err := shared.server.NewDatabase(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return source
}

// Start makes a server and starts it. The caller must Close it.
func Start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/tmp", "pvslpg") // short, for the socket's path
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.prepare(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := s.Run(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// programs finds the folder of the newest server that is installed.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return "", ErrMissing
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func (s *Server) prepare() error {
	if os.Geteuid() == 0 {
		if err := s.ownedByPostgres(); err != nil {
			return err
		}
	}
	cmd := exec.Command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner}
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *Server) ownedByPostgres() error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.dir, int(uid), int(gid))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Run starts the server and returns when it answers. It is for a server that
// was killed or stopped; Start has done it for a new one.
func (s *Server) Run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "dynamic_shared_memory_type=mmap", "-c", "deadlock_timeout=50ms")
	cmd.Dir, cmd.Stderr = s.dir, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.cmd, s.stopped = cmd, make(chan struct{})
	started := make(chan error)
	go func(stopped chan struct{}) {
		runtime.LockOSThread() // the kernel's death signal is the thread's
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(stopped)
	}(s.stopped)
	if err := <-started; err != nil {
		return err
	}
	if err := s.await(); err != nil {
		s.end(syscall.SIGKILL)
		return fmt.Errorf("PostgreSQL does not answer: %w: %s", err, log.Bytes())
	}
	return nil
}

func (s *Server) await() error {
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	deadline := time.Now().Add(startTimeout)
	for {
		if err = db.PingContext(context.Background()); err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-s.stopped:
			return errors.New("it ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// URL returns the address of a database of the server.
func (s *Server) URL(database string) string {
	q := url.Values{"host": {s.dir}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database, RawQuery: q.Encode()}
	return u.String()
}

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(ctx context.Context) (string, error) {
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer db.Close()
	name := fmt.Sprintf("test%d", databases.Add(1))
	if _, err := db.ExecContext(ctx, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return "", err
	}
	return s.URL(name), nil
}

// Kill ends the server and all that belongs to it at once, as a loss of power
// would, save for what the operating system has already taken.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(syscall.SIGKILL)
}

// Close stops the server and removes its data.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(syscall.SIGINT)
	return os.RemoveAll(s.dir)
}

func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	syscall.Kill(-s.cmd.Process.Pid, sig)
	<-s.stopped
	if sig == syscall.SIGKILL {
		os.Remove(filepath.Join(s.data(), "postmaster.pid"))
	}
	s.cmd = nil
}
