package tpm

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxAuth is the longest authorization value of an object whose name algorithm
// is SHA-256 (Part 1, 17.6.4.2).
const maxAuth = 32

// An Auth is the authorization value of a key. It prints as a placeholder and
// does not marshal.
//
// Values that we draw are 32 printable octets, base64url of 24 random ones: no
// zero octet, which some programs cut a value at, and fit to be handed to other
// tools as a passphrase.
type Auth struct{ value string }

var errAuthFormat = errors.New("not an authorization value")

// NewAuth makes an Auth of a value.
func NewAuth(value []byte) (Auth, error) {
	if len(value) > maxAuth {
		return Auth{}, fmt.Errorf("%w: longer than %d octets", errAuthFormat, maxAuth)
	}
	return Auth{string(value)}, nil
}

// RandomAuth draws an authorization value.
func RandomAuth() Auth {
	var b [24]byte
	rand.Read(b[:])
	return Auth{base64.RawURLEncoding.EncodeToString(b[:])}
}

// Bytes returns the value itself.
func (a Auth) Bytes() []byte { return []byte(a.value) }

// IsEmpty reports whether the value is the empty one.
func (a Auth) IsEmpty() bool { return a.value == "" }

// String hides the value.
func (a Auth) String() string { return "Auth(hidden)" }

// GoString hides the value.
func (a Auth) GoString() string { return "tpm.Auth(hidden)" }

// Format hides the value whatever the verb.
func (a Auth) Format(f fmt.State, _ rune) { io.WriteString(f, a.String()) }

// MarshalText refuses.
func (a Auth) MarshalText() ([]byte, error) {
	return nil, errors.New("tpm: an authorization value is not for writing down")
}

// ReadAuthFile reads an authorization value from a file: its octets, without
// the newline at the end if there is one.
func ReadAuthFile(path string) (Auth, error) {
	b, err := readSmallFile(path, maxAuth+1)
	if err != nil {
		return Auth{}, err
	}
	a, err := NewAuth(bytes.TrimSuffix(b, []byte("\n")))
	if err != nil {
		return Auth{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func readSmallFile(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s: longer than %d octets", path, limit)
	}
	return b, err
}
