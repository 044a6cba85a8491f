package hsm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A link is one living worker process and the calls that wait for it.
type link struct {
	number int
	cmd    *exec.Cmd
	conn   net.Conn
	out    frameWriter
	stderr *tailBuffer
	told   func(*link, frame) // frames that answer no call
	limits limits

	load atomic.Int32 // calls in flight, abandoned ones included

	mu      sync.Mutex // guards the fields below
	next    uint32
	calls   map[uint32]*call
	retired bool  // takes no more calls
	err     error // why the link is dead

	look   chan struct{} // has something when it is time to look at the worker's size
	size   int64         // octets of memory when it was published; the supervisor's
	dead   chan struct{} // closed when no call can be answered any more
	exited chan struct{} // closed when the process was waited for
}

// A call waits for its answer. It is reused when its answer has come.
type call struct {
	answer chan frame // one place, so that the reader never waits
	clock  callClock
}

var callPool = sync.Pool{New: func() any { return &call{answer: make(chan frame, 1)} }}

// startLink starts this program as a worker.
func startLink(number int, c Config, told func(*link, frame)) (*link, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("hsm: worker socket: %w", err)
	}
	defer theirs.Close()
	l := &link{
		number: number, conn: ours, told: told, stderr: new(tailBuffer), out: frameWriter{w: ours}, limits: c.limits(),
		calls: make(map[uint32]*call), dead: make(chan struct{}), exited: make(chan struct{}), look: make(chan struct{}, 1),
	}
	l.cmd = &exec.Cmd{
		Path:       "/proc/self/exe", // the file that runs, whatever was installed since
		Args:       []string{os.Args[0], workerArgument},
		Env:        append(append(os.Environ(), workerMark+"=1"), c.Env...),
		ExtraFiles: []*os.File{theirs},
		Stderr:     l.stderr,
		WaitDelay:  time.Second,
		// A group of its own keeps the terminal's signals from the worker: it
		// ends after the program has drained it.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := l.cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("hsm: start worker: %w", err)
	}
	go l.read()
	go l.wait()
	go l.watch()
	return l, nil
}

func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "program")
	defer mine.Close() // FileConn duplicates it
	conn, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// read hands answers to those who wait.
func (l *link) read() {
	in := bufio.NewReaderSize(l.conn, 64<<10)
	var header [frameHeader]byte
	for {
		f, err := readFrame(in, &header)
		if err != nil {
			l.fail(fmt.Errorf("the connection ended: %w", err))
			return
		}
		switch {
		case f.kind == tellProgress:
			l.progressed(f.call)
			continue
		case f.kind >= wantPIN:
			l.told(l, f)
			continue
		}
		c := l.ended(f.call)
		if c == nil {
			l.fail(fmt.Errorf("%w: an answer to call %d, which nobody made", errFrame, f.call))
			return
		}
		l.load.Add(-1)
		c.answer <- f
	}
}

// wait reaps the process.
func (l *link) wait() {
	err := l.cmd.Wait()
	l.fail(fmt.Errorf("the process ended: %w%s", exitError(err), l.stderr.hint()))
	close(l.exited)
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// fail ends the link: every waiting call hears of it, and the process goes.
func (l *link) fail(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf("%w: worker %d: %w", ErrWorkerLost, l.number, why)
	close(l.dead)
	l.conn.Close()
	l.cmd.Process.Kill()
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// ask sends a question and waits for the answer. A caller whose context ends
// leaves; the answer is thrown away when it comes.
func (l *link) ask(ctx context.Context, kind frameKind, parts ...[]byte) (frame, error) {
	c := callPool.Get().(*call)
	c.clock = l.limits.begin(kind, l.cmd.Process.Pid)
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return frame{}, l.err
	}
	if l.retired && kind != askQuit {
		defer l.mu.Unlock()
		return frame{}, errRetired
	}
	l.next++
	number := l.next
	l.calls[number] = c
	l.mu.Unlock()
	if number%lookEvery == 0 {
		select {
		case l.look <- struct{}{}:
		default:
		}
	}
	var err error
	if l.load.Add(1) > 1 && kind == askOperate {
		l.out.queue(number, kind, parts...)
		runtime.Gosched() // others that are ready add theirs, and one call writes all
		err = l.out.flush()
	} else {
		err = l.out.send(number, kind, parts...)
	}
	if err != nil {
		l.fail(fmt.Errorf("the connection ended: %w", err))
	}
	select {
	case f := <-c.answer:
		callPool.Put(c)
		return f, nil
	case <-l.dead:
		return frame{}, l.failure()
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	}
}

// result turns an answer into the payload or the error it carries.
func result(f frame, err error) ([]byte, error) {
	switch {
	case err != nil:
		return nil, err
	case f.kind == answerOK:
		return f.payload, nil
	case f.kind == answerError:
		return nil, fromWire(f.payload)
	case f.kind == answerUnknown:
		return nil, errUnknownKey
	}
	return nil, fmt.Errorf("%w: an answer of kind %d", errFrame, f.kind)
}

// stop ends the process: after its calls when the context allows, by force
// otherwise.
func (l *link) stop(ctx context.Context) {
	l.ask(ctx, askQuit)
	select {
	case <-l.exited:
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	l.fail(ErrClosed)
	<-l.exited
}

// A tailBuffer keeps the end of what a worker writes to its standard error.
type tailBuffer struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

const tailSize = 8 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.kept) < tailSize { // the beginning of a crash says most
		b.kept = append(b.kept, p[:min(len(p), tailSize-len(b.kept))]...)
	}
	return len(p), nil
}

// hint is the line that names the crash.
func (b *tailBuffer) hint() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(b.kept) {
		text := strings.TrimSpace(string(line))
		for _, word := range []string{"SIG", "fatal error", "panic:", "hsm worker:"} {
			if strings.Contains(text, word) {
				return ": " + truncate(text, 200)
			}
		}
	}
	return ""
}
