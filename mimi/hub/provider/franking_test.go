package provider_test

import (
	"crypto/rand"
	"net/http"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
)

// rotated are hub keys with new ones to frank, and those of before.
func (w *world) rotated(k *hubKeys, host string) *hubKeys {
	w.t.Helper()
	franking := identitytest.NewKey(w.t)
	next := &hubKeys{keys: k.keys, mac: mimi.SoftwareMAC(rand.Text() + rand.Text())[:32], franks: new(mimi.FrankingKeys)}
	next.keys.Franking = mimi.FrankingAgent{SignatureKey: publicKey(w.t, franking), Credential: w.ca.Hub(w.t, &franking.PublicKey, "mimi://"+host)}
	next.keys.FrankSigner = franking
	next.keys.Before = append(next.keys.Before, provider.FrankKey{Public: k.keys.Franking.SignatureKey, Signer: k.keys.FrankSigner})
	next.franks.AddMAC(0, mimi.MaxTimestamp, next.mac)
	next.franks.AddMAC(0, mimi.MaxTimestamp, k.mac)
	next.franks.AddSignatureKey(0, mimi.MaxTimestamp, suite, next.keys.Franking.SignatureKey)
	next.franks.AddSignatureKey(0, mimi.MaxTimestamp, suite, k.keys.Franking.SignatureKey)
	return next
}

// The keys that frank are replaced while rooms live: until a member has committed
// the new one, rooms are franked with the old one; afterwards, with the new one.
// Franks of both are verified by followers' clients, and reports of both stand.
func TestFrankingKeyRotation(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		reports := &spy{last: make(map[string][]byte)}
		alice := w.person("alice/phone@a.example", func(c *client.Config) {
			c.Wrap = func(next http.RoundTripper) http.RoundTripper { reports.next = next; return reports }
		})
		bob := w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		one := bob.say(clubhouse, "one")
		alice.hears(clubhouse, "one")
		a := w.hubs["a.example"]
		a.stop()
		n := w.start("a.example", a.source, w.rotated(a.keys, "a.example"))
		w.hubs["a.example"] = n
		w.hubs["b.example"].peer.Close() // its connection leads to the process that was
		alice.cfg.Provider, alice.cfg.TLS.RootCAs = n.url, n.roots
		alice.reopen()
		n.eventually(t, "the new key is proposed", func() bool {
			return must[*provider.Inspection](t)(n.Inspect(t.Context(), uri(t, clubhouse))).Pending == 1
		})
		old, now := a.keys.keys.Franking.SignatureKey, n.keys.keys.Franking.SignatureKey
		if key := must[[]byte](t)(n.FrankingKey(t.Context(), uri(t, clubhouse))); string(key) != string(old) {
			t.Error("the room has another key before anybody has committed it")
		}
		two := alice.say(clubhouse, "two") // alice has not heard of the proposal, or commits it first
		alice.until("the key is committed", func() bool {
			alice.commits(clubhouse)
			return string(must[[]byte](t)(n.FrankingKey(t.Context(), uri(t, clubhouse)))) == string(now)
		})
		three := bob.say(clubhouse, "three") // bob sends in the epoch before, if he has not heard of it
		for _, p := range []*person{alice, bob} {
			p.hears(clubhouse, "one two three") // and all of them are franked
			p.nothingRefused()
		}
		told := must[clientapi.AbuseVerdicts](t)(alice.room(clubhouse).ReportAbuse(t.Context(), []content.MessageID{one.ID, three.ID}, ""))
		if len(told) != 2 || !told[0].Accepted || !told[1].Accepted {
			t.Errorf("reports of messages franked with either key: %v", told)
		}
		report := must[*mimi.AbuseReport](t)(mimi.ParseAbuseReport(reports.last["abuse-reports"]))
		report.Messages[0].Frank, report.Messages[1].Frank = report.Messages[1].Frank, report.Messages[0].Frank
		v := must[clientapi.AbuseVerdicts](t)(n.ReportAbuse(t.Context(), hub.From{Provider: "a.example", Client: alice.URI()}, uri(t, clubhouse), report))
		if v[0].Accepted || v[1].Accepted {
			t.Errorf("franks that are swapped stand: %v", v)
		}
		if two.NotFranked != "" {
			t.Errorf("the sender's own frank: %s", two.NotFranked)
		}
		w.check(clubhouse, alice, bob)
		// What the store knows of it saves the next start from looking.
		fresh := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/new"), client.RoomOptions{}))
		if key := must[[]byte](t)(n.FrankingKey(t.Context(), fresh.URI())); string(key) != string(now) {
			t.Error("a new room has the old key")
		}
	})
}
