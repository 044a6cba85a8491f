package witness_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/signer/translog"
	"github.com/privyseal/privyseal/signer/translog/witness"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A tree is a log in memory.
type tree struct {
	t      testing.TB
	sign   note.Signer
	keys   *translog.Keys
	leaves [][]byte
}

func newTree(t testing.TB, origin string) *tree {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	sign := must[note.Signer](t)(translog.NewSigner(origin, key.Public(), func(text []byte) ([]byte, error) {
		d := sha256.Sum256(text)
		return ecdsa.SignASN1(rand.Reader, key, d[:])
	}))
	return &tree{t: t, sign: sign, keys: must[*translog.Keys](t)(translog.ParseKeys(must[string](t)(translog.VerifierKey(origin, key.Public()))))}
}

func (tr *tree) grow(leaves ...string) {
	for _, l := range leaves {
		tr.leaves = append(tr.leaves, rfc6962.DefaultHasher.HashLeaf([]byte(l)))
	}
}

// hash returns the root of leaves from begin to end, which make a whole subtree
// or the tree.
func (tr *tree) hash(begin, end uint64) []byte {
	r := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for _, l := range tr.leaves[begin:end] {
		if err := r.Append(l, nil); err != nil {
			tr.t.Fatal(err)
		}
	}
	return must[[]byte](tr.t)(r.GetRootHash(nil))
}

func (tr *tree) checkpoint(size uint64) []byte {
	root := rfc6962.DefaultHasher.EmptyRoot()
	if size > 0 {
		root = tr.hash(0, size)
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", tr.sign.Name(), size, base64.StdEncoding.EncodeToString(root))
	return must[[]byte](tr.t)(note.Sign(&note.Note{Text: text}, tr.sign))
}

func (tr *tree) consistency(from, to uint64) [][]byte {
	nodes := must[proof.Nodes](tr.t)(proof.Consistency(from, to))
	var hashes [][]byte
	for _, id := range nodes.IDs {
		begin, end := id.Coverage()
		hashes = append(hashes, tr.hash(begin, min(end, to)))
	}
	return must[[][]byte](tr.t)(nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren))
}

// body is a request for the checkpoint of a size.
func (tr *tree) body(from, to uint64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", from)
	if 0 < from && from < to {
		for _, h := range tr.consistency(from, to) {
			fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h))
		}
	}
	fmt.Fprintf(&b, "\n%s", tr.checkpoint(to))
	return b.Bytes()
}

type served struct {
	t    testing.TB
	srv  *httptest.Server
	vkey note.Verifier
}

func serve(t testing.TB, dir, secret string, keys ...*translog.Keys) *served {
	s := must[*fnote.Signer](t)(fnote.NewSignerForCosignatureV1(secret))
	srv := httptest.NewServer(must[*witness.Witness](t)(witness.New(dir, s, keys...)))
	t.Cleanup(srv.Close)
	return &served{t, srv, s.Verifier()}
}

