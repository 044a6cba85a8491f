package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// An audited is a home with a journal whose log is being served.
type audited struct {
	t       *testing.T
	served  *served
	home    string
	journal string
	config  *Config
}

func newAudited(t *testing.T) *audited {
	t.Helper()
	w := wireTest(t, initOptions{softHSM: true})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "log", Purpose: signer.PurposeLogCheckpoint, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	w.config.Serve = &ServeConfig{Operator: "operator", Listeners: map[string]*ListenerSection{"operator": {Address: "127.0.0.1:0", Plain: true}},
		TransparencyLog: &TransparencyLogSection{Origin: "signer.example/log", Key: "log", Listener: "operator", Interval: Duration(100 * time.Millisecond)}}
	u := &audited{t: t, home: t.TempDir(), journal: w.config.databaseSource("journal"), config: w.config}
	u.served = serveTest(t, w)
	return u
}

// sign writes entries as the service does, with made-up signatures.
func (u *audited) sign(texts ...string) {
	u.t.Helper()
	j, err := journal.Open(u.t.Context(), u.journal, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	defer j.Close()
	for _, s := range texts {
		d := sha256.Sum256([]byte(s))
		r, err := signer.DigestRequest(crypto.SHA256, d[:])
		if err != nil {
			u.t.Fatal(err)
		}
		res, err := j.Reserve(u.t.Context(), journal.Intent{Tenant: "acme", Caller: "app", Key: "k", Version: 1, Request: r})
		if err == nil {
			err = res.Complete(u.t.Context(), journal.Outcome{Result: journal.Signed, Signature: auditSignature(s), Device: "token"})
		}
		if err != nil {
			u.t.Fatal(err)
		}
	}
}

// run runs a subcommand of audit and returns its status and output.
func (u *audited) run(args ...string) (int, string) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	status := run(ctx, append([]string{"audit"}, args...), streams{strings.NewReader(""), &out, &out})
	return status, out.String()
}

func (u *audited) want(status int, contains string, args ...string) string {
	u.t.Helper()
	got, out := u.run(args...)
	if got != status || !strings.Contains(out, contains) {
		u.t.Fatalf("audit %s: status %d, want %d with %q:\n%s", strings.Join(args, " "), got, status, contains, out)
	}
	return out
}

func TestAudit(t *testing.T) {
	u := newAudited(t)
	log, vkey := "http://"+u.served.addr["operator"]+"/log/", u.config.vkeyPath()
	at := []string{"--journal", u.journal, "--log", log, "--vkey", vkey}
	u.sign("one", "two", "three")
	proof := filepath.Join(u.home, "proof")
	u.served.eventually("two is provable", func() bool {
		status, _ := u.run(append([]string{"prove", hex.EncodeToString(auditSignature("two")), "--out", proof}, at...)...)
		return status == exitOK
	})
	u.want(exitOK, "caller     app", "verify-proof", proof, "--vkey", vkey, "--signature", hex.EncodeToString(auditSignature("two")))
	u.want(exitRefused, "another signature", "verify-proof", proof, "--vkey", vkey, "--signature", hex.EncodeToString(auditSignature("one")))
	u.want(exitOK, "is of this journal", append([]string{"verify"}, at...)...)
	u.want(exitOK, "index      ", "find", base64.StdEncoding.EncodeToString(auditSignature("three")), "--journal", u.journal)
	u.want(exitRefused, "not made here", "find", hex.EncodeToString(auditSignature("four")), "--journal", u.journal)
	u.want(exitOK, "guard         checkpoint signer.example/log", "status", "--journal", u.journal)
	u.want(exitLocal, "no such file", "status", "--journal", filepath.Join(u.home, "absent.db"))
	u.exported()

	monitor := []string{"monitor", "--log", log, "--vkey", vkey, "--state", filepath.Join(u.home, "seen"), "--max-age", "1h"}
	u.want(exitOK, "entries, were 0", monitor...)
	u.sign("four")
	u.served.eventually("the log grows", func() bool {
		_, out := u.run(monitor...)
		return !strings.Contains(out, "were 0")
	})
	u.tampered(at)
}

// exported reads the export back.
func (u *audited) exported() {
	u.t.Helper()
	out := u.want(exitOK, "", "export", "--journal", u.journal)
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var v entryView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			u.t.Fatal(err)
		}
		sum := sha256.Sum256(v.Entry)
		if v.Index != uint64(i) || v.Commitment != hex.EncodeToString(sum[:]) {
			u.t.Errorf("line %d: %s", i, line)
		}
	}
}

// tampered changes the journal behind the program's back.
func (u *audited) tampered(at []string) {
	u.t.Helper()
	verify := append([]string{"verify"}, at...)
	for _, c := range []struct{ query, want, undo string }{
		{`UPDATE journal_entry SET outcome = CAST(replace(outcome, '"time":"2', '"time":"3') AS BLOB) WHERE position = 1`, "entry 1",
			`UPDATE journal_entry SET outcome = CAST(replace(outcome, '"time":"3', '"time":"2') AS BLOB) WHERE position = 1`},
		{`DELETE FROM journal_entry WHERE position >= 2`, "entry 2", `SELECT 1`},
		{`UPDATE journal_head SET entries = 2, chain = (SELECT chain FROM journal_entry WHERE position = 1)`, "cut off", `SELECT 1`},
	} {
		db, err := sqldb.Open(u.t.Context(), u.journal, sqldb.Options{Name: "tamper", Migrations: os.DirFS("testdata/tamper")})
		if err != nil {
			u.t.Fatal(err)
		}
		change(u.t, db, c.query)
		u.want(exitRefused, c.want, verify...)
		change(u.t, db, c.undo)
		db.Close()
	}
}

func change(t *testing.T, db *sqldb.DB, query string) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), query)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A syncBuffer is written and read by two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestAuditWitness runs a witness and has it cosign by hand.
func TestAuditWitness(t *testing.T) {
	u := newAudited(t)
	u.sign("one")
	u.served.eventually("there is a verifier key", func() bool { _, err := os.Stat(u.config.vkeyPath()); return err == nil })
	ctx, stop := context.WithCancel(t.Context())
	out := &syncBuffer{}
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"audit", "witness", "--listen", "127.0.0.1:0", "--dir", filepath.Join(u.home, "w"), "--name", "w.example/1", "--vkey", u.config.vkeyPath()},
			streams{strings.NewReader(""), out, out})
	}()
	var vkey, addr string
	u.served.eventually("the witness listens", func() bool {
		n, _ := fmt.Sscanf(out.String(), "witness %s\naddress %s\n", &vkey, &addr)
		return n == 2
	})
	var raw []byte
	u.served.eventually("there is a checkpoint", func() bool {
		var err error
		raw, err = os.ReadFile(filepath.Join(u.config.logDir(), "checkpoint"))
		return err == nil
	})
	resp, err := http.Post(addr+"/add-checkpoint", "text/plain", strings.NewReader("old 0\n\n"+string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the witness answers %s", resp.Status)
	}
	stop()
	if status := <-done; status != exitOK {
		t.Errorf("status %d: %s", status, out)
	}
}

// auditSignature stands for a signature: it is as long as one of Ed25519.
func auditSignature(name string) []byte { return []byte(fmt.Sprintf("%-64s", "signature "+name)) }
