package hsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// helloConfig is the part of a Config that a worker needs.
type helloConfig struct {
	Path          string        `json:"path"`
	InitArgs      string        `json:"initArgs"`
	Sessions      int           `json:"sessions"`
	AdmitWeak     []string      `json:"admitWeak"`
	AllowFinalTry bool          `json:"allowFinalTry"`
	ProgressEvery time.Duration `json:"progressEvery"` // how often to send tellProgress
}

func (h helloConfig) config() Config {
	return Config{Path: h.Path, InitArgs: h.InitArgs, Sessions: h.Sessions, AdmitWeak: h.AdmitWeak,
		AllowFinalTry: h.AllowFinalTry}
}

// wireSentinels are the sentinels that cross the socket, by position.
var wireSentinels = []error{
	ErrAmbiguous, ErrTokenGone, ErrKeyNotFound, ErrKeyGone, ErrKeyChanged, ErrKeyExists, ErrKeyUse, ErrWeakKey,
	ErrUnsupported, ErrNotLoggedIn, ErrPINRefused, ErrPINLocked, ErrPINFinalTry, ErrPINNotSet, ErrDigestLength,
	ErrBadOutput, ErrBadPoint, ErrModule, ErrClosed, ErrMessageLength, ErrURI, ErrPINSource,
}

// A wireError is an error on its way out of a worker.
type wireError struct {
	Device    *Error `json:"device,omitempty"`
	Sentinels []int  `json:"sentinels,omitempty"`
	Text      string `json:"text"`
}

func toWire(err error) wireError {
	w := wireError{Text: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		w.Device = e
	}
	for i, s := range wireSentinels {
		if errors.Is(err, s) {
			w.Sentinels = append(w.Sentinels, i)
		}
	}
	return w
}

// A remoteError is an error that came out of a worker.
type remoteError struct {
	text      string
	device    *Error
	sentinels []error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() []error {
	if e.device != nil {
		return append([]error{e.device}, e.sentinels...)
	}
	return e.sentinels
}

func fromWire(p []byte) error {
	var w wireError
	if err := decodeJSON(p, &w); err != nil {
		return err
	}
	e := &remoteError{text: w.Text, device: w.Device}
	for _, i := range w.Sentinels {
		if i < 0 || i >= len(wireSentinels) {
			return fmt.Errorf("%w: sentinel %d", errFrame, i)
		}
		e.sentinels = append(e.sentinels, wireSentinels[i])
	}
	if e.device != nil && e.device.Error() == e.text {
		return e.device
	}
	return e
}

// A wireEvent is an Event on its way out of a worker.
type wireEvent struct {
	Kind  EventKind     `json:"kind"`
	Token string        `json:"token"`
	Took  time.Duration `json:"took"`
	Err   string        `json:"err"`
}

func (w wireEvent) event(module string, worker int) Event {
	e := Event{Kind: w.Kind, Module: module, Token: w.Token, Worker: worker, Took: w.Took}
	if w.Err != "" {
		e.Err = errors.New(w.Err)
	}
	return e
}

// decodeJSON reads one JSON value strictly.
func decodeJSON(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: more than one value", errFrame)
	}
	return nil
}

// encodeJSON writes values that always can be written.
func encodeJSON(v any) []byte {
	p, err := json.Marshal(v)
	if err != nil {
		panic("hsm: " + err.Error()) // only a type of this package that JSON cannot hold
	}
	return p
}
