package signer

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// A DeviceKind is a family of devices.
type DeviceKind string

// The kinds of devices.
const (
	KindPKCS11   DeviceKind = "pkcs11"
	KindTPM      DeviceKind = "tpm"
	KindSoftware DeviceKind = "software" // tests and short-lived keys only
)

// DeviceInfo describes a device to people.
type DeviceInfo struct {
	Kind         DeviceKind `json:"kind"`
	Name         string     `json:"name"` // in the configuration
	Manufacturer string     `json:"manufacturer,omitempty"`
	Model        string     `json:"model,omitempty"`
	Serial       string     `json:"serial,omitempty"`
	Label        string     `json:"label,omitempty"`
	Firmware     string     `json:"firmware,omitempty"`
	URI          string     `json:"uri,omitempty"` // of the token, or address of the TPM
}

// An ObjectID names a device object. It is chosen before the object is made,
// so that after a crash one can ask the device whether it was.
type ObjectID [16]byte

// NewObjectID returns a random ObjectID.
func NewObjectID() ObjectID {
	var id ObjectID
	rand.Read(id[:])
	return id
}

func (id ObjectID) String() string { return hex.EncodeToString(id[:]) }

// ParseObjectID is the inverse of String.
func ParseObjectID(s string) (ObjectID, error) {
	var id ObjectID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("object id of %d characters, want %d hexadecimal ones", len(s), 2*len(id))
	}
	return ObjectID(b), nil
}

// A KeySpec asks a device for a key.
type KeySpec struct {
	ID        ObjectID  // CKA_ID, or the name of the key file
	Label     string    // CKA_LABEL: key id and version, for people
	Algorithm Algorithm // also says the one use that the object may have
	Purpose   Purpose
}

// An Object is a key that a device has made.
type Object struct {
	URI      string
	Public   crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey, *ecdh.PublicKey, or nil for a MAC key
	Evidence *Evidence
}

// A Device makes keys, opens them and destroys them. Calls end when their
// context does. Errors are a *DeviceError where the device knows what helps.
type Device interface {
	// Info describes the device.
	Info(ctx context.Context) (DeviceInfo, error)
	// Generate makes the key. When it returns, the key is durable.
	Generate(ctx context.Context, spec KeySpec) (*Object, error)
	// Find returns the complete object that was made with spec.ID, or
	// ErrNoObject. Half-made objects (a public key without its private key)
	// it removes first.
	Find(ctx context.Context, spec KeySpec) (*Object, error)
	// Open returns a SigningKey, AgreementKey or MACKey for the object. The
	// key survives what the device survives; it is closed once.
	Open(ctx context.Context, uri string, a Algorithm) (DeviceKey, error)
	// Destroy removes the object for good, or returns ErrNoObject.
	Destroy(ctx context.Context, uri string, a Algorithm) error
}

// A DeviceKey is one of SigningKey, AgreementKey and MACKey.
type DeviceKey interface {
	Close() error
}

// A SigningKey signs in the device. Its methods may be called at the same time.
type SigningKey interface {
	DeviceKey
	Public() crypto.PublicKey
	// SignContext signs digest, made with opts.HashFunc(); or for Ed25519,
	// where that is zero, the message itself. An ECDSA signature is DER.
	SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// An AgreementKey does ECDH in the device.
type AgreementKey interface {
	DeviceKey
	PublicKey() *ecdh.PublicKey
	ECDHContext(ctx context.Context, remote *ecdh.PublicKey) ([]byte, error)
}

// A MACKey computes HMAC-SHA256 in the device.
type MACKey interface {
	DeviceKey
	MACContext(ctx context.Context, message []byte) ([]byte, error)
}

// A Remedy is what helps after a device failed.
type Remedy string

// The remedies.
const (
	RemedyRetry    Remedy = "retry"    // the same call may succeed now or soon
	RemedyLogin    Remedy = "login"    // the device must be logged in to again
	RemedyOperator Remedy = "operator" // a person must do something
)

// A DeviceError says which device failed in what, and what helps.
type DeviceError struct {
	Device string // name in the configuration
	Op     string // such as "sign" or "generate"
	Remedy Remedy
	Err    error
}

func (e *DeviceError) Error() string {
	return fmt.Sprintf("device %s: %s: %v", e.Device, e.Op, e.Err)
}

func (e *DeviceError) Unwrap() error { return e.Err }

// deviceError adds the device and operation to err, unless it has them.
// A cancelled context is the caller's doing and stays as it is.
func deviceError(device, op string, err error) error {
	if de, ok := errors.AsType[*DeviceError](err); ok && de.Device != "" {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("device %s: %s: %w", device, op, err)
	}
	remedy := RemedyOperator
	if inner, ok := errors.AsType[*DeviceError](err); ok {
		remedy = inner.Remedy
	}
	return &DeviceError{Device: device, Op: op, Remedy: remedy, Err: err}
}
