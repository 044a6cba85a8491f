package trust

import (
	"fmt"
	"time"
)

// A Standing is what is known of a credential's revocation.
type Standing int

// The standings, from the best to the worst.
const (
	Good        Standing = iota
	Stale                // good when it was last learned, and due to be learned anew
	Unavailable          // not known
	Suspended            // may return
	Revoked              // for good
)

// String returns the standing in a word.
func (s Standing) String() string {
	if names := [...]string{"good", "stale", "unavailable", "suspended", "revoked"}; s >= 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("standing %d", int(s))
}

// A Status is the standing of a credential at a time.
type Status struct {
	Standing Standing
	// Err says why it is not good.
	Err error
	// Until is when it must be asked again; zero if nothing is to be learned.
	Until time.Time
	// Source is where it was learned, such as a URL.
	Source string
}
