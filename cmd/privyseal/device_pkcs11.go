package main

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/signer"
)

// A pkcs11Device is a token as the signer wants it.
type pkcs11Device struct {
	name   string
	config *DeviceConfig
	dir    string       // relative paths of the configuration start here
	watch  *deviceWatch // nil tells nobody

	gate   gate // guards module while it is loaded and closed
	module *hsm.Module

	mu      sync.Mutex // guards the fields below
	token   *hsm.Token
	opening *opening // nil while the token is not being opened
}

func newPKCS11Device(name string, d *DeviceConfig, dir string) *pkcs11Device {
	return &pkcs11Device{name: name, config: d, dir: dir, gate: newGate()}
}

// hsmConfig says how to load the module.
func (d *pkcs11Device) hsmConfig() hsm.Config {
	c := hsm.Config{
		Path: resolve(d.dir, d.config.Module), InitArgs: d.config.InitArgs, Workers: d.config.Workers,
		Sessions: d.config.Sessions, AdmitWeak: d.config.AdmitWeak,
		StartTimeout: time.Duration(d.config.StartTimeout), CallTimeout: time.Duration(d.config.Timeout),
	}
	if d.watch != nil {
		c.Trace, c.Observe = d.watch.traceModule, d.watch.observe
	}
	for _, name := range slices.Sorted(maps.Keys(d.config.Env)) {
		c.Env = append(c.Env, name+"="+d.config.Env[name])
	}
	return c
}

// openModule loads the module, once.
func (d *pkcs11Device) openModule(ctx context.Context) (*hsm.Module, error) {
	if err := d.gate.enter(ctx); err != nil {
		return nil, err
	}
	defer d.gate.leave()
	if d.module == nil {
		m, err := hsm.Open(ctx, d.hsmConfig())
		if err != nil {
			return nil, d.wrap("load the module", err)
		}
		d.module = m
	}
	return d.module, nil
}

func (d *pkcs11Device) uriAndPIN() (u hsm.URI, pin hsm.PINSource, err error) {
	if u, err = hsm.ParseURI(d.config.Token); err != nil || d.config.PINSource == "" {
		return u, nil, err
	}
	pin, err = hsm.ParsePINSource(d.config.pinSource(d.dir))
	return u, pin, err
}

// Close logs out and unloads the module.
func (d *pkcs11Device) Close(ctx context.Context) error {
	if err := d.endOpening(ctx); err != nil {
		return err
	}
	if err := d.gate.enter(ctx); err != nil {
		return err
	}
	defer d.gate.leave()
	d.mu.Lock()
	token := d.token
	d.token = nil
	d.mu.Unlock()
	var errs []error
	if token != nil {
		errs = append(errs, token.Close(ctx))
	}
	if d.module != nil {
		errs = append(errs, d.module.Close(ctx))
	}
	d.module = nil
	return d.wrap("close", errors.Join(errs...))
}

// wrap says which device failed, and what helps.
func (d *pkcs11Device) wrap(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("device %s: %s: %w", d.name, op, err)
	case errors.Is(err, hsm.ErrKeyNotFound):
		return fmt.Errorf("device %s: %w: %w", d.name, signer.ErrNoObject, err)
	}
	remedy := signer.RemedyOperator
	e, ok := errors.AsType[*hsm.Error](err)
	switch {
	case ok && e.NeedsLogin():
		remedy = signer.RemedyLogin
	case hsm.Retryable(err):
		remedy = signer.RemedyRetry
	}
	return &signer.DeviceError{Device: d.name, Op: op, Remedy: remedy, Err: err}
}

// Info describes the token.
func (d *pkcs11Device) Info(ctx context.Context) (signer.DeviceInfo, error) {
	t, err := d.open(ctx)
	if err != nil {
		return signer.DeviceInfo{}, err
	}
	i, err := t.Info(ctx)
	return signer.DeviceInfo{
		Kind: signer.KindPKCS11, Name: d.name, Manufacturer: i.Manufacturer, Model: i.Model,
		Serial: i.Serial, Label: i.Label, Firmware: i.Firmware, URI: i.URI().String(),
	}, d.wrap("info", err)
}

// keyType returns what PKCS#11 calls an algorithm.
func keyType(a signer.Algorithm) (hsm.KeyType, hsm.Use) {
	switch a {
	case signer.ECDHP256:
		return hsm.P256, hsm.UseAgree
	case signer.X25519:
		return hsm.X25519, hsm.UseAgree
	case signer.HMACSHA256:
		return hsm.HMACSHA256, hsm.UseMAC
	}
	return hsm.KeyType(a), hsm.UseSign
}

// Generate makes a key on the token. The keyring draws the id for it.
func (d *pkcs11Device) Generate(ctx context.Context, spec signer.KeySpec) (*signer.Object, error) {
	t, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	kind, use := keyType(spec.Algorithm)
	info, err := t.Generate(ctx, hsm.KeySpec{Type: kind, Use: use, Label: spec.Label, ID: spec.ID[:], FreshID: true})
	if err != nil {
		return nil, d.wrap("generate", err)
	}
	public, err := info.PublicKey(use)
	if err != nil {
		return nil, d.wrap("generate", err)
	}
	return d.object(ctx, t, info, public)
}

// Find returns the key with that CKA_ID.
func (d *pkcs11Device) Find(ctx context.Context, spec signer.KeySpec) (*signer.Object, error) {
	t, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	info, err := t.Find(ctx, hsm.URI{ID: spec.ID[:]})
	if err != nil {
		return nil, d.wrap("find", err)
	}
	key, err := d.openKey(ctx, t, info.URI(), spec.Algorithm)
	if err != nil {
		return nil, d.wrap("open", err)
	}
	return d.object(ctx, t, info, publicOf(key, spec.Algorithm))
}

