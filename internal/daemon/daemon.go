package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// A Config says what to run.
type Config struct {
	Log        *slog.Logger
	Listeners  []*Listener
	Components []Named

	// Operator names the listener of the health pages; "" has none. It serves
	// until the others are drained.
	Operator string
	// Pages are further mounts, such as /metrics.
	Pages []Mount
	// Wrap puts a layer around the handlers of a listener, for metrics.
	Wrap func(listener string, h http.Handler) http.Handler
	// Drain bounds how long requests under way, and then the components, may
	// take to end. Default 20 s.
	Drain time.Duration
	// Hangup delivers the signals to reload; nil never does.
	Hangup <-chan os.Signal
	// Notify tells the service manager; nil tells nobody.
	Notify *Notifier
	// Check runs before a reload and may refuse it.
	Check func(ctx context.Context) error
	// Reloaded is told the outcome of each reload.
	Reloaded func(err error)
}

const (
	defaultDrain = 20 * time.Second
	reloadTime   = 30 * time.Second
)

// A Daemon is a process that serves.
type Daemon struct {
	config    Config
	listeners map[string]*Listener
	monitor   *monitor
	failed    chan error // from listeners and components, each at most once
}

// New mounts the components on the listeners. The listeners are the Daemon's
// from here on: Run closes them.
func New(c Config) (*Daemon, error) {
	if c.Drain <= 0 {
		c.Drain = defaultDrain
	}
	if c.Notify == nil {
		c.Notify = new(Notifier)
	}
	d := &Daemon{config: c, listeners: make(map[string]*Listener), monitor: newMonitor(c.Components, c.Log),
		failed: make(chan error, len(c.Listeners)+len(c.Components))}
	for _, l := range c.Listeners {
		if d.listeners[l.config.Name] != nil {
			return nil, fmt.Errorf("two listeners are called %q", l.config.Name)
		}
		d.listeners[l.config.Name] = l
	}
	return d, d.mount()
}

func (d *Daemon) mount() error {
	if d.config.Operator != "" {
		l := d.listeners[d.config.Operator]
		if l == nil {
			return fmt.Errorf("there is no listener %q for the operator's pages", d.config.Operator)
		}
		d.monitor.mount(l.mux)
	}
	mounts := d.config.Pages
	for _, c := range d.config.Components {
		mounts = append(mounts, c.Mounts()...)
	}
	for _, m := range mounts {
		if err := d.mountOne(m); err != nil {
			return err
		}
	}
	return nil
}

// mountOne turns the panic of ServeMux at a pattern that is taken into an error.
func (d *Daemon) mountOne(m Mount) (err error) {
	l := d.listeners[m.Listener]
	if l == nil {
		return fmt.Errorf("there is no listener %q for %s", m.Listener, m.Pattern)
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("listener %s: %v", m.Listener, r)
		}
	}()
	l.mux.Handle(m.Pattern, m.Handler)
	if m.Path != nil {
		l.paths = append(l.paths, m.Path)
	}
	return nil
}

// State examines the components and returns the health of the process.
func (d *Daemon) State(ctx context.Context) State { return d.monitor.state(ctx) }

// Run serves until ctx ends or something fails, drains, and returns why.
func (d *Daemon) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	defer SpareHeap()()
	var components, listeners sync.WaitGroup
	for _, c := range d.config.Components {
		components.Go(func() { d.runComponent(work, c) })
	}
	for _, l := range d.config.Listeners {
		listeners.Go(func() { d.runListener(l) })
	}
	d.monitor.setPhase(Operational)
	d.tell(d.config.Notify.Ready)
	d.config.Log.Info("serving", "listeners", d.addresses())
	cause := d.loop(ctx)
	return errors.Join(cause, d.drain(stopWork, &components, &listeners))
}

func (d *Daemon) addresses() map[string]string {
	at := make(map[string]string)
	for name, l := range d.listeners {
		at[name] = l.Addr().String()
	}
	return at
}

