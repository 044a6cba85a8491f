package hsm

import (
	"context"
	"fmt"
)

// A judgedPIN is a source that wants to hear what became of the PIN.
type judgedPIN interface {
	PINSource
	// want is PIN, with the token's name in the memory of refused PINs.
	want(ctx context.Context, name string) (PIN, error)
	verdict(refused bool)
}

// An askedPIN asks the program for the PIN at each login, through the socket.
// The program hands it to one worker at a time and waits for the verdict, so
// that a PIN that has gone wrong is refused once and not once per worker.
type askedPIN struct {
	server *workerServer
	token  tokenNumber
	held   bool // the program waits for the verdict; guarded by the token's fix
}

func (a *askedPIN) PIN(ctx context.Context) (PIN, error) { return a.want(ctx, "") }

// want sends the question and reads frames until the answer is here: all other
// readers may be waiting for this login.
func (a *askedPIN) want(ctx context.Context, name string) (PIN, error) {
	a.server.mu.RLock()
	answers := a.server.pins[a.token]
	a.server.mu.RUnlock()
	enough := make(chan struct{})
	defer close(enough)
	go a.server.readForPIN(enough)
	if err := a.server.out.send(0, wantPIN, a.token.bytes(), []byte(name)); err != nil {
		return PIN{}, err
	}
	a.held = true
	select {
	case answer := <-answers:
		return answer.result()
	case <-a.server.done:
		return PIN{}, fmt.Errorf("%w: the program is gone", ErrPINSource)
	case <-ctx.Done():
		return PIN{}, context.Cause(ctx)
	}
}

func (a pinAnswer) result() (PIN, error) {
	switch a.why {
	case pinRefused:
		return PIN{}, ErrPINRefused
	case pinUnread:
		return PIN{}, fmt.Errorf("%w: %s", ErrPINSource, a.text)
	}
	return a.pin, nil
}

// verdict tells the program, once per PIN, so that the next worker may log in.
func (a *askedPIN) verdict(refused bool) {
	if !a.held {
		return
	}
	a.held = false
	answer := []byte{0}
	if refused {
		answer[0] = 1
	}
	a.server.out.send(0, tellVerdict, a.token.bytes(), answer)
}

func (s *workerServer) handlePIN(f frame) {
	answer, err := parsePINAnswer(f.payload)
	if err != nil {
		s.quit()
		return
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	select {
	case s.pins[answer.token] <- answer:
	default: // nobody asked
	}
}
