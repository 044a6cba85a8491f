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
	var dialer net.Dialer
	switch a.scheme {
	case "device":
		return openDeviceFile(a.rest)
	case "unix":
		return dialer.DialContext(ctx, "unix", a.rest)
	case "tcp":
		return dialer.DialContext(ctx, "tcp", a.rest)
	}
	return nil, fmt.Errorf("%w: the address is empty", ErrAddress)
}

// A conn is one kept connection. A command that fails on it breaks it: the
// answer that was not read must never be taken for that of the next command.
type conn struct {
	w       wire
	timeout time.Duration

	mu     sync.Mutex // serialises commands; guards broken and buf
	broken error
	buf    [maxMessage]byte
}

// Send writes a command and reads its answer.
func (c *conn) Send(command []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	answer, err := c.roundTrip(command)
	if err != nil {
		c.broken = wireError(err)
		c.w.Close()
		return nil, c.broken
	}
	return answer, nil
}

func (c *conn) roundTrip(command []byte) ([]byte, error) {
	if err := c.w.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	if _, err := c.w.Write(command); err != nil {
		return nil, err
	}
	return readAnswer(c.w, c.buf[:])
}

// readAnswer reads one answer. buf has room for the longest one.
//
//	struct {
//	    TPM_ST   tag;           /* TPM_ST_NO_SESSIONS or TPM_ST_SESSIONS */
//	    UINT32   responseSize;  /* the header included */
//	    TPM_RC   responseCode;
//	} TPM_RESPONSE_HEADER;      /* Part 1, 18.2 */
func readAnswer(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:headerSize]); err != nil {
		return nil, err
	}
	size, err := answerSize(buf[:headerSize])
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, buf[headerSize:size]); err != nil {
		return nil, err
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

// close breaks the connection for good.
func (c *conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil
	}
	c.broken = fmt.Errorf("%w: the connection is closed", ErrGone)
	return c.w.Close()
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
