package tpmtest

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/privyseal/privyseal/tpm"
)

// A Fault takes the place of a transport for one command.
type Fault func(next tpm.Transport, command []byte) ([]byte, error)

// ErrFault is the error of the faults that fail.
var ErrFault = errors.New("tpmtest: the connection failed on purpose")

// FailBefore fails without sending the command.
func FailBefore(tpm.Transport, []byte) ([]byte, error) { return nil, ErrFault }

// FailAfter sends the command and loses the answer.
func FailAfter(next tpm.Transport, command []byte) ([]byte, error) {
	if _, err := next.Send(command); err != nil {
		return nil, err
	}
	return nil, ErrFault
}

// Cut keeps n octets of the answer, its length field made to match if fit is
// set.
func Cut(n int, fit bool) Fault {
	return func(next tpm.Transport, command []byte) ([]byte, error) {
		answer, err := next.Send(command)
		if err != nil || n >= len(answer) {
			return answer, err
		}
		answer = answer[:n]
		if fit && n >= 10 {
			binary.BigEndian.PutUint32(answer[2:], uint32(n))
		}
		return answer, nil
	}
}

// Flip inverts one bit of the answer, counted from the first, modulo its
// length.
func Flip(bit int) Fault {
	return func(next tpm.Transport, command []byte) ([]byte, error) {
		answer, err := next.Send(command)
		if err == nil {
			answer[bit/8%len(answer)] ^= 1 << (bit % 8)
		}
		return answer, err
	}
}

// Answer sends nothing and answers with the octets given.
func Answer(answer []byte) Fault {
	return func(tpm.Transport, []byte) ([]byte, error) { return answer, nil }
}

// Code sends nothing and answers with a response code.
func Code(rc uint32) Fault {
	answer := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(answer[6:], rc)
	return Answer(answer)
}

// Hang does not answer until the channel is closed, and then fails.
func Hang(until <-chan struct{}) Fault {
	return func(tpm.Transport, []byte) ([]byte, error) {
		<-until
		return nil, ErrFault
	}
}

// Faults is a layer around the transports of a device that makes chosen
// commands fail. Its Wrap is for tpm.Config; the zero value lets everything
// pass.
type Faults struct {
	mu    sync.Mutex // guards the fields below
	count int
	at    map[int]Fault
	when  map[uint32]Fault
	keep  bool
	seen  [][]byte
}

// At lets a fault happen to the nth command from now on, the next being the
// first.
func (f *Faults) At(n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at = make(map[int]Fault)
	}
	f.at[f.count+n] = fault
}

// When lets a fault happen to every command of a code (TPM_CC).
func (f *Faults) When(code uint32, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.when == nil {
		f.when = make(map[uint32]Fault)
	}
	f.when[code] = fault
}

// Clear lets everything pass again.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.when = nil, nil
}

// Count returns how many commands there have been.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Record keeps what is sent from now on, for Commands.
func (f *Faults) Record() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep, f.seen = true, nil
}

// Commands returns the octets of the commands since Record.
func (f *Faults) Commands() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]byte(nil), f.seen...)
}

// Wrap puts the layer around a transport.
func (f *Faults) Wrap(next tpm.Transport) tpm.Transport { return &faulty{f, next} }

type faulty struct {
	faults *Faults
	next   tpm.Transport
}

// Send carries the command, or lets the fault happen that is due.
func (t *faulty) Send(command []byte) ([]byte, error) {
	if fault := t.faults.due(command); fault != nil {
		return fault(t.next, command)
	}
	return t.next.Send(command)
}

func (f *Faults) due(command []byte) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.keep {
		f.seen = append(f.seen, append([]byte(nil), command...))
	}
	if fault := f.at[f.count]; fault != nil {
		delete(f.at, f.count)
		return fault
	}
	if len(command) < 10 {
		return nil
	}
	return f.when[binary.BigEndian.Uint32(command[6:])]
}
