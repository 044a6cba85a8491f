package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A Transport carries one command to a TPM and brings back its answer. It is
// the seam at which faults are put in by tests and traces by tools, and the
// interface that go-tpm's commands are executed on.
type Transport = transport.TPM

// Limits of a command and an answer (Part 2, 6.13: TPM_PT_MAX_COMMAND_SIZE and
// TPM_PT_MAX_RESPONSE_SIZE are 4096 in every TPM we know).
const (
	maxMessage = 4096
	headerSize = 10
)

// A wire is a connected stream or device. Reads and writes end at the deadline.
type wire interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// dial connects to the TPM.
func dial(ctx context.Context, a Address) (wire, error) {
	switch a.scheme {
	case "device":
		return openDeviceFile(a.rest)
	case "unix", "tcp":
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, a.scheme, a.rest)
		if err != nil {
			return nil, err
		}
		return newSocket(c)
	}
	return nil, fmt.Errorf("%w: the address is empty", ErrAddress)
}

// A conn is one kept connection. A command that fails on it breaks it: the
// answer that was not read must never be taken for that of the next command.
//
// A TPM takes one command at a time. Who has read an answer writes the command
// that waits longest, before looking at the answer, so that the TPM does not
// stand still while its answer is checked or another caller wakes up.
type conn struct {
	w wire

	mu      sync.Mutex    // guards the fields below
	timeout time.Duration // of the commands that are written from now on
	broken  error
	closed  bool
	busy    bool          // somebody has the wire
	waiting []*sending    // in the order they came
	freed   chan struct{} // made by close when the wire is busy, and closed when it is not any more

	buf [maxMessage]byte // of who has the wire
}

// A sending is a command that waits for the wire.
type sending struct {
	command []byte
	written chan struct{} // closed when the command was written, and the wire is its caller's, or err is set
	err     error
}

// Send writes a command and reads its answer.
func (c *conn) Send(command []byte) ([]byte, error) {
	if err := c.write(command); err != nil {
		return nil, err
	}
	answer, err := readAnswer(c.w, c.buf[:])
	c.pass(err)
	if err != nil {
		return nil, wireError(err)
	}
	return answer, nil
}

// write takes the wire and writes a command, or has it written by who has the
// wire now. Without an error the wire is the caller's, who has to pass it on.
func (c *conn) write(command []byte) error {
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return c.broken
	}
	if c.busy {
		s := &sending{command: command, written: make(chan struct{})}
		c.waiting = append(c.waiting, s)
		c.mu.Unlock()
		<-s.written
		return s.err
	}
	c.busy = true
	timeout := c.timeout
	c.mu.Unlock()
	err := c.writeBy(time.Now().Add(timeout), command)
	if err != nil {
		c.pass(err)
		return wireError(err)
	}
	return nil
}

// writeBy writes a command whose answer is due at the deadline.
func (c *conn) writeBy(deadline time.Time, command []byte) error {
	if err := c.w.SetDeadline(deadline); err != nil {
		return err
	}
	_, err := c.w.Write(command)
	return err
}

// pass gives the wire to who waits longest, their command written, or frees it.
// err is what the wire failed with.
func (c *conn) pass(err error) {
	for {
		next, timeout := c.next(err)
		if next == nil {
			return
		}
		if err = c.writeBy(time.Now().Add(timeout), next.command); err == nil {
			close(next.written)
			return
		}
		next.err = wireError(err)
		close(next.written)
	}
}

// next takes the next command from the line. There is none when nobody waits or
// the wire is broken; then it is free, and closed in the second case.
func (c *conn) next(err error) (*sending, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.broken == nil {
		c.broken = wireError(err)
	}
	if c.broken == nil && len(c.waiting) > 0 {
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		return s, c.timeout
	}
	c.busy = false
	if c.broken != nil {
		_ = c.end() // broken already
	}
	return nil, 0
}

// end closes a broken wire that nobody has, and sends away who waits for it.
// The caller holds mu.
func (c *conn) end() error {
	var err error
	if !c.closed {
		c.closed = true
		err = c.w.Close()
	}
	for _, s := range c.waiting {
		s.err = c.broken
		close(s.written)
	}
	c.waiting = nil
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
	return err
}

