package client_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mls"
)

var errSecond = errors.New("a second commit of an epoch")

// A guard signs one Commit for each group and epoch, as a signing service does,
// until it is told that the first was rejected.
type guard struct {
	crypto.Signer
	mu     sync.Mutex // guards what follows
	signed map[string][32]byte
	begun  func(group string) // is called when a commit is to be signed
}

// commitIn returns the group and epoch of a Commit in a SignContent.
func commitIn(msg []byte) (group string, at string, ok bool) {
	r := tlsvec.NewReader(msg)
	if string(r.Vector()) != "MLS 1.0 FramedContentTBS" {
		return "", "", false
	}
	in := r.Sub()
	in.Bytes(4) // version, wire_format
	id := in.Vector()
	epoch := in.Bytes(8)
	if mls.SenderType(in.Uint8()) == mls.SenderMember {
		in.Uint32()
	}
	in.Vector() // authenticated_data
	content := mls.ContentType(in.Uint8())
	return string(id), string(id) + string(epoch), in.Err() == nil && content == mls.ContentCommit
}

func (g *guard) SignMessage(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if group, at, ok := commitIn(msg); ok {
		g.mu.Lock()
		begun, sum := g.begun, sha256.Sum256(msg)
		first, there := g.signed[at]
		if !there {
			g.signed[at] = sum
		}
		g.mu.Unlock()
		if there && first != sum {
			return nil, errSecond
		}
		if begun != nil {
			begun(group)
		}
	}
	h := opts.HashFunc().New()
	h.Write(msg)
	return g.Sign(rand, h.Sum(nil), opts)
}

func (g *guard) rejected(_ context.Context, group []byte, epoch uint64, digest []byte, _ string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := tlsvec.NewBuilder(8)
	b.Uint64(epoch)
	at := string(group) + string(b.Bytes())
	if first, ok := g.signed[at]; !ok || string(first[:]) != string(digest) {
		return errors.New("no such commit was signed")
	}
	delete(g.signed, at)
	return nil
}

// Alice commits in two rooms at the same time. The hub refuses one of the
// commits, since a proposal came before it; the signing service is told of that
// one, and signs the next of the epoch.
func TestRejectedOfTheRightRoom(t *testing.T) {
	const other = "mimi://a.example/r/other"
	h := clienttest.NewHub(t, "a.example", "b.example")
	g := &guard{signed: make(map[string][32]byte)}
	alice := newPerson(t, h, "alice/phone@a.example", func(c *client.Config) {
		g.Signer = c.Custody.Key
		c.Custody.Key, c.Custody.Rejected = g, g.rejected
	})
	bob, carol := newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "carol/pc@b.example")
	alice.create(other, bob)
	alice.create(clubhouse, bob, carol)
	must[any](t)(carol.room(clubhouse).Leave(t.Context()))
	club := string(must[*client.Info](t)(alice.room(clubhouse).Info(t.Context())).GroupID)
	var once sync.Once
	g.mu.Lock()
	g.begun = func(group string) {
		if group == club {
			once.Do(func() { must[any](t)(alice.room(other).Refresh(t.Context())) })
		}
	}
	g.mu.Unlock()
	done := must[*client.Committed](t)(alice.room(clubhouse).Refresh(t.Context()))
	if done.Tries < 2 {
		t.Errorf("done at try %d: nothing was rejected", done.Tries)
	}
	bob.sync()
	agree(t, h, clubhouse, alice, bob)
	agree(t, h, other, alice, bob)
}
