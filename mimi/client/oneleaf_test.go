package client_test

import (
	"context"
	"crypto/ecdsa"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
)

// anew is the client of a person who has nothing left of its state: another
// device with another TLS key and, if key says so, another leaf key with another
// credential of the same name.
func (p *person) anew(h *clienttest.Hub, key bool, mods ...mod) *person {
	p.t.Helper()
	q := &person{t: p.t, name: p.name, cfg: p.cfg}
	q.cfg.State, q.cfg.TLS = filepath.Join(p.t.TempDir(), "state.db"), h.ClientTLS(p.t)
	if key {
		k := identitytest.NewKey(p.t)
		q.cfg.Custody.Key, q.cfg.Custody.Credential = k, h.CA.Client(p.t, &k.PublicKey, p.URI().String(), p.User().String())
	}
	for _, m := range mods {
		m(&q.cfg)
	}
	q.open()
	must[any](p.t)(q.Register(p.t.Context(), nil))
	return q
}

// A client that has lost its state joins anew, and its old leaf goes in the same
// commit, also where neither its key nor its credential is what it was.
func TestRejoinAnew(t *testing.T) {
	for name, c := range map[string]struct {
		mode client.Mode
		key  bool
	}{
		"same key": {client.Device, false}, "other key and credential": {client.Device, true}, "bound": {client.Bound, false}, "bound, other credential": {client.Bound, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := clienttest.NewHub(t, "a.example", "b.example")
			alice := newPerson(t, h, "alice/phone@a.example")
			bob := newPerson(t, h, "bob/tablet@b.example", func(cfg *client.Config) { cfg.Custody.Mode = c.mode })
			alice.create(clubhouse, bob)
			again := bob.anew(h, c.key)
			must[*client.Room](t)(again.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
			again.say(clubhouse, "back")
			alice.sync()
			alice.wantTexts(clubhouse, "message:back")
			agree(t, h, clubhouse, alice, again)
			if n := h.Room(uri(t, clubhouse)).Size(); n != 2 {
				t.Errorf("%d leaves are in the room, want 2", n)
			}
		})
	}
}

// A blind believes that the leaf with one key is of another device, so that what
// it makes leaves that leaf where it is.
type blind struct {
	identity.Fingerprint
	as mimi.URI
}

func (b *blind) see(key []byte, id *identity.Identity) *identity.Identity {
	if b.as.IsZero() || identity.FingerprintOf(key) != b.Fingerprint {
		return id
	}
	other := *id
	other.Client = b.as
	return &other
}

type blindJudge struct {
	client.Judge
	*blind
}

func (j blindJudge) Leaf(ctx context.Context, q *client.Question) (*client.Verdict, error) {
	v, err := j.Judge.Leaf(ctx, q)
	if err == nil {
		seen := *v
		seen.Identity = j.see(q.SignatureKey, v.Identity)
		v = &seen
	}
	return v, err
}

type blindHub struct {
	hub.Evaluator
	*blind
}

func (e blindHub) Evaluate(ctx context.Context, q *hub.Question) (*hub.Verdict, error) {
	v, err := e.Evaluator.Evaluate(ctx, q)
	if err == nil {
		seen := *v
		seen.Identity = e.see(q.SignatureKey, v.Identity)
		v = &seen
	}
	return v, err
}

// A client has one leaf (identity-duplicate): the hub refuses a second one and
// says why, and where a hub does not, members do.
func TestSecondLeaf(t *testing.T) {
	const why = "identity-duplicate"
	for _, careless := range []bool{false, true} {
		name := "hub"
		if careless {
			name = "members"
		}
		t.Run(name, func(t *testing.T) {
			h := clienttest.NewHub(t, "a.example", "b.example")
			b := new(blind)
			if careless {
				h.WrapEvaluator(func(e hub.Evaluator) hub.Evaluator { return blindHub{e, b} })
			}
			alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
			public := must[[]byte](t)(bob.cfg.Custody.Key.(*ecdsa.PrivateKey).PublicKey.Bytes())
			b.Fingerprint, b.as = identity.FingerprintOf(public), uri(t, "mimi://b.example/d/bob/other")
			alice.create(clubhouse, bob)
			again := bob.anew(h, true, func(c *client.Config) { c.Judge = blindJudge{c.Judge, b} })
			_, err := again.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{})
			if !careless {
				if err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("a second leaf of a client: %v, want %s", err, why)
				}
				agree(t, h, clubhouse, alice, bob)
				return
			}
			ok(t, err)
			alice.sync()
			alice.wantStatus(clubhouse, client.RoomLost)
			if _, detail := alice.room(clubhouse).Status(); !strings.Contains(detail, why) {
				t.Errorf("a member has lost the room for %q, want %s", detail, why)
			}
			// Nor does anybody come into such a room.
			eve := newPerson(t, h, "bob/laptop@b.example")
			if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("a room with two leaves of a client is joined: %v, want %s", err, why)
			}
		})
	}
}
