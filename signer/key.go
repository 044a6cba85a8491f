package signer

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"regexp"
	"time"

	"github.com/privyseal/privyseal/internal/jose"
)

// A KeyID names a key: 1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a
// letter or digit.
type KeyID string

var keyIDPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ParseKeyID checks s and returns it as a KeyID.
func ParseKeyID(s string) (KeyID, error) {
	if !keyIDPattern.MatchString(s) {
		return "", fmt.Errorf("%w: %q is no key id; use 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit", ErrUsage, clip(s))
	}
	return KeyID(s), nil
}

// A Key is one logical key: what it is for, and its versions over time.
type Key struct {
	ID        KeyID
	Purpose   Purpose
	Algorithm Algorithm
	Labels    map[string]string
	// Unverified is true where the operator chose to release signatures of
	// this key without verifying them first. The choice is in the History.
	Unverified bool
	CreatedAt  time.Time
	Versions   []Version // ascending by Number
}

// Active returns the version that signs, or nil.
func (k *Key) Active() *Version {
	for i := range k.Versions {
		if k.Versions[i].State == StateActive {
			return &k.Versions[i]
		}
	}
	return nil
}

// Version returns the version of that number, or nil.
func (k *Key) Version(number int) *Version {
	for i := range k.Versions {
		if k.Versions[i].Number == number {
			return &k.Versions[i]
		}
	}
	return nil
}

// A State is where a version stands in its life. It only ever moves down this
// list.
type State string

// The states.
const (
	StatePending    State = "pending"     // recorded, and the device may or may not have made it yet
	StateActive     State = "active"      // signs; at most one version of a key
	StateVerifyOnly State = "verify-only" // signs no more, its signatures are still good
	StateDestroyed  State = "destroyed"   // gone from the device; the row stays
)

// A Version is one device object that serves a Key for a time.
type Version struct {
	Number   int
	State    State
	Device   string   // name of the device in the configuration
	ObjectID ObjectID // chosen before the device made the object
	URI      string   // where the object is: pkcs11: (RFC 7512) or tpm2:
	Public   []byte   // SubjectPublicKeyInfo, DER; nil for a MAC key
	KID      string   // JWK thumbprint (RFC 7638), base64url; "" for a MAC key
	Evidence *Evidence
	// Replicas are further objects that hold the key, on other devices.
	Replicas []Replica
	revision int // counts the changes of Replicas

	// Destroying is true from the decision to destroy the object until the
	// device has done so.
	Destroying bool

	CreatedAt   time.Time
	ActivatedAt time.Time
	RetiredAt   time.Time
	DestroyedAt time.Time
}

// Devices lists the devices that hold the version, its own first.
func (v *Version) Devices() []string {
	devices := []string{v.Device}
	for _, r := range v.Replicas {
		devices = append(devices, r.Device)
	}
	return devices
}

// PublicKey returns the parsed public key: *ecdsa.PublicKey, ed25519.PublicKey
// or *ecdh.PublicKey.
func (v *Version) PublicKey() (crypto.PublicKey, error) {
	if len(v.Public) == 0 {
		return nil, fmt.Errorf("version %d has no public key", v.Number)
	}
	pub, err := x509.ParsePKIXPublicKey(v.Public)
	if err != nil {
		return nil, fmt.Errorf("public key of version %d: %w", v.Number, err)
	}
	return pub, nil
}

// JWKThumbprint returns the base64url SHA-256 thumbprint of pub (RFC 7638),
// which is the kid of every key here. pub is an *ecdsa.PublicKey, an
// ed25519.PublicKey or an *ecdh.PublicKey.
func JWKThumbprint(pub crypto.PublicKey) (string, error) {
	jwk, err := JWK(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(jose.AppendJSON(nil, jwk))
	return jose.EncodeBase64(sum[:]), nil
}

// JWK returns pub with the required members only, in the order of RFC 7638
// section 3.
func JWK(pub crypto.PublicKey) (*jose.Object, error) {
	x, ok := pub.(*ecdh.PublicKey)
	if !ok {
		return jose.FormatJWK(pub)
	}
	if x.Curve() == ecdh.X25519() { // RFC 8037
		return jose.NewObject(jose.Member{Name: "crv", Value: "X25519"}, jose.Member{Name: "kty", Value: "OKP"},
			jose.Member{Name: "x", Value: jose.EncodeBase64(x.Bytes())}), nil
	}
	p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), x.Bytes())
	if err != nil {
		return nil, fmt.Errorf("no JWK for a key on %v: %w", x.Curve(), err)
	}
	return jose.FormatJWK(p)
}
