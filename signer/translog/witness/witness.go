// Package witness cosigns checkpoints of logs that it has seen to grow only: the
// service of C2SP tlog-witness, small, for those who have no other. It keeps the
// newest checkpoint of each log in a directory. Its own key is Ed25519 and in
// memory: a cosignature is none of the shapes that a device key signs.
package witness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer/translog"
)

// A Witness is an http.Handler for POST /add-checkpoint.
type Witness struct {
	dir  string
	key  note.Signer // makes cosignatures
	logs map[string]*translog.Keys

	mu sync.Mutex // held from reading a log's state until the next one is stored
}

// New returns a Witness for these logs. key makes cosignature/v1 signatures
// (C2SP tlog-cosignature), dir keeps the state.
func New(dir string, key note.Signer, logs ...*translog.Keys) (*Witness, error) {
	w := &Witness{dir: dir, key: key, logs: make(map[string]*translog.Keys)}
	for _, k := range logs {
		if w.logs[k.Origin] != nil {
			return nil, fmt.Errorf("the log %s is named twice", k.Origin)
		}
		w.logs[k.Origin] = k
	}
	return w, os.MkdirAll(dir, 0o700)
}

// A refusal is an answer other than 200.
type refusal struct {
	status int
	text   string
	size   bool // text is a size, text/x.tlog.size
}

func (r *refusal) Error() string { return r.text }

func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/add-checkpoint") {
		http.NotFound(rw, r)
		return
	}
	if r.Method != http.MethodPost {
		rw.Header().Set("Allow", "POST")
		http.Error(rw, "POST a checkpoint", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxRequest))
	if err != nil {
		http.Error(rw, "the request is too long or was cut off", http.StatusBadRequest)
		return
	}
	line, err := w.Add(body)
	var no *refusal
	switch {
	case errors.As(err, &no):
		no.answer(rw)
	case err != nil:
		http.Error(rw, "the witness cannot keep its state", http.StatusInternalServerError)
	default:
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Write(line)
	}
}

func (r *refusal) answer(rw http.ResponseWriter) {
	if r.size {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(r.status)
		io.WriteString(rw, r.text+"\n")
		return
	}
	http.Error(rw, r.text, r.status)
}

// Add handles the body of one request and returns the cosignature's line. The
// new checkpoint is on the disk when it returns.
func (w *Witness) Add(body []byte) ([]byte, error) {
	req, err := ParseRequest(body)
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, text: err.Error()}
	}
	next, err := w.open(req.Checkpoint)
	if err != nil {
		return nil, err
	}
	if req.Old > next.Size {
		return nil, &refusal{status: http.StatusBadRequest, text: "the old size is larger than the checkpoint's"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.advance(req, next); err != nil {
		return nil, err
	}
	return w.cosign(next)
}

// open checks that a log that we know signed the checkpoint.
func (w *Witness) open(raw []byte) (*translog.Checkpoint, error) {
	origin, _, _ := bytes.Cut(raw, []byte("\n"))
	keys := w.logs[string(origin)]
	if keys == nil {
		return nil, &refusal{status: http.StatusNotFound, text: "this witness does not know the log"}
	}
	c, err := keys.Open(raw)
	if err != nil {
		return nil, &refusal{status: http.StatusForbidden, text: err.Error()}
	}
	return c, nil
}

// advance compares with the state and stores the new one.
func (w *Witness) advance(req *Request, next *translog.Checkpoint) error {
	path := w.path(next.Origin)
	size, root, err := w.state(path, next.Origin)
	switch {
	case err != nil:
		return err
	case req.Old != size:
		return &refusal{status: http.StatusConflict, text: fmt.Sprint(size), size: true}
	case size == next.Size && size > 0 && !bytes.Equal(root, next.Root):
		return &refusal{status: http.StatusConflict, text: "another tree of this size was cosigned"}
	case size == 0 && len(req.Proof) > 0:
		return &refusal{status: http.StatusUnprocessableEntity, text: "a proof from nothing is empty"}
	case size > 0:
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, size, next.Size, req.Proof, root, next.Root); err != nil {
			return &refusal{status: http.StatusUnprocessableEntity, text: "the consistency proof does not verify"}
		}
	}
	return durable.WriteFile(path, next.Note, 0o600)
}

func (w *Witness) path(origin string) string {
	h := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, hex.EncodeToString(h[:])+".checkpoint")
}

func (w *Witness) state(path, origin string) (size uint64, root []byte, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	c, err := w.logs[origin].Open(raw)
	if err != nil {
		return 0, nil, fmt.Errorf("state %s: %w", path, err)
	}
	return c.Size, c.Root, nil
}

// cosign returns the line of our signature.
func (w *Witness) cosign(c *translog.Checkpoint) ([]byte, error) {
	text, _, _ := bytes.Cut(c.Note, []byte("\n\n"))
	text = append(bytes.Clone(text), '\n')
	signed, err := note.Sign(&note.Note{Text: string(text)}, w.key)
	if err != nil {
		return nil, err
	}
	return signed[len(text)+1:], nil
}
