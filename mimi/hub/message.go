package hub

import (
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A Submission is the decision about an application message. If it was
// accepted, the caller has it franked, unless Tag is nil, and then stores its
// event.
type Submission struct {
	Response *mimi.SubmitMessageResponse
	Accepted bool
	Epoch    uint64
	Suite    mls.CipherSuite
	Tag      *mimi.FrankingTag // nil: the message asks for no frank
	Agent    []byte            // the public key with which the room's franks are verified
	Context  mimi.ServerFrankingContext
	Message  *mimi.MLSMessage
}

// Submit decides about an application message (section 5.4). It gives an
// accepted one its timestamp.
func (r *Room) Submit(from From, q *mimi.SubmitMessageRequest) (*Submission, error) {
	if q.SendingURI.Host() != from.Provider {
		return nil, fmt.Errorf("%w: sendingUri is %s", ErrForeign, q.SendingURI)
	}
	s := &Submission{Epoch: q.AppMessage.Epoch, Suite: r.suite(), Message: q.AppMessage}
	tag, err := r.submittable(from, q)
	var old *tooOldError
	switch {
	case errors.As(err, &old):
		s.Response = &mimi.SubmitMessageResponse{Protocol: mimi.ProtocolMLS10, StatusCode: mimi.SubmitEpochTooOld, CurrentEpoch: r.Epoch()}
		return s, nil
	case errors.Is(err, ErrMalformed):
		return nil, err
	case err != nil:
		s.Response = &mimi.SubmitMessageResponse{Protocol: mimi.ProtocolMLS10, StatusCode: mimi.SubmitNotAllowed}
		return s, nil
	}
	s.Accepted, s.Tag, s.Agent = true, tag, r.FrankingKey()
	s.Context = mimi.ServerFrankingContext{SenderURI: q.SendingURI, RoomURI: r.uri, AcceptedTimestamp: r.nextTimestamp()}
	s.Response = &mimi.SubmitMessageResponse{Protocol: mimi.ProtocolMLS10, StatusCode: mimi.SubmitAccepted, AcceptedTimestamp: s.Context.AcceptedTimestamp}
	return s, nil
}

// FrankingKey returns the public key with which the room's franks are verified,
// as its newest epoch has it. It must not be changed.
func (r *Room) FrankingKey() []byte { return r.agent }

// Event returns the event of an accepted message with its frank, or nil for
// none, and completes the response.
func (s *Submission) Event(frank *mimi.Frank) Event {
	s.Response.Frank = frank
	f := mimi.FanoutMessage{Timestamp: s.Context.AcceptedTimestamp, Message: s.Message, Frank: frank}
	return Event{Kind: EventMessage, Timestamp: f.Timestamp, Epoch: s.Epoch, Fanout: mimi.Fanout{&f}.Marshal()}
}

type tooOldError struct{}

func (*tooOldError) Error() string { return "the epoch of the message is too old" }

// submittable checks all that a hub can see of a message, and returns the
// franking tag.
func (r *Room) submittable(from From, q *mimi.SubmitMessageRequest) (*mimi.FrankingTag, error) {
	if string(q.AppMessage.GroupID) != string(r.GroupID()) {
		return nil, errors.New("group_id is not the room's")
	}
	if r.silenced[q.SendingURI] {
		return nil, errors.New("the user is being removed")
	}
	if r.held(from, q.SendingURI) {
		return nil, NotHeard(q.SendingURI)
	}
	if _, err := policy.Authorize(r.state, &policy.Message{Sender: q.SendingURI}); err != nil {
		return nil, err
	}
	if err := r.epochFits(q.AppMessage.Epoch); err != nil {
		return nil, err
	}
	m, err := mls.ParseMessage(q.AppMessage.Bytes())
	if err != nil || m.PrivateMessage == nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return r.frankingTag(m.PrivateMessage)
}

// held reports whether the client that sends is suspended. A client of another
// provider is not known by its message: there, a user is held when all of its
// clients are.
func (r *Room) held(from From, user mimi.URI) bool {
	leaves := r.state.LeavesOf(user)
	for _, i := range leaves {
		switch m := r.members[i]; {
		case from.Client.IsZero() && !m.Suspended:
			return false
		case m.Client == from.Client:
			return m.Suspended
		}
	}
	return from.Client.IsZero() && len(leaves) > 0
}

// epochFits allows the epochs that the room's policy tolerates, but none before
// the one in which the last client came: it could never read the message, and
// the sender, who is told the epoch, can send it again. A newer epoch than the
// hub's cannot be.
func (r *Room) epochFits(epoch uint64) error {
	tolerance := uint64(policy.DefaultEpochTolerance)
	if r.ops != nil {
		tolerance = uint64(r.ops.AppMessagePolicy.EpochTolerance)
	}
	switch now := r.Epoch(); {
	case epoch > now:
		return fmt.Errorf("epoch %d has not begun", epoch)
	case now-epoch > tolerance, epoch < r.newest:
		return &tooOldError{}
	}
	return nil
}

// frankingTag reads the Safe AAD of a message, which every room has.
func (r *Room) frankingTag(m *mls.PrivateMessage) (*mimi.FrankingTag, error) {
	aad, err := mls.ParseSafeAAD(m.AuthenticatedData)
	if err != nil {
		return nil, err
	}
	for _, item := range aad {
		if item.ID != room.ComponentFrankAAD {
			continue
		}
		if len(item.Data) != mimi.FrankingTagSize {
			return nil, fmt.Errorf("a franking tag of %d octets", len(item.Data))
		}
		return (*mimi.FrankingTag)(item.Data), nil
	}
	return nil, nil
}

// Receives reports whether a user may be sent application messages: it is not
// being removed, and its role has canReceiveMessage.
func (r *Room) Receives(user mimi.URI) bool {
	if r.silenced[user] {
		return false
	}
	_, err := policy.Authorize(r.state, &policy.Delivery{To: user})
	return err == nil
}

// DeafProviders returns the hosts of other providers none of whose users in the
// group may be sent application messages.
func (r *Room) DeafProviders() []string {
	if r.deaf == nil {
		r.deaf = r.deafProviders()
	}
	return *r.deaf
}

func (r *Room) deafProviders() *[]string {
	hears, users := make(map[string]bool), make(map[mimi.URI]bool)
	for _, m := range r.members {
		if host := m.Client.Host(); !hears[host] && !users[m.User] && host != r.uri.Host() {
			users[m.User] = true
			hears[host] = r.Receives(m.User)
		}
	}
	deaf := []string{}
	for host, ok := range hears {
		if !ok {
			deaf = append(deaf, host)
		}
	}
	slices.Sort(deaf)
	return &deaf
}
