package main

import (
	"testing"
	"time"
)

// slowDevice has each signature take a while, one after another, as with a
// device that is slow without using our processors.
func (b *remoteBench) slowDevice(d time.Duration) {
	b.slow, b.slot = d, make(chan struct{}, 1)
}

// capacity is how many signatures a second callers that wait for their answers get.
func (b *remoteBench) capacity(t testing.TB, n int) float64 {
	t.Helper()
	l := b.load
	l.Callers, l.Count = 8, n
	r, _ := b.remote(t, l)
	return float64(n) / r.Seconds
}

// offer makes requests at a rate for a time.
func (b *remoteBench) offer(t testing.TB, rate float64, d time.Duration) loaded {
	t.Helper()
	l := b.load
	l.Callers, l.Rate, l.Count = 16, rate, int(rate*d.Seconds())
	r, _ := b.remote(t, l)
	return r
}

// BenchmarkRemoteOverload asks for 0.8 and then for ten times of what the
// service can do, not waiting for answers, and compares the latency of what it
// does. With a device that takes 5 ms, which leaves the processors to the rest;
// and with SoftHSM, which competes for them with the callers and the service.
func BenchmarkRemoteOverload(b *testing.B) {
	for name, slow := range map[string]time.Duration{"5ms": 5 * time.Millisecond, "softhsm": 0} {
		b.Run(name, func(b *testing.B) {
			x := newRemoteBench(b, initOptions{softHSM: true}, "softhsm", 1, slow > 0)
			n := 2000
			if slow > 0 {
				x.slowDevice(slow)
				n = 400
			}
			var capacity, kept, p50, p99, p50Over, p99Over, ratio, shed, failed, offered, shedP99 []float64
			for b.Loop() {
				c := x.capacity(b, n)
				calm := x.offer(b, 0.8*c, 3*time.Second)
				over := x.offer(b, 10*c, 3*time.Second)
				b.Logf("capacity %.0f/s; 0.8x: %+v; 10x: %+v", c, calm, over)
				capacity = append(capacity, c)
				kept = append(kept, float64(over.Accepted)/over.Seconds/c)
				p50, p99 = append(p50, calm.P50), append(p99, calm.P99)
				p50Over, p99Over = append(p50Over, over.P50), append(p99Over, over.P99)
				ratio = append(ratio, over.P99/calm.P99)
				all := float64(over.Shed + over.Accepted + over.Failed)
				shed, failed = append(shed, float64(over.Shed)/all), append(failed, float64(over.Failed)/all)
				offered, shedP99 = append(offered, over.Offered/c), append(shedP99, over.ShedP99)
			}
			b.ReportMetric(median(capacity), "capacity/s")
			b.ReportMetric(median(offered), "x-offered")
			b.ReportMetric(median(kept), "x-capacity-kept")
			b.ReportMetric(median(shed), "shed-share")
			b.ReportMetric(median(failed), "failed-share") // not OVERLOADED: the log has the reasons
			b.ReportMetric(median(p50), "p50-calm-ms")
			b.ReportMetric(median(p99), "p99-calm-ms")
			b.ReportMetric(median(p50Over), "p50-over-ms")
			b.ReportMetric(median(p99Over), "p99-over-ms")
			b.ReportMetric(median(shedP99), "shed-p99-ms")
			b.ReportMetric(median(ratio), "x-p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}
