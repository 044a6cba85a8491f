package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errStalled is found in a LostError if the provider, or the network to it, has
// stopped in the middle of a request or an answer.
var errStalled = errors.New("nothing has moved")

// A motion ends a request whose body, or whose answer, does not go on. While the
// answer has not begun, the transport waits for it.
type motion struct {
	after  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func watched(ctx context.Context, after time.Duration) (context.Context, *motion) {
	ctx, cancel := context.WithCancelCause(ctx)
	m := &motion{after: after, cancel: cancel}
	m.timer = time.AfterFunc(after, func() { cancel(fmt.Errorf("%w for %v", errStalled, after)) })
	m.timer.Stop()
	return ctx, m
}

// out watches the body of a request until it is sent.
func (m *motion) out(req *http.Request) {
	body := req.Body
	req.Body = &sending{body, m}
	again := req.GetBody
	req.GetBody = func() (io.ReadCloser, error) {
		body, err := again()
		return &sending{body, m}, err
	}
	m.timer.Reset(m.after)
}

type sending struct {
	io.ReadCloser
	m *motion
}

// Read is called for what is sent next, when what was read before is sent.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.m.timer.Stop()
	} else {
		s.m.timer.Reset(s.m.after)
	}
	return n, err
}

// in watches the body of an answer while somebody waits for it.
func (m *motion) in(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	m.timer.Stop()
	return &receiving{body, ctx, m}
}

type receiving struct {
	io.ReadCloser
	ctx context.Context
	m   *motion
}

func (r *receiving) Read(p []byte) (int, error) {
	r.m.timer.Reset(r.m.after)
	n, err := r.ReadCloser.Read(p)
	r.m.timer.Stop()
	if err != nil && err != io.EOF {
		err = r.m.why(r.ctx, err)
	}
	return n, err
}

func (r *receiving) Close() error {
	err := r.ReadCloser.Close()
	r.m.end()
	return err
}

func (m *motion) end() {
	m.timer.Stop()
	m.cancel(nil)
}

// why is the error of a request, or that it stalled.
func (m *motion) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}
