package signer

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
)

// TLSContent is the content covered by a CertificateVerify (RFC 8446 section
// 4.4.3): 64 octets 0x20, the context string, an octet 0, the transcript hash.
type TLSContent struct {
	Role           string // "server" or "client"
	TranscriptHash []byte
}

var tlsPadding = bytes.Repeat([]byte{0x20}, 64)

func parseTLS13(b []byte) (*Request, error) {
	context, hash, ok := bytes.Cut(b[len(tlsPadding):], []byte{0})
	role, isTLS := map[string]string{
		"TLS 1.3, server CertificateVerify": "server",
		"TLS 1.3, client CertificateVerify": "client",
	}[string(context)]
	if !ok || !isTLS || len(hash) != 32 && len(hash) != 48 {
		return nil, refuse(ShapeTLS13, "not the content of a TLS 1.3 CertificateVerify")
	}
	c := &TLSContent{Role: role, TranscriptHash: bytes.Clone(hash)}
	return &Request{shape: ShapeTLS13, typ: role, parsed: c}, nil
}

// A Checkpoint is the text of a C2SP tlog-checkpoint note: the origin, the
// size of the tree, its root hash, and extension lines, each ended by a line
// feed. The origin here begins with a lower-case letter, as a host name does.
type Checkpoint struct {
	Origin     string
	Size       uint64
	Root       []byte
	Extensions []string
}

const maxCheckpoint = 4096

func parseCheckpoint(b []byte) (*Request, error) {
	text := string(b)
	if len(text) > maxCheckpoint || !strings.HasSuffix(text, "\n") {
		return nil, refuse(ShapeUnknown, "text that does not end in a line feed, or has more than %d octets, is no checkpoint", maxCheckpoint)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 {
		return nil, refuse(ShapeCheckpoint, "%d lines, want origin, size and root hash", len(lines))
	}
	for _, l := range lines {
		if l == "" || strings.IndexFunc(l, notPrintable) >= 0 {
			return nil, refuse(ShapeCheckpoint, "an empty line, or one with other than printable ASCII")
		}
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return nil, refuse(ShapeCheckpoint, "the tree size is no plain decimal number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != 32 {
		return nil, refuse(ShapeCheckpoint, "the root hash is not base64 of 32 octets")
	}
	c := &Checkpoint{Origin: lines[0], Size: size, Root: root, Extensions: lines[3:]}
	return &Request{shape: ShapeCheckpoint, typ: c.Origin, parsed: c}, nil
}

func notPrintable(r rune) bool { return r < 0x20 || r > 0x7e }
