//go:build !race

package mls

import "testing"

// A message costs a few allocations, which are the results. The race detector
// allocates more, so this is not built with it.
func TestExpandAllocations(t *testing.T) {
	s, secret := suites[X25519AES128SHA256Ed25519], make([]byte, 32)
	s.expandWithLabel(secret, "warm", nil, 32)
	if n := testing.AllocsPerRun(100, func() { s.expandWithLabel(secret, "label", nil, 32) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
