package hsm

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// timedLink is a link to this process, with calls whose limits have passed.
func timedLink(t *testing.T, kinds ...frameKind) *link {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	l := &link{cmd: &exec.Cmd{Process: self}, limits: limits{start: time.Hour, call: time.Minute}, calls: make(map[uint32]*call)}
	for i, kind := range kinds {
		c := &call{clock: l.limits.begin(kind, os.Getpid())}
		c.clock.limit = time.Now().Add(-time.Second)
		l.calls[uint32(i+1)] = c
	}
	return l
}

func TestOverdue(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		kinds  []frameKind
		change func(*link)
		hangs  bool
	}{
		{"a call", []frameKind{askOperate}, func(*link) {}, true},
		{"a call that quits", []frameKind{askQuit}, func(l *link) { l.calls[1].clock.limit = now.Add(time.Second) }, false},
		{"a look", []frameKind{askLook}, func(*link) {}, true},
		{"a look in a worker that computed", []frameKind{askLook}, func(l *link) { l.calls[1].clock.cpu -= time.Hour }, false},
		{"a look in a worker that computed too often", []frameKind{askLook}, func(l *link) {
			for range mostComputed {
				if l.calls[1].clock.cpu -= time.Hour; l.overdue(l.calls[1].clock.limit.Add(time.Second)) != nil {
					t.Error("a worker that computes was given up early")
				}
			}
			l.calls[1].clock.cpu -= time.Hour
			l.calls[1].clock.limit = now.Add(-time.Second)
		}, true},
		{"a call in a worker that computed", []frameKind{askHealth}, func(l *link) { l.calls[1].clock.cpu -= time.Hour }, true},
		{"a call behind a look", []frameKind{askLook, askOperate}, func(l *link) { l.calls[1].clock.limit = now.Add(time.Second) }, false},
		{"a call before a look", []frameKind{askOperate, askLook}, func(l *link) { l.calls[2].clock.limit = now.Add(time.Second) }, true},
		{"a look that goes on", []frameKind{askLook, askOperate}, func(l *link) { l.progressed(1) }, false},
		{"a list that goes on", []frameKind{askKeys, askOperate}, func(l *link) { l.progressed(1) }, false},
		{"a call before a list that goes on", []frameKind{askOperate, askKeys}, func(l *link) { l.progressed(2) }, true},
		{"a call after a look that has ended", []frameKind{askLook, askOperate}, func(l *link) { l.ended(1) }, false},
		{"a call after a list that has ended", []frameKind{askKeys, askOperate}, func(l *link) { l.ended(1) }, true},
	} {
		l := timedLink(t, c.kinds...)
		c.change(l)
		if err := l.overdue(now); (err != nil) != c.hangs {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRoute(t *testing.T) {
	maker, other := &link{number: 0}, &link{number: 1}
	w := &workers{all: []*worker{{number: 0}, {number: 1}}}
	w.all[0].link.Store(maker)
	w.all[1].link.Store(other)
	maker.load.Store(10)
	var f freshKeys
	f.opened(time.Second)
	choose := func(id string) *link {
		l, err := w.choose(context.Background(), f.route([]byte(id)))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if choose("old") != other {
		t.Error("before a key is made, the least loaded is not chosen")
	}
	f.add([]byte("new"), maker)
	if choose("new") != maker || choose("old") != maker {
		t.Error("right after a key was made, the other worker is asked")
	}
	f.at = f.at.Add(-freshPause)
	if choose("new") != maker {
		t.Error("the other worker is asked for a key that it may not know")
	}
	if choose("old") != other {
		t.Error("some time after a key was made, the other worker is not asked for an old one")
	}
	f.add([]byte("new"), maker)
	maker.load.Store(lagOf(time.Second) + 1)
	if choose("old") != other {
		t.Error("more calls wait for the maker than the other worker could do meanwhile")
	}
	w.all[0].link.Store(nil)
	if choose("new") != other {
		t.Error("the other worker is not asked when the maker is down")
	}
	w.all[0].link.Store(maker)
	if f.seen(time.Millisecond, nil); choose("new") != other {
		t.Error("after a look, the least loaded is not chosen")
	}
}

func TestQuietly(t *testing.T) {
	ctx := context.Background()
	token := func(limit time.Duration) *sharedToken {
		return &sharedToken{quiet: newTurnstile(), workers: &workers{config: Config{CallTimeout: limit}}}
	}
	makes := func(s *sharedToken, within time.Duration) bool {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if s.making.enter(ctx) != nil {
			return false
		}
		s.making.leave()
		return true
	}
	s := token(time.Hour)
	quiet, err := s.quietly(ctx, func() error {
		if makes(s, time.Millisecond) {
			t.Error("a key is made meanwhile")
		}
		if quiet, _ := s.quietly(ctx, func() error { return nil }); quiet {
			t.Error("a second one has it quiet by itself")
		}
		return ErrWorkerLost
	})
	if !quiet || err != ErrWorkerLost {
		t.Errorf("quiet %t, %v", quiet, err)
	}
	if !makes(s, time.Minute) {
		t.Error("no key is made afterwards")
	}
	s = token(time.Millisecond)
	if quiet, _ := s.quietly(ctx, func() error {
		if !makes(s, time.Minute) {
			t.Error("keys wait for longer than a call may take")
		}
		return nil
	}); quiet {
		t.Error("it was not quiet")
	}
	if !makes(s, time.Minute) {
		t.Error("no key is made after that")
	}
}
