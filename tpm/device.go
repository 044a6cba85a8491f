package tpm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Config says which TPM to open and how. Address is required; the zero value
// of everything else works.
type Config struct {
	// Address of the TPM, see ParseAddress.
	Address string

	// CommandTimeout bounds one command. The default of 30 s is far above
	// what a TPM needs for elliptic curves; a command that takes longer
	// costs the connection.
	CommandTimeout time.Duration

	// ReconnectTimeout bounds how long a call waits for a TPM that went
	// away to come back; 5 s by default.
	ReconnectTimeout time.Duration

	// SRKName, if set, is the Name of the storage root key that the TPM
	// must have (Info reports it). It keeps somebody between us and the
	// TPM from putting a key of their own in its place.
	SRKName []byte

	// AuthSource finds the authorization value of a key file that OpenKey
	// is asked for; by default the file of the same name with ".auth"
	// appended.
	AuthSource func(path string) (Auth, error)

	// PlainSessions sends authorization values and parameters in the
	// clear, for measurements only.
	PlainSessions bool

	// Wrap, if set, is put around the transport of every connection.
	Wrap func(Transport) Transport

	sleep func(time.Duration)
}

const (
	defaultCommandTimeout   = 30 * time.Second
	defaultReconnectTimeout = 5 * time.Second
	reconnectPause          = 10 * time.Millisecond
	shutdownTimeout         = 5 * time.Second
)

// A Device is an open TPM. Its methods may be called from any number of
// goroutines at once.
type Device struct {
	address Address
	config  Config

	attaching chan struct{} // a mutex with a context: who holds it makes the attachment

	mu      sync.Mutex // guards current, closed and running
	current *attachment
	closed  bool
	running sync.WaitGroup // operations that are in the TPM

	srk *object // set once by the first attachment, under attaching
}

// Open connects to the TPM, starts it if we are its only client, flushes what
// a crashed client left loaded, and makes the storage root key.
func Open(ctx context.Context, config Config) (*Device, error) {
	address, err := ParseAddress(config.Address)
	if err != nil {
		return nil, err
	}
	if config.CommandTimeout <= 0 {
		config.CommandTimeout = defaultCommandTimeout
	}
	if config.ReconnectTimeout <= 0 {
		config.ReconnectTimeout = defaultReconnectTimeout
	}
	if config.sleep == nil {
		config.sleep = time.Sleep
	}
	d := &Device{address: address, config: config, attaching: make(chan struct{}, 1)}
	if d.current, err = d.attach(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Address returns the address the device was opened with.
func (d *Device) Address() string { return d.address.String() }

// Close waits for the calls that are in the TPM, at most Config.CommandTimeout
// if it hangs, sends TPM2_Shutdown where we
// are the only client, and closes the connection. Calls made later fail with
// ErrClosed. Closing twice does nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	already := d.closed
	d.closed = true
	a := d.current
	d.current = nil
	d.mu.Unlock()
	if already {
		return nil
	}
	d.running.Wait()
	if a == nil {
		return nil
	}
	err := d.leave(a)
	return errors.Join(err, a.conn.close())
}

// leave flushes what is loaded and tells a TPM of our own that power may go:
// without that, each stop after the use of a DA-protected object counts as a
// failed authorization (Part 1, 19.8.6).
func (d *Device) leave(a *attachment) error {
	a.conn.mu.Lock()
	a.conn.timeout = min(a.conn.timeout, shutdownTimeout)
	a.conn.mu.Unlock()
	if err := a.flushLeftovers(d.address.exclusive()); err != nil {
		return err
	}
	if !d.address.exclusive() {
		return nil
	}
	_, err := run(a, tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear})
	return err
}

// attached returns the attachment in use, making a new one when the last was
// lost.
func (d *Device) attached(ctx context.Context) (*attachment, error) {
	if a, err := d.attachment(); a != nil || err != nil {
		return a, err
	}
	select {
	case d.attaching <- struct{}{}:
	case <-ctx.Done():
		return nil, waitError(d.address.String(), ctx.Err())
	}
	defer func() { <-d.attaching }()
	if a, err := d.attachment(); a != nil || err != nil {
		return a, err
	}
	a, err := d.reattach(ctx)
	if err != nil {
		return nil, err
	}
	return a, d.adopt(a)
}

func (d *Device) attachment() (*attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, d.closedError()
	}
	return d.current, nil
}

func (d *Device) closedError() error {
	return &Error{Address: d.address.String(), Class: ClassInput, Err: ErrClosed}
}

// adopt makes a new attachment the current one, unless the device was closed
// meanwhile.
func (d *Device) adopt(a *attachment) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		a.conn.close()
		return d.closedError()
	}
	d.current = a
	return nil
}

// reattach tries to come back to a TPM that is restarting, for a while.
func (d *Device) reattach(ctx context.Context) (*attachment, error) {
	limit := time.Now().Add(d.config.ReconnectTimeout)
	for pause := reconnectPause; ; pause = min(2*pause, 20*reconnectPause) {
		a, err := d.attach(ctx)
		if err == nil || !isLost(err) || ctx.Err() != nil || time.Now().After(limit) {
			return a, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, waitError(d.address.String(), ctx.Err())
		}
	}
}

// drop gives up an attachment that was lost.
func (d *Device) drop(a *attachment) {
	d.mu.Lock()
	if d.current == a {
		d.current = nil
	}
	d.mu.Unlock()
	a.conn.close()
}

// begin counts an operation in, unless the device is closed.
func (d *Device) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.closedError()
	}
	d.running.Add(1)
	return nil
}

type outcome[T any] struct {
	value T
	err   error
}

// perform runs an operation on the TPM for a caller who waits no longer than
// ctx. What has been sent to the TPM runs to its end, bounded by
// Config.CommandTimeout, so that sessions and slots stay in a known state; the
// caller does not have to wait for that.
func perform[T any](ctx context.Context, d *Device, op func(context.Context, *attachment) (T, error)) (T, error) {
	var zero T
	if err := d.begin(); err != nil {
		return zero, err
	}
	if ctx.Done() == nil {
		defer d.running.Done()
		return tryTwice(ctx, d, op)
	}
	result := make(chan outcome[T], 1)
	go func() {
		defer d.running.Done()
		v, err := tryTwice(ctx, d, op)
		result <- outcome[T]{v, err}
	}()
	select {
	case r := <-result:
		return r.value, r.err
	case <-ctx.Done():
		return zero, waitError(d.address.String(), ctx.Err())
	}
}

// tryTwice repeats an operation once when the TPM was lost under it. All our
// operations may be repeated: what a first try may have left in the TPM is
// flushed before the second.
func tryTwice[T any](ctx context.Context, d *Device, op func(context.Context, *attachment) (T, error)) (T, error) {
	for try := 1; ; try++ {
		a, err := d.attached(ctx)
		if err != nil {
			var zero T
			return zero, err
		}
		v, err := op(ctx, a)
		if !isLost(err) {
			return v, err
		}
		d.drop(a)
		if try == 2 || ctx.Err() != nil || errors.Is(err, ErrTimeout) {
			return v, err
		}
	}
}
