package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
)

// A judge that doubts finds one client's credential void, when it is told.
type doubting struct {
	client.Judge
	of  string
	now *atomic.Bool
}

func (d doubting) Leaf(ctx context.Context, q *client.Question) (*client.Verdict, error) {
	v, err := d.Judge.Leaf(ctx, q)
	if err != nil || !d.now.Load() || v.Identity.Client.String() != d.of {
		return v, err
	}
	if q.Acting {
		return nil, errors.New("revoked")
	}
	changed := *v
	changed.Quarantine, changed.ForGood = "revoked", true
	return &changed, nil
}

// A hub does not learn that bob's credential is revoked. Alice waits for it and
// then removes him herself where her role may kick; where it may not, she says
// nothing more.
func TestMemberRemovesVoidCredential(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	var revoked atomic.Bool
	var offset atomic.Int64
	doubts := func(c *client.Config) {
		c.Judge = doubting{c.Judge, "mimi://b.example/d/bob/tablet", &revoked}
		c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	}
	alice, bob, cathy := newPerson(t, h, "alice/phone@a.example", doubts), newPerson(t, h, "bob/tablet@b.example"), newPerson(t, h, "cathy/laptop@a.example")
	alice.create(clubhouse, bob)
	const theirs = "mimi://a.example/r/theirs"
	cathy.create(theirs, alice, bob)
	alice.say(theirs, "hello") // both rooms are in memory
	revoked.Store(true)
	alice.Recheck()
	later := func(d time.Duration) {
		offset.Add(int64(d))
		alice.sync()
		bob.sync()
	}
	later(2 * time.Minute) // she sees it
	if _, err := alice.room(clubhouse).Text(t.Context(), "psst"); !errors.Is(err, client.ErrQuarantined) {
		t.Errorf("alice speaks to a void credential: %v", err)
	}
	later(4 * time.Minute) // the hub still has time
	bob.wantStatus(clubhouse, client.RoomMember)
	later(5 * time.Minute)
	bob.wantStatus(clubhouse, client.RoomLeft)
	bob.wantStatus(theirs, client.RoomMember)
	alice.say(clubhouse, "he is out")
	if _, err := alice.room(theirs).Text(t.Context(), "psst"); !errors.Is(err, client.ErrQuarantined) {
		t.Errorf("alice speaks to a void credential where she may not kick: %v", err)
	}
	cathy.sync()
	must[any](t)(cathy.room(theirs).Kick(t.Context(), bob.User(), bob.URI()))
	alice.sync()
	alice.say(theirs, "and here")
	alice.nothingRefused()
	agree(t, h, clubhouse, alice)
}
