package client

import (
	"context"
	"crypto/ecdh"
	"errors"
)

// A StateError says that the client's own state could not be read or written.
// Nothing was taken in; the same step may succeed later.
type StateError struct{ Err error }

func (e *StateError) Error() string { return "client: its state: " + e.Err.Error() }
func (e *StateError) Unwrap() error { return e.Err }

// A DeviceError says that the device which holds a key failed.
type DeviceError struct{ Err error }

func (e *DeviceError) Error() string { return "client: its device: " + e.Err.Error() }
func (e *DeviceError) Unwrap() error { return e.Err }

// ours reports whether a failure is this side's, so that what came may be good
// and is to be looked at again.
func ours(err error) bool {
	var state *StateError
	var device *DeviceError
	return errors.As(err, &state) || errors.As(err, &device) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func stateError(err error) error {
	if err == nil {
		return nil
	}
	return &StateError{err}
}

// A deviceExchanger marks the failures of a device's key, which must not count
// as those of a message.
type deviceExchanger struct{ ecdh.KeyExchanger }

func (x deviceExchanger) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	secret, err := x.KeyExchanger.ECDH(remote)
	if err != nil {
		return nil, &DeviceError{err}
	}
	return secret, nil
}
