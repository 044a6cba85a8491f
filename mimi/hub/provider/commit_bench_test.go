package provider_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
)

// cpuTime returns the CPU time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quantile returns the value below which the part q of a list is.
func quantile[T int | float64 | time.Duration](list []T, q float64) T {
	slices.Sort(list)
	return list[int(q*float64(len(list)-1))]
}

// engines runs a benchmark on SQLite and on PostgreSQL.
func engines(b *testing.B, f func(b *testing.B, pg bool)) {
	b.Run("SQLite", func(b *testing.B) { f(b, false) })
	b.Run("PostgreSQL", func(b *testing.B) { f(b, true) })
}

// benchCommits is how many commits of a kind a room accepts in turn.
const benchCommits = 40

// BenchmarkCommit has rooms of 10, 1,000 and 10,000 clients, each of a user of
// its own, take turns in accepting commits of one member: some that refresh its
// leaf, and some that add a client. It reports the CPU of the hub for each, with
// the collection of what it leaves behind and without that of the member's; its
// growth over the room of 10; and what an addition takes on the disk. Beside it, in
// turn, what it takes to copy the octets of such an addition once and to store them
// in one row of the same database ("bare"), and what two SHA-256 over the
// GroupContext take ("hashes"): two signatures of a commit are over all of it.
func BenchmarkCommit(b *testing.B) {
	engines(b, func(b *testing.B, pg bool) {
		b.Cleanup(daemon.SpareHeap()) // as serve has it
		w := newWorld(b, pg, "a.example")
		sizes := []int{10, 1000, 10_000}
		var rooms []*crowd
		for _, n := range sizes {
			rooms = append(rooms, w.crowd("a.example", fmt.Sprint(n), n))
		}
		cpu, wall := make(map[string][]time.Duration), make(map[string][]time.Duration)
		disk := make(map[string][]float64)
		next := 1 << 20
		store := bareStore(b, w.hubs["a.example"], pg)
		for b.Loop() {
			for i, c := range rooms {
				measure := func(name string, f func(int)) {
					runtime.GC()
					name = fmt.Sprintf("%s-%d", name, sizes[i])
					before, begin := cpuTime(), time.Now()
					for i := range benchCommits {
						f(i)
					}
					cpu[name], wall[name] = append(cpu[name], (cpuTime()-before)/benchCommits), append(wall[name], time.Since(begin)/benchCommits)
				}
				list := make([]*mimi.HandshakeBundle, benchCommits)
				for i := range list {
					list[i] = c.commit()
					c.merge()
				}
				measure("refresh", func(i int) { c.send(list[i]) })
				octets := make([][]byte, len(list))
				for i := range list {
					next++
					_, user := clientNames("a.example", next)
					list[i] = c.commit(c.adding(w.newcomers("a.example", next, 1), []mimi.URI{uri(b, user)})...)
					octets[i] = list[i].Marshal()
					c.merge()
				}
				size := c.node.size(b)
				measure("add", func(i int) { c.send(list[i]) })
				name := fmt.Sprintf("add-%d", sizes[i])
				disk[name] = append(disk[name], float64(c.node.size(b)-size)/benchCommits)
				measure("bare", func(i int) { store(octets[i]) })
				gc := c.group.ContextBytes()
				measure("hashes", func(int) { sha256.Sum256(gc); sha256.Sum256(gc) })
			}
		}
		for name, list := range cpu {
			b.ReportMetric(float64(quantile(list, 0.5).Microseconds()), name+"-cpu-µs")
			b.ReportMetric(float64(quantile(wall[name], 0.5).Microseconds()), name+"-µs")
		}
		for name, list := range disk {
			b.ReportMetric(quantile(list, 0.5), name+"-disk-octets")
		}
		for _, what := range []string{"refresh", "add"} {
			small := quantile(cpu[what+"-10"], 0.5)
			for _, n := range sizes[1:] {
				b.ReportMetric(float64(quantile(cpu[fmt.Sprintf("%s-%d", what, n)], 0.5))/float64(small), fmt.Sprintf("%s-x-10-at-%d", what, n))
			}
		}
		for _, n := range sizes {
			b.ReportMetric(float64(quantile(cpu[fmt.Sprintf("add-%d", n)], 0.5))/float64(quantile(cpu[fmt.Sprintf("bare-%d", n)], 0.5)), fmt.Sprintf("add-x-bare-at-%d", n))
		}
		b.ReportMetric(0, "ns/op")
	})
}

// bareStore returns what stores octets in a row of a table of their own.
func bareStore(b *testing.B, n *node, pg bool) func(octets []byte) {
	kind := "BLOB"
	if pg {
		kind = "BYTEA"
	}
	ok(b, n.db.Write(b.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(b.Context(), `CREATE TABLE bare (seq INTEGER PRIMARY KEY, data `+kind+` NOT NULL)`)
		return err
	}))
	seq := 0
	return func(octets []byte) {
		seq++
		copied := bytes.Clone(octets)
		ok(b, n.db.Batch(b.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(context.Background(), `INSERT INTO bare (seq, data) VALUES (?, ?)`, seq, copied)
			return err
		}))
	}
}
