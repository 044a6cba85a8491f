package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// A Status is how something does.
type Status string

// The statuses, from good to bad.
const (
	Up       Status = "up"
	Degraded Status = "degraded" // works, with less behind it than configured
	Down     Status = "down"
)

// A Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Critical says that the process is not ready while this is down.
	Critical bool   `json:"critical,omitempty"`
	Detail   string `json:"detail,omitempty"` // what is wrong; never a secret
	Remedy   string `json:"remedy,omitempty"` // what to do
}

// A Phase is where the process stands in its life.
type Phase string

// The phases.
const (
	Starting    Phase = "starting"
	Operational Phase = "operational"
	Draining    Phase = "draining"
)

// A State is the whole health of the process.
type State struct {
	Phase      Phase              `json:"phase"`
	Ready      bool               `json:"ready"`
	Status     Status             `json:"status"` // the worst of the checks
	Since      time.Time          `json:"since"`  // start of the process
	Components map[string][]Check `json:"components"`
	Reload     *ReloadResult      `json:"last_reload,omitempty"`
}

// A ReloadResult is how the last reload went.
type ReloadResult struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"` // the old settings stay
}

// Bounds of a health examination.
const (
	healthTime = 3 * time.Second // one examination of all components
	healthAge  = time.Second     // how long its result is given out
)

// A monitor examines the components at most once a second, whoever asks.
type monitor struct {
	components []Named
	log        *slog.Logger
	started    time.Time

	mu     sync.Mutex // guards what follows
	phase  Phase
	reload *ReloadResult
	checks map[string][]Check
	at     time.Time
	busy   chan struct{} // closed when the examination under way ends
}

func newMonitor(components []Named, log *slog.Logger) *monitor {
	return &monitor{components: components, log: log, started: time.Now().UTC(), phase: Starting}
}

func (m *monitor) setPhase(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = p
}

func (m *monitor) setReload(r *ReloadResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reload = r
}

// state examines the components, or gives out what was found just now.
func (m *monitor) state(ctx context.Context) State {
	checks := m.current(ctx)
	m.mu.Lock()
	s := State{Phase: m.phase, Status: Up, Since: m.started, Components: checks, Reload: m.reload}
	m.mu.Unlock()
	s.Ready = s.Phase == Operational && checks != nil
	for _, list := range checks {
		for _, c := range list {
			s.Status = worse(s.Status, c.Status)
			if c.Critical && c.Status == Down {
				s.Ready = false
			}
		}
	}
	return s
}

func worse(a, b Status) Status {
	rank := map[Status]int{Up: 0, Degraded: 1, Down: 2}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// current returns checks that are at most healthAge old. One examination runs
// at a time, in a goroutine of its own, so that a caller who leaves neither
// ends it nor waits for it.
func (m *monitor) current(ctx context.Context) map[string][]Check {
	m.mu.Lock()
	if m.checks != nil && time.Since(m.at) < healthAge {
		defer m.mu.Unlock()
		return m.checks
	}
	if m.busy == nil {
		m.busy = make(chan struct{})
		go m.examine(context.WithoutCancel(ctx), m.busy)
	}
	busy := m.busy
	m.mu.Unlock()
	select {
	case <-busy:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checks
}

func (m *monitor) examine(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	results := make([]chan []Check, len(m.components))
	for i, c := range m.components {
		results[i] = make(chan []Check, 1)
		go func() { results[i] <- m.checkOne(ctx, c) }()
	}
	checks := make(map[string][]Check, len(m.components))
	for i, c := range m.components {
		select {
		case checks[c.Name] = <-results[i]:
		case <-time.After(healthTime + time.Second):
			checks[c.Name] = []Check{{Name: c.Name, Status: Down, Critical: true, Detail: "the examination does not end"}}
		}
	}
	m.mu.Lock()
	m.checks, m.at, m.busy = checks, time.Now(), nil
	m.mu.Unlock()
	close(done)
}

// checkOne turns a panic of an examination into a bad result.
func (m *monitor) checkOne(ctx context.Context, c Named) (checks []Check) {
	defer func() {
		if r := recover(); r != nil {
			m.log.Error("an examination panicked", "component", c.Name, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			checks = []Check{{Name: c.Name, Status: Down, Critical: true, Detail: fmt.Sprintf("the examination panicked: %T", r), Remedy: "report this as a bug"}}
		}
	}()
	if checks = c.Health(ctx); checks == nil {
		checks = []Check{}
	}
	return checks
}

// mount puts the health pages on a mux.
//
// /health/live says that the process answers, and nothing of devices: a process
// that is restarted because its token is away is of no more use. /health/ready
// says whether it can do its work, with 503 if not. /health/state says why.
func (m *monitor) mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /health/ready", func(w http.ResponseWriter, r *http.Request) {
		s := m.state(r.Context())
		code := http.StatusOK
		if !s.Ready {
			code = http.StatusServiceUnavailable
		}
		writeHealth(w, code, map[string]any{"ready": s.Ready, "phase": s.Phase, "status": s.Status})
	})
	mux.HandleFunc("GET /health/state", func(w http.ResponseWriter, r *http.Request) {
		writeHealth(w, http.StatusOK, m.state(r.Context()))
	})
}

func writeHealth(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // the caller has gone if this fails
}
