package hsm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/term"
)

// maxPIN bounds a PIN; tokens take 255 bytes at most.
const maxPIN = 255

// A PIN holds a user's PIN and never prints it, not even from a field that the
// fmt package cannot ask: there it prints an address.
type PIN struct {
	_      [0]func() // no ==
	secret *secret
}

type secret struct{ bytes []byte }

// NewPIN copies a PIN that the caller already has.
func NewPIN(value []byte) PIN { return PIN{secret: &secret{bytes.Clone(value)}} }

func (p PIN) value() []byte {
	if p.secret == nil {
		return nil
	}
	return p.secret.bytes
}

const hiddenPIN = "[PIN]"

func (PIN) String() string               { return hiddenPIN }
func (PIN) GoString() string             { return hiddenPIN }
func (PIN) Format(f fmt.State, _ rune)   { io.WriteString(f, hiddenPIN) }
func (PIN) MarshalText() ([]byte, error) { return []byte(hiddenPIN), nil }
func (PIN) LogValue() slog.Value         { return slog.StringValue(hiddenPIN) }

// Wipe overwrites the PIN.
func (p *PIN) Wipe() {
	clear(p.value())
	p.secret = nil
}

// reveal gives the PIN to C_Login.
func (p PIN) reveal() string { return string(p.value()) }

// A PINSource says where a PIN comes from. It is asked at each login, so that a
// corrected file is seen.
type PINSource interface {
	PIN(ctx context.Context) (PIN, error)
}

// ErrPINSource is found in errors about where a PIN should have come from.
var ErrPINSource = errors.New("cannot read the PIN")

// ParsePINSource reads the value of a pin-source attribute: file:/path or a
// bare absolute path, fd:N, credential:NAME, or prompt. A PIN is never taken
// from an argument or from the environment.
func ParsePINSource(s string) (PINSource, error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case s == "prompt":
		return PINPrompt(""), nil
	case strings.HasPrefix(s, "/"):
		return PINFile(s), nil
	case ok && kind == "file" && strings.HasPrefix(rest, "//"):
		return parseFileURL(rest)
	case ok && kind == "file" && rest != "":
		return PINFile(rest), nil
	case ok && kind == "fd":
		fd, err := strconv.ParseUint(rest, 10, 16)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("%w: fd: needs the number of an inherited descriptor, 3 or above", ErrPINSource)
		}
		return PINDescriptor(uintptr(fd)), nil
	case ok && kind == "credential":
		return pinCredential(rest)
	case ok && kind == "env":
		return nil, fmt.Errorf("%w: the environment is readable by others; use file:PATH, fd:N or credential:NAME", ErrPINSource)
	}
	return nil, fmt.Errorf("%w: pin-source must be file:PATH, fd:N, credential:NAME or prompt", ErrPINSource)
}

// parseFileURL takes file:///path, and file://localhost/path of RFC 8089.
func parseFileURL(rest string) (PINSource, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(rest, "//"), "localhost")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: a file URL must name a file of this machine", ErrPINSource)
	}
	return PINFile(path), nil
}

// PINFile reads the PIN from a file that only its owner may read. One line end
// at the end of the file is not part of the PIN.
func PINFile(path string) PINSource { return pinFile(path) }

type pinFile string

func (p pinFile) PIN(context.Context) (PIN, error) {
	f, err := os.Open(string(p))
	if err != nil {
		return PIN{}, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return PIN{}, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	if !info.Mode().IsRegular() {
		return PIN{}, fmt.Errorf("%w: %s is not a regular file", ErrPINSource, string(p))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return PIN{}, fmt.Errorf("%w: run chmod 600 %s: others can read or write it (mode %04o)",
			ErrPINSource, string(p), info.Mode().Perm())
	}
	return readPIN(f, string(p))
}

// pinCredential names a file in systemd's $CREDENTIALS_DIRECTORY.
func pinCredential(name string) (PINSource, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("%w: credential: needs the name given in LoadCredential=", ErrPINSource)
	}
	return PINCredential(name), nil
}

// PINCredential reads the PIN from a systemd credential (LoadCredential= or
// LoadCredentialEncrypted=).
func PINCredential(name string) PINSource { return credential(name) }

type credential string

