package provider_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

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

// benchAdds is how many clients are added in turn, to be measured on the disk.
const benchAdds = 8

// BenchmarkCommit has rooms of 10, 1,000 and 10,000 clients, each of a user of
// its own, take turns in accepting commits of one member: one that refreshes its
// leaf, and one that adds a client. It reports the CPU of the hub for each, its
// growth over the room of 10, and what an addition takes on the disk; beside it, in
// turn, what it takes to copy the octets of such an addition once and to store them
// in one row of the same database ("bare"), and what two SHA-256 over the
// GroupContext take ("hashes"): two signatures of a commit are over all of it.
func BenchmarkCommit(b *testing.B) {
	engines(b, func(b *testing.B, pg bool) {
		w := newWorld(b, pg, "a.example")
		sizes := []int{10, 1000, 10_000}
		var rooms []*crowd
		for _, n := range sizes {
			rooms = append(rooms, w.crowd("a.example", fmt.Sprint(n), n))
		}
		cpu, wall := make(map[string][]time.Duration), make(map[string][]time.Duration)
		disk := make(map[string][]float64)
		next := 1 << 20
		n := w.hubs["a.example"]
		ok(b, n.db.Write(b.Context(), func(tx *sqldb.Tx) error {
			kind := "BLOB"
			if pg {
				kind = "BYTEA"
			}
			_, err := tx.Exec(b.Context(), `CREATE TABLE bare (seq INTEGER PRIMARY KEY, data `+kind+` NOT NULL)`)
			return err
		}))
		store := func(octets []byte) {
			before := bytes.Clone(octets)
			next++
			ok(b, n.db.Batch(b.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(context.Background(), `INSERT INTO bare (seq, data) VALUES (?, ?)`, next, before)
				return err
			}))
		}
		for b.Loop() {
			for i, c := range rooms {
				measure := func(name string, u *mimi.HandshakeBundle) {
					name = fmt.Sprintf("%s-%d", name, sizes[i])
					before, begin := cpuTime(), time.Now()
					c.send(u)
					cpu[name], wall[name] = append(cpu[name], cpuTime()-before), append(wall[name], time.Since(begin))
					c.merge()
				}
				for range 5 {
					measure("refresh", c.commit())
				}
				before := c.node.size(b)
				var octets [][]byte
				for range benchAdds {
					next++
					_, user := clientNames("a.example", next)
					u := c.commit(c.adding(w.newcomers("a.example", next, 1), []mimi.URI{uri(b, user)})...)
					measure("add", u)
					octets = append(octets, u.Marshal())
				}
				name := fmt.Sprintf("add-%d", sizes[i])
				disk[name] = append(disk[name], float64(c.node.size(b)-before)/benchAdds)
				alone := func(name string, f func()) {
					name = fmt.Sprintf("%s-%d", name, sizes[i])
					before, begin := cpuTime(), time.Now()
					f()
					cpu[name], wall[name] = append(cpu[name], cpuTime()-before), append(wall[name], time.Since(begin))
				}
				for _, one := range octets {
					alone("bare", func() { store(one) })
				}
				gc := c.group.ContextBytes()
				for range 5 {
					alone("hashes", func() { sha256.Sum256(gc); sha256.Sum256(gc) })
				}
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
