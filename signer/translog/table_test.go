package translog_test

import (
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp/safehttptest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/translog"
)

// What the server of a log answers its monitor is survived, over plain HTTP as
// over TLS.
func TestMonitorSurvivesLogs(t *testing.T) {
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	safehttptest.AnswersAreSurvived(t, nil, func(t *testing.T, addr string, bound time.Duration) error {
		src := must[*translog.Source](t)(translog.NewSource("http://"+addr, nil))
		if bound < time.Minute { // the bound of its own is longer than a test waits
			src = must[*translog.Source](t)(translog.NewSource("http://"+addr, &http.Client{Timeout: bound}))
		}
		m := &translog.Monitor{Source: src, Keys: h.keys, State: filepath.Join(t.TempDir(), "state")}
		_, err := m.Check(t.Context())
		return err
	})
}

// What a witness answers leads the log nowhere, and is read up to a bound.
func TestLogSurvivesWitnesses(t *testing.T) {
	const most = 16 << 10
	safehttptest.AnswersAreSurvived(t, nil, func(t *testing.T, addr string, bound time.Duration) error {
		resp, err := translog.WitnessClient(&http.Client{Timeout: bound}).Post("http://"+addr+"/add-checkpoint", "text/plain", strings.NewReader("old 0\n\n"))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		switch {
		case len(b) > most:
			t.Errorf("%d octets were read", len(b))
		case err == nil && resp.StatusCode == http.StatusOK && strings.HasPrefix(string(b), "\u2014 "):
			return nil
		}
		return errors.Join(err, errors.New("no cosignature"))
	})
}
