package hsm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/privyseal/privyseal/hsm"
)

func TestMain(m *testing.M) {
	hsm.WorkerMain(newMischief)
	os.Exit(m.Run())
}

// mischiefEnv tells the layer in a worker what to do: "crash:FILE" or
// "hang:FILE" at the next C_Sign once FILE exists, which it removes, "crash:" at
// every one; "generate:FILE" dies after the next C_GenerateKeyPair; "logins:FILE"
// counts C_Login; "uses:FILE" writes down who searches, makes keys, signs and is
// asked about the token; "slow:" has each C_GetAttributeValue take slowPause, and
// "stuck:FILE" has the next never end once FILE exists.
const mischiefEnv = "HSM_TEST_MISCHIEF"

// mischief is a layer around the real module of a worker.
type mischief struct {
	hsm.API
	kind, file string
}

func newMischief(api hsm.API) hsm.API {
	kind, file, _ := strings.Cut(os.Getenv(mischiefEnv), ":")
	return &mischief{api, kind, file}
}

func (m *mischief) due() bool { return m.file == "" || os.Remove(m.file) == nil }

func (m *mischief) Sign(sh pkcs11.SessionHandle, data []byte) ([]byte, error) {
	switch {
	case m.kind == "crash" && m.due():
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case m.kind == "hang" && m.due():
		time.Sleep(time.Hour)
	}
	return m.API.Sign(sh, data)
}

// GenerateKeyPair makes the key and then dies.
func (m *mischief) GenerateKeyPair(sh pkcs11.SessionHandle, mech []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	m.note("uses", fmt.Sprintf("%d makes", os.Getpid()))
	a, b, err := m.API.GenerateKeyPair(sh, mech, public, private)
	if m.kind == "generate" && m.due() {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return a, b, err
}

// slowPause is what a slow module takes for each object.
const slowPause = 50 * time.Millisecond

// GetAttributeValue is what opening a token does once for each object.
func (m *mischief) GetAttributeValue(sh pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	switch {
	case m.kind == "slow":
		time.Sleep(slowPause)
	case m.kind == "stuck" && m.due():
		time.Sleep(time.Hour)
	}
	return m.API.GetAttributeValue(sh, o, a)
}

// GetTokenInfo writes down who was asked.
func (m *mischief) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	m.note("uses", fmt.Sprintf("%d describes", os.Getpid()))
	return m.API.GetTokenInfo(slot)
}

// Login writes down that it was called.
func (m *mischief) Login(sh pkcs11.SessionHandle, user uint, pin string) error {
	m.note("logins", "login")
	return m.API.Login(sh, user, pin)
}

// FindObjectsInit writes down whether one object is looked for, or all.
func (m *mischief) FindObjectsInit(sh pkcs11.SessionHandle, template []*pkcs11.Attribute) error {
	what := "all"
	if slices.ContainsFunc(template, func(a *pkcs11.Attribute) bool { return a.Type == pkcs11.CKA_ID }) {
		what = "one"
	}
	m.note("uses", fmt.Sprintf("%d searches for %s", os.Getpid(), what))
	return m.API.FindObjectsInit(sh, template)
}

func (m *mischief) SignInit(sh pkcs11.SessionHandle, mech []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error {
	m.note("uses", fmt.Sprintf("%d signs", os.Getpid()))
	return m.API.SignInit(sh, mech, o)
}

// note adds a line to the file, if the layer is of that kind.
func (m *mischief) note(kind, line string) {
	if m.kind != kind {
		return
	}
	f, err := os.OpenFile(m.file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

var labels atomic.Int64

// generate makes a key with a label of its own.
func generate(t testing.TB, tok *hsm.Token, typ hsm.KeyType, use hsm.Use) hsm.KeyInfo {
	t.Helper()
	info, err := tok.Generate(context.Background(), hsm.KeySpec{Type: typ, Use: use, Label: fmt.Sprintf("key-%d", labels.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// workerPIDs lists the living workers of this process.
func workerPIDs(t testing.TB) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		var pid, parent int
		var state string
		text, _ := os.ReadFile(path)
		begin, rest, _ := strings.Cut(string(text), " (")
		_, rest, ok := strings.Cut(rest, ") ")
		if !ok {
			continue // ended meanwhile
		}
		fmt.Sscan(begin, &pid)
		fmt.Sscan(rest, &state, &parent)
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if parent == os.Getpid() && state != "Z" && strings.Contains(string(command), "privyseal-hsm-worker") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killWorkers kills every worker of this process.
func killWorkers(t testing.TB) {
	t.Helper()
	pids := workerPIDs(t)
	if len(pids) == 0 {
		t.Fatal("there is no worker to kill")
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
