package clientapi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// Retention is the least time for which a provider keeps events. A client that
// was away for longer finds its cursor gone ([CodeCursorGone]) and joins its
// rooms anew by external commit.
const Retention = 30 * 24 * time.Hour

// Heartbeat is the longest silence of a stream that is followed.
const Heartbeat = 15 * time.Second

// MaxWait is the longest time for which a request for events stays open.
const MaxWait = 10 * time.Minute

// An EventKind says what an event carries.
type EventKind uint8

// The kinds. A client skips events of a kind that it does not know.
const (
	EventFanout         EventKind = 1 // FanoutMessage of a room, a Welcome among them
	EventKeyPackagesLow EventKind = 2 // KeyPackageCounts: it is time to upload more
	EventConsent        EventKind = 3 // ConsentEntry that the client's user is asked or told
	EventRoomClosed     EventKind = 4 // nothing: the room is destroyed
)

// An Event is one thing that a client is told.
//
//	enum { reserved(0), fanout(1), keyPackagesLow(2), consent(3), roomClosed(4), (255) } EventKind;
//	struct {
//	    uint64 seq;
//	    uint64 time;
//	    EventKind kind;
//	    opaque room_id<V>;      /* empty if the event is of no room */
//	    opaque payload<V>;      /* by kind */
//	} Event;
//
// Sequence numbers of one client's events increase and have gaps. Events of a
// room come in the order of their accepted timestamps.
type Event struct {
	Seq     uint64
	Time    uint64 // when the provider got it, in milliseconds since the UNIX epoch
	Kind    EventKind
	Room    mimi.URI // zero if the event is of no room
	Payload []byte
}

func (e *Event) append(b *tlsvec.Builder) {
	b.Uint64(e.Seq)
	b.Uint64(e.Time)
	b.Uint8(uint8(e.Kind))
	appendURI(b, e.Room)
	b.Vector(e.Payload)
}

func (e *Event) read(r *tlsvec.Reader) {
	e.Seq, e.Time, e.Kind = r.Uint64(), r.Uint64(), EventKind(r.Uint8())
	if room := r.Vector(); len(room) > 0 {
		u, err := mimi.ParseURI(string(room))
		if err != nil {
			r.Fail(err.Error())
		} else if u.Kind() != mimi.KindRoom {
			r.Fail("URI of a " + u.Kind().String())
		}
		e.Room = u
	}
	e.Payload = r.Vector()
	if r.Err() == nil && (e.Seq == 0 || e.Kind == 0) {
		r.Fail("seq or kind is 0")
	}
}

// Fanout decodes the payload of an EventFanout.
func (e *Event) Fanout() (*mimi.FanoutMessage, error) {
	if e.Kind != EventFanout {
		return nil, fmt.Errorf("clientapi: event %d has kind %d, not a FanoutMessage", e.Seq, e.Kind)
	}
	f, err := mimi.ParseFanout(e.Payload)
	if err != nil {
		return nil, err
	}
	if len(f) != 1 {
		return nil, fmt.Errorf("clientapi: event %d has %d FanoutMessages, want 1", e.Seq, len(f))
	}
	return f[0], nil
}

// Marshal returns the event's encoding.
func (e *Event) Marshal() []byte { return marshal(e) }

// ParseEvent decodes an event.
func ParseEvent(b []byte) (*Event, error) {
	e := new(Event)
	return e, parse("Event", b, e)
}

// An EventQuery asks for events: GET /client/v1/events?after=SEQ&wait=SECONDS&follow=1.
//
// Without follow the answer comes when there are events, or with none when the
// wait is over: a long poll. With follow the answer stays open until the wait is
// over, and brings events as they come. Either way the cursor of the next
// request is the Seq of the last event that the client has taken in; nothing is
// acknowledged. Events are the client's from the moment at which it registered
// or came into a room.
type EventQuery struct {
	After  uint64
	Wait   time.Duration // whole seconds, at most MaxWait
	Follow bool
}

// Values returns the query for a URL.
func (q *EventQuery) Values() url.Values {
	v := url.Values{"after": {strconv.FormatUint(q.After, 10)}}
	if s := int64(q.Wait / time.Second); s > 0 {
		v.Set("wait", strconv.FormatInt(s, 10))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	return v
}

// ParseEventQuery reads the query of a URL.
func ParseEventQuery(v url.Values) (*EventQuery, error) {
	q := new(EventQuery)
	for name, values := range v {
		if len(values) != 1 {
			return nil, fmt.Errorf("clientapi: %q is given %d times", name, len(values))
		}
		if err := q.set(name, values[0]); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (q *EventQuery) set(name, value string) (err error) {
	switch name {
	case "after":
		q.After, err = strconv.ParseUint(value, 10, 63)
	case "wait":
		var n uint64
		n, err = strconv.ParseUint(value, 10, 16)
		q.Wait = min(time.Duration(n)*time.Second, MaxWait)
	case "follow":
		q.Follow, err = strconv.ParseBool(value)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		return fmt.Errorf("clientapi: event query %q: it must be after=, wait= (seconds) or follow=", name)
	}
	return nil
}

// WriteEvent writes one frame of an event stream: the length of the event in
// four octets, and the event. A nil event is a heartbeat, of length 0.
func WriteEvent(w io.Writer, e *Event) error {
	var body []byte
	if e != nil {
		body = e.Marshal()
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	_, err := w.Write(append(frame, body...))
	return err
}

// An EventReader reads an event stream.
type EventReader struct {
	r    *bufio.Reader
	last uint64
}

// NewEventReader returns a reader of the body of an answer to a query.
func NewEventReader(body io.Reader, q *EventQuery) *EventReader {
	return &EventReader{bufio.NewReader(body), q.After}
}

// Next returns the next event, nil for a heartbeat, and io.EOF when the answer
// is complete. A stream that breaks within a frame is io.ErrUnexpectedEOF; what
// came before stands.
func (r *EventReader) Next() (*Event, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	switch {
	case n == 0:
		return nil, nil
	case n > MaxEvent:
		return nil, fmt.Errorf("clientapi: event of %d octets, want at most %d", n, MaxEvent)
	}
	body, err := io.ReadAll(io.LimitReader(r.r, int64(n)))
	if err != nil {
		return nil, err
	}
	if len(body) < int(n) {
		return nil, io.ErrUnexpectedEOF
	}
	e, err := ParseEvent(body)
	if err != nil {
		return nil, err
	}
	if e.Seq <= r.last {
		return nil, fmt.Errorf("clientapi: event %d after event %d", e.Seq, r.last)
	}
	r.last = e.Seq
	return e, nil
}
