package tpm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A socket does what package net's connections do: it writes all of what does not
// fit at once, ends at the deadline, and says when the other end has gone.
func TestSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	s, err := newSocket(near)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.(*socket); !ok {
		t.Fatalf("a unix connection is a %T", s)
	}

	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than a socket holds
	written := make(chan error, 1)
	go func() {
		n, err := s.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		written <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("what was written did not arrive: %v", err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}

	if err := s.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read with nothing to read: %v", err)
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(got); err != nil || string(got[:n]) != "answer" {
		t.Errorf("read %q, %v", got[:n], err)
	}

	far.Close()
	if n, err := s.Read(got); n != 0 || err != io.EOF {
		t.Errorf("a read after the other end has gone: %d, %v", n, err)
	}
	if _, err := s.Write([]byte("command")); err == nil {
		t.Error("written to nobody")
	}
	s.Close()
	if _, err := s.Read(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read after the close: %v", err)
	}
}
