package mls

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"golang.org/x/crypto/chacha20poly1305"
)

// A suite holds the algorithms of a cipher suite (section 5.1).
type suite struct {
	id         CipherSuite
	kem        hpke.KEM
	kdf        hpke.KDF
	aead       hpke.AEAD
	hash       crypto.Hash
	newHash    func() hash.Hash
	kdfs       *sync.Pool // of *kdf
	newAEAD    func(key []byte) (cipher.AEAD, error)
	nk, nn, nh int
	sig        sigScheme
}

var suites = map[CipherSuite]*suite{
	X25519AES128SHA256Ed25519: {
		id:  X25519AES128SHA256Ed25519,
		kem: hpke.DHKEM(ecdh.X25519()), kdf: hpke.HKDFSHA256(), aead: hpke.AES128GCM(),
		hash: crypto.SHA256, newHash: sha256.New, kdfs: kdfsSHA256, newAEAD: newGCM, nk: 16, nn: 12, nh: 32, sig: sigEd25519,
	},
	P256AES128SHA256P256: {
		id:  P256AES128SHA256P256,
		kem: hpke.DHKEM(ecdh.P256()), kdf: hpke.HKDFSHA256(), aead: hpke.AES128GCM(),
		hash: crypto.SHA256, newHash: sha256.New, kdfs: kdfsSHA256, newAEAD: newGCM, nk: 16, nn: 12, nh: 32, sig: sigP256,
	},
	X25519ChaCha20SHA256Ed25519: {
		id:  X25519ChaCha20SHA256Ed25519,
		kem: hpke.DHKEM(ecdh.X25519()), kdf: hpke.HKDFSHA256(), aead: hpke.ChaCha20Poly1305(),
		hash: crypto.SHA256, newHash: sha256.New, kdfs: kdfsSHA256, newAEAD: chacha20poly1305.New, nk: 32, nn: 12, nh: 32, sig: sigEd25519,
	},
	P521AES256SHA512P521: {
		id:  P521AES256SHA512P521,
		kem: hpke.DHKEM(ecdh.P521()), kdf: hpke.HKDFSHA512(), aead: hpke.AES256GCM(),
		hash: crypto.SHA512, newHash: sha512.New, kdfs: kdfsSHA512, newAEAD: newGCM, nk: 32, nn: 12, nh: 64, sig: sigP521,
	},
	P384AES256SHA384P384: {
		id:  P384AES256SHA384P384,
		kem: hpke.DHKEM(ecdh.P384()), kdf: hpke.HKDFSHA384(), aead: hpke.AES256GCM(),
		hash: crypto.SHA384, newHash: sha512.New384, kdfs: kdfsSHA384, newAEAD: newGCM, nk: 32, nn: 12, nh: 48, sig: sigP384,
	},
}

// CipherSuites lists the cipher suites that this package implements.
func CipherSuites() []CipherSuite {
	return []CipherSuite{
		X25519AES128SHA256Ed25519, P256AES128SHA256P256, X25519ChaCha20SHA256Ed25519,
		P521AES256SHA512P521, P384AES256SHA384P384,
	}
}

// Supported reports whether this package implements the cipher suite.
func (c CipherSuite) Supported() bool { return suites[c] != nil }

// KEM returns the suite's KEM, with which init keys are made, or nil if the
// suite is not supported.
func (c CipherSuite) KEM() hpke.KEM {
	if s := suites[c]; s != nil {
		return s.kem
	}
	return nil
}

