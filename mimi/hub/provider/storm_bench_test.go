package provider_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
)

// BenchmarkStorm has 50 clients of a room commit at once, in turn with the same 50
// committing one after another, where each has taken in what the others did: all of
// it on this machine, so that the processor is what they wait for. It reports the
// tries for one commit, and the time and the CPU of the storm, to where everybody
// is in the last epoch, over those of one after another.
func BenchmarkStorm(b *testing.B) {
	const clients = 50
	w := newWorld(b, false, "a.example")
	alice := w.person("alice/phone@a.example")
	people := []*person{alice}
	for i := range clients - 1 {
		people = append(people, w.person(fmt.Sprintf("user%d/phone@a.example", i)))
	}
	alice.create(clubhouse, people[1:]...)
	together := func() {
		var wg sync.WaitGroup
		for _, p := range people {
			wg.Go(func() { p.Sync(context.Background()) })
		}
		wg.Wait()
	}
	together()
	measure := func(f func()) (cpu, wall time.Duration) {
		begin, before := time.Now(), cpuTime()
		f()
		together()
		return cpuTime() - before, time.Since(begin)
	}
	var tries int
	var cpu, wall, oneCPU, oneWall time.Duration
	for b.Loop() {
		c, t := measure(func() {
			for _, p := range people {
				ok(b, p.Sync(b.Context()))
				must[*client.Committed](b)(p.room(clubhouse).Refresh(b.Context()))
			}
		})
		oneCPU, oneWall = oneCPU+c, oneWall+t
		c, t = measure(func() {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for _, p := range people {
				wg.Go(func() {
					done, err := p.room(clubhouse).Refresh(b.Context())
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						b.Errorf("%s: %v", p.name, err)
						return
					}
					tries += done.Tries
				})
			}
			wg.Wait()
		})
		cpu, wall = cpu+c, wall+t
	}
	b.ReportMetric(float64(tries)/float64(clients*b.N), "tries/commit")
	b.ReportMetric(float64(cpu)/float64(oneCPU), "cpu-ratio")
	b.ReportMetric(float64(wall)/float64(oneWall), "wall-ratio")
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms")
	b.ReportMetric(float64(wall.Milliseconds())/float64(b.N), "wall-ms")
	b.ReportMetric(0, "ns/op")
}
