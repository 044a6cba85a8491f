package tpm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// CheckLoaded compares what the TPM has loaded with what the device believes
// to have loaded, when nothing is in flight.
func (d *Device) CheckLoaded(ctx context.Context) error {
	_, err := perform(ctx, d, func(_ context.Context, a *attachment) (struct{}, error) {
		return struct{}{}, errors.Join(a.checkObjects(), a.checkSessions())
	})
	return err
}

func (a *attachment) checkObjects() error {
	handles, err := a.handles(firstTransient)
	if err != nil {
		return err
	}
	a.slots.mu.Lock()
	defer a.slots.mu.Unlock()
	known := make(map[tpm2.TPMHandle]bool)
	for _, sl := range a.slots.loaded {
		known[sl.handle] = true
		if sl.pins != 0 {
			err = errors.Join(err, fmt.Errorf("handle %#x has %d pins", uint32(sl.handle), sl.pins))
		}
	}
	if a.slots.reserved != 0 || a.slots.quota.used != 0 || len(a.slots.quota.waiting) != 0 {
		err = errors.Join(err, fmt.Errorf("%d slots reserved, %d in use", a.slots.reserved, a.slots.quota.used))
	}
	if len(known) != len(handles) {
		err = errors.Join(err, fmt.Errorf("the TPM has %d objects loaded, the device knows %d", len(handles), len(known)))
	}
	for _, h := range handles {
		if !known[h] {
			err = errors.Join(err, fmt.Errorf("handle %#x is unknown", uint32(h)))
		}
	}
	return err
}

func (a *attachment) checkSessions() error {
	handles, err := a.handles(firstLoadedSession)
	if err != nil {
		return err
	}
	idle := len(a.sessions.hmacs) + len(a.sessions.single)
	if idle != len(handles) || a.sessions.quota.used != 0 || a.sessions.policy.used != 0 {
		return fmt.Errorf("the TPM has %d sessions, the device %d idle, %d and %d in use",
			len(handles), idle, a.sessions.quota.used, a.sessions.policy.used)
	}
	return nil
}

// GenerateDA makes a signing key that is protected against dictionary
// attacks, which the device itself never makes.
func (d *Device) GenerateDA(ctx context.Context) (*Key, error) {
	return d.generate(ctx, func(t *tpm2.TPMTPublic) { t.ObjectAttributes.NoDA = false })
}

// GenerateUnrestricted makes a key of an attestation key's scheme that anybody
// may have sign anything.
func (d *Device) GenerateUnrestricted(ctx context.Context) (*Key, error) {
	return d.generate(ctx, func(t *tpm2.TPMTPublic) {})
}

// GenerateMovable makes a key that may leave the TPM.
func (d *Device) GenerateMovable(ctx context.Context) (*Key, error) {
	return d.generate(ctx, func(t *tpm2.TPMTPublic) {
		t.ObjectAttributes.FixedTPM, t.ObjectAttributes.FixedParent = false, false
	})
}

// GenerateFreeScheme makes a signing key whose scheme the caller chooses.
func (d *Device) GenerateFreeScheme(ctx context.Context) (*Key, error) {
	return d.generate(ctx, func(t *tpm2.TPMTPublic) {
		eccTemplate(t, tpm2.TPMECCNistP256, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull})
	})
}

func (d *Device) generate(ctx context.Context, change func(*tpm2.TPMTPublic)) (*Key, error) {
	template, err := SignP256.template(nil)
	if err != nil {
		return nil, err
	}
	change(&template)
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Key, error) {
		return d.create(ctx, a, template, RandomAuth(), nil)
	})
}

// CertifyWith certifies a key with any signing key, as somebody would who
// forges evidence.
func (d *Device) CertifyWith(ctx context.Context, signer, key *Key, nonce []byte) (*Attestation, error) {
	forger := *signer
	forger.kind = AttestP256
	return d.Certify(ctx, &forger, key, nonce)
}

// WithAuth is the same key with another authorization value.
func (k *Key) WithAuth(a Auth) *Key {
	other := *k
	other.auth = a
	return &other
}

// SetInputBuffer changes the length from which a MAC takes a sequence.
func (d *Device) SetInputBuffer(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current.limits.inputBuffer = n
}

// LeaveBehind closes the connection without flushing, as a crash does.
func (d *Device) LeaveBehind() error {
	d.mu.Lock()
	a := d.current
	d.current, d.closed = nil, true
	d.mu.Unlock()
	return a.conn.close()
}

// SetSleep replaces the pauses of the retries.
func (c *Config) SetSleep(f func(time.Duration)) { c.sleep = f }

// ReadAnswer, ParseStatement and OpenDeviceFile are what fuzz targets and
// tests call directly.
var (
	ReadAnswer     = readAnswer
	ParseStatement = parseStatement
	ReadPublicArea = readPublicArea
	WireError      = wireError
	Dial           = dial
)

// NewDeviceFile drives a descriptor as if it were the kernel's TPM device.
func NewDeviceFile(fd int) wire { return &deviceFile{fd: fd} }

// OpenWire opens a device over a connection that is made already.
func OpenWire(ctx context.Context, w wire, timeout time.Duration) (*Device, error) {
	d := &Device{address: Address{"device", "/dev/test"}, attaching: make(chan struct{}, 1)}
	d.config = Config{CommandTimeout: timeout, ReconnectTimeout: time.Millisecond, sleep: time.Sleep}
	c := &conn{w: w, timeout: timeout}
	a := &attachment{address: d.address.String(), conn: c, sessions: newSessionPool()}
	a.transport = d.transportOver(c)
	d.current = a
	return d, d.prepare(ctx, a)
}
