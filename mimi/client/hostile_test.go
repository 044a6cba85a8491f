package client_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mls"
)

// A client whose clock is late reads nothing that seems to come from the future,
// but what it has sent itself the hub has accepted, and it waits for nothing more.
func TestClockBehind(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	behind := time.Duration(0)
	alice := newPerson(t, h, "alice/phone@a.example", func(c *client.Config) {
		c.Now = func() time.Time { return time.Now().Add(-behind) }
	})
	alice.create(clubhouse)
	behind = 10 * time.Minute
	alice.say(clubhouse, "hello")
	alice.wantTexts(clubhouse, "message:hello")
	if n := must[int](t)(alice.Waiting()); n != 0 {
		t.Errorf("%d messages are still to be sent", n)
	}
}

// Who was in a room, and is not let in again, keeps what was said there.
func TestNotLetInAgain(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice := newPerson(t, h, "alice/phone@a.example")
	var banned func()
	bob := newPerson(t, h, "bob/tablet@b.example", func(c *client.Config) {
		c.Wrap = func(rt http.RoundTripper) http.RoundTripper {
			return roundTrip(func(q *http.Request) (*http.Response, error) {
				if banned != nil && q.URL.EscapedPath() == clientapi.UpdatePath(uri(t, clubhouse)) {
					banned()
				}
				return rt.RoundTrip(q)
			})
		}
	})
	r := alice.create(clubhouse, bob)
	alice.say(clubhouse, "before")
	must[any](t)(r.Kick(t.Context(), bob.User(), bob.URI()))
	bob.sync()
	bob.wantStatus(clubhouse, client.RoomLeft)
	banned = sync.OnceFunc(func() { must[any](t)(r.Ban(t.Context(), bob.User())) })
	if err := bob.room(clubhouse).Rejoin(t.Context()); err == nil {
		t.Fatal("who was banned meanwhile was let in")
	}
	bob.wantStatus(clubhouse, client.RoomLeft)
	bob.wantTexts(clubhouse, "message:before")
	bob.restart()
	bob.wantStatus(clubhouse, client.RoomLeft)
	bob.wantTexts(clubhouse, "message:before")
}

// What members send that is no message is refused in few words, and no more of
// that is kept than a person might read.
func TestRefusedIsBounded(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@a.example")
	alice.create(clubhouse, bob)
	send := func(media string) {
		f := &mls.ApplicationFraming{MediaType: mls.MediaType{Type: media}, Content: []byte{0}}
		ok(t, alice.room(clubhouse).SendRaw(t.Context(), f.Bytes()))
	}
	send("text/" + strings.Repeat("\x01", 900))
	for range 20 {
		send("text/" + strings.Repeat("x", 40))
	}
	bob.sync()
	list := must[[]client.Refused](t)(bob.Refused(t.Context()))
	if len(list) != 21 || len(list[0].Reason) > 1100 {
		t.Fatalf("%d refused, the first with a reason of %d octets", len(list), len(list[0].Reason))
	}
	bob.Client.SetMaxRefused(5)
	send("text/x")
	bob.sync()
	if list = must[[]client.Refused](t)(bob.Refused(t.Context())); len(list) != 5 || !strings.Contains(list[4].Reason, `"text/x"`) {
		t.Errorf("%d refused are kept, the last for %q", len(list), list[len(list)-1].Reason)
	}
	if list[0].Room != (mimi.URI{}) && list[0].Room != uri(t, clubhouse) {
		t.Errorf("refused in %s", list[0].Room)
	}
}

// Media types are the same in any case.
func TestMediaTypeInAnyCase(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@a.example")
	alice.create(clubhouse, bob)
	ok(t, alice.room(clubhouse).SendAs(t.Context(), "Application/MIMI-Content", "hello"))
	bob.sync()
	bob.nothingRefused()
	bob.wantTexts(clubhouse, "message:hello")
}
