package tpm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

func generate(t testing.TB, d *tpm.Device, spec tpm.KeySpec) *tpm.Key {
	t.Helper()
	k, err := d.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign signs and verifies; a signature that does not verify is fatal whatever
// went wrong in the device.
func sign(t testing.TB, ctx context.Context, k *tpm.Key) error {
	t.Helper()
	msg := []byte(rand.Text())
	sig, err := k.SignMessageContext(ctx, msg, nil)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(msg)
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Fatal("a wrong signature left the driver")
	}
	return nil
}

func mustSign(t testing.TB, k *tpm.Key) {
	t.Helper()
	if err := sign(t, t.Context(), k); err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err error, class tpm.Class, cause error) {
	t.Helper()
	var e *tpm.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *tpm.Error", err)
	}
	if e.Class != class || !errors.Is(err, cause) {
		t.Errorf("error %v has class %v, want %v because %v", err, e.Class, class, cause)
	}
}

func TestRestart(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	keys := []*tpm.Key{
		generate(t, d, tpm.KeySpec{}),
		generate(t, d, tpm.KeySpec{PCRs: []int{23}}),
		generate(t, d, tpm.KeySpec{NoAuth: true}),
		generate(t, d, tpm.KeySpec{}),
	}
	persistent, err := d.Persist(t.Context(), keys[0], 0x81000001)
	if err != nil {
		t.Fatal(err)
	}
	keys = append(keys, persistent)
	stops := map[string]func() error{"stop": s.Stop, "kill": s.Kill}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			for range 5 { // five unclean stops would lock a TPM with DA-protected keys
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, k := range keys {
					mustSign(t, k)
				}
			}
			if err := d.CheckLoaded(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestartUnderLoad restarts the TPM while callers sign: every call either
// succeeds or says that the TPM is gone.
func TestRestartUnderLoad(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	var keys []*tpm.Key
	for range 5 {
		keys = append(keys, generate(t, d, tpm.KeySpec{}))
	}
	var done atomic.Bool
	var signed atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := i; !done.Load(); n++ {
				err := sign(t, t.Context(), keys[n%len(keys)])
				if err != nil && tpm.ClassOf(err) != tpm.ClassGone {
					t.Errorf("class %v: %v", tpm.ClassOf(err), err)
				}
				if err == nil {
					signed.Add(1)
				}
			}
		})
	}
	for range 5 {
		before := signed.Load()
		for signed.Load() < before+20 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		if err := errors.Join(s.Kill(), s.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	group.Wait()
	mustSign(t, keys[0])
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTPMStaysAway(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address(), ReconnectTimeout: 50 * time.Millisecond})
	k := generate(t, d, tpm.KeySpec{})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	wantError(t, sign(t, t.Context(), k), tpm.ClassGone, tpm.ErrGone)
	wantError(t, d.Health(t.Context()), tpm.ClassGone, tpm.ErrGone)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, sign(t, ctx, k), tpm.ClassRetry, context.Canceled)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
}

// TestAnotherTPM puts another TPM in the place of the one that was opened.
func TestAnotherTPM(t *testing.T) {
	folder := t.TempDir()
	s := tpmtest.Start(t, swtpm.Config{})
	other := tpmtest.Start(t, swtpm.Config{})
	link := filepath.Join(folder, "s")
	point := func(s *swtpm.Server) {
		os.Remove(link)
		if err := os.Symlink(s.Address()[len("unix:"):], link); err != nil {
			t.Fatal(err)
		}
	}
	point(s)
	d, err := tpm.Open(t.Context(), tpm.Config{Address: "unix:" + link})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := generate(t, d, tpm.KeySpec{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	point(other)
	wantError(t, sign(t, t.Context(), k), tpm.ClassOperator, tpm.ErrWrongTPM)
	_, err = tpm.Open(t.Context(), tpm.Config{Address: other.Address(), SRKName: info.SRKName})
	wantError(t, err, tpm.ClassOperator, tpm.ErrWrongTPM)
	elsewhere := tpmtest.OpenConfig(t, tpm.Config{Address: other.Address()})
	f, err := k.File("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = elsewhere.LoadKey(t.Context(), f, k.Auth())
	wantError(t, err, tpm.ClassOperator, tpm.ErrWrongKey)
}

// TestLeftovers opens a TPM that a crashed client left full.
func TestLeftovers(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	for range 3 {
		d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			mustSign(t, generate(t, d, tpm.KeySpec{}))
		}
		mustSign(t, generate(t, d, tpm.KeySpec{PCRs: []int{7}}))
		if err := d.LeaveBehind(); err != nil {
			t.Fatal(err)
		}
	}
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	mustSign(t, generate(t, d, tpm.KeySpec{}))
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHungTPM: the caller waits no longer than its context; what it had sent
// is not taken for the answer of another call.
func TestHungTPM(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	k := generate(t, d, tpm.KeySpec{})
	mustSign(t, k)
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 6 { // more than there are sessions: some are in the TPM, some in line
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			wantError(t, sign(t, ctx, k), tpm.ClassRetry, context.DeadlineExceeded)
		})
	}
	group.Wait()
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		mustSign(t, k)
	}
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCommandTimeout: a TPM that hangs longer than a command may take costs
// the connection, and the next call makes another one.
func TestCommandTimeout(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address(), CommandTimeout: 200 * time.Millisecond})
	k := generate(t, d, tpm.KeySpec{})
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	wantError(t, sign(t, context.Background(), k), tpm.ClassRetry, tpm.ErrTimeout)
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
}

