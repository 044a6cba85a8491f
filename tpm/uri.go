package tpm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrKeyURI is wrapped by every error about the name of a key.
var ErrKeyURI = errors.New("not the name of a TPM key")

const (
	uriScheme = "tpm2:"
	maxURI    = 4096
)

// A KeyURI names a key in a TPM or in a TSS2 file.
//
//	key-uri = "tpm2:" (handle / file) [";auth=" path]
//	handle  = "0x" 8HEXDIG     ; a persistent handle, lower case: tpm2:0x81000001
//	file    = "file=" path     ; a TSS2 file: tpm2:file=/var/lib/privyseal/device.pem
//	path    = 1*(unreserved / "/" / pct-encoded)
//
// The auth path is the file with the key's authorization value. For a key
// file it defaults to its path with ".auth" appended; for a handle to none.
// Octets of a path outside of RFC 3986's unreserved set and "/" are
// percent-encoded, in upper case hexadecimal, and no others are: a key has one
// name only.
type KeyURI struct {
	Handle uint32 // 0 for a file
	File   string // "" for a handle
	Auth   string // path of the authorization value, "" for the default
}

// ParseKeyURI reads the name of a key.
func ParseKeyURI(s string) (KeyURI, error) {
	u, err := parseKeyURI(s)
	if err == nil && u.String() != s {
		err = fmt.Errorf("its one form is %s", u)
	}
	if err != nil {
		return KeyURI{}, fmt.Errorf("%w: %.200q: %w", ErrKeyURI, s, err)
	}
	return u, nil
}

func parseKeyURI(s string) (KeyURI, error) {
	var u KeyURI
	rest, ok := strings.CutPrefix(s, uriScheme)
	if !ok || len(s) > maxURI {
		return u, errors.New("write tpm2:0x81000001 or tpm2:file=/path/key.pem")
	}
	main, auth, hasAuth := strings.Cut(rest, ";auth=")
	var err error
	if file, ok := strings.CutPrefix(main, "file="); ok {
		u.File, err = decodePath(file)
	} else {
		u.Handle, err = parseHandle(main)
	}
	if err == nil && hasAuth {
		u.Auth, err = decodePath(auth)
	}
	return u, err
}

func parseHandle(s string) (uint32, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	h, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || h>>24 != uint64(firstPersistent>>24) {
		return 0, fmt.Errorf("%q is no persistent handle (0x81000000 to 0x81ffffff)", s)
	}
	return uint32(h), nil
}

// String returns the one form of the name.
func (u KeyURI) String() string {
	s := uriScheme
	if u.File != "" {
		s += "file=" + encodePath(u.File)
	} else {
		s += fmt.Sprintf("%#08x", u.Handle)
	}
	if u.Auth != "" {
		s += ";auth=" + encodePath(u.Auth)
	}
	return s
}

func encodePath(p string) string {
	var b strings.Builder
	for _, c := range []byte(p) {
		if isPathOctet(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isPathOctet(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0
}

func decodePath(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", errors.New("a percent sign without two digits")
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", errors.New("a percent sign without two digits")
			}
			c = byte(n)
			i += 2
		} else if !isPathOctet(c) {
			return "", fmt.Errorf("octet %q has to be percent-encoded", c)
		}
		if c < 0x20 || c == 0x7f {
			return "", errors.New("the path contains a control character")
		}
		b.WriteByte(c)
	}
	if b.Len() == 0 {
		return "", errors.New("the path is empty")
	}
	return b.String(), nil
}
