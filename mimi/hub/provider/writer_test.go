package provider_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// Messages of several rooms come at once, each of them twice, while another node
// takes the rooms' places: each is there once, and both senders have one answer.
func TestMessagesOfManyRooms(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		const rooms, messages = 6, 8
		w := newWorld(t, pg, "a.example")
		engine := w.engine("a.example", 0)
		n := w.hubs["a.example"]
		var wg sync.WaitGroup
		stamps := make([][]uint64, rooms)
		for i := range rooms {
			c := w.small("a.example", fmt.Sprint(i), engine)
			next := variants(t, (&fanoutBench{world: w, crowd: c}).message())
			stamps[i] = make([]uint64, messages)
			for j := range messages {
				m := next()
				wg.Go(func() {
					answers := make([]*mimi.SubmitMessageResponse, 2)
					var twice sync.WaitGroup
					for k := range answers {
						twice.Go(func() {
							q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: m, SendingURI: c.user}
							p, err := n.Submit(t.Context(), c.from, c.uri, q)
							if err != nil || p.StatusCode != mimi.SubmitAccepted || p.Frank == nil {
								t.Errorf("room %d, message %d: %+v %v", i, j, p, err)
								return
							}
							answers[k] = p
						})
					}
					twice.Wait()
					if answers[0] == nil || answers[1] == nil {
						return
					}
					if answers[0].AcceptedTimestamp != answers[1].AcceptedTimestamp || string(answers[0].Frank.Marshal()) != string(answers[1].Frank.Marshal()) {
						t.Errorf("room %d, message %d: two answers", i, j)
					}
					stamps[i][j] = answers[0].AcceptedTimestamp
				})
			}
		}
		// What another node does: versions that are not those of the decisions.
		for range 4 {
			ok(t, n.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE room SET version = version + 1 WHERE uri = 'mimi://a.example/r/0'`)
				return err
			}))
		}
		wg.Wait()
		for i := range rooms {
			var stored int
			ok(t, n.db.QueryRow(t.Context(), `SELECT count(*) FROM event e JOIN room r ON r.id = e.room WHERE e.kind = 1 AND r.uri = ?`, fmt.Sprintf("mimi://a.example/r/%d", i)).Scan(&stored))
			slices.Sort(stamps[i])
			if different := len(slices.Compact(stamps[i])); stored != messages || different != messages {
				t.Errorf("room %d has %d messages with %d timestamps, want %d", i, stored, different, messages)
			}
		}
	})
}

// A follower that takes connections and says nothing holds up no other.
func TestSilentFollower(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example", "c.example")
	alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
	alice.create(clubhouse, bob, cathy)
	silent := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	w.net.Name("c.example", silent.Addr().String())
	w.hubs["a.example"].peer.Close() // it dials anew
	want := ""
	for i := range 4 {
		text := fmt.Sprint(i)
		alice.say(clubhouse, text)
		if want != "" {
			want += " "
		}
		want += text
		bob.hears(clubhouse, want)
	}
}

// Whoever has unregistered is a stranger at once, and may come back.
func TestCallerIsForgotten(t *testing.T) {
	w := newWorld(t, false, "a.example")
	alice := w.person("alice/phone@a.example")
	n := w.hubs["a.example"]
	key := sha256.Sum256(nil)
	if _, err := n.Caller(t.Context(), key); !clientapi.CodeNotRegistered.Is(err) {
		t.Errorf("a key of nobody: %v", err)
	}
	must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{}))
	alice.say(clubhouse, "one")
	ok(t, n.Unregister(t.Context(), alice.URI()))
	if _, err := alice.room(clubhouse).Text(t.Context(), "two"); !clientapi.CodeNotRegistered.Is(err) {
		t.Errorf("after unregistering: %v", err)
	}
	must[any](t)(alice.Register(t.Context(), nil))
	alice.say(clubhouse, "three")
}
