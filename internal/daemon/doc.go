// Package daemon runs the services of one process: listeners with certificates
// and client trust that can be replaced while they serve, components behind
// them, health, reloading on a signal, and an end that is bounded in time.
//
// A [Component] is one service: handlers, work in the background, health, and
// settings that can be read again. A [Daemon] mounts the components on named
// [Listener]s and runs them until its context ends. It tells the service
// manager what it does (sd_notify, [Notifier]) and answers /health/live,
// /health/ready and /health/state.
//
// The package knows nothing of keys, devices or configuration files; it logs
// to the slog.Logger that it is handed, as services do.
package daemon
