package hsmtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
)

// An activity is the operation that a Session is in the middle of.
type activity uint8

const (
	idle activity = iota
	searching
	signing
)

// A Fault is what befalls one call of the module.
type Fault struct {
	// Code is returned in place of the result; CKR_OK lets the call pass.
	Code pkcs11.Error
	// After lets the call take effect and loses its result. Otherwise the
	// module never hears of the call.
	After bool
	// Before runs first, on the caller's goroutine: a test may wait in it,
	// as a device that hangs would, or do something to the token.
	Before func()
}

// A Call is one call that the driver made.
type Call struct {
	N        int    // counted from 1 since Reset
	Function string // "C_Sign"
	Fault    *Fault // what befell it, or nil
}

func (c Call) String() string {
	s := fmt.Sprintf("call %d, %s", c.N, c.Function)
	if c.Fault != nil && c.Fault.Code != 0 {
		when := "before"
		if c.Fault.After {
			when = "after"
		}
		s += fmt.Sprintf(", failing with 0x%x %s it took effect", uint(c.Fault.Code), when)
	}
	return s
}

// Faults is a layer around the API of a real module. It counts every call,
// keeps the books of Sessions, searches and PINs, and makes the calls fail that
// a test has chosen. Its Wrap is a value for hsm.Config.Wrap.
type Faults struct {
	mu       sync.Mutex // guards everything below
	choose   func(Call) *Fault
	calls    []Call
	sessions map[pkcs11.SessionHandle]activity // handed to the driver and not closed
	stuck    int                               // how often a Session was used on in the middle of an operation
	most     int                               // the most Sessions open at once
	refused  [][]byte                          // PINs (as digests) that the token has refused
	retried  int                               // how often one of those was sent again
}

// Wrap puts the layer around a module's API.
func (f *Faults) Wrap(api hsm.API) hsm.API { return &faultLayer{api: api, f: f} }

// Choose sets the function that decides what befalls each call; nil lets all
// of them pass. It is asked one call at a time and must not use the module.
func (f *Faults) Choose(choose func(Call) *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.choose = choose
}

// FailNth makes the nth call from now fail, once.
func (f *Faults) FailNth(n int, fault Fault) {
	f.Reset()
	f.Choose(func(c Call) *Fault {
		if c.N == n {
			return &fault
		}
		return nil
	})
}

// Fail makes the next times calls of a function fail.
func (f *Faults) Fail(function string, times int, fault Fault) {
	f.Choose(func(c Call) *Fault {
		if c.Function != function || times == 0 {
			return nil
		}
		times--
		return &fault
	})
}

// Reset forgets the calls so far and the choice of faults. The books of
// Sessions and PINs go on.
func (f *Faults) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.choose = nil, nil
}

// Calls returns the calls since Reset.
func (f *Faults) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count returns how often a function was called since Reset.
func (f *Faults) Count(function string) (n int) {
	for _, c := range f.Calls() {
		if c.Function == function {
			n++
		}
	}
	return n
}

// OpenSessions returns how many Sessions the driver has open, and the most
// that it had at once.
func (f *Faults) OpenSessions() (now, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sessions), f.most
}

// Problems returns what no driver may do, whatever fails below it: send a PIN
// again that was refused, or leave a search or a signature open on a Session
// that it goes on using.
func (f *Faults) Problems() (problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retried > 0 {
		problems = append(problems, fmt.Sprintf("a refused PIN was sent again %d times", f.retried))
	}
	if f.stuck > 0 {
		problems = append(problems, fmt.Sprintf("a Session in the middle of an operation was used for another %d times", f.stuck))
	}
	for sh, a := range f.sessions {
		if a != idle {
			problems = append(problems, fmt.Sprintf("Session %d is left in the middle of an operation", sh))
		}
	}
	return problems
}

// do is every call: it is counted, judged, made, and its result kept or lost.
func (f *Faults) do(c Call, call func() error) error {
	f.mu.Lock()
	c.N = len(f.calls) + 1
	if f.choose != nil {
		c.Fault = f.choose(c)
	}
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if c.Fault == nil {
		return call()
	}
	return c.Fault.befall(call)
}

func (x *Fault) befall(call func() error) error {
	if x.Before != nil {
		x.Before()
	}
	if x.Code == 0 {
		return call()
	}
	if x.After {
		if err := call(); err != nil {
			return err
		}
	}
	return x.Code
}

// book notes what became of a Session.
func (f *Faults) book(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions == nil {
		f.sessions = make(map[pkcs11.SessionHandle]activity)
	}
	change()
	f.most = max(f.most, len(f.sessions))
}

// begin books that an operation was asked for, and whether the module began it.
func (f *Faults) begin(sh pkcs11.SessionHandle, a activity, began bool) {
	f.book(func() {
		now, known := f.sessions[sh]
		if known && now != idle {
			f.stuck++
		}
		if known && began {
			f.sessions[sh] = a
		}
	})
}

// end books that the module has ended what the Session was in the middle of.
func (f *Faults) end(sh pkcs11.SessionHandle) {
	f.book(func() {
		if _, known := f.sessions[sh]; known {
			f.sessions[sh] = idle
		}
	})
}

func (f *Faults) loginResult(pin string, err error) {
	f.book(func() {
		digest := []byte(pin)
		if slices.ContainsFunc(f.refused, func(b []byte) bool { return bytes.Equal(b, digest) }) {
			f.retried++
		}
		if err == pkcs11.Error(pkcs11.CKR_PIN_INCORRECT) || err == pkcs11.Error(pkcs11.CKR_PIN_LOCKED) {
			f.refused = append(f.refused, digest)
		}
	})
}

// pinDigest keeps PINs out of a test's output.
func pinDigest(pin string) string {
	sum := sha256.Sum256([]byte(pin))
	return string(sum[:])
}
