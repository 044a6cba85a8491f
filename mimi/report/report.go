// Package report writes down, on one page, what happened between providers and
// what of it was verified: as HTML, which has no scripts and fetches nothing,
// and as text for a terminal.
//
// Both are pure functions of a [Report]. Whatever names a report has from
// outside, they do nothing but appear: HTML is escaped, and control characters
// become replacement characters.
package report

import (
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What fits on a page.
const (
	MaxParties = 8
	MaxSteps   = 32
	MaxNotes   = 4
	maxText    = 110 // characters of one text; what is longer is cut
)

// ErrTooLong is returned for a report that does not fit on a page.
var ErrTooLong = errors.New("report: more parties, steps or notes than a page holds")

// A Verdict is how a step ended.
type Verdict uint8

// The verdicts. A refusal that was meant to happen is a success of its own
// kind, and is never to be taken for a failure or the other way around.
const (
	Verified Verdict = iota + 1 // it happened, and was checked
	Refused                     // it was tried, and refused as it must be
	Failed                      // it did not go as it must
)

// String returns the verdict in a word.
func (v Verdict) String() string {
	switch v {
	case Verified:
		return "verified"
	case Refused:
		return "refused"
	case Failed:
		return "FAILED"
	}
	return "unknown"
}

// A Party is one client that took part.
type Party struct {
	Name     string // for people
	URI      string // of the client or user
	Provider string
	Key      string // where its key lives
	Proof    string // what shows that the key lives there, or that nothing does
}

// A Step is one thing that happened.
type Step struct {
	What    string        // such as "Bob joins by external commit"
	Checked string        // what was verified, and against what
	Took    time.Duration // zero for not measured
	Verdict Verdict
}

// A Report is what there is to tell.
type Report struct {
	Title   string
	Version string // of the program
	Began   time.Time
	Took    time.Duration
	Parties []Party
	Steps   []Step
	Notes   []string // what a reader must know to believe no more than is shown
}

// Count returns how many steps ended with a verdict.
func (r *Report) Count(v Verdict) (n int) {
	for _, s := range r.Steps {
		if s.Verdict == v {
			n++
		}
	}
	return n
}

// OK reports whether there are steps and none failed or has no verdict.
func (r *Report) OK() bool {
	return len(r.Steps) > 0 && r.Count(Verified)+r.Count(Refused) == len(r.Steps)
}

func (r *Report) check() error {
	if len(r.Parties) > MaxParties || len(r.Steps) > MaxSteps || len(r.Notes) > MaxNotes {
		return ErrTooLong
	}
	return nil
}

// plain returns text of one line that fits, without control characters.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > maxText {
		return string(runes[:maxText-1]) + "…"
	}
	return s
}

// duration returns a time in three digits or so.
func duration(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// summary is the one sentence that most readers want.
func (r *Report) summary() string {
	count := func(v Verdict, one, many string) string {
		n := r.Count(v)
		if n == 1 {
			return "1 " + one
		}
		return digits(n) + " " + many
	}
	s := count(Verified, "step verified", "steps verified") + ", " + count(Refused, "attempt refused as it must be", "attempts refused as they must be")
	if unknown := len(r.Steps) - r.Count(Verified) - r.Count(Refused); unknown > 0 {
		return s + ", " + digits(unknown) + " FAILED"
	}
	return s + ", none failed"
}