func lookupSuite(c CipherSuite) (*suite, error) {
	s := suites[c]
	if s == nil {
		return nil, fmt.Errorf("%w: cipher suite 0x%04x", ErrUnsupported, uint16(c))
	}
	return s, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

const labelPrefix = "MLS 1.0 "

func (s *suite) sum(parts ...[]byte) []byte {
	h := s.newHash()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(make([]byte, 0, s.nh))
}

func (s *suite) mac(key, data []byte) []byte {
	h := hmac.New(s.newHash, key)
	h.Write(data)
	return h.Sum(make([]byte, 0, s.nh))
}

func (s *suite) verifyMAC(key, data, tag []byte) bool {
	return subtle.ConstantTimeCompare(s.mac(key, data), tag) == 1
}

func (s *suite) extract(salt, ikm []byte) []byte {
	prk, err := hkdf.Extract(s.newHash, ikm, salt)
	if err != nil {
		panic("mls: HKDF-Extract refused its input: " + err.Error())
	}
	return prk
}

// refHash is RefHash (section 5.2).
func (s *suite) refHash(label string, value []byte) []byte {
	b := tlsvec.NewBuilder(len(label) + len(value) + 8)
	b.String(label)
	b.Vector(value)
	return s.sum(b.Bytes())
}

// expandWithLabel is ExpandWithLabel (section 8).
//
//	struct {
//	    uint16 length;
//	    opaque label<V>;
//	    opaque context<V>;
//	} KDFLabel;
func (s *suite) expandWithLabel(secret []byte, label string, context []byte, length int) []byte {
	if length < 0 || length > 255*s.nh {
		panic(fmt.Sprintf("mls: HKDF-Expand to %d octets", length))
	}
	out := make([]byte, length)
	k := s.kdfs.Get().(*kdf)
	k.expandWithLabel(secret, label, context, out)
	s.kdfs.Put(k)
	return out
}

// deriveSecret is DeriveSecret (section 8).
func (s *suite) deriveSecret(secret []byte, label string) []byte {
	return s.expandWithLabel(secret, label, nil, s.nh)
}

// deriveTreeSecret is DeriveTreeSecret (section 9.1).
func (s *suite) deriveTreeSecret(secret []byte, label string, generation uint32, length int) []byte {
	g := [4]byte{byte(generation >> 24), byte(generation >> 16), byte(generation >> 8), byte(generation)}
	return s.expandWithLabel(secret, label, g[:], length)
}

func (s *suite) zero() []byte { return make([]byte, s.nh) }

// random returns fresh octets. crypto/rand does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// An HPKECiphertext is one HPKE encryption.
//
//	struct {
//	    opaque kem_output<V>;
//	    opaque ciphertext<V>;
//	} HPKECiphertext;
type HPKECiphertext struct {
	KEMOutput  []byte
	Ciphertext []byte
}

func (c *HPKECiphertext) marshal(b *tlsvec.Builder) {
	b.Vector(c.KEMOutput)
	b.Vector(c.Ciphertext)
}

func (c *HPKECiphertext) unmarshal(r *tlsvec.Reader) {
	c.KEMOutput = r.Vector()
	c.Ciphertext = r.Vector()
}

// encryptContext is the info of EncryptWithLabel (section 5.1.3).
//
//	struct {
//	  opaque label<V>;
//	  opaque context<V>;
//	} EncryptContext;
func encryptContext(label string, context []byte) []byte {
	b := tlsvec.NewBuilder(len(labelPrefix) + len(label) + len(context) + 8)
	b.String(labelPrefix + label)
	b.Vector(context)
	return b.Bytes()
}

// seal encrypts with an EncryptContext that was built before.
func (s *suite) seal(publicKey, info, plaintext []byte) (HPKECiphertext, error) {
	pk, err := s.kem.NewPublicKey(publicKey)
	if err != nil {
		return HPKECiphertext{}, fmt.Errorf("mls: HPKE public key: %w", err)
	}
	enc, sender, err := hpke.NewSender(pk, s.kdf, s.aead, info)
	if err != nil {
		return HPKECiphertext{}, fmt.Errorf("mls: HPKE encryption: %w", err)
	}
	ct, err := sender.Seal(nil, plaintext)
	if err != nil {
		return HPKECiphertext{}, fmt.Errorf("mls: HPKE encryption: %w", err)
	}
	return HPKECiphertext{enc, ct}, nil
}

// encryptWithLabel is EncryptWithLabel (section 5.1.3).
func (s *suite) encryptWithLabel(publicKey []byte, label string, context, plaintext []byte) (HPKECiphertext, error) {
	return s.seal(publicKey, encryptContext(label, context), plaintext)
}

// decryptWithLabel is DecryptWithLabel (section 5.1.3). The key may be held
// by a device.
func (s *suite) decryptWithLabel(k hpke.PrivateKey, label string, context []byte, c HPKECiphertext) ([]byte, error) {
	if k.KEM().ID() != s.kem.ID() {
		return nil, errors.New("mls: the private key is for another KEM than the cipher suite's")
	}
	if err := s.checkPublicKey(c.KEMOutput); err != nil {
		return nil, fmt.Errorf("%w: kem_output: %w", ErrDecrypt, err)
	}
	r, err := hpke.NewRecipient(c.KEMOutput, k, s.kdf, s.aead, encryptContext(label, context))
	if err != nil { // the device, if there is one
		return nil, fmt.Errorf("mls: HPKE decryption: %w", err)
	}
	pt, err := r.Open(nil, c.Ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: HPKE: %w", ErrDecrypt, err)
	}
	return pt, nil
}

// deriveKeyPair is KEM.DeriveKeyPair with the length of its input checked.
func (s *suite) deriveKeyPair(ikm []byte) (hpke.PrivateKey, error) {
	if len(ikm) < s.nh {
		return nil, errors.New("mls: too little input for a key pair")
	}
	return s.kem.DeriveKeyPair(ikm)
}

// checkPublicKey refuses octets that are no public key of the suite's KEM.
func (s *suite) checkPublicKey(b []byte) error {
	if s.sig.curve == nil && lowOrder(b) {
		return errLowOrder
	}
	_, err := s.kem.NewPublicKey(b)
	return err
}

const externalInitLabel = labelPrefix + "external init secret"

// externalInit makes a new init secret for the holders of externalPub
// (section 8.3).
func (s *suite) externalInit(externalPub []byte) (kemOutput, initSecret []byte, err error) {
	pk, err := s.kem.NewPublicKey(externalPub)
	if err != nil {
		return nil, nil, fmt.Errorf("mls: external_pub: %w", err)
	}
	enc, sender, err := hpke.NewSender(pk, s.kdf, s.aead, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("mls: external init: %w", err)
	}
	secret, err := sender.Export(externalInitLabel, s.nh)
	return enc, secret, err
}

// receiveExternalInit is the members' side of externalInit.
func (s *suite) receiveExternalInit(kemOutput, externalSecret []byte) ([]byte, error) {
	priv, err := s.deriveKeyPair(externalSecret)
	if err != nil {
		return nil, err
	}
	r, err := hpke.NewRecipient(kemOutput, priv, s.kdf, s.aead, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: external init: %w", ErrDecrypt, err)
	}
	return r.Export(externalInitLabel, s.nh)
}
