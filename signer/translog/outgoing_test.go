package translog_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/translog"
)

// Witnesses that send the log to other servers, or answer without end, get
// nothing of it but their own cosignature's absence.
func TestHostileWitnesses(t *testing.T) {
	var inside atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer other.Close()
	written := make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/away") {
			http.Redirect(w, r, other.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
			return
		}
		n, line := 0, []byte(strings.Repeat("x", 1<<16))
		for n < 1<<28 {
			m, err := w.Write(line)
			if n += m; err != nil {
				break
			}
		}
		select {
		case written <- n:
		default:
		}
	}))
	defer srv.Close()

	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	policy := ""
	for _, name := range []string{"away", "endless"} {
		_, vkey, err := note.GenerateKey(rand.Reader, name+".example")
		if err != nil {
			t.Fatal(err)
		}
		policy += fmt.Sprintf("witness %s %s %s/%s\n", name, must[string](t)(fnote.VKeyToCosignatureV1(vkey)), srv.URL, name)
	}
	h.options.Witnesses, h.options.WitnessesOptional = []byte(policy+"group both all away endless\nquorum both\n"), true
	h.reopen()
	h.sign("a", 3)
	h.publish()
	select {
	case n := <-written:
		if n > 1<<25 { // what the system buffers on the way is far less
			t.Errorf("%d octets of a witness's answer were taken", n)
		}
	case <-time.After(time.Minute):
		t.Error("the endless witness was not asked")
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("a witness brought the log to ask another server %d times", n)
	}
}

// A log that is watched cannot have its monitor ask other servers.
func TestLogThatRedirects(t *testing.T) {
	var inside atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer other.Close()
	h := newHouse(t, signer.P256, filepath.Join(t.TempDir(), "j.db"))
	h.sign("a", 1)
	h.publish()
	handler := translog.Handler(h.dir)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, moved := strings.CutPrefix(r.URL.Path, "/moved")
		switch {
		case moved:
			http.Redirect(w, r, path, http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/away/"):
			http.Redirect(w, r, other.URL, http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/circle/"):
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			handler.ServeHTTP(w, r)
		}
	}))
	defer srv.Close()
	must[*translog.Checkpoint](t)(must[*translog.Source](t)(translog.NewSource(srv.URL+"/moved", nil)).Checkpoint(t.Context(), h.keys))
	for _, at := range []string{"/away", "/circle"} {
		if c, err := must[*translog.Source](t)(translog.NewSource(srv.URL+at, nil)).Checkpoint(t.Context(), h.keys); err == nil || !strings.Contains(err.Error(), "the log redirects") {
			t.Errorf("%s: %v, %v", at, c, err)
		}
	}
	if n := inside.Load(); n != 0 {
		t.Errorf("the monitor asked another server %d times", n)
	}
}
