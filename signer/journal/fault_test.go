package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer/journal"
)

// TestDatabaseGone kills PostgreSQL under load and starts it again: what was
// acknowledged is there, callers learn soon that nothing may be signed, and
// the journal goes on by itself.
func TestDatabaseGone(t *testing.T) {
	server := must[*pgtest.Server](t)(pgtest.Start())
	defer server.Close()
	j := open(t, must[string](t)(server.NewDatabase(t.Context())))
	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	load := func(round int, stop <-chan struct{}) *sync.WaitGroup {
		var wg sync.WaitGroup
		for c := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprint(round, "/", c, "/", i)
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					err := sign(ctx, j, intent(rawRequest(t, name)), name)
					if errors.Is(err, context.DeadlineExceeded) {
						t.Error("a caller waited for its whole deadline")
					}
					cancel()
					if err == nil {
						mu.Lock()
						acknowledged[name] = true
						mu.Unlock()
						continue
					}
					if !errors.Is(err, journal.ErrDown) {
						t.Errorf("not told that the journal is down: %v", err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		return &wg
	}
	for round := range 3 {
		stop := make(chan struct{})
		wg := load(round, stop)
		time.Sleep(100 * time.Millisecond)
		server.Kill()
		time.Sleep(100 * time.Millisecond)
		if err := server.Run(); err != nil {
			t.Fatal(err)
		}
		works := func() bool {
			return sign(t.Context(), j, intent(rawRequest(t, "probe")), fmt.Sprint("probe", round)) == nil
		}
		for end := time.Now().Add(30 * time.Second); !works(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the journal does not come back")
			}
		}
		close(stop)
		wg.Wait()
	}
	for name := range acknowledged {
		if _, err := j.Find(t.Context(), []byte(name)); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}
	must[journal.Head](t)(j.Verify(t.Context(), nil))
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged at all")
	}
}

// fullEnv tells the test binary to sign into a file that must not grow.
const fullEnv = "PRIVYSEAL_TEST_FULL_DISK"

func TestMain(m *testing.M) {
	if source := os.Getenv(fullEnv); source != "" {
		if err := fillUp(source); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	pgtest.Main(m)
}

// fillUp signs until the file system takes no more, and then some.
func fillUp(source string) error {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	j, err := journal.Open(ctx, source, nil)
	if err != nil {
		return err
	}
	defer j.Close()
	down := 0
	for i := 0; down < 5; i++ {
		name := fmt.Sprint("entry ", i)
		err := sign(ctx, j, intent(fullRequest(name)), name)
		switch {
		case errors.Is(err, journal.ErrDown):
			down++
		case err != nil:
			return err
		case i > 100000:
			return errors.New("the file grows beyond its limit")
		default:
			fmt.Println(name)
		}
	}
	if _, err := j.Head(ctx); err != nil {
		return fmt.Errorf("a full journal cannot be read: %w", err)
	}
	return nil
}

// TestDiskFull has a process sign until its files cannot grow.
func TestDiskFull(t *testing.T) {
	source := filepath.Join(t.TempDir(), "journal.db")
	cmd := exec.Command(must[string](t)(os.Executable()))
	cmd.Env = append(os.Environ(), fullEnv+"="+source)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, complaint.String())
	}
	j := open(t, source)
	names := strings.Split(strings.TrimSpace(string(out)), "\n")
	for _, name := range names {
		if _, err := j.Find(t.Context(), []byte(name)); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}
	if len(names) < 10 {
		t.Errorf("only %d were signed before the disk was full", len(names))
	}
	must[journal.Head](t)(j.Verify(t.Context(), nil))
	if err := sign(t.Context(), j, intent(rawRequest(t, "with room again")), "with room again"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
