package enrol

import (
	"bytes"
	"encoding/base64"
)

// encodeBase64 is the body of an EST message (RFC 8951 section 3.2.1).
func encodeBase64(der []byte) []byte {
	return base64.StdEncoding.AppendEncode(make([]byte, 0, base64.StdEncoding.EncodedLen(len(der))), der)
}

// decodeBase64 reads such a body. White space is passed over, as RFC 8951 section
// 3.1 wants; anything else that is no base64 is an error.
func decodeBase64(body []byte) ([]byte, error) {
	text := bytes.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		}
		return r
	}, body)
	return base64.StdEncoding.Strict().AppendDecode(nil, text)
}
