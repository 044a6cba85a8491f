//go:build soak

package main

import (
	"testing"
	"time"
)

// TestRemoteFaultsSoak has faults that last longer than the callers' deadlines;
// its log is the table of docs/performance.md.
func TestRemoteFaultsSoak(t *testing.T) { remoteFaults(t, 5*time.Second) }
