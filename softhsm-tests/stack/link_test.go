//go:build soak

package stack

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A link is the way from one party to another: a TCP proxy that the test
// disturbs. It stays where it is while the party behind it comes and goes.
type link struct {
	name string
	l    net.Listener

	mu     sync.Mutex // guards what follows
	target string
	open   map[net.Conn]bool
	held   time.Time     // nothing passes until then
	slow   time.Time     // everything is late until then
	delay  time.Duration // by how much
	tear   bool          // the next octets are cut in the middle
}

func newLink(t *testing.T, name string) *link {
	t.Helper()
	k := &link{name: name, l: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), open: make(map[net.Conn]bool)}
	t.Cleanup(func() { k.l.Close(); k.cut() })
	go k.serve()
	return k
}

func (k *link) address() string { return k.l.Addr().String() }

// lead makes the link lead to an address.
func (k *link) lead(target string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.target = target
}

func (k *link) serve() {
	for {
		from, err := k.l.Accept()
		if err != nil {
			return
		}
		go k.relay(from)
	}
}

func (k *link) relay(from net.Conn) {
	k.pause()
	k.mu.Lock()
	target := k.target
	k.mu.Unlock()
	to, err := net.Dial("tcp", target)
	if err != nil {
		reset(from)
		return
	}
	k.mu.Lock()
	k.open[from], k.open[to] = true, true
	k.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { k.pump(to, from) })
	wg.Go(func() { k.pump(from, to) })
	wg.Wait()
	k.mu.Lock()
	delete(k.open, from)
	delete(k.open, to)
	k.mu.Unlock()
}

// pump passes octets on until an end closes.
func (k *link) pump(to, from net.Conn) {
	defer reset(to)
	defer reset(from)
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if n > 0 {
			k.pause()
			torn := k.torn()
			if torn {
				n = rand.N(n)
			}
			if _, err := to.Write(b[:n]); err != nil || torn {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pause waits as long as nothing passes, or as everything is late.
func (k *link) pause() {
	for {
		k.mu.Lock()
		now, late := time.Now(), time.Duration(0)
		held := k.held.Sub(now)
		if now.Before(k.slow) {
			late = rand.N(k.delay)
		}
		k.mu.Unlock()
		if held <= 0 {
			time.Sleep(late)
			return
		}
		time.Sleep(min(held, 20*time.Millisecond))
	}
}

func (k *link) torn() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	torn := k.tear
	k.tear = false
	return torn
}

// reset closes a connection so that the other end sees a failure.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// cut drops all connections.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.open {
		reset(c)
	}
}

// hold parts the two ends for a time. What was under way arrives later.
func (k *link) hold(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = time.Now().Add(d)
}

// slowDown makes everything late for a time.
func (k *link) slowDown(d, delay time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slow, k.delay = time.Now().Add(d), delay
}

// tearNext cuts a connection in the middle of what it carries next.
func (k *link) tearNext() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tear = true
}

// heal lets everything pass again.
func (k *link) heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held, k.slow, k.tear = time.Time{}, time.Time{}, false
}
