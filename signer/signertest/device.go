// Package signertest has a signer.Device in software, for tests: of the signer
// and of what is built on it. Its keys are in memory, or in a directory where
// they survive the process; they are never protected.
package signertest

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/privyseal/privyseal/signer"
)

// A Step is one thing that a Device does.
type Step string

// The steps.
const (
	StepGenerate Step = "generate"
	StepFind     Step = "find"
	StepOpen     Step = "open"
	StepDestroy  Step = "destroy"
	StepSign     Step = "sign"
	StepECDH     Step = "ecdh"
	StepMAC      Step = "mac"
)

// A Phase is when a fault strikes.
type Phase string

// The phases.
const (
	Before Phase = "before" // the step has no effect
	After  Phase = "after"  // the step had its effect, and its answer is lost
)

// A Device is a signer.Device in software.
type Device struct {
	dir string

	// Fault, if set, is called before and after each step; an error from it
	// is what the step returns. Set it before the Device is used.
	Fault func(Step, Phase) error
	// Stall, if set, is called before each step with its context; a step ends
	// with its error.
	Stall func(context.Context, Step) error
	// Garble, if set, changes each signature on its way out.
	Garble func(sig []byte) []byte

	// mu guards keys.
	mu   sync.Mutex
	keys map[string][]byte // encoded private keys by name
}

// New returns a Device with its keys in memory.
func New() *Device { return &Device{keys: make(map[string][]byte)} }

// NewDir returns a Device with its keys in files of dir.
func NewDir(dir string) *Device { return &Device{dir: dir} }

const scheme = "software:"

// Info describes the device.
func (d *Device) Info(context.Context) (signer.DeviceInfo, error) {
	return signer.DeviceInfo{Kind: signer.KindSoftware, Manufacturer: "signertest"}, nil
}

// Generate makes a key named after spec.ID.
func (d *Device) Generate(ctx context.Context, spec signer.KeySpec) (o *signer.Object, err error) {
	err = d.step(ctx, StepGenerate, func() error {
		encoded, err := generate(spec.Algorithm)
		if err != nil {
			return err
		}
		if err := d.put(spec.ID.String(), encoded); err != nil {
			return err
		}
		o, err = object(spec.ID.String(), spec.Algorithm, encoded)
		return err
	})
	return o, err
}

// Find returns the key named after spec.ID, or signer.ErrNoObject.
func (d *Device) Find(ctx context.Context, spec signer.KeySpec) (o *signer.Object, err error) {
	err = d.step(ctx, StepFind, func() error {
		encoded, err := d.get(spec.ID.String())
		if err != nil {
			return err
		}
		o, err = object(spec.ID.String(), spec.Algorithm, encoded)
		return err
	})
	return o, err
}

// Open opens the key.
func (d *Device) Open(ctx context.Context, uri string, a signer.Algorithm) (k signer.DeviceKey, err error) {
	err = d.step(ctx, StepOpen, func() error {
		encoded, err := d.get(strings.TrimPrefix(uri, scheme))
		if err != nil {
			return err
		}
		k, err = d.decode(a, encoded)
		return err
	})
	return k, err
}

// Destroy removes the key.
func (d *Device) Destroy(ctx context.Context, uri string, _ signer.Algorithm) error {
	return d.step(ctx, StepDestroy, func() error { return d.remove(strings.TrimPrefix(uri, scheme)) })
}

// Names returns the names of the keys that the device has.
func (d *Device) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name := range d.keys {
		names = append(names, name)
	}
	if d.dir != "" {
		files, _ := filepath.Glob(filepath.Join(d.dir, "*.key"))
		for _, f := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".key"))
		}
	}
	return names
}

func (d *Device) step(ctx context.Context, s Step, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.Stall != nil {
		if err := d.Stall(ctx, s); err != nil {
			return err
		}
	}
	if err := d.fault(s, Before); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return d.fault(s, After)
}

func (d *Device) fault(s Step, p Phase) error {
	if d.Fault == nil {
		return nil
	}
	return d.Fault(s, p)
}

func (d *Device) path(name string) string { return filepath.Join(d.dir, filepath.Base(name)+".key") }

