package enrol_test

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// An issuerFunc is an enrol.Issuer.
type issuerFunc func(context.Context, enrol.Order) (*enrol.Issued, error)

func (f issuerFunc) Issue(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
	return f(ctx, o)
}

// TestCodeSignsOnce counts how often a code has the issuer sign: not while another
// enrolment has it, not after it was spent, and not after a commit of which the
// outcome is not known. What fails before the signature leaves it good.
func TestCodeSignsOnce(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	var issue issuerFunc
	signed := 0
	c := w.Config
	c.Issuer = issuerFunc(func(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
		signed++
		return issue(ctx, o)
	})
	s, err := enrol.New(c)
	must(t, err)
	request, err := certs.CreateRequest(rand.Reader, newKey(t), names(t), nil)
	must(t, err)
	code := func(unattested bool) string {
		code, _, err := w.store.Invite(t.Context(), enrol.Invitation{Names: names(t), Type: registry.X509, Lifetime: time.Hour, Unattested: unattested}, 0)
		must(t, err)
		return code.Reveal()
	}
	try := func(code string, times int, want enrol.Reason) {
		t.Helper()
		signed = 0
		_, err := s.Simple(t.Context(), code, request)
		if signed != times {
			t.Errorf("signed %d times, want %d", signed, times)
		}
		if want == "" {
			must(t, err)
			return
		}
		refused(t, err, want)
	}
	fault := errors.New("the disk is gone")

	away := code(true)
	issue = func(context.Context, enrol.Order) (*enrol.Issued, error) { return nil, fault }
	if _, err := s.Simple(t.Context(), away, request); !errors.Is(err, fault) {
		t.Error(err)
	}
	inner := func(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
		issue = w.Issue // if it is asked once more
		try(away, 0, enrol.ReasonCode)
		signed = 1
		return w.Issue(ctx, o)
	}
	issue = inner
	try(away, 1, "")
	try(away, 0, enrol.ReasonCode)

	issue = func(ctx context.Context, o enrol.Order) (*enrol.Issued, error) {
		return nil, w.book.Database().Batch(ctx, func(tx *sqldb.Tx) error {
			if err := o.Spend(ctx, tx, registry.NewID()); err != nil {
				return err
			}
			return fault
		})
	}
	lost := code(true)
	if _, err := s.Simple(t.Context(), lost, request); !errors.Is(err, fault) {
		t.Error(err)
	}
	issue = w.Issue
	try(lost, 0, enrol.ReasonCode)
	if restarted, err := enrol.New(w.Config); err != nil {
		t.Error(err)
	} else if _, err := restarted.Simple(t.Context(), lost, request); err != nil {
		t.Errorf("the commit had failed, and after a restart: %v", err)
	}

	// A session is opened, and others use the code before it is finished.
	attested := code(false)
	challenge, err := s.Begin(t.Context(), &enrol.BeginRequest{Code: attested})
	must(t, err)
	other, key := w.begin(attested), newKey(t)
	_, err = w.Finish(t.Context(), w.answer(other, key, good(other, key.Public()), w.appliance))
	must(t, err)
	signed = 0
	_, err = s.Finish(t.Context(), w.answer(challenge, key, good(challenge, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonCode)
	if signed != 0 {
		t.Error("a code that others had used had the issuer sign")
	}
}
