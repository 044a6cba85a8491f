package hsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// workerArgument, alone on the command line, makes the program a worker.
const workerArgument = "privyseal-hsm-worker"

// workerSocket is the descriptor of a worker's end of the socket pair.
const workerSocket = 3

// workerMark is set in a worker's environment, so that a program that forgot
// to call WorkerMain does not start workers of its own without end.
const workerMark = "PRIVYSEAL_HSM_WORKER"

// WorkerMain makes the program a worker when it was started as one by this
// package, and then does not return. Otherwise it does nothing. A program that
// uses Config.Workers calls it first in main, before it looks at its flags, and
// the tests of such a program in TestMain. The optional layers are put around
// the module's functions, as Config.Wrap does in-process.
func WorkerMain(wrap ...func(API) API) {
	if len(os.Args) != 2 || os.Args[1] != workerArgument || os.Getenv(workerMark) == "" {
		return
	}
	os.Exit(serveWorker(wrap))
}

func serveWorker(wrap []func(API) API) int {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // no core dump holds a PIN
	s := newWorkerServer(os.NewFile(workerSocket, "program"), wrap)
	if err := s.hello(); err != nil {
		fmt.Fprintln(os.Stderr, "hsm worker:", err)
		return 1
	}
	s.serve()
	return 0
}

// A workerServer answers the frames of one program. Several goroutines take
// turns at reading: who has read a frame lets the next one read and handles it,
// so no frame changes goroutines.
type workerServer struct {
	socket *os.File
	wrap   func(API) API
	module *localModule
	out    frameWriter

	reading sync.Mutex // guards in and header
	in      *bufio.Reader
	header  [frameHeader]byte

	mu     sync.RWMutex // guards the maps
	tokens map[tokenNumber]*workerToken
	pins   map[tokenNumber]chan pinAnswer

	single        bool          // one Session; set before serve reads
	progressEvery time.Duration // set before serve reads
	done          chan struct{} // closed when the program is gone or wants no more
	once          sync.Once
}

// A workerToken is a token with the keys that were named to this worker.
type workerToken struct {
	*localToken
	known sync.Map // Fingerprint to *KeyInfo
}

func newWorkerServer(socket *os.File, wrap []func(API) API) *workerServer {
	s := &workerServer{
		socket: socket, in: bufio.NewReaderSize(socket, 64<<10), out: frameWriter{w: socket},
		tokens: make(map[tokenNumber]*workerToken), pins: make(map[tokenNumber]chan pinAnswer),
		done: make(chan struct{}),
	}
	s.wrap = func(a API) API {
		for _, w := range wrap {
			a = w(a)
		}
		return a
	}
	return s
}

// hello reads the configuration and loads the module.
func (s *workerServer) hello() error {
	f, err := readFrame(s.in, &s.header)
	if err != nil {
		return err
	}
	var h helloConfig
	if f.kind != askHello {
		return fmt.Errorf("%w: %d before hello", errFrame, f.kind)
	}
	if err := decodeJSON(f.payload, &h); err != nil {
		return err
	}
	c := h.config()
	c.Wrap, c.Observe, s.progressEvery = s.wrap, s.tellEvent, h.ProgressEvery
	runtime.GOMAXPROCS(max(2, min(runtime.NumCPU(), c.Sessions+1)))
	if s.module, err = openLocal(c); err != nil {
		s.out.send(f.call, answerError, encodeJSON(toWire(err)))
		return err
	}
	return s.out.send(f.call, answerOK, encodeJSON(s.module.lib.info))
}

func (s *workerServer) tellEvent(e Event) {
	w := wireEvent{Kind: e.Kind, Token: e.Token, Took: e.Took}
	if e.Err != nil {
		w.Err = e.Err.Error()
	}
	s.out.send(0, tellEvent, encodeJSON(w))
}

// serve runs one reader per Session until the program ends the worker.
func (s *workerServer) serve() {
	s.single = s.module.config.Sessions == 1
	for range s.module.config.Sessions {
		go s.readOn()
	}
	<-s.done
}

// lateAnswer is how long a call may take for its answer to wait for the next.
const lateAnswer = 300 * time.Microsecond

// maxLate bounds how many answers wait.
const maxLate = 4

// readOn takes turns at reading until the program is gone.
//
// With one Session, which is the case for modules that compute, answers to
// quick calls leave together when more questions are here already: fewer system
// calls, and the program is woken less often.
func (s *workerServer) readOn() {
	for late := 0; ; {
		if !s.reading.TryLock() {
			late = 0
			s.out.flush()
			s.reading.Lock()
		}
		f, err := readFrame(s.in, &s.header)
		more := s.single && s.in.Buffered() >= frameHeader
		s.reading.Unlock()
		if err != nil {
			s.quit() // the program is gone, or speaks nonsense: both end the worker
			return
		}
		begin := time.Now()
		s.handle(f)
		if late++; more && late < maxLate && time.Since(begin) < lateAnswer {
			continue
		}
		late = 0
		s.out.flush()
	}
}

