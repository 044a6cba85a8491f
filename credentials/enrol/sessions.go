package enrol

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

// A session is an enrolment between its two steps.
type session struct {
	id         string
	code       string // hash
	invitation *Invitation
	nonce      []byte
	believed   Believed // nil for a Statement
	ends       time.Time
}

// sessions are those that are open in this process, at most one of each code and
// so many in all.
type sessions struct {
	most int

	mu     sync.Mutex // guards what follows
	open   map[string]*session
	byCode map[string]string // id of the session
}

func newSessions(most int) *sessions {
	return &sessions{most: most, open: make(map[string]*session), byCode: make(map[string]string)}
}

// errBusy is returned while too many sessions are open.
var errBusy = problem.New(503, "busy", "too many enrolments are under way").After(30 * time.Second)

// A sessionStore keeps sessions between their two steps.
type sessionStore interface {
	put(ctx context.Context, x *session, now time.Time) error
	take(ctx context.Context, id string, now time.Time) (*session, error)
}

// put opens a session, which ends the one that the code had.
func (s *sessions) put(_ context.Context, x *session, now time.Time) error {
	x.id = rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(s.byCode[x.code])
	if len(s.open) >= s.most {
		s.sweep(now)
	}
	if len(s.open) >= s.most {
		return errBusy
	}
	s.open[x.id], s.byCode[x.code] = x, x.id
	return nil
}

// take ends a session and returns it, or nil. It is good once, whatever comes
// of it.
func (s *sessions) take(_ context.Context, id string, now time.Time) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.open[id]
	s.drop(id)
	if x == nil || !now.Before(x.ends) {
		return nil, nil
	}
	return x, nil
}

// drop forgets a session. The caller holds mu.
func (s *sessions) drop(id string) {
	if x := s.open[id]; x != nil {
		delete(s.open, id)
		delete(s.byCode, x.code)
	}
}

// sweep forgets the sessions that have ended. The caller holds mu.
func (s *sessions) sweep(now time.Time) {
	for id, x := range s.open {
		if !now.Before(x.ends) {
			s.drop(id)
		}
	}
}
