package httpbody_test

import (
	"testing"

	"github.com/privyseal/privyseal/internal/httpbody"
)

func TestBudget(t *testing.T) {
	b := httpbody.NewBudget(10, 6)
	take := func(sender string, n int64, want bool) func() {
		t.Helper()
		release, ok := b.Take(sender, n)
		if ok != want {
			t.Fatalf("%d of %s: %v", n, sender, ok)
		}
		return release
	}
	first := take("a", 6, true)
	take("a", 1, false) // what a sender may have is gone
	take("a", 0, true)()
	second := take("b", 4, true)
	take("c", 1, false) // and here what all may
	first()
	take("a", 7, false)
	third := take("a", 6, true)
	second()
	third()
	if take("b", 6, true)(); t.Failed() {
		t.Error("octets were not given back")
	}
}

func TestAnnounced(t *testing.T) {
	for _, c := range []struct{ length, most, want int64 }{{-1, 5, 5}, {0, 5, 0}, {3, 5, 3}, {6, 5, 5}} {
		if got := httpbody.Announced(c.length, c.most); got != c.want {
			t.Errorf("%d of at most %d: %d, want %d", c.length, c.most, got, c.want)
		}
	}
}
