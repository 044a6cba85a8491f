package provider_test

import (
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Whatever a hub may send us, a client of ours can read: one event that it cannot
// would keep all that come after it.
func TestEventsHoldWhatHubsSend(t *testing.T) {
	const begin = "mimi://a.example/r/"
	room, err := mimi.ParseURI(begin + strings.Repeat("x", mimi.MaxURI-len(begin)))
	if err != nil {
		t.Fatal(err)
	}
	e := clientapi.Event{Seq: 1<<63 - 1, Time: 1<<63 - 1, Kind: clientapi.EventFanout, Room: room}
	const vector = 3 // octets by which a long vector's header is longer than that of an empty one
	if n := len(e.Marshal()) + vector + peer.MaxNotify; n > clientapi.MaxEvent {
		t.Errorf("an event may have %d octets, and clients read %d", n, clientapi.MaxEvent)
	}
	if peer.MaxNotify > clientapi.MaxResponse {
		t.Errorf("clients read answers of %d octets", clientapi.MaxResponse)
	}
}
