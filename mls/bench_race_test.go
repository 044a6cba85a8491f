package mls

import (
	"slices"
	"testing"
	"time"
)

// A contestant is one way to do a thing, or the least that the thing can cost.
type contestant struct {
	name   string
	run    func()
	before func() // not measured; may be nil
}

// race measures contestants in turns, in one run, so that what else the machine
// does hits all of them, and reports the median of each and the ratios of the
// first to the others. An iteration is one round.
func race(b *testing.B, all ...contestant) {
	times := make([][]time.Duration, len(all))
	for round := 0; b.Loop(); round++ {
		for i := range all {
			k := (round + i) % len(all)
			if all[k].before != nil {
				all[k].before()
			}
			start := time.Now()
			all[k].run()
			times[k] = append(times[k], time.Since(start))
		}
	}
	first := median(times[0])
	b.ReportMetric(float64(first.Nanoseconds()), "ns/"+all[0].name)
	for i := 1; i < len(all); i++ {
		m := median(times[i])
		b.ReportMetric(float64(m.Nanoseconds()), "ns/"+all[i].name)
		b.ReportMetric(float64(first)/float64(m), "x/"+all[i].name)
	}
	b.ReportMetric(0, "ns/op") // of a whole round, which says nothing
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// repeat runs f several times, for what is too short for one clock reading.
func repeat(n int, f func()) func() {
	return func() {
		for range n {
			f()
		}
	}
}

// must ends a benchmark that does not do its work.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
