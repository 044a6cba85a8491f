package enrol

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/privyseal/privyseal/internal/problem"
)

// The paths of the two steps, below the issuer's URL.
const (
	PathBegin  = "/enrol/begin"
	PathFinish = "/enrol/finish"
)

const typeJSON = "application/json"

// Handler serves the two steps below base, the path of the issuer's URL. Codes
// and secrets are in the bodies, so that it belongs on a listener with TLS.
func (s *Service) Handler(base string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(base+PathBegin, step(s, parseBegin, s.Begin))
	mux.Handle(base+PathFinish, step(s, parseFinish, s.Finish))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.New(http.StatusNotFound, "not-found", "there is %s and %s", PathBegin, PathFinish).Write(w)
	})
	return mux
}

// step serves one step.
func step[Q, A any](s *Service, parse func([]byte) (*Q, error), do func(context.Context, *Q) (*A, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := answer(w, r, parse, do)
		if err != nil {
			s.Report(err)
			problemOf(err).Write(w)
			return
		}
		w.Header().Set("Content-Type", typeJSON)
		w.Header().Set("Cache-Control", "no-store")
		w.Write(answer)
	})
}

func answer[Q, A any](w http.ResponseWriter, r *http.Request, parse func([]byte) (*Q, error), do func(context.Context, *Q) (*A, error)) ([]byte, error) {
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	q, err := parse(body)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "malformed", "%w", err)
	}
	a, err := do(r.Context(), q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, problem.New(http.StatusMethodNotAllowed, "method", "use POST")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != typeJSON {
		return nil, problem.New(http.StatusUnsupportedMediaType, "media-type", "the body is %s", typeJSON)
	}
	return readAll(w, r, maxBody)
}

func readAll(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem.New(http.StatusRequestEntityTooLarge, "too-large", "more than %d octets", most)
	case err != nil:
		return nil, problem.New(http.StatusBadRequest, "body", "the body did not arrive whole: %w", err)
	}
	return b, nil
}

// problemOf returns a refusal as a problem, and everything else as what it is.
func problemOf(err error) *problem.Problem {
	var refused *Error
	if errors.As(err, &refused) {
		return &problem.Problem{Status: http.StatusForbidden, Code: problemPrefix + string(refused.Reason), Detail: refused.Err.Error(), Err: err}
	}
	return problem.Of(err)
}
