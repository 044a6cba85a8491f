package httpbody_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/privyseal/privyseal/internal/httpbody"
)

func TestRead(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 4096, 1<<20 + 1, 3 << 20} {
		want := bytes.Repeat([]byte("a body "), size/7+1)[:size]
		for _, announced := range []int64{-1, 0, 1, int64(size), 1 << 40} {
			got, err := httpbody.Read(bytes.NewReader(want), announced)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d octets announced as %d: %d octets, %v", size, announced, len(got), err)
			}
			if cap(got) > max(1<<20, 3*size)+16<<10 {
				t.Errorf("%d octets announced as %d take %d", size, announced, cap(got))
			}
		}
	}
}

func TestReadBrokenOff(t *testing.T) {
	broken := errors.New("broken off")
	_, err := httpbody.Read(io.MultiReader(bytes.NewReader(make([]byte, 100)), iotest.ErrReader(broken)), 200)
	if !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}

func TestReadTakesMemoryOnce(t *testing.T) {
	data := make([]byte, 300_000)
	r := bytes.NewReader(data)
	n := testing.AllocsPerRun(10, func() {
		r.Reset(data)
		if _, err := httpbody.Read(r, int64(len(data))); err != nil {
			t.Error(err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations", n)
	}
}
