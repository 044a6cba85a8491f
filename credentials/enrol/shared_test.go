package enrol_test

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials/enrol"
	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// TestAnyNodeFinishes has the two steps arrive at different nodes of one
// database.
func TestAnyNodeFinishes(t *testing.T) {
	w := newWorld(t, pgtest.Database(t), 2)
	var nodes []*enrol.Service
	for range 2 {
		s, err := enrol.New(w.Config)
		must(t, err)
		nodes = append(nodes, s)
	}
	begin := func(node int, code string) *enrol.Challenge {
		t.Helper()
		c, err := nodes[node].Begin(t.Context(), &enrol.BeginRequest{Code: code})
		must(t, err)
		return c
	}
	key := newKey(t)
	first := w.invite()
	c := begin(0, first)
	f := w.answer(c, key, good(c, key.Public()), w.appliance)
	made, err := nodes[1].Finish(t.Context(), f)
	must(t, err)
	if made.Attestation != "stated" {
		t.Errorf("issued %+v", made)
	}
	for _, n := range nodes { // a session is good once, whoever is asked
		_, err := n.Finish(t.Context(), f)
		refused(t, err, enrol.ReasonSession)
	}

	// A failed attempt ends it for all of them, as a second beginning does.
	second := w.invite()
	c = begin(0, second)
	bad := w.answer(c, key, good(c, key.Public()), newKey(t))
	_, err = nodes[1].Finish(t.Context(), bad)
	refused(t, err, enrol.ReasonStatement)
	_, err = nodes[0].Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonSession)
	old, c := begin(0, second), begin(1, second)
	_, err = nodes[1].Finish(t.Context(), w.answer(old, key, good(old, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonSession)
	w.clock.move(time.Minute)
	_, err = nodes[0].Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance))
	refused(t, err, enrol.ReasonSession)

	// Of many that finish one session at once, one does.
	c = begin(1, second)
	var issued atomic.Int32
	var work sync.WaitGroup
	f = w.answer(c, key, good(c, key.Public()), w.appliance)
	for i := range 8 {
		work.Go(func() {
			if _, err := nodes[i%2].Finish(context.Background(), f); err == nil {
				issued.Add(1)
			}
		})
	}
	work.Wait()
	if issued.Load() != 1 {
		t.Errorf("%d credentials of one session", issued.Load())
	}
}

// TestSessionsAreSealed looks into the database of a session that is open: what
// is in it opens nothing, and what was changed is not taken.
func TestSessionsAreSealed(t *testing.T) {
	w := newWorld(t, pgtest.Database(t), 0)
	c, key := w.begin(w.invite()), newKey(t)
	db := w.book.Database()
	var id string
	var sealed []byte
	must(t, db.QueryRow(t.Context(), `SELECT id, sealed FROM enrol_session`).Scan(&id, &sealed))
	if id == c.Session || bytes.Contains(sealed, c.Nonce) || bytes.Contains(sealed, []byte("nonce")) {
		t.Errorf("the row %s shows what is in the session: %q", id, sealed)
	}
	sealed[len(sealed)/2] ^= 1
	must(t, db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE enrol_session SET sealed = ?`, sealed)
		return err
	}))
	if made, err := w.Finish(t.Context(), w.answer(c, key, good(c, key.Public()), w.appliance)); err == nil {
		t.Errorf("a session that was changed: %+v", made)
	}
}

// On SQLite, which one process serves, nothing is written when a session begins.
func TestSessionsOfOneProcess(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "issuer.db"), 0)
	w.begin(w.invite())
	var n int
	must(t, w.book.Database().QueryRow(t.Context(), `SELECT count(*) FROM enrol_session`).Scan(&n))
	if n != 0 {
		t.Errorf("%d sessions in the database", n)
	}
}
