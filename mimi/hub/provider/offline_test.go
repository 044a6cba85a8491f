package provider_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// Bob is away for a thousand epochs, with a message in every tenth, at another
// provider than the room's, and then has all of it and takes part.
func TestAThousandEpochsOffline(t *testing.T) {
	const epochs, messages = 1000, 100
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	ok(t, bob.Close())
	for i := range epochs {
		must[*client.Committed](t)(r.Refresh(t.Context()))
		if i%(epochs/messages) == 0 {
			must[*client.Sent](t)(r.Text(t.Context(), strconv.Itoa(i/(epochs/messages))))
		}
	}
	bob.Client = must[*client.Client](t)(client.Open(t.Context(), bob.cfg))
	t.Cleanup(func() { bob.Close() })
	begin := time.Now()
	heard := func() []*client.Message {
		return must[[]*client.Message](t)(bob.room(clubhouse).Messages(t.Context(), noTime))
	}
	bob.until("it has all", func() bool { return len(heard()) == messages })
	t.Logf("%d epochs with %d messages in %v", epochs, messages, time.Since(begin).Round(time.Millisecond))
	for i, m := range heard() {
		if textOf(m.Content) != strconv.Itoa(i) || m.NotFranked != "" {
			t.Fatalf("message %d is %q, not franked: %q", i, textOf(m.Content), m.NotFranked)
		}
	}
	bob.say(clubhouse, "back")
	alice.until("bob is heard", func() bool {
		list := must[[]*client.Message](t)(r.Messages(t.Context(), noTime))
		return textOf(list[len(list)-1].Content) == "back"
	})
	inside := must[*provider.Inspection](t)(w.hubs["a.example"].Inspect(t.Context(), r.URI()))
	for _, p := range []*person{alice, bob} {
		p.nothingRefused()
		if i := must[*client.Info](t)(p.room(clubhouse).Info(t.Context())); i.Epoch != inside.Epoch || i.Context != inside.Context {
			t.Errorf("%s is in epoch %d with another context than the hub in %d", p.name, i.Epoch, inside.Epoch)
		}
	}
}

// A Welcome whose KeyPackage is not there any more, since its client has replaced
// it or gone, holds up nobody else of the provider.
func TestWelcomeForNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob, carol := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("carol/watch@b.example")
		r := alice.create(clubhouse, bob)
		a, b := w.hubs["a.example"], w.hubs["b.example"]
		a.SetFault(func(step string) error { // between the fetch of the KeyPackage and its use
			if step != "before the update is stored" {
				return nil
			}
			return b.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(t.Context(), `DELETE FROM key_package WHERE client = ?`, carol.URI().String())
				return err
			})
		})
		must[*client.Committed](t)(r.Add(t.Context(), carol.User(), client.AddOptions{}))
		a.SetFault(nil)
		alice.say(clubhouse, "one")
		bob.hears(clubhouse, "one")
	})
}
