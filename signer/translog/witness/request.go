package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/privyseal/privyseal/signer/translog"
)

const (
	maxProof   = 63
	maxRequest = translog.MaxCheckpoint + 8<<10
)

// A Request is the body of add-checkpoint:
//
//	old SIZE
//	BASE64 of a hash of the consistency proof, zero to 63 times
//	(an empty line)
//	CHECKPOINT
type Request struct {
	Old        uint64
	Proof      [][]byte
	Checkpoint []byte
}

// ParseRequest reads a body that comes from anywhere.
func ParseRequest(body []byte) (*Request, error) {
	if len(body) > maxRequest {
		return nil, errors.New("the request is too long")
	}
	head, checkpoint, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return nil, errors.New("there is no empty line before the checkpoint")
	}
	lines := bytes.Split(head, []byte("\n"))
	if len(lines) > maxProof+1 {
		return nil, fmt.Errorf("the proof has more than %d lines", maxProof)
	}
	r := &Request{Checkpoint: checkpoint}
	size, ok := bytes.CutPrefix(lines[0], []byte("old "))
	n, err := strconv.ParseUint(string(size), 10, 64)
	if !ok || err != nil || strconv.FormatUint(n, 10) != string(size) {
		return nil, errors.New("the first line is not the old size")
	}
	r.Old = n
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(string(l))
		if err != nil || len(h) != 32 {
			return nil, errors.New("a line of the proof is no hash in base64")
		}
		r.Proof = append(r.Proof, h)
	}
	return r, nil
}
