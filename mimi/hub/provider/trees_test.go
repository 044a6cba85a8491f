package provider_test

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mls"
)

// A guest is a client that was added to a crowd and has not yet joined.
type guest struct {
	newcomer
	client  mimi.URI
	after   uint64 // cursor before it was added
	context []byte // GroupContext of the epoch that it was added in
}

// invite adds a client to the crowd.
func (c *crowd) invite(i int) guest {
	c.t.Helper()
	list := c.w.newcomers(c.node.host, i, 1)
	client, user := clientNames(c.node.host, i)
	after := c.node.number(c.t, `SELECT seq FROM counter WHERE id = 1`)
	c.send(c.commit(c.adding(list, []mimi.URI{uri(c.t, user)})...))
	c.merge()
	return guest{list[0], uri(c.t, client), uint64(after), c.group.ContextBytes()}
}

// refresh has the member commit n times.
func (c *crowd) refresh(n int) {
	c.t.Helper()
	for range n {
		c.send(c.commit())
		c.merge()
	}
}

// joins has a guest take its Welcome, which came with the tree of the epoch that
// the guest was added in.
func (c *crowd) joins(g guest) {
	c.t.Helper()
	var welcome *mimi.FanoutMessage
	ok(c.t, c.node.Events(c.t.Context(), g.client, &clientapi.EventQuery{After: g.after}, func(e *clientapi.Event) error {
		f := must[mimi.Fanout](c.t)(mimi.ParseFanout(e.Payload))
		if f[0].Message.WireFormat == mls.WireWelcome {
			welcome = f[0]
		}
		return nil
	}))
	if welcome == nil {
		c.t.Fatalf("%s has no Welcome", g.client)
	}
	group := must[*mls.Group](c.t)(g.engine.Join(c.t.Context(), must[*mls.Welcome](c.t)(mls.ParseWelcome(welcome.Message.Bytes())),
		[]*mls.KeyPackageEntry{g.entry}, mls.JoinOptions{RatchetTree: welcome.RatchetTree.Tree}))
	if !bytes.Equal(group.ContextBytes(), g.context) {
		c.t.Errorf("%s came into another epoch", g.client)
	}
}

func (n *node) number(t testing.TB, query string) (v int) {
	t.Helper()
	ok(t, n.db.QueryRow(t.Context(), query).Scan(&v))
	return v
}

// restart stops the crowd's provider and starts it again on its database.
func (c *crowd) restart() {
	c.t.Helper()
	c.node.stop()
	c.node = c.w.start(c.node.host, c.node.source, c.node.keys)
	c.w.hubs[c.node.host] = c.node
}

// TestTreeIsKeptOnce adds clients to a room, with other commits and restarts in
// between: each gets the tree of the very epoch that it is added in, though the
// hub stores the tree whole only now and then. What nobody needs any more goes.
func TestTreeIsKeptOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		var ahead atomic.Int64
		w := knownWorld(t, pg, "a.example")
		w.mods = append(w.mods, func(cfg *provider.Config) {
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		w.hubs["a.example"] = w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
		c := w.crowd("a.example", "large", 64)
		whole := c.node.number(t, `SELECT length(data) FROM room_tree`)
		guests := []guest{c.invite(100), c.invite(101)}
		c.refresh(3)
		guests = append(guests, c.invite(102))
		if n := c.node.number(t, `SELECT max(length(body)) FROM event WHERE kind = 4`); n > whole/8 {
			t.Errorf("a Welcome takes %d octets, the tree %d", n, whole)
		}
		if n := c.node.number(t, `SELECT max(length(data)) FROM room_tree WHERE seq <> base`); n > whole/8 {
			t.Errorf("a commit changes %d octets of a tree of %d", n, whole)
		}
		c.restart()
		c.joins(guests[0])
		guests = append(guests, c.invite(103))
		c.refresh(40) // until there is a snapshot
		if c.node.number(t, `SELECT tree - (SELECT min(seq) FROM room_tree) FROM room_snapshot`) == 0 {
			t.Error("no snapshot was taken")
		}
		c.restart()
		for i := range 30 {
			guests = append(guests, c.invite(104+i))
		}
		if n := c.node.number(t, `SELECT count(*) FROM room_tree WHERE seq = base`); n < 2 || n > 4 {
			t.Errorf("the tree is stored whole %d times", n)
		}
		ok(t, c.node.Purge(t.Context()))
		for _, g := range guests {
			c.joins(g)
		}
		ahead.Store(int64(31 * 24 * time.Hour))
		ok(t, c.node.Purge(t.Context()))
		if n := c.node.number(t, `SELECT count(*) FROM room_tree WHERE seq = base`); n > 2 {
			t.Errorf("the tree is still there whole %d times", n)
		}
		c.restart()
		c.joins(c.invite(200))
	})
}

// TestTreesMigrate opens a database of the release before, in which snapshots
// and Welcomes had whole trees.
func TestTreesMigrate(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example")
		c := w.crowd("a.example", "old", 8)
		before := c.invite(100)
		c.refresh(2)
		c.node.beforeTrees(t)
		c.restart()
		c.joins(before)
		after := c.invite(101)
		c.refresh(2)
		c.restart()
		c.refresh(40) // until there is a snapshot
		c.restart()
		c.joins(after)
		c.joins(c.invite(102))
	})
}

// beforeTrees makes the node's database what it was before the migration 0003,
// and stops the node. There is one room, whose snapshot is the first.
func (n *node) beforeTrees(t *testing.T) {
	t.Helper()
	ok(t, n.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		var rest, whole, changes, body []byte
		ok(t, tx.QueryRow(t.Context(), `SELECT data FROM room_snapshot`).Scan(&rest))
		ok(t, tx.QueryRow(t.Context(), `SELECT data FROM room_tree WHERE seq = base`).Scan(&whole))
		ok(t, tx.QueryRow(t.Context(), `SELECT data FROM room_tree WHERE seq <> base`).Scan(&changes))
		ok(t, tx.QueryRow(t.Context(), `SELECT body FROM event WHERE kind = 4`).Scan(&body))
		var b tlsvec.Builder
		b.Uint16(1)
		b.Vector(whole)
		b.Vector(rest)
		must[any](t)(tx.Exec(t.Context(), `UPDATE room_snapshot SET data = ?`, b.Bytes()))
		welcome := must[[]byte](t)(mimi.CompleteWelcome(body, must[[]byte](t)(mls.PatchTree(whole, changes))))
		must[any](t)(tx.Exec(t.Context(), `UPDATE event SET body = ? WHERE kind = 4`, welcome))
		for _, q := range []string{
			`DROP INDEX event_tree`, `ALTER TABLE event DROP COLUMN tree`, `ALTER TABLE room_snapshot DROP COLUMN tree`, `DROP TABLE room_tree`,
			`DROP TABLE sender`, `DROP TABLE followed`, `DROP INDEX device_signature_key`, `DROP INDEX abuse_report_by`, `DROP INDEX key_package_over`, `DELETE FROM schema_migration WHERE part = 'provider' AND version >= 3`,
		} {
			must[any](t)(tx.Exec(t.Context(), q))
		}
		return nil
	}))
	n.stop()
}