func secret(t testing.TB) string {
	s, _, err := note.GenerateKey(rand.Reader, "witness.example/w")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// post returns the status, content type and body.
func (s *served) post(body []byte) (int, string, string) {
	s.t.Helper()
	resp := must[*http.Response](s.t)(http.Post(s.srv.URL+"/add-checkpoint", "text/plain", bytes.NewReader(body)))
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(must[[]byte](s.t)(io.ReadAll(resp.Body)))
}

func TestProtocol(t *testing.T) {
	tr, fork, other := newTree(t, "log.example"), newTree(t, "log.example"), newTree(t, "other.example")
	fork.sign = tr.sign
	tr.grow("a", "b", "c", "d", "e", "f", "g")
	fork.grow("a", "b", "x", "y", "z", "f", "g")
	other.grow("a")
	dir, key := t.TempDir(), secret(t)
	s := serve(t, dir, key, tr.keys)
	foreign := newTree(t, "log.example") // the right name and another key
	foreign.grow("a")
	for _, c := range []struct {
		name   string
		body   []byte
		status int
		text   string
	}{
		{"unknown log", other.body(0, 1), 404, ""},
		{"unknown key", foreign.body(0, 1), 403, ""},
		{"old size first", tr.body(3, 5), 409, "0\n"},
		{"first", tr.body(0, 3), 200, "— witness.example/w "},
		{"first again", tr.body(0, 3), 409, "3\n"},
		{"same size", tr.body(3, 3), 200, "— "},
		{"same size, another tree", fork.body(3, 3), 409, ""},
		{"growth", tr.body(3, 5), 200, "— "},
		{"old size larger", bytes.Replace(tr.body(0, 2), []byte("old 0"), []byte("old 5"), 1), 400, ""},
		{"growth of another tree", fork.body(5, 7), 422, ""},
		{"no proof", append([]byte("old 5\n\n"), tr.checkpoint(7)...), 422, ""},
		{"no size", append([]byte("old x\n\n"), tr.checkpoint(7)...), 400, ""},
		{"size with zero", append([]byte("old 05\n\n"), tr.checkpoint(7)...), 400, ""},
		{"proof no base64", append([]byte("old 5\n!\n\n"), tr.checkpoint(7)...), 400, ""},
		{"long proof", append([]byte("old 5\n"+strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 64)+"\n"), tr.checkpoint(7)...), 400, ""},
		{"too long", make([]byte, 1<<20), 400, ""},
		{"growth after all that", tr.body(5, 7), 200, "— "},
	} {
		status, kind, text := s.post(c.body)
		if status != c.status || !strings.HasPrefix(text, c.text) {
			t.Errorf("%s: %d %q, want %d %q", c.name, status, text, c.status, c.text)
		}
		if strings.HasSuffix(c.text, "\n") && kind != "text/x.tlog.size" {
			t.Errorf("%s: the size is of type %s", c.name, kind)
		}
	}
	again := serve(t, dir, key, tr.keys)
	if status, _, text := again.post(tr.body(0, 7)); status != 409 || text != "7\n" {
		t.Errorf("after a restart: %d %q", status, text)
	}
}

func TestCosignatureVerifies(t *testing.T) {
	tr := newTree(t, "log.example")
	tr.grow("a", "b")
	s := serve(t, t.TempDir(), secret(t), tr.keys)
	c := tr.checkpoint(2)
	_, _, line := s.post(append([]byte("old 0\n\n"), c...))
	n := must[*note.Note](t)(note.Open(append(c, line...), note.VerifierList(s.vkey)))
	if len(n.Sigs) != 1 || n.Sigs[0].Name != "witness.example/w" {
		t.Errorf("signatures %+v", n.Sigs)
	}
}

// TestRace posts two histories at once: one of them wins.
func TestRace(t *testing.T) {
	for range 20 {
		a, b := newTree(t, "log.example"), newTree(t, "log.example")
		b.sign = a.sign
		a.grow("a")
		b.grow("b")
		s := serve(t, t.TempDir(), secret(t), a.keys)
		var wg sync.WaitGroup
		status := make([]int, 8)
		for i := range status {
			body := a.body(0, 1)
			if i%2 == 1 {
				body = b.body(0, 1)
			}
			wg.Go(func() { status[i], _, _ = s.post(body) })
		}
		wg.Wait()
		ok := 0
		for _, st := range status {
			if st == 200 {
				ok++
			}
		}
		if ok != 1 {
			t.Fatalf("%d of eight first checkpoints were cosigned: %v", ok, status)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	tr := newTree(f, "log.example")
	tr.grow("a", "b", "c", "d", "e")
	f.Add(tr.body(0, 2))
	f.Add(tr.body(2, 5))
	f.Add([]byte("old 0\n\n"))
	f.Add([]byte("old 18446744073709551616\n\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := witness.ParseRequest(body)
		if err != nil {
			return
		}
		var again bytes.Buffer
		fmt.Fprintf(&again, "old %d\n", r.Old)
		for _, h := range r.Proof {
			fmt.Fprintln(&again, base64.StdEncoding.EncodeToString(h))
		}
		fmt.Fprintf(&again, "\n%s", r.Checkpoint)
		if !bytes.Equal(again.Bytes(), body) {
			t.Errorf("%q is read as %q", body, again.Bytes())
		}
	})
}
