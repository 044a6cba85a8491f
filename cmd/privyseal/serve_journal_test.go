package main

import (
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
)

// leafIntent is a signature that the guard does not look at.
func leafIntent(t *testing.T) journal.Intent {
	t.Helper()
	r, err := signer.MLSRequest("LeafNodeTBS", signertest.LeafNodeTBS("alice"))
	if err != nil {
		t.Fatal(err)
	}
	return journal.Intent{Caller: "bot", Key: "leaf", Version: 1, Purpose: signer.PurposeMLSLeaf, Request: r, Rule: "all"}
}

// TestServeReconciles starts after a crash that left a reservation open: serve
// closes it, and its own entries have the node's name and one flush.
func TestServeReconciles(t *testing.T) {
	w := wireTest(t, initOptions{softHSM: true})
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "web", Purpose: signer.PurposeTLS, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	crashed, err := journal.Open(t.Context(), w.config.databaseSource(journalPart), &journal.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := crashed.Reserve(t.Context(), leafIntent(t)); err != nil {
		t.Fatal(err)
	}
	if err := crashed.Close(); err != nil {
		t.Fatal(err)
	}
	interval := Duration(300 * time.Millisecond)
	w.config.Serve = &ServeConfig{Operator: "operator", SelfTest: &interval, Journal: JournalSection{Node: "node-1", Intents: "all"},
		Listeners: map[string]*ListenerSection{"operator": {Address: "127.0.0.1:0", Plain: true}}}
	s := serveTest(t, w)
	seen := func(want func(*journal.Entry) bool) func() bool {
		return func() bool {
			for e, err := range w.journal.Entries(t.Context(), 0) {
				if err != nil {
					t.Fatal(err)
				}
				if want(e) {
					return true
				}
			}
			return false
		}
	}
	s.eventually("the reservation is closed", seen(func(e *journal.Entry) bool {
		return e.Intent.Key == "leaf" && e.Outcome.Result == journal.Unknown && e.Outcome.ErrorClass == "interrupted"
	}))
	s.eventually("a self-test is of this node", seen(func(e *journal.Entry) bool {
		return e.Intent.Caller == selfTestCaller && e.Intent.Node == "node-1" && e.Outcome.Device == "softhsm"
	}))
	open, err := w.journal.Reserve(t.Context(), leafIntent(t))
	if err != nil || open.Number() == 0 {
		t.Errorf("an intent is not durable where all are to be: %v", err)
	}
}