func (d *Daemon) runComponent(ctx context.Context, c Named) {
	err := d.protected(ctx, c)
	if ctx.Err() != nil {
		if err != nil && !errors.Is(err, context.Canceled) {
			d.config.Log.Warn("component ended with an error", "component", c.Name, "err", err)
		}
		return
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	d.failed <- fmt.Errorf("component %s: %w", c.Name, err)
}

func (d *Daemon) protected(ctx context.Context, c Named) (err error) {
	defer func() {
		if r := recover(); r != nil {
			d.config.Log.Error("component panicked", "component", c.Name, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("panicked: %v", r)
		}
	}()
	return c.Run(ctx)
}

func (d *Daemon) runListener(l *Listener) {
	var h http.Handler = d.recovering(http.HandlerFunc(l.route))
	if d.config.Wrap != nil {
		h = d.config.Wrap(l.config.Name, h)
	}
	if err := l.serve(h); err != nil {
		d.failed <- err
	}
}

// recovering logs a handler's panic and ends its connection.
func (d *Daemon) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					d.config.Log.ErrorContext(r.Context(), "handler panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				}
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// loop reloads and feeds the watchdog until the process is to end.
func (d *Daemon) loop(ctx context.Context) error {
	var pulse <-chan time.Time
	if every := d.config.Notify.pulse(); every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		pulse = t.C
	}
	reloaded := make(chan struct{}, 1)
	reloading := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.failed:
			d.config.Log.Error("ending, as a part failed", "err", err)
			return err
		case <-pulse:
			d.tell(d.config.Notify.Alive)
		case <-reloaded:
			reloading = false
		case <-d.config.Hangup:
			if !reloading {
				reloading = true
				go func() { d.Reload(ctx); reloaded <- struct{}{} }()
			}
		}
	}
}

// Reload reads certificates, trust and policies again and puts them to use, all
// of them or, when one cannot be read, none.
func (d *Daemon) Reload(ctx context.Context) error {
	d.tell(d.config.Notify.Reloading)
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	applies, err := d.prepare(ctx)
	result := &ReloadResult{At: time.Now().UTC()}
	if err == nil {
		for _, apply := range applies {
			apply()
		}
		d.config.Log.Info("reloaded")
	} else {
		result.Error = err.Error()
		d.config.Log.Error("not reloaded; everything stays as it was", "err", err)
	}
	d.monitor.setReload(result)
	if d.config.Reloaded != nil {
		d.config.Reloaded(err)
	}
	d.tell(d.config.Notify.Ready)
	if err != nil {
		d.tell(func() error { return d.config.Notify.Status("serving; the last reload failed: " + err.Error()) })
	}
	return err
}

func (d *Daemon) prepare(ctx context.Context) (applies []func(), err error) {
	var errs []error
	add := func(apply func(), err error) {
		if errs = append(errs, err); apply != nil {
			applies = append(applies, apply)
		}
	}
	if d.config.Check != nil {
		add(nil, d.config.Check(ctx))
	}
	for _, l := range d.config.Listeners {
		add(l.reload(ctx))
	}
	for _, c := range d.config.Components {
		apply, err := c.Reload(ctx)
		if err != nil {
			err = fmt.Errorf("component %s: %w", c.Name, err)
		}
		add(apply, err)
	}
	return applies, errors.Join(errs...)
}

// drain ends the listeners, the operator's last, then the components.
func (d *Daemon) drain(stopWork func(), components, listeners *sync.WaitGroup) error {
	d.monitor.setPhase(Draining)
	d.tell(d.config.Notify.Stopping)
	d.config.Log.Info("draining", "within", d.config.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), d.config.Drain)
	defer cancel()
	operator := d.listeners[d.config.Operator]
	var group sync.WaitGroup
	for _, l := range d.config.Listeners {
		if l != operator {
			group.Go(func() { d.shutdown(ctx, l) })
		}
	}
	group.Wait()
	stopWork()
	err := d.wait(components)
	if operator != nil {
		d.shutdown(ctx, operator)
	}
	listeners.Wait()
	return err
}

// shutdown lets the requests under way end, and cuts off those that do not.
func (d *Daemon) shutdown(ctx context.Context, l *Listener) {
	if err := l.server.Shutdown(ctx); err != nil {
		d.config.Log.Warn("requests were cut off at the end of the drain time", "listener", l.config.Name)
		l.server.Close()
	}
}

// wait gives the components the drain time once more, from the end of the last
// request.
func (d *Daemon) wait(components *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { components.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(d.config.Drain):
		return fmt.Errorf("components did not end within %v", d.config.Drain)
	}
}

// tell sends to the service manager; that nobody hears is not our failure.
func (d *Daemon) tell(f func() error) {
	if err := f(); err != nil {
		d.config.Log.Warn("the service manager does not hear", "err", err)
	}
}
