package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// An Entry is a reservation with its outcome.
type Entry struct {
	Index       uint64 // in the journal and in the transparency log, from 0
	Reservation int64
	Intent      IntentRecord
	Outcome     OutcomeRecord
	// Octets is the entry as it is committed to: a JSON object with the
	// members "reservation", "intent" and "outcome", exactly as written once.
	Octets []byte
	Chain  []byte // running hash of all commitments up to this one
}

// Commitment returns what the transparency log has of the entry.
func (e *Entry) Commitment() [sha256.Size]byte { return Commitment(e.Octets) }

// Commitment returns the SHA-256 of an entry's octets. The salt in the outcome
// keeps others from finding out the entry by trying.
func Commitment(octets []byte) [sha256.Size]byte { return sha256.Sum256(octets) }

// entryOctets joins what was encoded at two times.
func entryOctets(number int64, intent, outcome []byte) []byte {
	b := make([]byte, 0, len(intent)+len(outcome)+64)
	b = append(b, `{"reservation":`...)
	b = strconv.AppendInt(b, number, 10)
	b = append(append(b, `,"intent":`...), intent...)
	b = append(append(b, `,"outcome":`...), outcome...)
	return append(b, '}')
}

// commitmentOf is the Commitment of what entryOctets joins.
func commitmentOf(number int64, intent, outcome []byte) (c [sha256.Size]byte) {
	h, b := sha256.New(), make([]byte, 0, 64)
	b = append(b, `{"reservation":`...)
	b = strconv.AppendInt(b, number, 10)
	h.Write(append(b, `,"intent":`...))
	h.Write(intent)
	h.Write(append(b[:0], `,"outcome":`...))
	h.Write(outcome)
	h.Write(append(b[:0], '}'))
	h.Sum(c[:0])
	return c
}

// firstChain is the running hash before the first entry.
func firstChain() []byte { return sha([]byte("privyseal journal 1")) }

func nextChain(chain []byte, commitment [sha256.Size]byte) []byte {
	return sha(append(append(make([]byte, 0, 2*sha256.Size), chain...), commitment[:]...))
}

// MaxEntry bounds an entry's octets: in base64 it must fit into one line of a
// proof, which readers bound at 64 KiB.
const MaxEntry = 45000

// encode is json.Marshal without the escapes for HTML, which would let a
// summary grow sixfold.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// ParseEntry reads an entry's octets, which may come from anywhere. Octets
// that are not as we write them are refused, so that an entry has one form.
func ParseEntry(octets []byte) (*Entry, error) {
	if len(octets) > MaxEntry {
		return nil, fmt.Errorf("%w: %d octets are more than an entry has", ErrUsage, len(octets))
	}
	var v struct {
		Reservation int64           `json:"reservation"`
		Intent      json.RawMessage `json:"intent"`
		Outcome     json.RawMessage `json:"outcome"`
	}
	e := &Entry{Octets: octets}
	if err := strict(octets, &v); err != nil {
		return nil, err
	}
	if err := exact(v.Intent, &e.Intent); err != nil {
		return nil, err
	}
	if err := exact(v.Outcome, &e.Outcome); err != nil {
		return nil, err
	}
	if !bytes.Equal(entryOctets(v.Reservation, v.Intent, v.Outcome), octets) {
		return nil, errForm
	}
	if _, err := e.time(); err != nil {
		return nil, err
	}
	e.Reservation = v.Reservation
	return e, nil
}

func (e *Entry) time() (time.Time, error) {
	t, err := time.Parse(timeLayout, e.Intent.Time)
	if err != nil {
		return t, fmt.Errorf("%w: its time is not RFC 3339 with microseconds", ErrUsage)
	}
	return t, nil
}

var errForm = fmt.Errorf("%w: it is not in the form in which entries are written", ErrUsage)

// exact decodes what encoding would give back to the octet.
func exact(octets []byte, v any) error {
	if err := strict(octets, v); err != nil {
		return err
	}
	again, err := encode(v)
	if err == nil && !bytes.Equal(again, octets) {
		err = errForm
	}
	return err
}

// strict decodes one JSON value with known members only.
func strict(octets []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(octets))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: something is behind it", ErrUsage)
	}
	return nil
}

// Signs reports whether the entry is of that signature, in either of the forms
// that Journal.Find takes.
func (e *Entry) Signs(signature []byte) bool {
	want := e.Outcome.Signature
	if want == "" {
		return false
	}
	der := derOf(signature)
	return want == hex.EncodeToString(sha(signature)) || der != nil && want == hex.EncodeToString(sha(der))
}