// readAnswer reads one answer, in one read if it can. buf has room for the
// longest one. There is never more to read than the answer to one command.
//
//	struct {
//	    TPM_ST   tag;           /* TPM_ST_NO_SESSIONS or TPM_ST_SESSIONS */
//	    UINT32   responseSize;  /* the header included */
//	    TPM_RC   responseCode;
//	} TPM_RESPONSE_HEADER;      /* Part 1, 18.2 */
func readAnswer(r io.Reader, buf []byte) ([]byte, error) {
	n, err := io.ReadAtLeast(r, buf, headerSize)
	if err != nil {
		return nil, err
	}
	size, err := answerSize(buf[:headerSize])
	if err != nil {
		return nil, err
	}
	if n > size {
		return nil, fmt.Errorf("%w: %d octets after an answer of %d", ErrMalformed, n-size, size)
	}
	if n < size {
		if _, err := io.ReadFull(r, buf[n:size]); err != nil {
			return nil, err
		}
	}
	return append([]byte(nil), buf[:size]...), nil
}

func answerSize(header []byte) (int, error) {
	tag := tpm2.TPMST(binary.BigEndian.Uint16(header))
	size := binary.BigEndian.Uint32(header[2:])
	rc := tpm2.TPMRC(binary.BigEndian.Uint32(header[6:]))
	switch {
	case tag != tpm2.TPMSTNoSessions && tag != tpm2.TPMSTSessions && tag != tpm2.TPMSTRspCommand:
		return 0, fmt.Errorf("%w: tag %#04x", ErrMalformed, uint16(tag))
	case size < headerSize || size > maxMessage:
		return 0, fmt.Errorf("%w: size %d", ErrMalformed, size)
	case rc != tpm2.TPMRCSuccess && size != headerSize:
		return 0, fmt.Errorf("%w: response code %#x with %d octets", ErrMalformed, uint32(rc), size)
	}
	return int(size), nil
}

// wireError says in our terms why a connection broke.
func wireError(err error) error {
	switch {
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrGone), errors.Is(err, ErrTimeout):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it closed the connection", ErrGone)
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// close breaks the connection for good, when the command that is in the TPM has
// been answered; those that wait are sent away.
func (c *conn) close() error {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = fmt.Errorf("%w: the connection is closed", ErrGone)
	}
	if !c.busy {
		defer c.mu.Unlock()
		return c.end()
	}
	if c.freed == nil {
		c.freed = make(chan struct{})
	}
	freed := c.freed
	c.mu.Unlock()
	<-freed
	return nil
}

// A patient repeats a command that the TPM could not start. The same octets
// may be sent again: a TPM that answers TPM_RC_RETRY has not rolled the
// sessions' nonces (Part 1, 39.10).
type patient struct {
	next  Transport
	sleep func(time.Duration)
}

// busyRetries and busyWait bound how long a TPM that is testing itself is
// waited for: 20+40+80+160 ms.
const (
	busyRetries = 4
	busyWait    = 20 * time.Millisecond
)

// Send repeats the command once, at once, after TPM_RC_RETRY or
// TPM_RC_YIELDED, and a few times with growing pauses after TPM_RC_TESTING.
func (p *patient) Send(command []byte) ([]byte, error) {
	if len(command) > maxMessage {
		return nil, fmt.Errorf("a command of %d octets is longer than %d", len(command), maxMessage)
	}
	wait := busyWait
	for again := 0; ; again++ {
		answer, err := p.next.Send(command)
		if err != nil {
			return nil, wireError(err)
		}
		if err := checkAnswer(answer); err != nil {
			return nil, err
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded:
			if again == 1 {
				return answer, nil
			}
		case tpm2.TPMRCTesting:
			if again == busyRetries {
				return answer, nil
			}
			p.sleep(wait)
			wait *= 2
		default:
			return answer, nil
		}
	}
}

// checkAnswer holds what came through the seam to the same rules as what came
// over the wire.
func checkAnswer(answer []byte) error {
	if len(answer) < headerSize {
		return fmt.Errorf("%w: %d octets", ErrMalformed, len(answer))
	}
	size, err := answerSize(answer[:headerSize])
	if err != nil {
		return err
	}
	if size != len(answer) {
		return fmt.Errorf("%w: size %d in an answer of %d octets", ErrMalformed, size, len(answer))
	}
	return nil
}
