package main

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials/registry"
)

// watch has the process count what the issuer publishes and how late it is.
func (c *issuerComponent) watch() error {
	p := c.issuance.publisher
	p.Report = func(err error) {
		result := "error"
		if errors.Is(err, registry.ErrLate) {
			result = "late"
		}
		c.deps.metrics.Published(result, 0)
		c.deps.log.Error("publishing failed and is tried again", "err", err)
	}
	p.Published = func(pub registry.Publication) {
		c.deps.metrics.Published("ok", pub.Waited)
		c.deps.log.Info("published", "place", pub.Place, "number", pub.Number, "changes", pub.Changes, "waited", pub.Waited)
	}
	err := c.deps.metrics.Gauge("revocation_lag_seconds", "How long the oldest revocation waits that is not published; 0 if none does, NaN while the database is away.", nil, c.lag)
	if err != nil || c.issuance.list == nil {
		return err
	}
	return c.deps.metrics.StatusListAge("status", c.listAge())
}

// scrapeTime bounds what a scrape asks the database.
const scrapeTime = 2 * time.Second

func (c *issuerComponent) lag() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	lag, err := c.issuance.publisher.Lag(ctx)
	if err != nil {
		return math.NaN()
	}
	return lag.Seconds()
}

// listAge returns the age of the status list that is published, by whichever
// node. It counts from the start while there is none, and goes on while the
// database is away.
func (c *issuerComponent) listAge() func() time.Duration {
	var signed atomic.Int64
	signed.Store(time.Now().UnixNano())
	return func() time.Duration {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
		defer cancel()
		list := c.issuance.list
		if last, err := list.Store.Published(ctx, list.URI, time.Time{}); err == nil {
			signed.Store(last.IssuedAt.UnixNano())
		}
		return time.Since(time.Unix(0, signed.Load()))
	}
}