func (c credential) PIN(context.Context) (PIN, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return PIN{}, fmt.Errorf("%w: credential %q: $CREDENTIALS_DIRECTORY is not set; add LoadCredential=%s:/path to the unit",
			ErrPINSource, string(c), string(c))
	}
	f, err := os.Open(filepath.Join(dir, filepath.Base(string(c))))
	if errors.Is(err, fs.ErrNotExist) {
		return PIN{}, fmt.Errorf("%w: the unit has no credential %q; add LoadCredential=%s:/path", ErrPINSource, string(c), string(c))
	}
	if err != nil {
		return PIN{}, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	defer f.Close()
	return readPIN(f, "credential "+string(c))
}

// PINDescriptor reads the PIN once from an inherited descriptor and closes it.
func PINDescriptor(fd uintptr) PINSource {
	return &oncePIN{read: func(context.Context) (PIN, error) {
		f := os.NewFile(fd, "fd "+strconv.Itoa(int(fd)))
		if f == nil {
			return PIN{}, fmt.Errorf("%w: descriptor %d is not open", ErrPINSource, fd)
		}
		defer f.Close()
		return readPIN(f, f.Name())
	}}
}

// PINPrompt asks once on the terminal, without echo. An empty question asks for
// the PIN of the token.
func PINPrompt(question string) PINSource {
	if question == "" {
		question = "PIN of the token: "
	}
	return &oncePIN{read: func(context.Context) (PIN, error) { return askPIN(question) }}
}

func askPIN(question string) (PIN, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return PIN{}, fmt.Errorf("%w: there is no terminal to ask on; use pin-source=file:PATH, fd:N or credential:NAME", ErrPINSource)
	}
	defer tty.Close()
	fmt.Fprint(tty, question)
	value, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err != nil {
		return PIN{}, fmt.Errorf("%w: terminal: %w", ErrPINSource, err)
	}
	return checkPIN(value, "the terminal")
}

// PINValue is a source that already holds the PIN, for programs that made the
// token themselves.
func PINValue(p PIN) PINSource { return fixedPIN{p} }

type fixedPIN struct{ pin PIN }

func (f fixedPIN) PIN(context.Context) (PIN, error) { return f.pin, nil }

// oncePIN keeps what can be read a single time.
type oncePIN struct {
	mu   sync.Mutex // guards pin and done
	done bool
	pin  PIN
	read func(context.Context) (PIN, error)
}

func (o *oncePIN) PIN(ctx context.Context) (PIN, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return o.pin, nil
	}
	p, err := o.read(ctx)
	if err != nil {
		return PIN{}, err
	}
	o.pin, o.done = p, true
	return p, nil
}

func readPIN(r io.Reader, name string) (PIN, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxPIN+3))
	if err != nil {
		return PIN{}, fmt.Errorf("%w: %s: %w", ErrPINSource, name, err)
	}
	return checkPIN(bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), name)
}

func checkPIN(value []byte, name string) (PIN, error) {
	switch {
	case len(value) == 0:
		return PIN{}, fmt.Errorf("%w: %s is empty", ErrPINSource, name)
	case len(value) > maxPIN:
		return PIN{}, fmt.Errorf("%w: %s holds more than %d bytes", ErrPINSource, name, maxPIN)
	case bytes.IndexByte(value, 0) >= 0 || bytes.IndexByte(value, '\n') >= 0:
		return PIN{}, fmt.Errorf("%w: %s holds more than one line", ErrPINSource, name)
	}
	return PIN{secret: &secret{value}}, nil
}

// refusals remembers, for the life of the process, which PIN which token has
// refused. PINs are kept as MACs under a key of this process.
type refusals struct {
	once sync.Once
	mu   sync.Mutex // guards seen
	key  [32]byte
	seen map[[32]byte]bool
}

var refusedPINs refusals

func (r *refusals) name(token string, p PIN) (name [32]byte) {
	r.once.Do(func() {
		rand.Read(r.key[:])
		r.seen = make(map[[32]byte]bool)
	})
	mac := hmac.New(sha256.New, r.key[:])
	fmt.Fprintf(mac, "%d:%s", len(token), token)
	mac.Write(p.value())
	mac.Sum(name[:0])
	return name
}

func (r *refusals) add(token string, p PIN) {
	name := r.name(token, p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[name] = true
}

func (r *refusals) has(token string, p PIN) bool {
	name := r.name(token, p)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[name]
}
