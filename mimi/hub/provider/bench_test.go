package provider_test

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

// variants are messages that differ in octets which a hub cannot judge.
func variants(b testing.TB, m *mimi.MLSMessage) func() *mimi.MLSMessage {
	var n atomic.Uint64
	return func() *mimi.MLSMessage {
		raw := append([]byte(nil), m.Bytes()...)
		binary.BigEndian.PutUint64(raw[len(raw)-8:], n.Add(1))
		v, err := mimi.ParseMLSMessage(raw)
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
}

// BenchmarkSubmit accepts, franks and stores messages, 32 callers at once, and
// reports how often the bare MAC and signature can be made in the same time.
func BenchmarkSubmit(b *testing.B) {
	for name, pg := range map[string]bool{"SQLite": false, "PostgreSQL": true} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, pg, "a.example")
			alice := w.person("alice/phone@a.example")
			must[*client.Room](b)(alice.CreateRoom(b.Context(), uri(b, clubhouse), client.RoomOptions{}))
			alice.say(clubhouse, "hello")
			var message *mimi.MLSMessage
			n := w.hubs["a.example"]
			for _, e := range w.events(alice.URI(), "a.example") {
				if f, err := e.Fanout(); err == nil && f.Message.ContentType == mls.ContentApplication {
					message = f.Message
				}
			}
			next, room := variants(b, message), uri(b, clubhouse)
			bare := bareFranks(b, n.keys)
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: next(), SendingURI: alice.User()}
					r, err := n.Submit(context.Background(), hub.From{Provider: "a.example"}, room, q)
					if err != nil || r.StatusCode != mimi.SubmitAccepted || r.Frank == nil {
						b.Errorf("%+v %v", r, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(bare.Nanoseconds()), "x-bare-frank")
		})
	}
}

// bareFranks is the time of one MAC and one signature, one after the other.
func bareFranks(b *testing.B, k *hubKeys) time.Duration {
	f := mimi.Franker{CipherSuite: suite, MAC: k.mac, Signer: k.keys.FrankSigner}
	c := &mimi.ServerFrankingContext{SenderURI: uri(b, "mimi://a.example/u/alice"), RoomURI: uri(b, clubhouse), AcceptedTimestamp: 1}
	const times = 200
	begin := time.Now()
	for range times {
		if _, err := f.Frank(context.Background(), mimi.FrankingTag{}, c); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin) / times
}
