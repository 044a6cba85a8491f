// Package httpbody reads the bodies of requests into memory.
package httpbody

import (
	"bytes"
	"io"
)

// maxAhead is the most memory, in octets, that is taken for a body because its
// sender says that it will be long.
const maxAhead = 1 << 20

// Read reads a body to its end, which the caller has bounded. announced is how
// long it says that it is, or -1 (http.Request.ContentLength): memory is taken
// once for a body that is as announced, and of an announcement alone no more
// than 1 MiB.
func Read(body io.Reader, announced int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(max(announced, 0), maxAhead)) + bytes.MinRead)
	_, err := b.ReadFrom(body)
	return b.Bytes(), err
}
