package safehttptest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An Answer is what a hostile server says to any request.
type Answer struct {
	Name string
	http.HandlerFunc
	// Slow says that it does not end by itself.
	Slow bool
}

// maxCalls bounds the requests for one fetch, with those that redirects and a
// second try cause; maxWritten, the octets of all answers to them, with what
// systems buffer on the way.
const (
	maxCalls   = 8
	maxWritten = 64 << 20
)

// answers are the table. What Location leads to has the address inside.
func answers(inside string) []Answer {
	list := []Answer{
		{Name: "an endless body", HandlerFunc: endless},
		{Name: "a length beyond all bounds", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 999999999999\r\n\r\n" + "x")},
		{Name: "a body shorter than its length", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\n" + "{}")},
		{Name: "two lengths", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n" + "{}x")},
		{Name: "a length below zero", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: -1\r\n\r\n" + "{}")},
		{Name: "chunks that are none", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" + "zz\r\n{}\r\n")},
		{Name: "chunks that break off", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" + "2\r\n{}\r\n")},
		{Name: "a chunk of all octets there are", HandlerFunc: raw("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" + "ffffffffffffffff\r\n{}\r\n")},
		{Name: "no HTTP", HandlerFunc: raw("SSH-2.0-%s\r\n")},
		{Name: "a head without end", HandlerFunc: head},
		{Name: "interim answers without end", HandlerFunc: interim},
		{Name: "a gzip bomb", HandlerFunc: coded("gzip", squeezed(64<<20))},
		{Name: "a gzip bomb unasked", HandlerFunc: coded("x-gzip", squeezed(1<<20))},
		{Name: "gzip in gzip", HandlerFunc: coded("gzip, gzip", squeezed(1<<10))},
		{Name: "an unknown coding", HandlerFunc: coded("br", []byte("x"))},
		{Name: "gzip that is none", HandlerFunc: coded("gzip", []byte("no gzip"))},
		{Name: "gzip that breaks off", HandlerFunc: coded("gzip", squeezed(1 << 20)[:100])},
		{Name: "an error with a long story", HandlerFunc: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, r)
		}},
		{Name: "nothing", Slow: true, HandlerFunc: silence},
		{Name: "an octet now and then", Slow: true, HandlerFunc: drip},
	}
	for _, to := range Redirects {
		list = append(list, Answer{Name: fmt.Sprintf("a redirect to %q", to), HandlerFunc: redirect(to, inside)})
	}
	return append(list, Answer{Name: "a redirect with a line feed", HandlerFunc: raw("HTTP/1.1 302 Found\r\nX: %s\r\nLocation: https://a.example/\r\n\tb\r\nContent-Length: 0\r\n\r\n")})
}

func endless(w http.ResponseWriter, r *http.Request) {
	for part := bytes.Repeat([]byte("x"), 64<<10); r.Context().Err() == nil; {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// raw answers with these octets, in which %s is the media type that is wanted.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		hijacked(w, func(b *bufio.ReadWriter) { fmt.Fprintf(b, text, first(r.Header.Get("Accept"))) })
	}
}

func first(accept string) string {
	kind, _, _ := strings.Cut(accept, ",")
	return kind
}

func hijacked(w http.ResponseWriter, do func(*bufio.ReadWriter)) {
	c, b, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // the server speaks HTTP/1.1 alone
	}
	defer c.Close()
	do(b)
	b.Flush()
}

func head(w http.ResponseWriter, _ *http.Request) {
	hijacked(w, func(b *bufio.ReadWriter) {
		fmt.Fprint(b, "HTTP/1.1 200 OK\r\n")
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(b, "X-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	})
}

func interim(w http.ResponseWriter, _ *http.Request) {
	hijacked(w, func(b *bufio.ReadWriter) {
		for {
			if _, err := fmt.Fprint(b, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); err != nil {
				return
			}
		}
	})
}

func squeezed(n int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	part := make([]byte, 64<<10)
	for ; n > 0; n -= len(part) {
		z.Write(part)
	}
	z.Close()
	return b.Bytes()
}

func coded(coding string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", coding)
		w.Header().Set("Content-Type", first(r.Header.Get("Accept")))
		w.Write(body)
	}
}

func silence(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		w.Write([]byte(" "))
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A Server answers over HTTP/1.1, with TLS where it has a certificate.
type Server struct {
	Addr    string // at which it listens
	written atomic.Int64
	calls   atomic.Int32
}

// Port is that of Addr.
func (s *Server) Port(t *testing.T) uint16 {
	t.Helper()
	at, err := netip.ParseAddrPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return at.Port()
}

// NewServer starts a server at an address of this machine, until the test ends.
func NewServer(t *testing.T, at string, cert *tls.Certificate, h http.Handler) *Server {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String()}
	l = &counted{l, &s.written}
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}})
	}
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		h.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return s
}

// counted counts the octets that its connections write.
type counted struct {
	net.Listener
	written *atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return &countedConn{conn, c.written}, err
}

type countedConn struct {
	net.Conn
	written *atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// AnswersAreSurvived has a surface fetch every answer of the table from a
// server with a certificate, or without TLS where that is nil. No answer may be
// taken for a good one, nothing may connect inside, and an answer without end is
// not read for long. What does not end by itself is fetched with a bound in time of
// the surface's own, which the test makes short.
func AnswersAreSurvived(t *testing.T, cert *tls.Certificate, fetch func(t *testing.T, addr string, bound time.Duration) error) {
	trap := newTrap(t)
	for _, a := range answers("127.0.0.1:" + trap.port) {
		bound := time.Minute
		if a.Slow {
			bound = 300 * time.Millisecond
		}
		t.Run(a.Name, func(t *testing.T) {
			s := NewServer(t, "127.0.0.1", cert, a)
			if err := fetch(t, s.Addr, bound); err == nil {
				t.Error("it was taken for an answer")
			}
			if n := s.calls.Load(); n == 0 && !a.Slow || n > maxCalls {
				t.Errorf("%d requests arrived, want 1 to %d", n, maxCalls)
			}
			if n := s.written.Load(); n > maxWritten {
				t.Errorf("%d octets were taken", n)
			}
			trap.untouched(t, a.Name)
		})
	}
}
