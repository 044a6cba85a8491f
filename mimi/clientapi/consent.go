package clientapi

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// A ConsentState is what became of a consent.
type ConsentState uint8

// The states.
const (
	ConsentAsked   ConsentState = 1 // the requester asked, and waits
	ConsentGranted ConsentState = 2 // the target lets the requester add it to rooms
	ConsentRevoked ConsentState = 3 // the target does not, whatever the provider's default is
)

// String returns the state in a word.
func (s ConsentState) String() string {
	if names := [...]string{"", "asked", "granted", "revoked"}; s > 0 && int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// A Consent is one of which the client's user is requester or target.
type Consent struct {
	mimi.ConsentScope
	State ConsentState
	At    uint64 // milliseconds since the UNIX epoch
}

// A ConsentList answers GET /client/v1/consent: what the user was asked and has
// said, and what it asked and was told, MaxConsentsListed of each at most.
//
//	enum { asked(1), granted(2), revoked(3), (255) } ConsentState;
//	struct {
//	    opaque requester<V>;
//	    opaque target<V>;
//	    optional<opaque room_id<V>> room;   /* absent: any room */
//	    ConsentState state;
//	    uint64 at;
//	} Consent;
//	struct { Consent consents<V>; } ConsentList;
type ConsentList []Consent

// MaxConsentsListed is how many of one kind a ConsentList has.
const MaxConsentsListed = 1000

// consentKinds are the kinds: asked of the user and by it, said by it and to it.
const consentKinds = 4

func (l *ConsentList) append(b *tlsvec.Builder) {
	appendList(b, *l, func(b *tlsvec.Builder, c Consent) {
		appendURI(b, c.RequesterURI)
		appendURI(b, c.TargetURI)
		b.Optional(!c.RoomID.IsZero())
		if !c.RoomID.IsZero() {
			appendURI(b, c.RoomID)
		}
		b.Uint8(uint8(c.State))
		b.Uint64(c.At)
	})
}

func (l *ConsentList) read(r *tlsvec.Reader) {
	*l = readList(r, "consents", consentKinds*MaxConsentsListed, func(r *tlsvec.Reader) (c Consent) {
		c.RequesterURI, c.TargetURI = readUser(r), readUser(r)
		if r.Optional() {
			c.RoomID = readURI(r, mimi.KindRoom)
		}
		c.State = ConsentState(r.Uint8())
		if r.Err() == nil && (c.State < ConsentAsked || c.State > ConsentRevoked) {
			r.Fail(c.State.String() + " of a consent")
		}
		c.At = r.Uint64()
		return c
	})
}

// Marshal returns the list's encoding.
func (l ConsentList) Marshal() []byte { return marshal(&l) }

// ParseConsentList decodes a list.
func ParseConsentList(b []byte) (ConsentList, error) {
	var l ConsentList
	return l, parse("ConsentList", b, &l)
}
