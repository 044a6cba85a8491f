package jose

import (
	"encoding/base64"
	"errors"
	"strings"
)

// canonical refuses padding and non-zero trailing bits, so that no two strings
// stand for one value (RFC 4648 section 3.5).
var canonical = base64.RawURLEncoding.Strict()

var errLineBreak = errors.New("base64url with a line break")

// DecodeBase64 decodes base64url without padding (RFC 7515 section 2). It
// refuses every spelling but the one that EncodeBase64 gives.
func DecodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // which encoding/base64 skips
		return nil, errLineBreak
	}
	return canonical.DecodeString(s)
}

// EncodeBase64 returns b in base64url without padding.
func EncodeBase64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
