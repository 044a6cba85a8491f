package daemon

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A limitListener bounds the open connections. Where there are too many, the
// one that has been idle longest is closed for the new one; where none is idle,
// the one on which nothing has moved for the longest, if that is longer than
// stall: it does not read its answer, or does not send its request. Else the new
// one is closed. Connections that do nothing so cost nobody a request.
type limitListener struct {
	net.Listener
	max   int
	stall time.Duration

	mu   sync.Mutex // guards what follows
	open map[net.Conn]*connUse
}

// A connUse is when a connection fell idle; the zero time while it works.
type connUse struct{ idleSince time.Time }

func newLimitListener(inner net.Listener, max int, stall time.Duration) *limitListener {
	return &limitListener{Listener: inner, max: max, stall: stall, open: make(map[net.Conn]*connUse)}
}

// Accept returns the next connection that there is room for.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: inner, listener: l}
		c.moved()
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
		if victim = l.longestIdle(); victim == nil {
			victim = l.longestStalled()
		}
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

// longestStalled returns a connection on which nothing has moved for long, or nil.
// The caller holds mu.
func (l *limitListener) longestStalled() (victim net.Conn) {
	before := time.Now().Add(-l.stall).UnixNano()
	for c := range l.open {
		if at := c.(*limitedConn).last.Load(); at < before {
			victim, before = c, at
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
	last     atomic.Int64 // when something moved, in nanoseconds
}

func (c *limitedConn) moved() { c.last.Store(time.Now().UnixNano()) }

// Read notes that something came.
func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.moved()
	}
	return n, err
}

// Write notes that something went.
func (c *limitedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.moved()
	}
	return n, err
}

func (c *limitedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

// bodyRate is how many octets of a body have to arrive in a second, once the time
// that every body has is over: a telephone on a bad network sends as many, and who
// wants to keep a request open has to send as many too.
const bodyRate = 4 << 10

// limitBody bounds how long the body of a request may take to arrive: d, and
// longer for one that goes on arriving. It leaves the answer, which may be a long
// stream, alone.
func limitBody(d time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &timedBody{ReadCloser: r.Body, control: http.NewResponseController(w), begun: time.Now(), least: d}
		b.mu.Lock()
		b.timer = time.AfterFunc(d, b.expire)
		b.mu.Unlock()
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
	begun   time.Time
	least   time.Duration // that every body may take
	octets  atomic.Int64  // that have come
	timer   *time.Timer

	mu      sync.Mutex // guards what follows
	read    bool       // to its end
	expired bool       // what is read of the connection fails
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.octets.Add(int64(n))
	if err == io.EOF {
		b.finish()
	}
	return n, err
}

// end is when the time of the body is over, as far as it has come.
func (b *timedBody) end() time.Time {
	return b.begun.Add(b.least + time.Duration(b.octets.Load())*time.Second/bodyRate)
}

// expire breaks off who reads, unless enough has come.
func (b *timedBody) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read {
		return
	}
	if left := time.Until(b.end()); left > 0 {
		b.timer.Reset(left)
	} else {
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
		b.control.SetReadDeadline(b.end())
	}
	b.read = true
}
