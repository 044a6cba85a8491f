package daemon

import "runtime"

// spareHeap is what a small heap is made larger by, in octets.
const spareHeap = 32 << 20

// SpareHeap has the collector run less often while the heap is small, until the
// function that it returns is called. Go collects when the heap has doubled, and
// the services live in a few MiB, which a second's requests fill many times over:
// a fifth of what a signature cost went there. So 32 MiB are taken and never
// touched: they are no memory of the machine, but let 32 MiB more of what is
// garbage stand. Where the heap is large they make no difference, as a higher
// GOGC would.
func SpareHeap() (release func()) {
	spare := make([]byte, spareHeap)
	return func() { runtime.KeepAlive(spare) }
}
