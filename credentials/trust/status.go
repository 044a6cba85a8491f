package trust

import (
	"fmt"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// A Standing is what is known of a credential's revocation.
type Standing int

// The standings, from the best to the worst.
const (
	Good        Standing = iota
	Stale                // good when it was last learned, and due to be learned anew
	Unavailable          // not known
	Invalid              // what is said of it cannot be right
	Suspended            // may return
	Revoked              // for good
)

// String returns the standing in a word.
func (s Standing) String() string {
	if names := [...]string{"good", "stale", "unavailable", "invalid", "suspended", "revoked"}; s >= 0 && int(s) < len(names) {
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

	issue order // of the document that said so
}

// standingOf sorts an answer that is not good.
func standingOf(err error) Standing {
	switch credentials.CodeOf(err) {
	case "":
		if err == nil {
			return Good
		}
		return Unavailable
	case credentials.CodeRevoked:
		return Revoked
	case credentials.CodeSuspended:
		return Suspended
	case credentials.CodeStatusInvalid, credentials.CodeStatusUnknownValue, credentials.CodeStatusURI, credentials.CodeClaimMissing, credentials.CodeMalformed, credentials.CodeClaimType:
		return Invalid
	}
	return Unavailable
}

// answer makes a Status of what a document said.
func answer(err error, stale bool, until time.Time, source string) Status {
	s := Status{Standing: standingOf(err), Err: err, Until: until, Source: source}
	if s.Standing == Good && stale {
		s.Standing = Stale
		s.Err = credentials.Errorf(credentials.CodeStatusUnavailable, "status", "what %s said is out of date, and it does not answer", source)
	}
	if s.Standing == Unavailable && credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
		s.Err = credentials.Errorf(credentials.CodeStatusUnavailable, "status", "%w", err)
	}
	return s
}

// worse returns the worse of two, with the nearer time of asking again.
func worse(a, b Status) Status {
	until := earlier(a.Until, b.Until)
	if b.Standing > a.Standing || a.Standing == Good && a.Source == "" && b.Standing == Good {
		a = b
	}
	a.Until = until
	return a
}
