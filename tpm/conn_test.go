package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

// A stage is a wire with a TPM behind it that answers each command with the
// command's own octets after a header, when it is let.
type stage struct {
	mu      sync.Mutex // guards the fields below
	asked   []byte     // the command that was not answered yet
	written int
	closed  int
	fault   string // what goes wrong
	next    chan struct{}
}

func newStage() *stage { return &stage{next: make(chan struct{}, 1000)} }

func (s *stage) SetDeadline(time.Time) error { return nil }

func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		s.fault = "a command while another is in the TPM"
	}
	if s.closed > 0 {
		s.fault = "a command on a closed wire"
	}
	s.asked = bytes.Clone(p)
	s.written++
	return len(p), nil
}

func (s *stage) Read(p []byte) (int, error) {
	if _, ok := <-s.next; !ok {
		return 0, io.EOF
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := appendHeader(nil, 0x8001, headerSize+len(s.asked), 0)
	answer = append(answer, s.asked...)
	s.asked = nil
	return copy(p, answer), nil
}

func (s *stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *stage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

func (s *stage) check(t *testing.T, closed int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != "" {
		t.Error(s.fault)
	}
	if s.closed != closed {
		t.Errorf("closed %d times, want %d", s.closed, closed)
	}
}

// line waits until n commands wait for the wire.
func (c *conn) line(n int) {
	for {
		c.mu.Lock()
		waiting := len(c.waiting)
		c.mu.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// send sends a command of its own in the background.
func (c *conn) send(i int) <-chan error {
	done := make(chan error, 1)
	go func() {
		mine := binary.BigEndian.AppendUint32(nil, uint32(i))
		answer, err := c.Send(mine)
		if err == nil && !bytes.Equal(answer[headerSize:], mine) {
			err = errors.New("the answer to another command")
		}
		done <- err
	}()
	return done
}

// TestConnGivesEachItsAnswer: one command is in the TPM at a time, and the next
// one is there already when the answer to the one before is handed out.
func TestConnGivesEachItsAnswer(t *testing.T) {
	s := newStage()
	c := &conn{w: s, timeout: time.Hour}
	const callers = 20
	var done []<-chan error
	for i := range callers {
		done = append(done, c.send(i))
		for i == 0 && s.count() == 0 {
			time.Sleep(time.Millisecond)
		}
		c.line(i)
	}
	for i, d := range done {
		s.next <- struct{}{}
		if err := <-d; err != nil {
			t.Fatal(err)
		}
		if got := s.count(); got != min(i+2, callers) {
			t.Fatalf("%d commands were written when %d were answered", got, i+1)
		}
	}
	s.check(t, 0)
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-c.send(0); !errors.Is(err, ErrGone) {
		t.Errorf("after close: %v", err)
	}
	s.check(t, 1)
}

// TestConnBreaks: who waits is told when the wire breaks.
func TestConnBreaks(t *testing.T) {
	s := newStage()
	c := &conn{w: s, timeout: time.Hour}
	first := c.send(0)
	for s.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	second, third := c.send(1), c.send(2)
	c.line(2)
	close(s.next)
	for _, d := range []<-chan error{first, second, third, c.send(3)} {
		if err := <-d; !errors.Is(err, ErrGone) {
			t.Errorf("%v", err)
		}
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if s.count() != 1 {
		t.Errorf("%d commands were written", s.count())
	}
	s.check(t, 1)
}

// TestConnCloses: the command in the TPM is answered before the wire is closed,
// and nothing is written any more.
func TestConnCloses(t *testing.T) {
	s := newStage()
	c := &conn{w: s, timeout: time.Hour}
	first := c.send(0)
	for s.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	second := c.send(1)
	c.line(1)
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- c.close() }()
	}
	for waiting := false; !waiting; {
		c.mu.Lock()
		waiting = c.freed != nil
		c.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	s.check(t, 0)
	s.next <- struct{}{}
	if err := <-first; err != nil {
		t.Errorf("the command in the TPM: %v", err)
	}
	if err := <-second; !errors.Is(err, ErrGone) {
		t.Errorf("the command that waited: %v", err)
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	if s.count() != 1 {
		t.Errorf("%d commands were written", s.count())
	}
	s.check(t, 1)
}
