package main

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/tpm"
)

// errNoSuchKey is found in the error for a suite whose keys a device does not
// make.
var errNoSuchKey = errors.New("the device makes no such key")

// errKeyUsage is bad usage of --key.
var errKeyUsage = errors.New("--key must be software, pkcs11:URI or tpm:ADDRESS")

// A keySource makes the keys of clients: in software or in a device.
type keySource interface {
	suites() []mls.CipherSuite
	// signer makes a signature key.
	signer(context.Context, mls.CipherSuite) (crypto.Signer, error)
	// initKey makes the init key of a KeyPackage, or returns nil where it is
	// to be made in software.
	initKey(context.Context, mls.CipherSuite) (hpke.PrivateKey, error)
	close(context.Context) error
}

// openKeys opens what --key names.
func openKeys(ctx context.Context, key string) (keySource, error) {
	kind, rest, _ := strings.Cut(key, ":")
	switch kind {
	case "software":
		if rest == "" {
			return softwareKeys{}, nil
		}
	case "pkcs11":
		return openToken(ctx, key)
	case "tpm":
		d, err := tpm.Open(ctx, tpm.Config{Address: rest})
		if err != nil {
			return nil, err
		}
		return &tpmKeys{device: d}, nil
	}
	return nil, errKeyUsage
}

// signatureCurves are those of the suites that sign with ECDSA.
var signatureCurves = map[mls.CipherSuite]elliptic.Curve{
	mls.P256AES128SHA256P256: elliptic.P256(),
	mls.P384AES256SHA384P384: elliptic.P384(),
	mls.P521AES256SHA512P521: elliptic.P521(),
}

type softwareKeys struct{}

func (softwareKeys) suites() []mls.CipherSuite { return mls.CipherSuites() }

func (softwareKeys) signer(_ context.Context, suite mls.CipherSuite) (crypto.Signer, error) {
	if curve := signatureCurves[suite]; curve != nil {
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return k, err
}

func (softwareKeys) initKey(context.Context, mls.CipherSuite) (hpke.PrivateKey, error) {
	return nil, nil
}

func (softwareKeys) close(context.Context) error { return nil }

// tokenKeys are on a PKCS#11 token. They are destroyed at the end.
type tokenKeys struct {
	module *hsm.Module
	token  *hsm.Token
	made   []hsm.URI
}

// openToken opens the module that the URI names with module-path, and the
// token, with the PIN from pin-source.
func openToken(ctx context.Context, uri string) (*tokenKeys, error) {
	u, err := hsm.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if u.ModulePath == "" {
		return nil, errors.New("the pkcs11 URI names no module; add ?module-path=PATH")
	}
	m, err := hsm.Open(ctx, hsm.Config{Path: u.ModulePath})
	if err != nil {
		return nil, err
	}
	t, err := m.OpenToken(ctx, u, nil)
	if err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	return &tokenKeys{module: m, token: t}, nil
}

// The key types of the suites on a token.
var (
	tokenSigners = map[mls.CipherSuite]hsm.KeyType{
		mls.X25519AES128SHA256Ed25519: hsm.Ed25519, mls.X25519ChaCha20SHA256Ed25519: hsm.Ed25519,
		mls.P256AES128SHA256P256: hsm.P256, mls.P384AES256SHA384P384: hsm.P384, mls.P521AES256SHA512P521: hsm.P521,
	}
	tokenInitKeys = map[mls.CipherSuite]hsm.KeyType{
		mls.P256AES128SHA256P256: hsm.P256, mls.P384AES256SHA384P384: hsm.P384, mls.P521AES256SHA512P521: hsm.P521,
	}
)

func (*tokenKeys) suites() []mls.CipherSuite { return mls.CipherSuites() }

func (k *tokenKeys) generate(ctx context.Context, t hsm.KeyType, use hsm.Use) (hsm.URI, error) {
	info, err := k.token.Generate(ctx, hsm.KeySpec{Type: t, Use: use, Label: "mls-peer"})
	if err != nil {
		return hsm.URI{}, err
	}
	k.made = append(k.made, k.token.KeyURI(info))
	return k.token.KeyURI(info), nil
}

func (k *tokenKeys) signer(ctx context.Context, suite mls.CipherSuite) (crypto.Signer, error) {
	u, err := k.generate(ctx, tokenSigners[suite], hsm.UseSign)
	if err != nil {
		return nil, err
	}
	return k.token.Signer(ctx, u)
}

func (k *tokenKeys) initKey(ctx context.Context, suite mls.CipherSuite) (hpke.PrivateKey, error) {
	t, ok := tokenInitKeys[suite]
	if !ok {
		return nil, nil
	}
	u, err := k.generate(ctx, t, hsm.UseAgree)
	if err != nil {
		return nil, err
	}
	key, err := k.token.Agreement(ctx, u)
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPrivateKey(key)
}

func (k *tokenKeys) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	for _, u := range k.made {
		errs = append(errs, k.token.Destroy(ctx, u))
	}
	return errors.Join(append(errs, k.token.Close(ctx), k.module.Close(ctx))...)
}

// tpmKeys are in a TPM, which keeps nothing of them.
type tpmKeys struct {
	device *tpm.Device
	made   []*tpm.Key
}

var tpmSigners = map[mls.CipherSuite]tpm.Kind{
	mls.P256AES128SHA256P256: tpm.SignP256, mls.P384AES256SHA384P384: tpm.SignP384,
}

func (*tpmKeys) suites() (list []mls.CipherSuite) {
	for s := range tpmSigners {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

func (k *tpmKeys) generate(ctx context.Context, kind tpm.Kind) (*tpm.Key, error) {
	key, err := k.device.GenerateKey(ctx, tpm.KeySpec{Kind: kind})
	if err == nil {
		k.made = append(k.made, key)
	}
	return key, err
}

func (k *tpmKeys) signer(ctx context.Context, suite mls.CipherSuite) (crypto.Signer, error) {
	kind, ok := tpmSigners[suite]
	if !ok {
		return nil, fmt.Errorf("cipher suite %d: %w", suite, errNoSuchKey)
	}
	return k.generate(ctx, kind)
}

func (k *tpmKeys) initKey(ctx context.Context, suite mls.CipherSuite) (hpke.PrivateKey, error) {
	if suite != mls.P256AES128SHA256P256 {
		return nil, nil
	}
	key, err := k.generate(ctx, tpm.ECDHP256)
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPrivateKey(key)
}

func (k *tpmKeys) close(context.Context) error {
	var errs []error
	for _, key := range k.made {
		errs = append(errs, key.Close())
	}
	return errors.Join(append(errs, k.device.Close())...)
}

var (
	_ ecdh.KeyExchanger = (*hsm.AgreementKey)(nil)
	_ ecdh.KeyExchanger = (*tpm.Key)(nil)
)
