package tpm

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A socket is a connection whose reads and writes the runtime is not told of.
//
// A system call through the standard library is announced to the runtime, which then
// wakes the thread that watches over calls that block. The program has nothing to do
// while the TPM works, so that thread sleeps each time, and waking it costs more than
// the call: a third of what a command costs in our process. These calls cannot block,
// the socket being in non-blocking mode as all that package net makes.
type socket struct {
	net.Conn
	raw syscall.RawConn
}

// newSocket returns c as a socket, or c itself if it has no descriptor.
func newSocket(c net.Conn) (wire, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c, nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &socket{c, raw}, nil
}

// Read waits until there is something, or for the deadline, and reads once.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.call(s.raw.Read, "read", syscall.SYS_READ, b)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write writes all of b, or until the deadline.
func (s *socket) Write(b []byte) (written int, err error) {
	for written < len(b) && err == nil {
		var n int
		n, err = s.call(s.raw.Write, "write", syscall.SYS_WRITE, b[written:])
		written += n
	}
	return written, err
}

// call makes one system call on the descriptor, when it is ready for it.
func (s *socket) call(ready func(func(uintptr) bool) error, name string, number uintptr, b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = ready(func(fd uintptr) bool {
		var r uintptr
		for errno = syscall.EINTR; errno == syscall.EINTR; {
			r, _, errno = syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		}
		n = int(r)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil: // closed, or the deadline
		return 0, err
	case errno != 0:
		return 0, os.NewSyscallError(name, errno)
	}
	return n, nil
}
