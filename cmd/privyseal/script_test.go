package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/tpm/swtpm"
)

var update = flag.Bool("update", false, "write the golden output into testdata/script")

func TestMain(m *testing.M) {
	hsm.WorkerMain(newSlowToken)
	loadMain()
	testscript.Main(m, map[string]func(){
		"privyseal": func() { os.Exit(mainStatus()) },
	})
}

// TestScript runs the scripts in testdata/script on real SoftHSM tokens and
// software TPMs. The tokens are made by "privyseal init --softhsm".
func TestScript(t *testing.T) {
	if _, _, err := findSoftHSM(); err != nil {
		t.Fatalf("%v (or: make deps)", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PRIVYSEAL_HOME", filepath.Join(env.WorkDir, "home"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"tpm": cmdTPM, "status": cmdStatus, "normal": cmdNormal, "replace": cmdReplace, "mode": cmdMode, "walkthrough": cmdWalkthrough, "postgres": cmdPostgres,
			"hub": func(ts *testscript.TestScript, neg bool, args []string) { cmdHub(t, ts, neg, args) }, "field": cmdField,
		},
	})
}

const tpmStart = time.Minute

// running has the TPM of each script that started one, by the script's name.
var running sync.Map

// cmdTPM is "tpm start", which sets $TPM to the address of a fresh TPM, and
// "tpm stop" and "tpm again" for the same one.
func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tpm start|stop|again")
	}
	ctx, cancel := context.WithTimeout(context.Background(), tpmStart)
	defer cancel()
	key := "tpm of " + ts.Name()
	switch args[0] {
	case "start":
		s, err := swtpm.New(ctx, swtpm.Config{})
		ts.Check(err)
		ts.Defer(func() { s.Close() })
		running.Store(key, s)
		ts.Setenv("TPM", s.Address())
	case "stop", "again":
		v, ok := running.Load(key)
		if !ok {
			ts.Fatalf("no TPM was started")
		}
		if args[0] == "stop" {
			ts.Check(v.(*swtpm.Server).Stop())
		} else {
			ts.Check(v.(*swtpm.Server).Start(ctx))
		}
	default:
		ts.Fatalf("usage: tpm start|stop|again")
	}
}

// cmdPostgres is "postgres NAME...": it starts a PostgreSQL and sets each variable
// to the URL of an empty database in it.
func cmdPostgres(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: postgres NAME...")
	}
	s, err := pgtest.Start()
	ts.Check(err)
	ts.Defer(func() { s.Close() })
	for _, name := range args {
		u, err := s.NewDatabase(context.Background())
		ts.Check(err)
		ts.Setenv(name, u)
	}
}

// cmdStatus is "status N command...": the command must end with that status.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N privyseal ...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s ended with %q, want status %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// cmdNormal is "normal stdout|stderr FILE": writes the last output to a file,
// with what differs from run to run replaced.
func cmdNormal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: normal stdout|stderr FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(normalise(ts.ReadFile(args[0]), ts.Getenv("WORK"))), 0o600))
}

var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?s)-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----`), "<PEM>"},
	{regexp.MustCompile(`id=(%[0-9A-F]{2}){16}`), "id=<ID>"},
	{regexp.MustCompile(`serial=[0-9a-f]{16}|serial [0-9a-f]{16}`), "serial <SERIAL>"},
	{regexp.MustCompile(`  [0-9a-f]{16}  `), "  <SERIAL>        "},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<TIME>"},
	{regexp.MustCompile(`[0-9a-f]{32,}`), "<HEX>"},
	{regexp.MustCompile(`key 000b[0-9a-f]+…`), "key <NAME>…"},
	{regexp.MustCompile(`(\s)[A-Za-z0-9_-]{43}(\s)`), "$1<THUMBPRINT>$2"},
	{regexp.MustCompile(`(unix:)?/tmp/\S*swtpm\S*`), "<TPM>"},
	{regexp.MustCompile(`/\S*/libsofthsm2\.so`), "<SOFTHSM>"},
}

func normalise(s, work string) string {
	s = strings.ReplaceAll(s, work, "$WORK")
	for _, v := range volatile {
		s = v.pattern.ReplaceAllString(s, v.with)
	}
	return s
}

// cmdReplace is "replace FILE OLD NEW": OLD must be there.
func cmdReplace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q:\n%s", args[0], args[1], text)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
}

// cmdMode is "mode FILE 0600": the file must have that mode.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}
