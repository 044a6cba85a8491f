package provider_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mls"
)

// A slowMAC is a device that says when it has begun and goes on when it is told,
// or gives up when its caller does.
type slowMAC struct {
	device      mimi.MAC
	begun, goOn chan struct{}
	calls       atomic.Int64
}

func (m *slowMAC) MAC(ctx context.Context, data []byte) ([]byte, error) {
	m.calls.Add(1)
	m.begun <- struct{}{}
	select {
	case <-m.goOn:
		return m.device.MAC(ctx, data)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A message whose sender goes while the device franks it is stored, and the
// sender, asking again, gets the answer that it missed. One whose sender has gone
// before is not taken.
func TestSenderGoesWhileFranking(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example")
		n := w.hubs["a.example"]
		c := w.small("a.example", "0", w.engine("a.example", 0))
		next := variants(t, (&fanoutBench{world: w, crowd: c}).message())
		q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: next(), SendingURI: c.user}
		slow := &slowMAC{device: n.keys.mac, begun: make(chan struct{}, 8), goOn: make(chan struct{})}
		n.Rekey(provider.Secrets{Keys: func(mls.CipherSuite) *provider.Keys { return &n.keys.keys }, MAC: slow, Franks: n.keys.franks})

		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			n.Submit(ctx, c.from, c.uri, q) // what it says nobody hears
		}()
		<-slow.begun
		leave()
		close(slow.goOn)
		<-gone
		p, err := n.Submit(t.Context(), c.from, c.uri, q)
		if err != nil || p.StatusCode != mimi.SubmitAccepted || p.Frank == nil {
			t.Fatalf("asked again: %+v %v", p, err)
		}
		var stored int
		var at int64
		ok(t, n.db.QueryRow(t.Context(), `SELECT count(*), max(ts) FROM event WHERE kind = 1`).Scan(&stored, &at))
		if stored != 1 || uint64(at) != p.AcceptedTimestamp {
			t.Errorf("%d messages, the last at %d, and the answer says %d", stored, at, p.AcceptedTimestamp)
		}
		before := slow.calls.Load()
		q.AppMessage = next()
		if _, err := n.Submit(ctx, c.from, c.uri, q); err == nil || slow.calls.Load() != before {
			t.Errorf("of a sender who had gone: %v, and the device was asked %d times", err, slow.calls.Load()-before)
		}
	})
}
