package hsmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// P11Kit returns SoftHSM behind a `p11-kit server`: a device at the other end
// of a socket. Kill ends the server and the child that it forked for each
// client; Restart starts the server again.
func P11Kit(t testing.TB) *Module {
	t.Helper()
	back := SoftHSM(t)
	m := newModule(t, "p11-kit", needFile(t, "pkcs11/p11-kit-client.so"), back.Label, UserPIN)
	socket := p11KitSocket(t)
	m.Env = []string{"P11_KIT_SERVER_ADDRESS=unix:path=" + socket}
	server := &daemon{
		env: back.Env, name: "p11-kit", socket: socket,
		args: []string{"server", "--foreground", "--name", socket, "--provider", back.Path, "pkcs11:"},
	}
	server.start(t)
	t.Cleanup(server.kill)
	m.Kill = func(testing.TB) { server.kill() }
	m.Restart = func(t testing.TB) { t.Helper(); server.start(t) }
	m.Reinit = back.Reinit
	return m
}

// p11KitSockets are the sockets of this process that no test uses now. A client
// module reads its server's address once, when it is loaded, and a process never
// unloads a module: tests that follow each other must have the same address.
var p11KitSockets struct {
	mu   sync.Mutex // guards the rest
	made int
	free []string
}

// p11KitSocket returns a socket for the time of the test.
func p11KitSocket(t testing.TB) string {
	p := &p11KitSockets
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		p.made++
		p.free = append(p.free, filepath.Join(os.TempDir(), fmt.Sprintf("privyseal-p11-%d-%d.sock", os.Getpid(), p.made)))
	}
	socket := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	t.Cleanup(func() {
		os.Remove(socket)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, socket)
	})
	return socket
}
