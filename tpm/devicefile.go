package tpm

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A deviceFile is the kernel's TPM device. It hands over an answer in one
// read, says by poll when there is one, and answers a read that came too early
// with nothing; so it is opened non-blocking and polled here, which gives it
// the deadline that the runtime's poller cannot.
type deviceFile struct {
	fd       int
	deadline time.Time
	closed   atomic.Bool // looked at between polls, since poll does not notice
	busy     sync.Mutex  // held while the descriptor is in use
	answer   []byte      // what was read from the kernel but not yet by the caller
	buf      [maxMessage]byte
}

func openDeviceFile(path string) (*deviceFile, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &deviceFile{fd: fd}, nil
}

// SetDeadline bounds the reads and writes that follow.
func (f *deviceFile) SetDeadline(t time.Time) error {
	f.deadline = t
	return nil
}

// Write gives the kernel a whole command.
func (f *deviceFile) Write(p []byte) (int, error) {
	f.busy.Lock()
	defer f.busy.Unlock()
	f.answer = nil
	if err := f.wait(unix.POLLOUT); err != nil {
		return 0, err
	}
	n, err := unix.Write(f.fd, p)
	if err != nil {
		return 0, fmt.Errorf("write to the TPM device: %w", err)
	}
	if n != len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// Read gives out the answer, which it takes from the kernel in one piece.
func (f *deviceFile) Read(p []byte) (int, error) {
	f.busy.Lock()
	defer f.busy.Unlock()
	if len(f.answer) == 0 {
		if err := f.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.answer)
	f.answer = f.answer[n:]
	return n, nil
}

func (f *deviceFile) fetch() error {
	if err := f.wait(unix.POLLIN); err != nil {
		return err
	}
	n, err := unix.Read(f.fd, f.buf[:])
	if err != nil {
		return fmt.Errorf("read from the TPM device: %w", err)
	}
	if n == 0 {
		return io.EOF
	}
	f.answer = f.buf[:n]
	return nil
}

// pollSlice is how long a closed device may go unnoticed.
const pollSlice = 50 * time.Millisecond

// wait polls until the event or the deadline.
func (f *deviceFile) wait(event int16) error {
	for {
		left := time.Until(f.deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if f.closed.Load() {
			return os.ErrClosed
		}
		fds := []unix.PollFd{{Fd: int32(f.fd), Events: event}}
		n, err := unix.Poll(fds, int(min(left, pollSlice).Milliseconds())+1)
		switch {
		case err == unix.EINTR || err == nil && n == 0:
			continue
		case err != nil:
			return fmt.Errorf("poll the TPM device: %w", err)
		case fds[0].Revents&event == 0:
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}

// Close closes the device once.
func (f *deviceFile) Close() error {
	if f.closed.Swap(true) {
		return os.ErrClosed
	}
	f.busy.Lock()
	defer f.busy.Unlock()
	return unix.Close(f.fd)
}
