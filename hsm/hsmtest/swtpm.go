package hsmtest

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A swtpm is one software TPM on a Unix socket, behind a resource manager such
// as a kernel has, since the clients cannot do without. The TSS connects anew
// for each command.
type swtpm struct {
	daemon          // listens on behind
	front    string // the socket that clients connect to
	behind   string // the TPM's own
	listener net.Listener

	mu        sync.Mutex // guards conn and resources
	conn      net.Conn   // to the TPM, nil until a client needs it
	resources *resources // of that connection
}

func newSWTPM(t testing.TB, dir string) *swtpm {
	t.Helper()
	state := filepath.Join(dir, "tpm")
	mkdir(t, state)
	if out, err := command(t, nil, "swtpm_setup", "--tpm2", "--tpmstate", state, "--createek", "--overwrite").CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	s := &swtpm{front: filepath.Join(dir, "tpm.sock"), behind: filepath.Join(dir, "behind.sock")}
	s.daemon.name = "swtpm"
	s.daemon.socket = s.behind
	s.daemon.args = []string{
		"socket", "--tpm2", "--tpmstate", "dir=" + state,
		"--server", "type=unixio,path=" + s.behind, "--ctrl", "type=unixio,path=" + s.control(),
		"--flags", "not-need-init,startup-clear",
	}
	var err error
	if s.listener, err = net.Listen("unix", s.front); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(s.serve)
	t.Cleanup(func() {
		s.listener.Close()
		s.kill()
		serving.Wait()
	})
	return s
}

// control is the TPM's control socket. The TSS wants it beside the command
// socket, with .ctrl appended.
func (s *swtpm) control() string { return s.front + ".ctrl" }

// tcti names the TPM to the TSS.
func (s *swtpm) tcti() string { return "swtpm:path=" + s.front }

func (s *swtpm) start(t testing.TB) {
	t.Helper()
	os.Remove(s.control())
	s.daemon.start(t)
	if !waitFor(startWait, func() bool { return accepts(s.control()) }) {
		t.Fatalf("swtpm has no control socket; %s", tail(&s.daemon.log))
	}
}

// kill stops the TPM and ends the connection to it.
func (s *swtpm) kill() {
	s.daemon.kill()
	s.hangUp()
}

func (s *swtpm) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn = nil
}

// manager returns what stands between the clients and the running TPM.
func (s *swtpm) manager() (*resources, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.resources, nil
	}
	conn, err := net.Dial("unix", s.behind)
	if err != nil {
		return nil, err
	}
	if s.resources, err = newResources(conn); err != nil {
		conn.Close()
		return nil, err
	}
	s.conn = conn
	return s.resources, nil
}

// serve takes the clients one after another.
func (s *swtpm) serve() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		if err := s.relay(client); err != nil {
			s.hangUp()
		}
		client.Close()
	}
}

// relay carries commands and responses until the client hangs up.
func (s *swtpm) relay(client net.Conn) error {
	tpm, err := s.manager()
	if err != nil {
		return err
	}
	for {
		command, err := readTPM(client)
		if err != nil {
			return nil // the client has what it wanted
		}
		response, err := tpm.execute(command)
		if err != nil {
			return err
		}
		if _, err := client.Write(response); err != nil {
			return nil
		}
	}
}
