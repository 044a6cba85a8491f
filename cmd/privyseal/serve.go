package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/telemetry"
)

func newServe(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Run the services of the configuration", Args: noArgs,
		Long: `Runs the services that the member "serve" of the configuration names, until
SIGTERM or SIGINT. It then stops accepting, lets the requests under way end within
"drain", and leaves.

SIGHUP reads policies, trust and certificates again and puts all of them to use,
or none when one of them cannot be read. Other settings need a restart.

Under systemd use Type=notify, or Type=notify-reload; the watchdog is fed. The log
goes to standard error.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), a) },
	}
}

// serve is "privyseal serve".
func serve(ctx context.Context, a *app) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	notify := daemon.NotifierFromEnv()
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if c.Serve == nil {
		return configErrorf("", "%w", errNoServe)
	}
	log, err := telemetry.NewLogger(a.err, c.Serve.Log.Format, c.Serve.Log.Level)
	if err != nil {
		return err
	}
	hostInWorkers(c)
	w, err := newWiring(ctx, c)
	if err != nil {
		return err
	}
	p := &process{wiring: w, log: log, metrics: telemetry.NewMetrics(buildInfo()), hangup: hangup, notify: notify, reread: a.loadConfig}
	tracer, err := telemetry.TracerFromEnv(ctx, buildInfo(), log)
	if err == nil {
		p.metrics.SetTracer(tracer)
		err = p.run(ctx)
	}
	return errors.Join(err, tracer.Close(ctx), w.Close(ctx))
}

func buildInfo() telemetry.BuildInfo {
	b := thisBuild()
	return telemetry.BuildInfo{Version: b.Version, Revision: b.Revision, Go: b.Go}
}

// maxServeWorkers bounds the workers that a module gets unasked.
const maxServeWorkers = 4

// hostInWorkers gives each PKCS#11 module that has no "workers" one for each
// processor: a module that crashes in the process of the service takes the
// service along (docs/decisions/0002).
func hostInWorkers(c *Config) {
	for _, d := range c.Devices {
		if d.Kind == kindPKCS11 && d.Workers == 0 {
			d.Workers = min(max(runtime.NumCPU(), 1), maxServeWorkers)
		}
	}
}

// A process is one run of serve.
type process struct {
	*wiring
	log     *slog.Logger
	metrics *telemetry.Metrics
	hangup  <-chan os.Signal
	notify  *daemon.Notifier
	reread  func() (*Config, error) // the configuration as it is in its file now
	started func(*daemon.Daemon, []*daemon.Listener)
}

// run makes the components, binds the listeners and serves.
func (p *process) run(ctx context.Context) error {
	p.instrument(p.metrics, p.log)
	components, err := p.components(ctx)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, p.wiring, p.log)
	if err != nil {
		return err
	}
	d, err := daemon.New(p.daemonConfig(components, listeners))
	if err != nil {
		closeAll(listeners)
		return &ConfigError{At: "serve", Err: err}
	}
	if p.started != nil {
		p.started(d, listeners)
	}
	return d.Run(ctx)
}

func (p *process) daemonConfig(components []daemon.Named, listeners []*daemon.Listener) daemon.Config {
	s := p.config.Serve
	c := daemon.Config{
		Log: p.log, Listeners: listeners, Components: components, Operator: s.Operator,
		Drain: time.Duration(s.Drain), Hangup: p.hangup, Notify: p.notify, Reloaded: p.metrics.Reloaded,
		Wrap: func(listener string, h http.Handler) http.Handler { return p.metrics.HTTP(listener, p.log, h) },
	}
	if s.Operator != "" {
		c.Pages = append(c.Pages, daemon.Mount{Listener: s.Operator, Pattern: "GET /metrics", Handler: p.metrics.Handler()})
	}
	if p.reread != nil {
		c.Check = func(context.Context) error { return p.checkFile() }
	}
	return c
}

// checkFile refuses a reload while the configuration file is broken: the next
// start would fail. What changed in it takes a restart.
func (p *process) checkFile() error {
	next, err := p.reread()
	if err != nil {
		return err
	}
	hostInWorkers(next)
	if !sameConfig(p.config, next) {
		p.log.Warn("the configuration file has changed; policies, trust, certificates and franking keys are read again, the rest waits for a restart")
	}
	return nil
}

// A service makes the component of one member of ServeConfig, or returns nil
// where the member is not there. It must not need a device: see
// daemon.Component.
type service struct {
	name string
	make func(ctx context.Context, w *wiring, s *ServeConfig, d deps) (daemon.Component, error)
}

// deps are what the process lends a component.
type deps struct {
	log     *slog.Logger // says which component
	metrics *telemetry.Metrics
	reread  func() (*Config, error) // the configuration as it is in its file now, or nil
}

// services are all that serve can run. The file of a service adds its line here
// and its member to ServeConfig.
func services() []service {
	return []service{
		{"keys", newKeysComponent},
		{"signer", newSignerComponent},
		{"transparency log", newLogComponent},
		{"issuer", newIssuerComponent},
		{"provider", newProviderComponent},
	}
}

func (p *process) components(ctx context.Context) ([]daemon.Named, error) {
	var all []daemon.Named
	for _, s := range services() {
		c, err := s.make(ctx, p.wiring, p.config.Serve, deps{p.log.With("component", s.name), p.metrics, p.reread})
		if err != nil {
			return nil, fmt.Errorf("serve %s: %w", s.name, err)
		}
		if c != nil {
			all = append(all, daemon.Named{Name: s.name, Component: c})
		}
	}
	return all, nil
}
