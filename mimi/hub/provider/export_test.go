package provider

import (
	"context"
	"log/slog"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// SetFault makes the service stop at the named steps with an error; nil lets it
// go on.
func (s *Service) SetFault(f func(step string) error) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// GroupContext returns that of a room of ours.
func (s *Service) GroupContext(ctx context.Context, room mimi.URI) (gc mls.GroupContext, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error { gc = e.room.Context(); return nil })
	return gc, err
}

// FrankingKey returns the key with which the franks of a room are verified.
func (s *Service) FrankingKey(ctx context.Context, room mimi.URI) (key []byte, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error { key = e.room.FrankingKey(); return nil })
	return key, err
}

// Stopped has a node look at the beats of others at given times, and returns
// those that it takes for dead at the last.
func Stopped(after time.Duration, looks ...map[time.Duration]map[string]int64) []string {
	w, begin := &watch{make(map[string]int64), make(map[string]time.Time)}, time.Now()
	var dead []string
	for _, look := range looks {
		for at, beats := range look {
			dead = w.stopped(beats, begin.Add(at), after)
		}
	}
	return dead
}

// Note logs what becomes of something that is tried again and again.
func Note(log *slog.Logger, errs ...error) {
	var t trouble
	for _, err := range errs {
		t.note(log, "a test", err)
	}
}

// Delisted lists the rooms of which a provider that was listed has gone.
func (s *Service) Delisted(ctx context.Context) ([]mimi.URI, error) { return s.delisted(ctx) }

// InMemory reports whether a room of ours is loaded.
func (s *Service) InMemory(room mimi.URI) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.rooms[room]
	return e != nil && e.loaded.Load()
}

// Suspensions are the credentials that are suspended, as they were at one look.
type Suspensions = suspensions

// Suspended looks which credentials are suspended.
func (s *Service) Suspended(ctx context.Context) (Suspensions, error) {
	_, seen, err := s.held(ctx)
	return seen, err
}

// Suspend makes the suspended credentials those that were found after a look.
func (s *Service) Suspend(ctx context.Context, now map[hub.CredentialID]bool, seen Suspensions) error {
	return s.suspend(ctx, now, seen)
}