func TestOpenHungTPM(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := tpm.Open(ctx, tpm.Config{Address: s.Address()})
	wantError(t, err, tpm.ClassRetry, context.DeadlineExceeded)
}

func TestClosed(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
	if err != nil {
		t.Fatal(err)
	}
	k := generate(t, d, tpm.KeySpec{})
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	wantError(t, sign(t, t.Context(), k), tpm.ClassInput, tpm.ErrClosed)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseSendsShutdown: without TPM2_Shutdown each stop counts towards
// lockout once a DA-protected object was used.
func TestCloseSendsShutdown(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	if err := s.SetLockout(t.Context(), 3, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
		if err != nil {
			t.Fatal(err)
		}
		k, err := d.GenerateDA(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, k)
		if err := errors.Join(d.Close(), s.Restart(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Lockout.Failures != 0 || info.Lockout.Locked {
		t.Errorf("lockout %+v", info.Lockout)
	}
}

func TestLockout(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	if err := s.SetLockout(t.Context(), 3, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	k, err := d.GenerateDA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
	wrong := k.WithAuth(tpm.RandomAuth())
	for n := range uint32(3) {
		wantError(t, sign(t, t.Context(), wrong), tpm.ClassAuth, tpm.ErrAuth)
		wantFailures(t, d, n+1) // one call, one failure: a refusal is never tried again
	}
	wantError(t, sign(t, t.Context(), k), tpm.ClassOperator, tpm.ErrLockout)
	wantError(t, d.Health(t.Context()), tpm.ClassOperator, tpm.ErrLockout)
	wantFailures(t, d, 3)
	mustSign(t, generate(t, d, tpm.KeySpec{})) // our own keys do not care
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}

func wantFailures(t *testing.T, d *tpm.Device, want uint32) {
	t.Helper()
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Lockout.Failures != want {
		t.Errorf("%d failures counted, want %d", info.Lockout.Failures, want)
	}
}

// TestNothingInTheClear looks for secrets in what is sent.
func TestNothingInTheClear(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	layer := new(tpmtest.Faults)
	layer.Record()
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address(), Wrap: layer.Wrap})
	k := generate(t, d, tpm.KeySpec{})
	policy := generate(t, d, tpm.KeySpec{PCRs: []int{0}})
	mac := generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256})
	digest := sha256.Sum256([]byte("what is signed"))
	data := bytes.Repeat([]byte("what is authenticated"), 100)
	for _, k := range []*tpm.Key{k, policy} {
		if _, err := k.Sign(nil, digest[:], nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range [][]byte{data, data[:100]} {
		if _, err := mac.MAC(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	secrets := map[string][]byte{
		"authorization": k.Auth().Bytes(), "authorization with policy": policy.Auth().Bytes(),
		"authorization of the MAC key": mac.Auth().Bytes(), "digest": digest[:], "data": data[:64],
	}
	for _, command := range layer.Commands() {
		for name, secret := range secrets {
			if bytes.Contains(command, secret) {
				t.Errorf("%s is sent in the clear", name)
			}
		}
	}
}

// TestAuthWithZeros: authorization values may contain zero octets anywhere.
func TestAuthWithZeros(t *testing.T) {
	d := tpmtest.Open(t)
	for _, value := range [][]byte{{1, 0, 2}, {0, 1}, {5, 0, 0}, {0}, bytes.Repeat([]byte{0, 9}, 16)} {
		auth, err := tpm.NewAuth(value)
		if err != nil {
			t.Fatal(err)
		}
		mustSign(t, generate(t, d, tpm.KeySpec{Auth: auth}))
		mustSign(t, generate(t, d, tpm.KeySpec{Auth: auth, PCRs: []int{3}}))
	}
}

func TestAuthIsNotPrinted(t *testing.T) {
	auth := tpm.RandomAuth()
	for _, s := range []string{fmt.Sprint(auth), fmt.Sprintf("%v %+v %#v %s %q %x %d", auth, auth, auth, auth, auth, auth, auth), fmt.Sprintf("%+v", tpm.KeySpec{Auth: auth})} {
		if bytes.Contains([]byte(s), auth.Bytes()) || bytes.Contains([]byte(s), fmt.Appendf(nil, "%x", auth.Bytes())) {
			t.Errorf("printed: %s", s)
		}
	}
	if _, err := auth.MarshalText(); err == nil {
		t.Error("marshalled")
	}
}

func TestMACSequence(t *testing.T) {
	d := tpmtest.Open(t)
	k := generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256})
	data := []byte(rand.Text() + rand.Text() + rand.Text())
	want, err := k.MAC(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{len(data) - 1, len(data) / 2, len(data) / 3, 7, 1} {
		d.SetInputBuffer(n)
		got, err := k.MAC(t.Context(), data)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: %x, %v, want %x", n, got, err, want)
		}
	}
}

func TestFreeScheme(t *testing.T) {
	d := tpmtest.Open(t)
	k, err := d.GenerateFreeScheme(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
}

// TestDeviceFile drives a TPM through the code for the kernel's device, over a
// pair of sockets that keep messages apart as the device does.
func TestDeviceFile(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	bridged := make(chan error, 1)
	go func() { bridged <- bridge(fds[1], s.Address()[len("unix:"):]) }()
	d, err := tpm.OpenWire(t.Context(), tpm.NewDeviceFile(fds[0]), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []tpm.KeySpec{{}, {Kind: tpm.SignP384}, {PCRs: []int{1}}} {
		k := generate(t, d, spec)
		if _, err := k.SignMessageContext(t.Context(), []byte("m"), nil); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-bridged; err != nil {
		t.Error(err)
	}
}

// bridge carries one command after another from a descriptor to a TPM.
func bridge(fd int, socket string) error {
	file := os.NewFile(uintptr(fd), "bridge")
	defer file.Close()
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
		answer, err := tpm.ReadAnswer(c, buf)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, answer); err != nil {
			return err
		}
	}
}

func TestDeviceFileTimeout(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	_, err = tpm.OpenWire(t.Context(), tpm.NewDeviceFile(fds[0]), 20*time.Millisecond)
	wantError(t, err, tpm.ClassRetry, tpm.ErrTimeout)
}

func TestOpenMissing(t *testing.T) {
	folder := t.TempDir()
	for _, address := range []string{"unix:" + folder + "/none", "device:" + folder + "/none", "tcp:127.0.0.1:1"} {
		_, err := tpm.Open(t.Context(), tpm.Config{Address: address})
		wantError(t, err, tpm.ClassGone, tpm.ErrGone)
	}
	_, err := tpm.Open(t.Context(), tpm.Config{})
	if !errors.Is(err, tpm.ErrAddress) {
		t.Error(err)
	}
}

// TestNoLeaks opens, uses, loses and closes TPMs, and counts what is left.
func TestNoLeaks(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	cycle := func() {
		d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
		if err != nil {
			t.Fatal(err)
		}
		k := generate(t, d, tpm.KeySpec{})
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSign(t, k)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	for range 10 {
		cycle()
	}
	if n := openFiles(t); n > fds {
		t.Errorf("%d files open, %d before", n, fds)
	}
	if n := settle(goroutines); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// settle waits for goroutines that are ending.
func settle(want int) int {
	n := runtime.NumGoroutine()
	for i := 0; i < 100 && n > want; i++ {
		time.Sleep(10 * time.Millisecond)
		n = runtime.NumGoroutine()
	}
	return n
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestWireError(t *testing.T) {
	tests := map[error]error{
		io.EOF:                 tpm.ErrGone,
		io.ErrUnexpectedEOF:    tpm.ErrGone,
		os.ErrDeadlineExceeded: tpm.ErrTimeout,
		net.ErrClosed:          tpm.ErrGone,
		tpm.ErrMalformed:       tpm.ErrMalformed,
		unix.ECONNRESET:        tpm.ErrGone,
	}
	for cause, want := range tests {
		if err := tpm.WireError(cause); !errors.Is(err, want) {
			t.Errorf("%v became %v", cause, err)
		}
	}
}
