package mls

import (
	"bytes"
	"crypto/hkdf"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"pgregory.net/rapid"
)

// ExpandWithLabel gives what the standard library's HKDF gives, for every suite
// and every length of secret, context and result.
func TestExpandWithLabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := suites[rapid.SampledFrom(CipherSuites()).Draw(t, "suite")]
		secret := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "secret")
		label := rapid.StringN(0, 100, 300).Draw(t, "label")
		context := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "context")
		length := rapid.IntRange(0, 255*s.nh).Draw(t, "length")
		var info tlsvec.Builder
		info.Uint16(uint16(length))
		info.String(labelPrefix + label)
		info.Vector(context)
		want, err := hkdf.Expand(s.newHash, secret, string(info.Bytes()), length)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.expandWithLabel(secret, label, context, length); !bytes.Equal(got, want) {
			t.Fatalf("got %x, want %x", got, want)
		}
	})
}
