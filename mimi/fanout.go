package mimi

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// maxFanout is the most messages in the body of one notification.
const maxFanout = 4096

// A FanoutMessage tells a follower of one event in a room (section 5.5).
//
//	struct {
//	    uint64 timestamp;
//	    MLSMessage message;
//	    select (wire format and content type of message) {
//	        case application: optional<Frank> frank;
//	        case welcome:     RatchetTreeOption ratchetTreeOption;
//	        case proposal:    MLSMessage moreProposals<V>;
//	        case commit:      MLSMessage externalProposals<V>;
//	    };
//	} FanoutMessage;
//
// The draft selects by wire format and names content types. Here the message
// is decoded first: a PrivateMessage of application data, a Welcome, or a
// proposal or commit in a PublicMessage or SemiPrivateMessage.
type FanoutMessage struct {
	Timestamp         uint64 // when the hub accepted it, in milliseconds; of a Welcome, its commit's
	Message           *MLSMessage
	Frank             *Frank                 // with an application message, or nil
	RatchetTree       *mls.RatchetTreeOption // with a Welcome; nil is distributionService
	MoreProposals     []*MLSMessage          // with a proposal, as in its HandshakeBundle
	ExternalProposals []*MLSMessage          // with a commit: the hub's proposals, made anew for the next epoch
}

func (m *FanoutMessage) append(b *tlsvec.Builder) {
	b.Uint64(m.Timestamp)
	m.Message.append(b)
	switch {
	case m.Message.WireFormat == mls.WireWelcome:
		appendTree(b, m.RatchetTree)
	case m.Message.ContentType == mls.ContentProposal:
		appendMessages(b, m.MoreProposals)
	case m.Message.ContentType == mls.ContentCommit:
		appendMessages(b, m.ExternalProposals)
	default:
		appendOptionalFrank(b, m.Frank)
	}
}

func (m *FanoutMessage) read(r *tlsvec.Reader) {
	m.Timestamp = r.Uint64()
	m.Message = new(MLSMessage)
	m.Message.read(r)
	switch msg := m.Message; {
	case r.Err() != nil:
	case msg.application():
		m.Frank = readOptionalFrank(r)
	case msg.WireFormat == mls.WireWelcome:
		m.RatchetTree = readTree(r)
	case msg.handshake(mls.ContentProposal):
		m.MoreProposals = readProposals(r, msg.GroupID, msg.Epoch)
	case msg.handshake(mls.ContentCommit):
		m.ExternalProposals = readProposals(r, msg.GroupID, msg.Epoch+1)
	default:
		r.Fail(fmt.Sprintf("message of wire format 0x%04x and content type %d cannot be fanned out", uint16(msg.WireFormat), msg.ContentType))
	}
}

// WelcomeWithoutTree returns the encoding of a FanoutMessage of a Welcome whose
// RatchetTree is distributionService, for CompleteWelcome. timestamp is that of
// the Welcome's commit.
func WelcomeWithoutTree(timestamp uint64, w *mls.Welcome) []byte {
	b := tlsvec.NewBuilder(sizeOfWelcome(w) + 16)
	b.Uint64(timestamp)
	b.Uint16(uint16(mls.MLS10))
	b.Uint16(uint16(mls.WireWelcome))
	appendWelcome(b, w)
	appendTree(b, nil)
	return b.Bytes()
}

// CompleteWelcome returns the encoding of a FanoutMessage of a Welcome with the
// ratchet tree (as in the ratchet_tree extension), from its encoding without: one
// whose RatchetTree is distributionService.
func CompleteWelcome(m, tree []byte) ([]byte, error) {
	end := len(m) - 1 // the option is the last that is encoded
	if end < 0 || m[end] != uint8(mls.TreeDistributionService) {
		return nil, errors.New("mimi: the FanoutMessage has no tree to complete")
	}
	b := tlsvec.NewBuilder(len(m) + len(tree))
	b.Raw(m[:end])
	b.Uint8(uint8(mls.TreeFull))
	b.Raw(tree)
	return b.Bytes(), nil
}

// A Fanout is the body of a notification: one or more FanoutMessages of one
// room, one after the other and without a count.
type Fanout []*FanoutMessage

// Marshal returns the notification's encoding.
func (f Fanout) Marshal() []byte {
	size := 0
	for _, m := range f {
		size += 512 + len(m.Message.Bytes())
		if m.RatchetTree != nil {
			size += len(m.RatchetTree.Tree)
		}
	}
	b := tlsvec.NewBuilder(size)
	for _, m := range f {
		m.append(b)
	}
	return b.Bytes()
}

// ParseFanout decodes the body of a notification.
func ParseFanout(b []byte) (Fanout, error) {
	if len(b) == 0 {
		return nil, errors.New("mimi: a notification without a FanoutMessage")
	}
	var f Fanout
	r := tlsvec.NewReader(bytes.Clone(b))
	for !r.Empty() {
		if len(f) == maxFanout {
			r.Fail(fmt.Sprintf("more than %d messages", maxFanout))
			break
		}
		m := new(FanoutMessage)
		m.read(r)
		f = append(f, m)
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("mimi: FanoutMessage %d: %w", len(f), err)
	}
	return f, nil
}
