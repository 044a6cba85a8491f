package mls

import (
	"bytes"
	"context"
	"testing"
)

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

// reload stores a group and reads it back.
func reload(t testing.TB, g *Group) *Group {
	t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.client.UnmarshalGroup(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustVerify(t testing.TB, g *Group, raw []byte) Verified {
	t.Helper()
	m, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	v, err := g.Verify(m)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
