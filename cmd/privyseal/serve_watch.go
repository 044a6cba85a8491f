package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

// A deviceWatch turns what a driver says into metrics, spans and log lines. A
// nil one does nothing.
type deviceWatch struct {
	device  string
	module  string // name of the module's file, or "tpm"
	metrics *telemetry.Metrics
	log     *slog.Logger
}

// instrument has the devices and the ring tell the process what they do. It is
// called before they are used.
func (w *wiring) instrument(m *telemetry.Metrics, log *slog.Logger) {
	for name, d := range w.devices {
		switch d := d.(type) {
		case *pkcs11Device:
			d.watch = &deviceWatch{name, filepath.Base(d.config.Module), m, log.With("device", name)}
		case *tpmDevice:
			d.watch = &deviceWatch{name, kindTPM, m, log.With("device", name)}
		}
	}
	w.ring.SetHooks(ringHooks(m, log))
}

// moduleOf is the label of a device's module.
func moduleOf(d *DeviceConfig) string {
	if d.Kind == kindTPM {
		return kindTPM
	}
	return filepath.Base(d.Module)
}

func ringHooks(m *telemetry.Metrics, log *slog.Logger) signer.Hooks {
	return signer.Hooks{
		Call: func(ctx context.Context, c signer.DeviceCall) (context.Context, func(error)) {
			end := m.SignCall(string(c.Key), string(c.Algorithm), c.Device)
			return ctx, func(err error) { end(callResult(ctx, err)) }
		},
		Failover: func(id signer.KeyID, from, to string, err error) {
			m.Failover(from, to)
			log.Warn("request goes on to another device", "key", id, "from", from, "to", to, "err", err)
		},
		Away: func(device string, err error) { log.Error("device is left out", "device", device, "err", err) },
		Back: func(device string, after time.Duration) {
			log.Info("device is taken in again", "device", device, "after", after)
		},
		SelfTest: func(r signer.SelfTestResult) {
			m.SelfTested(r.Device, r.Err)
			if r.Err != nil {
				log.Warn("self-test failed", "key", r.Key, "version", r.Version, "device", r.Device, "err", r.Err)
			}
		},
	}
}

// callResult is the class of how a call ended.
func callResult(ctx context.Context, err error) string {
	d, ok := errors.AsType[*signer.DeviceError](err)
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, signer.ErrBadSignature):
		return "wrong"
	case ok:
		return string(d.Remedy)
	case errors.Is(err, signer.ErrUsage):
		return "refused"
	}
	return telemetry.ResultOf(ctx, err)
}

// traceModule is the hsm.TraceFunc of a device.
func (w *deviceWatch) traceModule(ctx context.Context, function string) (context.Context, func(error)) {
	start := time.Now()
	ctx, end := w.metrics.Tracer().Span(ctx, telemetry.SpanPKCS11+function, "privyseal.device", w.device)
	return ctx, func(err error) {
		end(err)
		w.metrics.PKCS11Call(function, w.module, ckrOf(err), time.Since(start))
	}
}

// ckrOf is the return value in an error, or a word where there is none.
func ckrOf(err error) string {
	e, ok := errors.AsType[*hsm.Error](err)
	switch {
	case err == nil:
		return ""
	case ok && e.Cause == "":
		return e.Code.String()
	case errors.Is(err, hsm.ErrWorkerLost):
		return "worker-lost"
	}
	return "other"
}

// observe counts and logs the repairs of a driver.
func (w *deviceWatch) observe(e hsm.Event) {
	switch e.Kind {
	case hsm.EventLogin, hsm.EventModule:
		w.metrics.Reconnected(w.device, string(e.Kind))
		w.log.Info("driver repaired", "what", e.Kind, "took", e.Took, "err", e.Err)
	case hsm.EventWorkerUp:
		w.metrics.Reconnected(w.device, "worker")
		w.log.Info("worker is up", "worker", e.Worker, "took", e.Took)
	case hsm.EventWorkerLost:
		w.log.Warn("worker was lost", "worker", e.Worker, "err", e.Err)
	case hsm.EventWorkerEnds:
		w.log.Info("worker is replaced", "worker", e.Worker, "why", e.Err)
	case hsm.EventPINRefused:
		w.metrics.PINRefused(w.device)
		w.log.Error("the token refused the PIN, which is not tried again until its source changes", "err", e.Err)
	default:
		w.log.Debug("driver", "what", e.Kind, "err", e.Err)
	}
}

// traceTPM begins a command of a TPM.
func (w *deviceWatch) traceTPM(ctx context.Context, command string) (context.Context, func(error)) {
	if w == nil {
		return ctx, func(error) {}
	}
	ctx, end := w.metrics.Tracer().Span(ctx, telemetry.SpanTPM+command, "privyseal.device", w.device)
	return ctx, func(err error) {
		end(err)
		if e, ok := errors.AsType[*tpm.Error](err); ok {
			w.metrics.TPMError(fmt.Sprintf("0x%03x", uint32(e.RC)))
		}
	}
}
