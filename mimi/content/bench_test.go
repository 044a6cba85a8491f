package content_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/privyseal/privyseal/mimi/content"
)

// BenchmarkMessage measures a message with 1 KiB of text beside the one
// primitive that its ID needs, SHA-256 over the same octets.
func BenchmarkMessage(b *testing.B) {
	m := &content.Message{
		Extensions: content.NewExtensions(alice, room),
		Body: content.NestedPart{Disposition: content.Render, Content: &content.SinglePart{
			ContentType: "text/markdown;variant=GFM-MIMI", Content: bytes.Repeat([]byte("x"), 1024)}},
	}
	encoded, err := m.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("SHA-256", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sha256.Sum256(encoded)
		}
	})
	b.Run("Encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Encode()
		}
	})
	b.Run("Parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			content.Parse(encoded)
		}
	})
	b.Run("ComputeID", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			content.ComputeID(alice, room, encoded, m.Salt)
		}
	})
}
