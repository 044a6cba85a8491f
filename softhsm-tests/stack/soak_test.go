//go:build soak

package stack

import (
	"os"
	"testing"
	"time"
)

// soakTime is how long faults happen: PRIVYSEAL_SOAK, by default ten minutes.
func soakTime(t *testing.T) time.Duration {
	s := os.Getenv("PRIVYSEAL_SOAK")
	if s == "" {
		return 10 * time.Minute
	}
	return must[time.Duration](t)(time.ParseDuration(s))
}

// Everything is killed and cut again and again under load.
func TestSoakFaults(t *testing.T) {
	newWorld(t).run(soakTime(t), 1200*time.Millisecond)
}

// Every party is killed once while clients talk and commit.
func TestSoakEachFaultOnce(t *testing.T) {
	newWorld(t).run(time.Second, 900*time.Millisecond)
}