// readForPIN reads while a login waits for its PIN. It must not wait for the
// login itself, as what it reads may do, so that is handled elsewhere.
func (s *workerServer) readForPIN(enough <-chan struct{}) {
	for {
		s.reading.Lock()
		select {
		case <-enough:
			s.reading.Unlock()
			return
		default:
		}
		f, err := readFrame(s.in, &s.header)
		s.reading.Unlock()
		if err != nil {
			s.quit()
			return
		}
		if f.kind == tellPIN {
			s.handlePIN(f)
			continue
		}
		go func() {
			s.handle(f)
			s.out.flush()
		}()
	}
}

func (s *workerServer) quit() { s.once.Do(func() { close(s.done) }) }

// handle answers one frame.
func (s *workerServer) handle(f frame) {
	if f.kind == tellPIN {
		s.handlePIN(f)
		return
	}
	if f.kind == askQuit {
		s.module.close(context.Background())
		s.out.send(f.call, answerOK)
		s.quit()
		return
	}
	out, err := s.answer(f)
	switch {
	case err == errUnknownKey:
		s.out.queue(f.call, answerUnknown)
	case err != nil:
		s.out.queue(f.call, answerError, encodeJSON(toWire(err)))
	default:
		s.out.queue(f.call, answerOK, out)
	}
}

// errUnknownKey makes the program send askKnow.
var errUnknownKey = errors.New("hsm: the key was not named to this worker")

func (s *workerServer) answer(f frame) ([]byte, error) {
	if f.kind == askOperate {
		return s.operate(context.Background(), f.payload)
	}
	ctx := s.progress(f.call)
	switch f.kind {
	case askTokens:
		tokens, err := s.module.tokens(ctx)
		return answerJSON(tokens, err)
	case askOpen:
		return nil, s.open(ctx, f.payload)
	}
	n, rest, err := cutTokenNumber(f.payload)
	if err != nil {
		return nil, err
	}
	t, err := s.token(n)
	if err != nil {
		return nil, err
	}
	return s.answerToken(ctx, f.kind, n, t, rest)
}

func (s *workerServer) answerToken(ctx context.Context, kind frameKind, n tokenNumber, t *workerToken, p []byte) ([]byte, error) {
	switch kind {
	case askHealth:
		h, err := t.health(ctx)
		return answerJSON(h, err)
	case askKeys:
		keys, err := t.keys(ctx)
		return answerJSON(keys, err)
	case askFind:
		u, err := ParseURI(string(p))
		if err != nil {
			return nil, err
		}
		keys, err := t.find(ctx, u)
		return answerJSON(keys, err)
	case askLook:
		return nil, t.lookForNew(ctx)
	case askGenerate:
		var spec KeySpec
		if err := decodeJSON(p, &spec); err != nil {
			return nil, err
		}
		k, err := t.generate(ctx, spec)
		return answerJSON(k, err)
	case askDestroy, askKnow:
		return nil, s.withKey(ctx, kind, t, p)
	case askClose:
		s.mu.Lock()
		delete(s.tokens, n)
		s.mu.Unlock()
		return nil, t.close(ctx)
	}
	return nil, fmt.Errorf("%w: kind %d is not for a worker", errFrame, kind)
}

func (s *workerServer) withKey(ctx context.Context, kind frameKind, t *workerToken, p []byte) error {
	k := new(KeyInfo)
	if err := decodeJSON(p, k); err != nil {
		return err
	}
	if kind == askKnow {
		t.known.Store(k.Fingerprint, k)
		return nil
	}
	return t.destroy(ctx, k)
}

func answerJSON(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return encodeJSON(v), nil
}

func (s *workerServer) operate(ctx context.Context, p []byte) ([]byte, error) {
	r, err := parseOperate(p)
	if err != nil {
		return nil, err
	}
	t, err := s.token(r.token)
	if err != nil {
		return nil, err
	}
	k, ok := t.known.Load(r.key)
	if !ok {
		return nil, errUnknownKey
	}
	return t.operate(ctx, r.op, k.(*KeyInfo), r.in)
}

func (s *workerServer) token(n tokenNumber) (*workerToken, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tokens[n]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("hsm: token number %d: %w", n, ErrClosed)
}

// open logs in to a token. A lazy one is kept even when that fails now.
func (s *workerServer) open(ctx context.Context, p []byte) error {
	r, err := parseOpen(p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.pins[r.token] = make(chan pinAnswer, 1)
	s.mu.Unlock()
	t := newLocalToken(s.module.lib, s.module.config, r.uri, &askedPIN{server: s, token: r.token})
	if err := t.relogin(ctx, nil, nil); err != nil && !r.lazy {
		s.module.lib.part(t)
		return t.complete(err)
	}
	s.module.add(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[r.token] = &workerToken{localToken: t}
	return nil
}
