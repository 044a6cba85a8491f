package signer_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/signertest"
)

// The child of a crash test reads the folder of its device and its store here.
const (
	crashEnv      = "SIGNER_CRASH_TEST"
	crashStoreEnv = "SIGNER_CRASH_STORE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashChild(dir, os.Args[len(os.Args)-1])
		return
	}
	pgtest.Main(m)
}

// crashChild runs the scenario and is killed at the point in its argument.
func crashChild(dir, at string) {
	n, err := strconv.Atoi(at)
	if err != nil {
		os.Exit(3)
	}
	p := &points{at: n, kill: func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }}
	ctx := context.Background()
	store, err := signer.OpenKeyStore(ctx, os.Getenv(crashStoreEnv), nil)
	if err != nil {
		os.Exit(3)
	}
	message, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))
	if err != nil {
		os.Exit(3)
	}
	ring := p.wire(store, signertest.NewDir(dir))
	if _, _, err := scenario(ctx, ring, message.Octets()); err != nil {
		os.Exit(3)
	}
}

// TestKilledEverywhere kills a process of its own with SIGKILL at each point
// of the scenario and reopens what it left.
func TestKilledEverywhere(t *testing.T) {
	for at := 1; ; at += stride(t) {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], strconv.Itoa(at))
		b := &bench{t: t, path: storeSource(t, dir), device: signertest.NewDir(dir)}
		cmd.Env = append(os.Environ(), crashEnv+"="+dir, crashStoreEnv+"="+b.path)
		err := cmd.Run()
		killed := isKilled(err)
		if err != nil && !killed {
			t.Fatalf("point %d: the child failed by itself: %v", at, err)
		}
		b.open()
		recoverState(t, b, "point "+strconv.Itoa(at))
		if !killed {
			if at < 15 {
				t.Errorf("the scenario ended after %d points", at)
			}
			return
		}
	}
}

func isKilled(err error) bool {
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
