package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

// A tpmDevice is a TPM as the signer wants it. A key is a TSS2 file in dir,
// named after its ObjectID, with its authorization value beside it.
type tpmDevice struct {
	name   string
	config *DeviceConfig
	dir    string
	watch  *deviceWatch // nil tells nobody

	gate   gate // guards device and ak while they are opened, made and closed
	device *tpm.Device
	ak     *tpm.Key
}

func newTPMDevice(name string, d *DeviceConfig, dir string) *tpmDevice {
	return &tpmDevice{name: name, config: d, dir: dir, gate: newGate()}
}

// open connects to the TPM, once.
func (d *tpmDevice) open(ctx context.Context) (*tpm.Device, error) {
	if err := d.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer d.gate.leave()
	return d.connect(ctx)
}

func (d *tpmDevice) connect(ctx context.Context) (_ *tpm.Device, err error) {
	if d.device != nil {
		return d.device, nil
	}
	srk, err := hex.DecodeString(d.config.SRKName)
	if err != nil {
		return nil, err
	}
	c := tpm.Config{Address: d.config.Address, CommandTimeout: time.Duration(d.config.Timeout)}
	if len(srk) > 0 {
		c.SRKName = srk
	}
	d.device, err = tpm.Open(ctx, c)
	return d.device, d.wrap("open", err)
}

// attestationKey opens the device's attestation key, or makes it.
func (d *tpmDevice) attestationKey(ctx context.Context) (*tpm.Key, error) {
	if err := d.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer d.gate.leave()
	if d.ak != nil {
		return d.ak, nil
	}
	t, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	d.ak, err = d.openOrMakeAK(ctx, t)
	return d.ak, d.wrap("attestation key", err)
}

// openOrMakeAK holds a lock on the folder, so that of two processes that are
// the first to want the attestation key one makes it and the other opens it.
func (d *tpmDevice) openOrMakeAK(ctx context.Context, t *tpm.Device) (*tpm.Key, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(d.dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // which unlocks it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	path := filepath.Join(d.dir, "attestation.tss2")
	if _, err = os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return d.makeKey(ctx, t, tpm.AttestP256, path, "attestation key")
	}
	return t.OpenKey(ctx, tpm.KeyURI{File: path}.String())
}

// Close closes the connection.
func (d *tpmDevice) Close(ctx context.Context) error {
	if err := d.gate.enter(ctx); err != nil {
		return err
	}
	defer d.gate.leave()
	if d.device == nil {
		return nil
	}
	err := d.device.Close()
	d.device, d.ak = nil, nil
	return d.wrap("close", err)
}

// wrap says which device failed, and what helps.
func (d *tpmDevice) wrap(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("device %s: %s: %w", d.name, op, err)
	case errors.Is(err, signer.ErrUsage), errors.Is(err, signer.ErrNoObject):
		return fmt.Errorf("device %s: %w", d.name, err)
	case errors.Is(err, os.ErrNotExist) && !is[*tpm.Error](err):
		return fmt.Errorf("device %s: %w: %w", d.name, signer.ErrNoObject, err)
	}
	remedy := signer.RemedyOperator
	if c := tpm.ClassOf(err); c == tpm.ClassRetry || c == tpm.ClassGone {
		remedy = signer.RemedyRetry
	}
	return &signer.DeviceError{Device: d.name, Op: op, Remedy: remedy, Err: err}
}

// Info describes the TPM.
func (d *tpmDevice) Info(ctx context.Context) (signer.DeviceInfo, error) {
	t, err := d.open(ctx)
	if err != nil {
		return signer.DeviceInfo{}, err
	}
	return signer.DeviceInfo{Kind: signer.KindTPM, Name: d.name, URI: t.Address()}, nil
}

// tpmKind returns what the TPM calls an algorithm.
func tpmKind(a signer.Algorithm) (tpm.Kind, error) {
	switch a {
	case signer.P256:
		return tpm.SignP256, nil
	case signer.P384:
		return tpm.SignP384, nil
	case signer.ECDHP256:
		return tpm.ECDHP256, nil
	case signer.HMACSHA256:
		return tpm.MACSHA256, nil
	}
	return 0, fmt.Errorf("%w: a TPM has no %s; use %s, %s, %s or %s", signer.ErrUsage, a,
		signer.P256, signer.P384, signer.ECDHP256, signer.HMACSHA256)
}

