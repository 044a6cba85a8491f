package tpm

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ErrAddress is wrapped by every error about the address of a TPM.
var ErrAddress = errors.New("not a TPM address")

// maxAddress bounds the length of an address.
const maxAddress = 1024

// maxUnixPath is the length of sun_path less its terminating zero.
const maxUnixPath = 107

// An Address says where a TPM is.
//
//	address = device / unix / tcp
//	device  = "device:" path      ; a character device, e.g. device:/dev/tpmrm0
//	unix    = "unix:" path        ; a socket that speaks raw commands (swtpm)
//	tcp     = "tcp:" host ":" port; the same over TCP, e.g. tcp:127.0.0.1:2321
//	path    = an absolute path without control characters
//	host    = an IP address, an IPv6 address in brackets, or a host name
//	port    = 1*5DIGIT            ; 1 to 65535, no leading zero
type Address struct {
	scheme string // "device", "unix" or "tcp"
	rest   string
}

// ParseAddress reads an address. What it accepts, [Address.String] writes back
// unchanged.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxAddress {
		return Address{}, fmt.Errorf("%w: longer than %d octets", ErrAddress, maxAddress)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Address{}, fmt.Errorf("%w: %q has no scheme; write device:/dev/tpmrm0, unix:/path or tcp:host:port", ErrAddress, s)
	}
	var err error
	switch scheme {
	case "device":
		err = checkPath(rest)
	case "unix":
		if err = checkPath(rest); err == nil && len(rest) > maxUnixPath {
			err = fmt.Errorf("a socket path has at most %d octets", maxUnixPath)
		}
	case "tcp":
		err = checkHostPort(rest)
	default:
		err = fmt.Errorf("unknown scheme %q; use device, unix or tcp", scheme)
	}
	if err != nil {
		return Address{}, fmt.Errorf("%w: %q: %w", ErrAddress, s, err)
	}
	return Address{scheme: scheme, rest: rest}, nil
}

// String returns the address as it was parsed.
func (a Address) String() string {
	if a.scheme == "" {
		return ""
	}
	return a.scheme + ":" + a.rest
}

// exclusive reports whether we are the TPM's only client, so that starting it
// up and shutting it down is our business. Behind a character device that is
// the kernel's.
func (a Address) exclusive() bool { return a.scheme != "device" }

func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") {
		return errors.New("the path must be absolute")
	}
	if strings.HasSuffix(p, "/") {
		return errors.New("the path names a folder")
	}
	for i := range len(p) {
		if p[i] < 0x20 || p[i] == 0x7f {
			return errors.New("the path contains a control character")
		}
	}
	return nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("write tcp:host:port")
	}
	if err := checkHost(host); err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	if net.JoinHostPort(host, port) != s {
		return errors.New("write an IPv6 address, and only that, in brackets")
	}
	return nil
}

func checkHost(host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	if host == "" || len(host) > 253 {
		return fmt.Errorf("host %q is empty or too long", host)
	}
	for _, label := range strings.Split(host, ".") {
		if !isHostLabel(label) {
			return fmt.Errorf("%q is neither an IP address nor a host name", host)
		}
	}
	return nil
}

func isHostLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '-' {
			return false
		}
	}
	return true
}
