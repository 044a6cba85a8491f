package daemon

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A limitListener bounds the open connections. Where there are too many, the
// one that has been idle longest is closed for the new one; where none is idle,
// the new one is closed. Idle connections of many clients so cost nobody a
// request.
type limitListener struct {
	net.Listener
	max int

	mu   sync.Mutex // guards what follows
	open map[net.Conn]*connUse
}

// A connUse is when a connection fell idle; the zero time while it works.
type connUse struct{ idleSince time.Time }

func newLimitListener(inner net.Listener, max int) *limitListener {
	return &limitListener{Listener: inner, max: max, open: make(map[net.Conn]*connUse)}
}

// Accept returns the next connection that there is room for.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: inner, listener: l}
		if l.admit(c) {
			return c, nil
		}
		inner.Close()
	}
}

func (l *limitListener) admit(c *limitedConn) bool {
	l.mu.Lock()
	var victim net.Conn
	full := len(l.open) >= l.max
	if full {
		victim = l.longestIdle()
		delete(l.open, victim)
	}
	if !full || victim != nil {
		l.open[c] = &connUse{idleSince: time.Now()} // idle until its first request
	}
	l.mu.Unlock()
	if victim != nil {
		victim.(*limitedConn).Conn.Close()
	}
	return !full || victim != nil
}

// longestIdle returns a connection to close, or nil. The caller holds mu.
func (l *limitListener) longestIdle() (victim net.Conn) {
	var since time.Time
	for c, use := range l.open {
		if !use.idleSince.IsZero() && (victim == nil || use.idleSince.Before(since)) {
			victim, since = c, use.idleSince
		}
	}
	return victim
}

// stateChanged is the server's ConnState. It is told of the TLS connection
// around ours.
func (l *limitListener) stateChanged(c net.Conn, s http.ConnState) {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapped.NetConn()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	use := l.open[c]
	if use == nil {
		return
	}
	switch s {
	case http.StateIdle:
		use.idleSince = time.Now()
	case http.StateActive:
		use.idleSince = time.Time{}
	}
}

func (l *limitListener) forget(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

type limitedConn struct {
	net.Conn
	listener *limitListener
}

func (c *limitedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

// limitBody bounds how long the body of a request may take to arrive, and
// leaves the answer, which may be a long stream, alone.
func limitBody(d time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &timedBody{ReadCloser: r.Body, control: http.NewResponseController(w), end: time.Now().Add(d)}
		b.timer = time.AfterFunc(d, b.expire)
		defer b.left()
		r.Body = b
		next.ServeHTTP(w, r)
	})
}

// A timedBody ends when its time is over. The time is its own and not the
// connection's, until it matters: of HTTP/2 each deadline, also one that is lifted
// again, is a message to the goroutine that serves the connection and wakes it.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	end     time.Time
	timer   *time.Timer

	mu      sync.Mutex // guards what follows
	read    bool       // to its end
	expired bool       // what is read of the connection fails
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.finish()
	}
	return n, err
}

// expire breaks off who reads.
func (b *timedBody) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.read {
		b.expired = true
		b.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// finish stops the time of a body that was read to its end.
func (b *timedBody) finish() {
	b.timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expired && !b.read { // the connection may serve on
		b.control.SetReadDeadline(time.Time{})
	}
	b.read = true
}

// left is called after the handler. What it has not read the server may still
// read, in the same time.
func (b *timedBody) left() {
	b.timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.read && !b.expired {
		b.control.SetReadDeadline(b.end)
	}
	b.read = true
}