func (d *Device) put(name string, encoded []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir != "" {
		return os.WriteFile(d.path(name), encoded, 0o600)
	}
	d.keys[name] = encoded
	return nil
}

func (d *Device) get(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir != "" {
		b, err := os.ReadFile(d.path(name))
		if os.IsNotExist(err) {
			return nil, signer.ErrNoObject
		}
		return b, err
	}
	if b, ok := d.keys[name]; ok {
		return b, nil
	}
	return nil, signer.ErrNoObject
}

func (d *Device) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir != "" {
		err := os.Remove(d.path(name))
		if os.IsNotExist(err) {
			return signer.ErrNoObject
		}
		return err
	}
	if _, ok := d.keys[name]; !ok {
		return signer.ErrNoObject
	}
	delete(d.keys, name)
	return nil
}

// generate returns a fresh private key: PKCS #8, or the octets of a MAC key.
func generate(a signer.Algorithm) ([]byte, error) {
	var key any
	var err error
	switch a {
	case signer.P256, signer.P384, signer.P521:
		curves := map[signer.Algorithm]elliptic.Curve{signer.P256: elliptic.P256(), signer.P384: elliptic.P384(), signer.P521: elliptic.P521()}
		key, err = ecdsa.GenerateKey(curves[a], rand.Reader)
	case signer.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case signer.ECDHP256:
		key, err = ecdh.P256().GenerateKey(rand.Reader)
	case signer.X25519:
		key, err = ecdh.X25519().GenerateKey(rand.Reader)
	case signer.HMACSHA256:
		secret := make([]byte, 32)
		rand.Read(secret)
		return secret, nil
	default:
		return nil, fmt.Errorf("no algorithm %q", a)
	}
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func object(name string, a signer.Algorithm, encoded []byte) (*signer.Object, error) {
	o := &signer.Object{URI: scheme + name}
	if a == signer.HMACSHA256 {
		return o, nil
	}
	private, err := parse(a, encoded)
	if err != nil {
		return nil, err
	}
	o.Public = private.(interface{ Public() crypto.PublicKey }).Public()
	return o, nil
}

// parse returns the private key; a P-256 agreement key parses as ECDSA.
func parse(a signer.Algorithm, encoded []byte) (any, error) {
	private, err := x509.ParsePKCS8PrivateKey(encoded)
	if err != nil {
		return nil, err
	}
	if e, ok := private.(*ecdsa.PrivateKey); ok && a == signer.ECDHP256 {
		return e.ECDH()
	}
	return private, nil
}

func (d *Device) decode(a signer.Algorithm, encoded []byte) (signer.DeviceKey, error) {
	if a == signer.HMACSHA256 {
		return &macKey{d: d, secret: encoded}, nil
	}
	private, err := parse(a, encoded)
	if err != nil {
		return nil, err
	}
	if x, ok := private.(*ecdh.PrivateKey); ok {
		return &agreementKey{d, x}, nil
	}
	return &signingKey{d, private.(crypto.Signer)}, nil
}

type signingKey struct {
	d *Device
	crypto.Signer
}

func (k *signingKey) Close() error { return nil }

func (k *signingKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	err = k.d.step(ctx, StepSign, func() error {
		sig, err = k.Sign(rand.Reader, digest, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	if k.d.Garble != nil {
		sig = k.d.Garble(sig)
	}
	return sig, nil
}

type agreementKey struct {
	d *Device
	*ecdh.PrivateKey
}

func (k *agreementKey) Close() error { return nil }

func (k *agreementKey) ECDHContext(ctx context.Context, remote *ecdh.PublicKey) (secret []byte, err error) {
	err = k.d.step(ctx, StepECDH, func() error {
		secret, err = k.ECDH(remote)
		return err
	})
	return secret, err
}

type macKey struct {
	d      *Device
	secret []byte
}

func (k *macKey) Close() error { return nil }

func (k *macKey) MACContext(ctx context.Context, message []byte) (tag []byte, err error) {
	err = k.d.step(ctx, StepMAC, func() error {
		h := hmac.New(sha256.New, k.secret)
		h.Write(message)
		tag = h.Sum(nil)
		return nil
	})
	return tag, err
}
