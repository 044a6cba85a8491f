package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/privyseal/privyseal/mls"
)

// The formats of frank and policy are written by people and by other people's
// programs. What can be meant in one way only is read, in whatever form it comes.

// A looseText is a text, or a number that stands for one.
type looseText string

// UnmarshalJSON implements json.Unmarshaler.
func (t *looseText) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(t))
	}
	var n json.Number
	err := json.Unmarshal(b, &n)
	*t = looseText(n)
	return err
}

// A looseUint is a number, in decimal or, with 0x before it, in hexadecimal; also
// as a text.
type looseUint uint64

// UnmarshalJSON implements json.Unmarshaler.
func (u *looseUint) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var s looseText
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	n, err := parseUint(string(s), 64)
	*u = looseUint(n)
	return err
}

func parseUint(s string, bits int) (uint64, error) {
	s = strings.TrimSpace(s)
	if digits, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		return strconv.ParseUint(digits, 16, bits)
	}
	return strconv.ParseUint(s, 10, bits)
}

// suiteNames are the names of the IANA registry "MLS Cipher Suites".
var suiteNames = map[string]mls.CipherSuite{
	"MLS_128_DHKEMX25519_AES128GCM_SHA256_ED25519":        1,
	"MLS_128_DHKEMP256_AES128GCM_SHA256_P256":             2,
	"MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_ED25519": 3,
	"MLS_256_DHKEMX448_AES256GCM_SHA512_ED448":            4,
	"MLS_256_DHKEMP521_AES256GCM_SHA512_P521":             5,
	"MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_ED448":     6,
	"MLS_256_DHKEMP384_AES256GCM_SHA384_P384":             7,
}

// A looseSuite is a cipher suite by its number or its registered name.
type looseSuite mls.CipherSuite

// UnmarshalJSON implements json.Unmarshaler.
func (c *looseSuite) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var s looseText
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	if suite, ok := suiteNames[strings.ToUpper(string(s))]; ok {
		*c = looseSuite(suite)
		return nil
	}
	n, err := parseUint(string(s), 16)
	*c = looseSuite(n)
	return err
}

// A looseVerdict is accept or refuse, in the words for it, or a truth value.
type looseVerdict string

var verdictWords = map[string]looseVerdict{
	"": "", "accept": "accept", "accepted": "accept", "allow": "accept", "allowed": "accept", "valid": "accept", "ok": "accept", "true": "accept",
	"refuse": "refuse", "refused": "refuse", "deny": "refuse", "denied": "refuse", "reject": "refuse", "rejected": "refuse", "invalid": "refuse", "false": "refuse",
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *looseVerdict) UnmarshalJSON(b []byte) error {
	word := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &word); err != nil {
			return err
		}
	} else if word == "null" {
		return nil
	}
	known, ok := verdictWords[strings.ToLower(word)]
	if !ok {
		return fmt.Errorf("the verdict is %s, want accept or refuse", b)
	}
	*v = known
	return nil
}

// leastBase64 is how many octets there are at least in base64 that does not say
// that it is: what is shorter is more likely hexadecimal with a slip in it.
const leastBase64 = 16

// looseOctets reads octets: hexadecimal of either case, with 0x before it, white
// space or colons in it or not; or base64 or base64url, padded or not, of at least
// leastBase64 octets or with base64: before it. want is how many there must be, or
// -1. What is both is hexadecimal, unless only the other gives the number that is
// wanted.
func looseOctets(text string, want int) ([]byte, error) {
	s := strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", "").Replace(text)
	if coded, ok := strings.CutPrefix(s, "base64:"); ok {
		b, err := decodeBase64(coded)
		return counted(b, want, err)
	}
	digits := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(s), "hex:"), "0x")
	b, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if b, err = counted(b, want, err); err == nil {
		return b, nil
	}
	if other, otherErr := decodeBase64(s); len(other) >= leastBase64 {
		if other, otherErr = counted(other, want, otherErr); otherErr == nil {
			return other, nil
		}
	}
	return nil, err
}

func decodeBase64(s string) ([]byte, error) {
	encoding := base64.RawURLEncoding
	if strings.ContainsAny(s, "+/") {
		encoding = base64.RawStdEncoding
	}
	return encoding.Strict().DecodeString(strings.TrimRight(s, "="))
}

func counted(b []byte, want int, err error) ([]byte, error) {
	if err == nil && want >= 0 && len(b) != want {
		err = fmt.Errorf("%d octets, want %d", len(b), want)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// oneOrMore is a list, of which one element may stand alone.
type oneOrMore[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *oneOrMore[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	err := json.Unmarshal(b, &one)
	*l = []T{one}
	return err
}
