package main

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/signer/journal"
)

// A JournalSection says how serve writes the journal.
type JournalSection struct {
	// Node names this node in the entries, where several share a database; by
	// default entries have no node.
	Node string `json:"node,omitempty"`
	// Intents says what is on the disk before a device works: "guarded", the
	// default, for what the double-sign guard has something to write of; "all"
	// for everything. No signature leaves without an entry either way; with
	// "guarded", one that a device made just before a crash leaves no trace.
	Intents string `json:"intents,omitempty"`
}

// intents are the words for journal.Options.Intents.
var intents = map[string]journal.Intents{"": journal.IntentsGuarded, "guarded": journal.IntentsGuarded, "all": journal.IntentsAll}

func (j JournalSection) check(at string) error {
	if j.Node != "" && !deviceName.MatchString(j.Node) {
		return configErrorf(at+".node", "%q; use 1 to 32 of a-z, 0-9 and '-'", j.Node)
	}
	if _, ok := intents[j.Intents]; !ok {
		return configErrorf(at+".intents", `%q; use "guarded" or "all"`, j.Intents)
	}
	return nil
}

// journalPart is the journal's name among the databases.
const journalPart = "journal"

// openJournal returns the one journal of the process, which Close closes: all
// that sign share its flushes. It is called before there are goroutines.
func (w *wiring) openJournal(ctx context.Context) (*journal.Journal, error) {
	if w.journal != nil {
		return w.journal, nil
	}
	var opt journal.Options
	if s := w.config.Serve; s != nil {
		opt.Node, opt.Intents = s.Journal.Node, intents[s.Journal.Intents]
	}
	j, err := journal.Open(ctx, w.config.databaseSource(journalPart), &opt)
	if err != nil {
		return nil, err
	}
	w.journal = j
	return j, nil
}

// reconcileEvery is how often reservations of crashed requests are closed, and
// reconcileAge how old they are by then: older than any request may become.
const (
	reconcileEvery = time.Minute
	reconcileAge   = 2 * time.Minute
)

// reconcile closes the reservations that crashes left, at the start and then on
// a schedule: other nodes may crash too.
func (k *keysComponent) reconcile(ctx context.Context) {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		n, err := k.journal.Reconcile(ctx, time.Now().Add(-reconcileAge))
		switch {
		case err != nil && ctx.Err() == nil:
			k.deps.log.ErrorContext(ctx, "the journal does not reconcile", "err", err)
		case n > 0:
			k.deps.log.WarnContext(ctx, "requests that were cut off count as signed", "reservations", n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