func (d *pkcs11Device) object(ctx context.Context, t *hsm.Token, info hsm.KeyInfo, public crypto.PublicKey) (*signer.Object, error) {
	token, err := t.Info(ctx)
	if err != nil {
		return nil, d.wrap("info", err)
	}
	u := info.URI()
	u.Token, u.Serial = token.Label, token.Serial
	return &signer.Object{URI: u.String(), Public: public, Evidence: &signer.Evidence{Claim: claim(token, info.Attributes)}}, nil
}

// publicOf returns the public key of a device key as the algorithm wants it:
// nil for a MAC. A key of the TPM has the methods of all of them.
func publicOf(k signer.DeviceKey, a signer.Algorithm) crypto.PublicKey {
	switch a.Use() {
	case signer.UseSign:
		return k.(signer.SigningKey).Public()
	case signer.UseAgree:
		return k.(signer.AgreementKey).PublicKey()
	}
	return nil
}

// claim is what the module says about an object: its word, and no proof.
func claim(i hsm.TokenInfo, a hsm.Attributes) *signer.AttributeClaim {
	return &signer.AttributeClaim{
		Sensitive: a.Sensitive, AlwaysSensitive: a.AlwaysSensitive, Extractable: a.Extractable,
		NeverExtractable: a.NeverExtractable, Local: a.Local,
		Module: fmt.Sprintf("%s %s %s", i.Module.Manufacturer, i.Module.Description, i.Module.Version),
		Token:  fmt.Sprintf("%s serial %s", i.Label, i.Serial), ReadAt: time.Now().UTC(),
	}
}

// Attest asks the module for the attributes again. The answer is a claim, so
// there is nothing for qualifying data to go into.
func (d *pkcs11Device) Attest(ctx context.Context, uri string, _ signer.Algorithm, qualifying []byte) (*signer.Evidence, error) {
	if len(qualifying) > 0 {
		return nil, fmt.Errorf("%w: a PKCS#11 module makes claims, which carry no nonce; only a TPM proves", signer.ErrUsage)
	}
	t, u, err := d.locate(ctx, uri)
	if err != nil {
		return nil, err
	}
	info, err := t.Find(ctx, u)
	if err != nil {
		return nil, d.wrap("find", err)
	}
	token, err := t.Info(ctx)
	if err != nil {
		return nil, d.wrap("info", err)
	}
	return &signer.Evidence{Claim: claim(token, info.Attributes)}, nil
}

func (d *pkcs11Device) locate(ctx context.Context, uri string) (*hsm.Token, hsm.URI, error) {
	u, err := hsm.ParseURI(uri)
	if err != nil {
		return nil, u, err
	}
	t, err := d.open(ctx)
	return t, u, err
}

// Open opens the key at the URI.
func (d *pkcs11Device) Open(ctx context.Context, uri string, a signer.Algorithm) (signer.DeviceKey, error) {
	t, u, err := d.locate(ctx, uri)
	if err != nil {
		return nil, err
	}
	k, err := d.openKey(ctx, t, u, a)
	return k, d.wrap("open", err)
}

func (d *pkcs11Device) openKey(ctx context.Context, t *hsm.Token, u hsm.URI, a signer.Algorithm) (signer.DeviceKey, error) {
	switch a.Use() {
	case signer.UseAgree:
		k, err := t.Agreement(ctx, u)
		return hsmAgreementKey{k, d}, err
	case signer.UseMAC:
		k, err := t.MAC(ctx, u)
		return hsmMACKey{k, d}, err
	}
	k, err := t.Signer(ctx, u)
	return hsmSigningKey{k, d}, err
}

// Destroy removes the key at the URI.
func (d *pkcs11Device) Destroy(ctx context.Context, uri string, _ signer.Algorithm) error {
	t, u, err := d.locate(ctx, uri)
	if err != nil {
		return err
	}
	return d.wrap("destroy", t.Destroy(ctx, u))
}

// The keys of hsm live as long as their token; closing one does nothing. What
// goes wrong with them is said as the signer wants it.
type (
	hsmSigningKey struct {
		*hsm.Key
		device *pkcs11Device
	}
	hsmAgreementKey struct {
		*hsm.AgreementKey
		device *pkcs11Device
	}
	hsmMACKey struct {
		*hsm.MACKey
		device *pkcs11Device
	}
)

func (hsmSigningKey) Close() error   { return nil }
func (hsmAgreementKey) Close() error { return nil }
func (hsmMACKey) Close() error       { return nil }

func (k hsmSigningKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := k.Key.SignContext(ctx, digest, opts)
	return sig, k.device.wrap("sign", err)
}

func (k hsmAgreementKey) ECDHContext(ctx context.Context, remote *ecdh.PublicKey) ([]byte, error) {
	secret, err := k.AgreementKey.ECDHContext(ctx, remote)
	return secret, k.device.wrap("ecdh", err)
}

func (k hsmMACKey) MACContext(ctx context.Context, message []byte) ([]byte, error) {
	tag, err := k.MAC(ctx, message)
	return tag, k.device.wrap("mac", err)
}

var (
	_ signer.SigningKey   = hsmSigningKey{}
	_ signer.AgreementKey = hsmAgreementKey{}
	_ signer.MACKey       = hsmMACKey{}
	_ ecdh.KeyExchanger   = hsmAgreementKey{}
)
