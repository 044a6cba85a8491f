package enrol

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// A Code lets one device enrol, once. It prints as a placeholder; Reveal
// returns it, for the one who invites. The store has only its hash.
type Code struct{ secret [24]byte }

// codePrefix lets people, and scanners for leaked secrets, tell what it is.
const codePrefix = "pvsenrol_"

// NewCode draws a code of 192 bits, which nobody can guess.
func NewCode() *Code {
	c := new(Code)
	rand.Read(c.secret[:])
	return c
}

// ParseCode reads a code. One that cannot have been given out is refused as
// every wrong code is.
func ParseCode(s string) (*Code, error) {
	text, ok := strings.CutPrefix(s, codePrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	c := new(Code)
	if !ok || err != nil || len(b) != len(c.secret) {
		return nil, errCode()
	}
	copy(c.secret[:], b)
	return c, nil
}

// Reveal returns the code as text.
func (c *Code) Reveal() string { return codePrefix + base64.RawURLEncoding.EncodeToString(c.secret[:]) }

// Format keeps the code out of every print.
func (c *Code) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[enrolment code]") }

// hash is what is kept. Looking it up needs no constant time: who measures
// learns of the hash and not of the code.
func (c *Code) hash() string {
	sum := sha256.Sum256(c.secret[:])
	return hex.EncodeToString(sum[:])
}

func errCode() error {
	return refuse(ReasonCode, "the code is wrong, has ended or was used; ask for a new one")
}
