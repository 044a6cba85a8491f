package content

import "time"

// Bounds of the plausibility checks (draft section 9.1).
const (
	maxClockLead  = 5 * time.Minute
	maxExpiryDist = 366 * 24 * time.Hour
)

// formatPublished is before the first draft with a concrete syntax; no message
// is older.
var formatPublished = time.Date(2022, time.January, 1, 0, 0, 0, 0, time.UTC)

// Derived is what a receiver knows of a message without looking into it: from
// the sender's leaf, from the group and from the hub.
type Derived struct {
	SenderURI string    // the user URI in the credential of the sender's leaf
	RoomURI   string    // the room whose group the message came in
	Accepted  time.Time // the hub's accepted timestamp
	Created   time.Time // when the room was made, or zero if not known
}

// A Received message has passed every check that needs no other message.
type Received struct {
	Message *Message
	ID      MessageID
	Derived Derived
}

// Receive parses a message and checks it against what is known about it. now is
// the receiver's clock.
func Receive(encoded []byte, d Derived, now time.Time) (*Received, error) {
	m, err := Parse(encoded)
	if err != nil {
		return nil, err
	}
	if uri, ok := m.Extensions.SenderURI(); ok && uri != d.SenderURI {
		return nil, refuse(CodeSenderURI, "mimiExtensions[1]", "message names a sender other than the leaf's user")
	}
	if uri, ok := m.Extensions.RoomURI(); ok && uri != d.RoomURI {
		return nil, refuse(CodeRoomURI, "mimiExtensions[2]", "message names another room")
	}
	if err := checkTimes(m, d, now); err != nil {
		return nil, err
	}
	id, err := ComputeID(d.SenderURI, d.RoomURI, encoded, m.Salt)
	if err != nil {
		return nil, err
	}
	return &Received{Message: m, ID: id, Derived: d}, nil
}

func checkTimes(m *Message, d Derived, now time.Time) error {
	switch {
	case d.Accepted.After(now.Add(maxClockLead)):
		return refuse(CodeTimestamp, "accepted timestamp", "lies in the future")
	case d.Accepted.Before(formatPublished):
		return refuse(CodeTimestamp, "accepted timestamp", "lies before the format was published")
	case d.Accepted.Before(d.Created):
		return refuse(CodeTimestamp, "accepted timestamp", "lies before the room was made")
	case m.Expires == nil:
		return nil
	}
	life := time.Duration(m.Expires.Time) * time.Second
	if !m.Expires.Relative {
		life = time.Unix(int64(m.Expires.Time), 0).Sub(d.Accepted)
	}
	if life > maxExpiryDist || life < -maxExpiryDist {
		return refuse(CodeExpires, "expires", "more than a year from the accepted timestamp")
	}
	return nil
}

// ExpiresAt returns when the sender asks that the message be forgotten, given
// when it was read, and false if the sender does not ask or, for a relative
// expiration, if the message has not been read (readAt is zero).
func (m *Message) ExpiresAt(readAt time.Time) (time.Time, bool) {
	switch {
	case m.Expires == nil || m.Expires.Relative && readAt.IsZero():
		return time.Time{}, false
	case m.Expires.Relative:
		return readAt.Add(time.Duration(m.Expires.Time) * time.Second), true
	}
	return time.Unix(int64(m.Expires.Time), 0), true
}
