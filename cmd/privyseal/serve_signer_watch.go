package main

import (
	"context"
	"errors"
	"time"

	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/journal"
	signservice "github.com/privyseal/privyseal/signer/service"
)

// signerHooks count, time and trace what the signing service does, and log what
// an operator looks for: changes of keys with who made them, and refusals.
func signerHooks(d deps) signservice.Hooks {
	return signservice.Hooks{
		Stage: d.stage,
		Done:  d.done,
		Changed: func(ctx context.Context, c *access.Caller, what, key string) {
			d.log.InfoContext(ctx, "a key was changed", "what", what, "tenant", c.Tenant, "key", key, "caller", c.Name)
		},
	}
}

// stage begins the span of a stage, which has the stage's name.
func (d deps) stage(ctx context.Context, s signservice.Stage) (context.Context, func(error)) {
	start := time.Now()
	ctx, end := d.metrics.Tracer().Span(ctx, string(s))
	return ctx, func(err error) {
		end(err)
		d.metrics.ServiceStage(string(s), time.Since(start))
		if errors.Is(err, journal.ErrDown) {
			d.metrics.AuditWriteFailed()
		}
	}
}

// noRule is the label of requests that no rule of the policy allowed.
const noRule = "none"

func (d deps) done(ctx context.Context, done signservice.Done) {
	result := string(done.Reason)
	if result == "" {
		result = "ok"
	}
	d.metrics.ServiceRequest(string(done.Operation), string(done.Algorithm), result, done.Took)
	switch done.Reason {
	case signservice.PolicyDenied:
		rule := done.Rule
		if rule == "" {
			rule = noRule
		}
		d.metrics.PolicyDenied(rule)
	case signservice.GuardDenied:
	default:
		return
	}
	d.log.WarnContext(ctx, "a request was refused", "reason", done.Reason, "rule", done.Rule, "tenant", done.Tenant, "key", done.Key)
}

// queues is how many requests wait before each device and before the journal.
func (p *signerParts) queues() map[string]int {
	depths := map[string]int{"journal": p.journal.Waiting()}
	for device, load := range p.service.Load() {
		if device == "" {
			device = "other devices"
		}
		depths["device "+device] = load[1]
	}
	return depths
}
