package statuslist_test

import (
	"context"
	"math/rand/v2"
	"net/http/httptest"
	"testing"

	"github.com/privyseal/privyseal/credentials/statuslist"
)

const million = 1_000_000

// millionList has a million entries of 2 bits, of which one in a hundred is not
// valid.
func millionList(b *testing.B) *statuslist.List {
	list := must[*statuslist.List](b)(statuslist.NewList(2, million))
	r := rand.New(rand.NewPCG(1, 2))
	for range million / 100 {
		if err := list.Set(r.Int64N(million), statuslist.Status(1+r.IntN(2))); err != nil {
			b.Fatal(err)
		}
	}
	return list
}

func BenchmarkMillionBuild(b *testing.B) {
	list := millionList(b)
	for b.Loop() {
		lst := must[[]byte](b)(list.Compress())
		b.ReportMetric(float64(len(lst)), "octets")
	}
}

func millionPublisher(b *testing.B) *statuslist.Publisher {
	ctx := context.Background()
	p, _ := newPublisher(b, func(p *statuslist.Publisher) { p.Size = million })
	for i, index := range must[[]int64](b)(p.Store.Allocate(ctx, p.URI, 2000)) {
		if i%20 == 0 {
			if err := p.Set(ctx, index, statuslist.Invalid); err != nil {
				b.Fatal(err)
			}
		}
	}
	return p
}

// BenchmarkMillionPublish loads the list from its store, compresses it, signs
// both formats and keeps them durably.
func BenchmarkMillionPublish(b *testing.B) {
	p := millionPublisher(b)
	for b.Loop() {
		must[*statuslist.Publication](b)(p.Publish(context.Background()))
	}
}

func BenchmarkMillionServe(b *testing.B) {
	p := millionPublisher(b)
	must[*statuslist.Publication](b)(p.Publish(context.Background()))
	r := httptest.NewRequest("GET", exampleURI, nil)
	r.Header.Set("Accept-Encoding", "gzip")
	for b.Loop() {
		w := httptest.NewRecorder()
		if p.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkMillionVerify is a check with a list that must be verified first,
// BenchmarkMillionCheck one with a list that is kept.
func BenchmarkMillionVerify(b *testing.B) {
	p := millionPublisher(b)
	pub := must[*statuslist.Publication](b)(p.Publish(context.Background()))
	rules := ourRules()
	for b.Loop() {
		if _, _, err := rules.Verify(context.Background(), statuslist.JWT, pub.JWT, exampleURI); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMillionCheck(b *testing.B) {
	p := millionPublisher(b)
	must[*statuslist.Publication](b)(p.Publish(context.Background()))
	c, _ := newChecker(p, p.Now)
	ref := must[statuslist.Reference](b)(p.Allocate(context.Background()))
	for b.Loop() {
		if err := c.Check(context.Background(), ref); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllocate(b *testing.B) {
	p, _ := newPublisher(b, func(p *statuslist.Publisher) { p.Size = million })
	for b.Loop() {
		must[statuslist.Reference](b)(p.Allocate(context.Background()))
	}
}
