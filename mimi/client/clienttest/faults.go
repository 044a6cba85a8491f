package clienttest

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// ErrFault is what a request fails with that Faults have lost.
var ErrFault = errors.New("clienttest: lost on purpose")

// Faults stand between a client and its provider. Probabilities are from 0 to
// 1. The zero value lets everything pass.
type Faults struct {
	Drop   float64       // the request is lost
	Answer float64       // the provider gets the request, and its answer is lost
	Twice  float64       // the request arrives twice
	Delay  time.Duration // the most that a request is late

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	next   func(*http.Request) (lose bool) // decides on the next answers; may be nil
}

// NewFaults returns faults that the seed decides.
func NewFaults(seed uint64) *Faults { return &Faults{random: rand.New(rand.NewPCG(seed, 7))} }

// LoseAnswers has match decide for each request if its answer is lost. nil
// ends that.
func (f *Faults) LoseAnswers(match func(*http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = match
}

func (f *Faults) draw(p float64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.random != nil && p > 0 && f.random.Float64() < p
}

func (f *Faults) loses(r *http.Request) bool {
	f.mu.Lock()
	next := f.next
	f.mu.Unlock()
	return next != nil && next(r) || f.draw(f.Answer)
}

// Wrap is for client.Config.Wrap.
func (f *Faults) Wrap(next http.RoundTripper) http.RoundTripper { return &faulty{f, next} }

type faulty struct {
	*Faults
	next http.RoundTripper
}

func (t *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.Delay > 0 {
		time.Sleep(rand.N(t.Delay))
	}
	if t.draw(t.Drop) {
		return nil, ErrFault
	}
	if r.Method == http.MethodPost && t.draw(t.Twice) {
		if err := t.first(r); err != nil {
			return nil, err
		}
	}
	resp, err := t.next.RoundTrip(r)
	if err == nil && t.loses(r) {
		resp.Body.Close()
		return nil, ErrFault
	}
	return resp, err
}

// first sends a request once before it is sent.
func (t *faulty) first(r *http.Request) error {
	body, err := r.GetBody()
	if err != nil {
		return err
	}
	again := r.Clone(r.Context())
	again.Body = body
	resp, err := t.next.RoundTrip(again)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