func (d *tpmDevice) path(id signer.ObjectID) string {
	return filepath.Join(d.dir, id.String()+".tss2")
}

// makeKey makes a key and its file. The authorization value is written first,
// so a key file is complete when it is there.
func (d *tpmDevice) makeKey(ctx context.Context, t *tpm.Device, kind tpm.Kind, path, description string) (*tpm.Key, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	if err := removeAuth(path); err != nil {
		return nil, err
	}
	k, err := t.GenerateKey(ctx, tpm.KeySpec{Kind: kind})
	if err != nil {
		return nil, err
	}
	return k, tpm.SaveKeyFile(path, k, description)
}

// removeAuth removes an authorization value that has no key file, left by a
// process that died between the two.
func removeAuth(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return ignoreNotExist(os.Remove(path + ".auth"))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Generate makes a key in the TPM and has its creation certified.
func (d *tpmDevice) Generate(ctx context.Context, spec signer.KeySpec) (*signer.Object, error) {
	kind, err := tpmKind(spec.Algorithm)
	if err != nil {
		return nil, err
	}
	t, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	k, err := d.makeKey(ctx, t, kind, d.path(spec.ID), spec.Label)
	if err != nil {
		return nil, d.wrap("generate", err)
	}
	return d.object(ctx, t, k, spec)
}

// Find opens the key file of that ObjectID.
func (d *tpmDevice) Find(ctx context.Context, spec signer.KeySpec) (*signer.Object, error) {
	path := d.path(spec.ID)
	if err := removeAuth(path); err != nil {
		return nil, d.wrap("find", err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, d.wrap("find", err)
	}
	t, k, err := d.openKey(ctx, tpm.KeyURI{File: path}.String())
	if err != nil {
		return nil, err
	}
	return d.object(ctx, t, k, spec)
}

func (d *tpmDevice) object(ctx context.Context, t *tpm.Device, k *tpm.Key, spec signer.KeySpec) (*signer.Object, error) {
	o := &signer.Object{URI: tpm.KeyURI{File: d.path(spec.ID)}.String()}
	o.Public = publicOf(d.deviceKey(k, spec.Algorithm), spec.Algorithm)
	e, err := d.certify(ctx, t, k, nil)
	o.Evidence = e
	return o, err
}

// certify has the attestation key certify a key, and checks the certification
// before it is kept.
func (d *tpmDevice) certify(ctx context.Context, t *tpm.Device, k *tpm.Key, nonce []byte) (*signer.Evidence, error) {
	ak, err := d.attestationKey(ctx)
	if err != nil {
		return nil, err
	}
	if len(nonce) == 0 {
		nonce = make([]byte, 32)
		rand.Read(nonce)
	}
	e, err := t.Attest(ctx, ak, k, nonce, tpm.AttestOptions{Endorsement: endorsement(ctx, t)})
	if err != nil {
		return nil, d.wrap("attest", err)
	}
	statement, err := e.Marshal()
	if err != nil {
		return nil, d.wrap("attest", err)
	}
	proof, err := checkCertification(statement, nonce, ak.Name())
	if err != nil {
		return nil, d.wrap("attest", err)
	}
	if !bytes.Equal(proof.keyName, k.Name()) {
		return nil, d.wrap("attest", errors.New("the certification is of another key"))
	}
	return &signer.Evidence{Proof: &proof.Certification}, nil
}

// endorsement returns the TPM's first endorsement key that has a certificate,
// or nil: many TPMs of virtual machines have none.
func endorsement(ctx context.Context, t *tpm.Device) *tpm.EndorsementKey {
	keys, err := t.EndorsementKeys(ctx)
	if err != nil {
		return nil
	}
	for i := range keys {
		if len(keys[i].Certificate) > 0 {
			return &keys[i]
		}
	}
	return nil
}

// A checkedProof is a certification that was verified in software.
type checkedProof struct {
	signer.Certification
	keyName  []byte
	verified *tpm.Verified
}

// checkCertification verifies a statement against the nonce that it was made
// for. akName is the Name of the attestation key that is believed, or nil.
func checkCertification(statement json.RawMessage, nonce, akName []byte) (*checkedProof, error) {
	e, err := tpm.ParseEvidence(statement)
	if err != nil {
		return nil, err
	}
	v, err := (&tpm.Verifier{Nonce: nonce, AKName: akName}).Verify(e)
	if err != nil {
		return nil, err
	}
	format := "tpm2-certify"
	if v.Created {
		format = "tpm2-certify-creation"
	}
	return &checkedProof{signer.Certification{
		Format: format, FixedTPM: v.Attributes.FixedTPM, FixedParent: v.Attributes.FixedParent,
		SensitiveDataOrigin: v.Attributes.SensitiveDataOrigin, AttestationKey: hex.EncodeToString(v.AKName),
		Statement: statement, VerifiedAt: time.Now().UTC(),
	}, v.KeyName, v}, nil
}

// Attest certifies the key again, over the asker's nonce.
func (d *tpmDevice) Attest(ctx context.Context, uri string, _ signer.Algorithm, nonce []byte) (*signer.Evidence, error) {
	t, k, err := d.openKey(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return d.certify(ctx, t, k, nonce)
}

func (d *tpmDevice) openKey(ctx context.Context, uri string) (*tpm.Device, *tpm.Key, error) {
	t, err := d.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	k, err := t.OpenKey(ctx, uri)
	return t, k, d.wrap("open", err)
}

// Open opens the key at the URI.
func (d *tpmDevice) Open(ctx context.Context, uri string, a signer.Algorithm) (signer.DeviceKey, error) {
	_, k, err := d.openKey(ctx, uri)
	if err != nil {
		return nil, err
	}
	return d.deviceKey(k, a), nil
}

// deviceKey is a key of the TPM as the signer wants it for an algorithm.
func (d *tpmDevice) deviceKey(k *tpm.Key, a signer.Algorithm) signer.DeviceKey {
	switch a.Use() {
	case signer.UseAgree:
		return tpmAgreementKey{k, d}
	case signer.UseMAC:
		return tpmMACKey{k, d}
	}
	return tpmSigningKey{k, d}
}

// Destroy removes the key file and the authorization value. Without the file
// the TPM cannot use the key any more.
func (d *tpmDevice) Destroy(_ context.Context, uri string, _ signer.Algorithm) error {
	u, err := tpm.ParseKeyURI(uri)
	if err != nil {
		return err
	}
	if u.File == "" {
		return fmt.Errorf("%w: %s is not a key file of ours", signer.ErrUsage, uri)
	}
	gone := os.Remove(u.File)
	return d.wrap("destroy", errors.Join(gone, ignoreNotExist(os.Remove(u.File+".auth"))))
}

// The keys of the TPM, which say what goes wrong as the signer wants it.
type (
	tpmSigningKey struct {
		*tpm.Key
		device *tpmDevice
	}
	tpmAgreementKey struct {
		*tpm.Key
		device *tpmDevice
	}
	tpmMACKey struct {
		*tpm.Key
		device *tpmDevice
	}
)

func (k tpmSigningKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, end := k.device.watch.traceTPM(ctx, "Sign")
	sig, err := k.Key.SignContext(ctx, digest, opts)
	end(err)
	return sig, k.device.wrap("sign", err)
}

func (k tpmAgreementKey) ECDHContext(ctx context.Context, remote *ecdh.PublicKey) ([]byte, error) {
	ctx, end := k.device.watch.traceTPM(ctx, "ECDH")
	secret, err := k.Key.ECDHContext(ctx, remote)
	end(err)
	return secret, k.device.wrap("ecdh", err)
}

func (k tpmMACKey) MACContext(ctx context.Context, message []byte) ([]byte, error) {
	ctx, end := k.device.watch.traceTPM(ctx, "HMAC")
	tag, err := k.MAC(ctx, message)
	end(err)
	return tag, k.device.wrap("mac", err)
}

var (
	_ signer.SigningKey   = tpmSigningKey{}
	_ signer.AgreementKey = tpmAgreementKey{}
	_ signer.MACKey       = tpmMACKey{}
	_ ecdh.KeyExchanger   = tpmAgreementKey{}
)
