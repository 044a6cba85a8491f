package client

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mls"
)

// stateKeySize is the length of the key that seals the state: AES-256-GCM.
const stateKeySize = 32

// A SealPlace says what keeps the key that seals the state.
type SealPlace string

// The places.
const (
	SealDevice SealPlace = "device" // encrypted to an agreement key of the device, which must be there to open it
	SealFile   SealPlace = "file"   // in a file of mode 0600 beside the state; it protects copies of the database alone
)

// ErrSeal is returned for state that does not open: it was changed, or the key
// is another one.
var ErrSeal = errors.New("client: the state does not open with this key")

// A sealer encrypts what the state holds of secrets and plaintext.
type sealer struct {
	place SealPlace
	aead  cipher.AEAD
}

func newSealer(place SealPlace, key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &sealer{place, aead}, err
}

// seal encrypts data that belongs to one row of one kind.
func (s *sealer) seal(kind string, row, data []byte) []byte {
	return s.aead.Seal(nil, nil, data, sealAAD(kind, row))
}

func (s *sealer) open(kind string, row, sealed []byte) ([]byte, error) {
	data, err := s.aead.Open(nil, nil, sealed, sealAAD(kind, row))
	if err != nil {
		return nil, fmt.Errorf("%w: %s %x", ErrSeal, kind, row)
	}
	return data, nil
}

func sealAAD(kind string, row []byte) []byte {
	return append(append([]byte(kind), 0), row...)
}

// sealInfo binds the encrypted state key to its use.
const sealInfo = "privyseal client state 1"

// openSeal finds the state's key, or makes one. device decrypts it if it is
// not nil; else it is in the file beside the state.
func (s *store) openSeal(ctx context.Context, file string, device hpke.PrivateKey) error {
	var wrapped []byte
	var place string
	err := s.one(ctx, `SELECT wrapped, place FROM seal`, nil, &wrapped, &place)
	switch {
	case errors.Is(err, mls.ErrNotFound):
		return s.makeSeal(ctx, file, device)
	case err != nil:
		return err
	}
	key, err := unwrap(SealPlace(place), wrapped, file, device)
	if err != nil {
		return err
	}
	s.seal, err = newSealer(SealPlace(place), key)
	return err
}

func unwrap(place SealPlace, wrapped []byte, file string, device hpke.PrivateKey) ([]byte, error) {
	if place == SealFile {
		return readKeyFile(file, wrapped)
	}
	if device == nil {
		return nil, fmt.Errorf("%w: its key is encrypted to a key of the device, and none is given", ErrSeal)
	}
	key, err := hpke.Open(device, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(sealInfo), wrapped)
	if err != nil || len(key) != stateKeySize {
		return nil, fmt.Errorf("%w: the device does not decrypt it", ErrSeal)
	}
	return key, nil
}

func readKeyFile(file string, hash []byte) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 || !info.Mode().IsRegular() || info.Size() != stateKeySize {
		return nil, fmt.Errorf("client: %s must be a file of %d octets that nobody else may read; run: chmod 600 %[1]s", file, stateKeySize)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(key); subtle.ConstantTimeCompare(sum[:], hash) != 1 {
		return nil, fmt.Errorf("%w: %s is the key of another state", ErrSeal, file)
	}
	return key, nil
}

// makeSeal makes the key. A file is written before the row that says that it
// is there; one that is left from a crash in between is replaced.
func (s *store) makeSeal(ctx context.Context, file string, device hpke.PrivateKey) error {
	key := make([]byte, stateKeySize)
	rand.Read(key)
	place, wrapped, err := SealFile, []byte(nil), error(nil)
	if device != nil {
		place = SealDevice
		wrapped, err = hpke.Seal(device.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(sealInfo), key)
	} else {
		sum := sha256.Sum256(key)
		wrapped, err = sum[:], durable.WriteFile(file, key, 0o600)
	}
	if err != nil {
		return fmt.Errorf("client: storing the state's key: %w", err)
	}
	err = s.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO seal (one, wrapped, place) VALUES (1, ?, ?)`, wrapped, string(place))
		return err
	})
	if err != nil {
		return err
	}
	s.seal, err = newSealer(place, key)
	return err
}
