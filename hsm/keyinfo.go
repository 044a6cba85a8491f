package hsm

import (
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
)

// A KeyClass is the PKCS#11 class of the object that does the work.
type KeyClass string

// The classes of keys.
const (
	ClassPrivate KeyClass = "private" // CKO_PRIVATE_KEY
	ClassSecret  KeyClass = "secret"  // CKO_SECRET_KEY
)

// Attributes are a key's attributes as the module states them. They are kept as
// evidence, but they are the module's claim and prove nothing. An attribute that
// the module does not show counts as false, CKA_EXTRACTABLE as true.
type Attributes struct {
	Token            bool `json:"token"`            // CKA_TOKEN
	Private          bool `json:"private"`          // CKA_PRIVATE
	Sensitive        bool `json:"sensitive"`        // CKA_SENSITIVE
	Extractable      bool `json:"extractable"`      // CKA_EXTRACTABLE
	AlwaysSensitive  bool `json:"alwaysSensitive"`  // CKA_ALWAYS_SENSITIVE
	NeverExtractable bool `json:"neverExtractable"` // CKA_NEVER_EXTRACTABLE
	Local            bool `json:"local"`            // CKA_LOCAL
	Sign             bool `json:"sign"`             // CKA_SIGN
	Derive           bool `json:"derive"`           // CKA_DERIVE
}

// Weak lists the attributes that a key held by hardware should have and this
// one does not, by their PKCS#11 names.
func (a Attributes) Weak() []string {
	var weak []string
	for _, c := range []struct {
		name string
		good bool
	}{
		{"CKA_SENSITIVE", a.Sensitive},
		{"CKA_EXTRACTABLE", !a.Extractable},
		{"CKA_ALWAYS_SENSITIVE", a.AlwaysSensitive},
		{"CKA_NEVER_EXTRACTABLE", a.NeverExtractable},
		{"CKA_LOCAL", a.Local},
	} {
		if !c.good {
			weak = append(weak, c.name)
		}
	}
	return weak
}

// weakNames are the values that Config.AdmitWeak takes.
var weakNames = []string{"CKA_SENSITIVE", "CKA_EXTRACTABLE", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_LOCAL"}

// A Fingerprint tells keys apart that have the same name: it covers class,
// type, id, label and the public point, or for a secret key a check value.
type Fingerprint [sha256.Size]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:8]) }

// MarshalText writes all of the fingerprint in hexadecimal.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(f[:])), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	if len(text) != 2*len(f) {
		return fmt.Errorf("hsm: a fingerprint has %d hexadecimal digits, not %d", 2*len(f), len(text))
	}
	_, err := hex.Decode(f[:], text)
	return err
}

// KeyInfo describes a key on a token.
type KeyInfo struct {
	Class      KeyClass   `json:"class"`
	Type       KeyType    `json:"type"` // "" when this package cannot use the key
	ID         []byte     `json:"id"`
	Label      string     `json:"label"`
	Public     []byte     `json:"public,omitempty"` // uncompressed point, or 32 bytes
	Attributes Attributes `json:"attributes"`
	// Weak lists what Attributes.Weak finds.
	Weak []string `json:"weak,omitempty"`
	// Problem says why the key cannot be used, "" when it can.
	Problem     string      `json:"problem,omitempty"`
	Fingerprint Fingerprint `json:"fingerprint"`
}

// URI names the key's object; join it with the token's URI by Token.KeyURI.
func (k KeyInfo) URI() URI {
	u := URI{ID: k.ID, Object: k.Label, Type: "private"}
	if k.Class == ClassSecret {
		u.Type = "secret-key"
	}
	return u
}

// Uses lists what the key's attributes permit.
func (k KeyInfo) Uses() []Use {
	var uses []Use
	for _, u := range k.Type.Uses() {
		if u == UseAgree && k.Attributes.Derive || u != UseAgree && k.Attributes.Sign {
			uses = append(uses, u)
		}
	}
	return uses
}

// Allows reports whether the key's attributes permit the use.
func (k KeyInfo) Allows(u Use) bool { return slices.Contains(k.Uses(), u) }

// PublicKey is the public key as the standard library has it for a use:
// *ecdsa.PublicKey or ed25519.PublicKey to sign, *ecdh.PublicKey to agree. For a
// MAC it is nil.
func (k KeyInfo) PublicKey(u Use) (crypto.PublicKey, error) {
	c := curveOf(k.Type)
	switch {
	case u == UseMAC:
		return nil, nil
	case c == nil || !slices.Contains(k.Type.Uses(), u):
		return nil, fmt.Errorf("%w: a %s key is not for %q", ErrKeyUse, k.Type, u)
	case u == UseAgree:
		return c.ecdhKey(k.Public)
	}
	return c.publicKey(k.Public)
}

// name describes the key in an error message.
func (k KeyInfo) name() string { return fmt.Sprintf("%q id %x", k.Label, k.ID) }

// fingerprint computes the Fingerprint; check is the public point or the check
// value of a secret.
func fingerprint(class KeyClass, t KeyType, id []byte, label string, check []byte) Fingerprint {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(class), []byte(t), id, []byte(label), check} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return Fingerprint(h.Sum(nil))
}

// A KeySpec says which key to make.
type KeySpec struct {
	Type  KeyType `json:"type"`
	Use   Use     `json:"use"` // "" where the type has only one
	Label string  `json:"label"`
	// ID is CKA_ID; 16 random bytes when empty.
	ID []byte `json:"id,omitempty"`
	// FreshID says that ID was drawn at random for this key, so that the token
	// is not searched for another of that id, which takes most modules time
	// linear in their keys. It needs an ID of 16 octets or more.
	FreshID bool `json:"fresh_id,omitempty"`
}

// Limits of a KeySpec.
const (
	maxLabel = 255
	maxID    = 64
	freshID  = 16 // least octets of an id that nobody else draws
)

// check completes and validates a KeySpec.
func (s *KeySpec) check() error {
	uses := s.Type.Uses()
	if len(uses) == 0 {
		return fmt.Errorf("hsm: there is no key type %q; choose one of %v", s.Type, KeyTypes)
	}
	if s.Use == "" && len(uses) == 1 {
		s.Use = uses[0]
	}
	switch {
	case !slices.Contains(uses, s.Use):
		return fmt.Errorf("%w: %s keys are made for %v, not for %q", ErrKeyUse, s.Type, uses, s.Use)
	case s.Label == "" || len(s.Label) > maxLabel:
		return fmt.Errorf("hsm: a key needs a label of 1 to %d bytes", maxLabel)
	case len(s.ID) > maxID:
		return fmt.Errorf("hsm: an id has at most %d bytes", maxID)
	case s.FreshID && len(s.ID) > 0 && len(s.ID) < freshID:
		return fmt.Errorf("hsm: an id that was drawn at random has at least %d bytes", freshID)
	}
	return nil
}
