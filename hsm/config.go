package hsm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Config says how to load a Module. The zero value of every field but Path
// works.
type Config struct {
	// Path is the module's shared object, /usr/lib/softhsm/libsofthsm2.so.
	Path string

	// InitArgs is the string that NSS softokn wants at C_Initialize:
	// configdir='sql:/dir' certPrefix='' keyPrefix='' secmod='secmod.db' flags=
	InitArgs string

	// Env holds NAME=value settings that the module reads, such as
	// SOFTHSM2_CONF. Each worker has its own; in one process two modules cannot
	// set the same name to different values.
	Env []string

	// Sessions bounds the Sessions used at once, per token and process.
	// Default 8, and 2 in a worker.
	Sessions int

	// Workers is the number of child processes that host the module; 0 hosts
	// it in this process. The binary must call WorkerMain first in main.
	Workers int

	// AdmitWeak lists the attributes whose absence is accepted, of
	// CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_ALWAYS_SENSITIVE,
	// CKA_NEVER_EXTRACTABLE and CKA_LOCAL. KeyInfo.Weak still shows them.
	AdmitWeak []string

	// AllowFinalTry sends the PIN even when the token says that one more
	// refusal locks it.
	AllowFinalTry bool

	// StartTimeout is how long a worker may take to load the module, to open a
	// token, and to look for new keys (default one minute), CallTimeout how long
	// another call may take (default 30 s), before it counts as hung and is killed.
	// Both are without a sign of progress: a worker that goes through objects, or
	// that computes while it starts, has its time anew, the latter nine times.
	StartTimeout time.Duration
	CallTimeout  time.Duration

	// WorkerGrowth is how many octets of memory a worker may gain over what it
	// had when it was ready, before it is replaced: its calls end, and the others
	// take those that come; default 256 MiB, never if negative. Modules leak:
	// SoftHSM 2.6 keeps some 230 octets of each key agreement.
	WorkerGrowth int64

	// Wrap puts a layer around the module's functions, for tracing and fault
	// injection. In workers WorkerMain takes the layer instead.
	Wrap func(API) API

	// Trace is told about each call of a token, for metrics and traces.
	Trace TraceFunc

	// Observe is told about repairs and lost workers, one at a time. It must
	// return quickly.
	Observe func(Event)
}

// Defaults and bounds of Config.
const (
	defaultSessions       = 8
	defaultWorkerSessions = 1
	maxSessions           = 1024
	maxWorkers            = 64
	defaultStartTimeout   = time.Minute
	defaultCallTimeout    = 30 * time.Second
	defaultWorkerGrowth   = 256 << 20
)

// check validates the configuration and fills in defaults.
func (c Config) check() (Config, error) {
	if c.Path == "" {
		return c, fmt.Errorf("%w: Config.Path is empty", ErrModule)
	}
	path, err := filepath.EvalSymlinks(c.Path)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrModule, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return c, fmt.Errorf("%w: %w", ErrModule, err)
	}
	c.Path = path
	for _, name := range c.AdmitWeak {
		if !slices.Contains(weakNames, name) {
			return c, fmt.Errorf("hsm: AdmitWeak knows %s, not %q", strings.Join(weakNames, ", "), name)
		}
	}
	for _, setting := range c.Env {
		if name, _, ok := strings.Cut(setting, "="); !ok || name == "" || strings.IndexByte(setting, 0) >= 0 {
			return c, fmt.Errorf("hsm: Env needs NAME=value")
		}
	}
	if strings.IndexByte(c.InitArgs, 0) >= 0 {
		return c, fmt.Errorf("hsm: InitArgs holds a NUL")
	}
	return c.withDefaults()
}

func (c Config) withDefaults() (Config, error) {
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
		if c.Workers > 0 {
			c.Sessions = defaultWorkerSessions
		}
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	if c.WorkerGrowth == 0 {
		c.WorkerGrowth = defaultWorkerGrowth
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	switch {
	case c.Sessions < 1 || c.Sessions > maxSessions:
		return c, fmt.Errorf("hsm: Sessions must be 1 to %d", maxSessions)
	case c.Workers < 0 || c.Workers > maxWorkers:
		return c, fmt.Errorf("hsm: Workers must be 0 to %d", maxWorkers)
	case c.StartTimeout < 0 || c.CallTimeout < 0:
		return c, fmt.Errorf("hsm: timeouts cannot be negative")
	case c.Workers > 0 && c.Wrap != nil:
		return c, fmt.Errorf("hsm: Wrap cannot cross into a worker; give the layer to WorkerMain")
	}
	return c, nil
}

// admits reports whether a key with these weaknesses may be used.
func (c Config) admits(weak []string) bool {
	for _, name := range weak {
		if !slices.Contains(c.AdmitWeak, name) {
			return false
		}
	}
	return true
}

// An EventKind names what happened to a device.
type EventKind string

// The events.
const (
	EventLogin      EventKind = "login"       // the token was logged in to again and its keys found again
	EventModule     EventKind = "module"      // the module was finalised and initialised
	EventKeyFound   EventKind = "key-found"   // one key's handle was found again
	EventPINRefused EventKind = "pin-refused" // the token refused the PIN
	EventWorkerLost EventKind = "worker-lost" // a worker died or was killed
	EventWorkerUp   EventKind = "worker-up"   // a worker is ready
	EventWorkerEnds EventKind = "worker-ends" // a worker that has grown is replaced
)

// An Event is a repair, or a loss, for logs and metrics. It holds no secret.
type Event struct {
	Kind   EventKind
	Module string
	Token  string
	Worker int           // number of the worker, from 0
	Took   time.Duration // how long the repair took
	Err    error         // why it was needed, or why it failed
}

// A setting is one name of the environment that open modules need.
type setting struct {
	value string
	users int
}

// applyEnv sets the module's environment in this process and refuses to give
// two open modules different values of one name. The caller holds loaded.mu.
func applyEnv(env []string) error {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if old := loaded.env[name]; old != nil && old.value != value {
			return fmt.Errorf("hsm: %s has another value for another module of this process: use Config.Workers", name)
		}
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("hsm: set %s: %w", name, err)
		}
		if loaded.env[name] == nil {
			loaded.env[name] = &setting{value: value}
		}
		loaded.env[name].users++
	}
	return nil
}

// releaseEnv lets other modules choose other values. The caller holds loaded.mu.
func releaseEnv(env []string) {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if s := loaded.env[name]; s != nil {
			if s.users--; s.users == 0 {
				delete(loaded.env, name)
			}
		}
	}
}
