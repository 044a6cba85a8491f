//go:build soak

package translog_test

import "testing"

// TestSoakKills is TestKillAtAnyMoment with 200 kills on each engine.
func TestSoakKills(t *testing.T) {
	t.Setenv("PRIVYSEAL_TEST_KILLS", "200")
	TestKillAtAnyMoment(t)
}
