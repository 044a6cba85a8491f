package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/privyseal/privyseal/internal/workers"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
)

// Journal is what the service tells before and after a device works; it is
// *journal.Journal. Tests put a layer between that fails.
type Journal interface {
	Reserve(ctx context.Context, in journal.Intent) (*journal.Reservation, error)
	ReserveAll(ctx context.Context, in []journal.Intent) []journal.Reserved
	CompleteAll(ctx context.Context, done []journal.Completion) []error
	Record(ctx context.Context, in journal.Intent, errorClass string) error
	ReportRejected(ctx context.Context, r journal.Rejection) error
}

// Config joins a Service from its parts. Keys, Ring and Journal are required.
type Config struct {
	Keys    *signer.KeyStore
	Ring    *signer.Keyring
	Journal Journal
	Policy  *policy.Policy // nil means policy.AllowAll
	Rates   admit.Rates
	Gate    admit.Options            // of each device
	Gates   map[string]admit.Options // of devices that differ
	// Devices are where callers may have keys made, the default first; empty
	// for none.
	Devices []string
	Hooks   Hooks
	Now     func() time.Time // nil means time.Now
}

// Hooks are told what the service does, for logs, metrics and traces. A nil
// hook tells nobody. They are called on the path of requests and must be quick.
type Hooks struct {
	// Stage begins a stage of a request. The context that it returns is the
	// stage's; the function is told how it ended. The requests of a batch go
	// through StageAdmit, StageReserve and StageComplete as one, which ends with
	// the first error of theirs, and through the others each for itself.
	Stage func(ctx context.Context, stage Stage) (context.Context, func(error))
	// Done is told of each request that came to an end.
	Done func(ctx context.Context, d Done)
	// Changed is told of each change of a key.
	Changed func(ctx context.Context, c *access.Caller, what string, key string)
}

// A Stage is a part of the way of a request.
type Stage string

// The stages, in their order.
const (
	StageAdmit    Stage = "admit"           // budget, and the turn at the device
	StagePolicy   Stage = "policy.evaluate" // parsing and rules
	StageReserve  Stage = "audit.append"    // guard and journal
	StageDevice   Stage = "device"          // and verification
	StageComplete Stage = "audit.complete"
	StageRefuse   Stage = "audit.refuse" // the entry of a refusal, after StagePolicy
)

// Done is how a request ended.
type Done struct {
	Tenant, Key string
	Operation   journal.Operation
	Algorithm   signer.Algorithm // "" where the key was not found
	Reason      Reason           // "" for success
	Rule        string           // that denied
	Took        time.Duration
}

// A Service signs for callers. Its methods may be called at the same time.
type Service struct {
	c      Config
	policy atomic.Pointer[policy.Policy]
	budget *admit.Budget
	gates  map[string]*admit.Gate
	refuse *rate.Limiter // of refusals that are journaled

	workers workers.Pool // of the items of batches

	mu    sync.Mutex // guards found
	found map[signer.KeyID]*found
}

// New joins the parts. It owns none of them.
func New(c Config) (*Service, error) {
	if c.Keys == nil || c.Ring == nil || c.Journal == nil {
		return nil, errors.New("service: key store, keyring and journal are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Policy == nil {
		c.Policy = policy.AllowAll()
	}
	s := &Service{c: c, budget: admit.NewBudget(c.Rates), gates: make(map[string]*admit.Gate),
		refuse: rate.NewLimiter(refusalsPerSecond, refusalsPerSecond), found: make(map[signer.KeyID]*found)}
	s.policy.Store(c.Policy)
	for _, name := range slices.Compact(slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(c.Gates)), c.Devices...)))) {
		opt, ok := c.Gates[name]
		if !ok {
			opt = c.Gate
		}
		s.gates[name] = admit.NewGate("device "+name, opt)
	}
	s.gates[""] = admit.NewGate("the device", c.Gate)
	return s, nil
}

// refusalsPerSecond bounds how many refusals are written to the journal, so
// that nobody fills it with them. All of them reach Hooks.Done.
const refusalsPerSecond = 50

// SetPolicy puts another policy to use, for requests that come from now on.
func (s *Service) SetPolicy(p *policy.Policy) { s.policy.Store(p) }

// Policy returns the policy in use.
func (s *Service) Policy() *policy.Policy { return s.policy.Load() }

// gate returns the gate of a device; devices that the configuration of the
// service does not name share one.
func (s *Service) gate(device string) *admit.Gate {
	if g, ok := s.gates[device]; ok {
		return g
	}
	return s.gates[""]
}

// Load returns how many requests are inside and how many wait, by device.
func (s *Service) Load() map[string][2]int {
	out := make(map[string][2]int)
	for name, g := range s.gates {
		inside, waiting := g.Load()
		out[name] = [2]int{inside, waiting}
	}
	return out
}

// keyID returns the id of a tenant's key.
func keyID(tenant, name string) signer.KeyID {
	if tenant == "" {
		return signer.KeyID(name)
	}
	return signer.KeyID(tenant + "." + name)
}

// nameOf returns the name of a key within a tenant, or false if it is not the
// tenant's.
func nameOf(tenant string, id signer.KeyID) (string, bool) {
	return strings.CutPrefix(string(id), tenant+".")
}

// notFound is what a caller learns of a key that there is not, and of one that
// it may not see.
func notFound(name string) error {
	return fmt.Errorf("%w: %s, or there is no grant for it", signer.ErrNoKey, name)
}
