package mimi

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// A SubmitMessageRequest gives the hub an application message (section 5.4).
// The sending provider alone vouches for the user; receivers compare it with
// the leaf.
//
//	struct {
//	    Protocol protocol;
//	    select (protocol) {
//	        case mls10:
//	            MLSMessage appMessage;
//	            IdentifierUri sendingUri;
//	    };
//	} SubmitMessageRequest;
type SubmitMessageRequest struct {
	Protocol   Protocol
	AppMessage *MLSMessage // a PrivateMessage of application data
	SendingURI URI         // a user, or a pseudonym
}

func (q *SubmitMessageRequest) append(b *tlsvec.Builder) {
	b.Uint8(uint8(q.Protocol))
	q.AppMessage.append(b)
	appendURI(b, q.SendingURI)
}

func (q *SubmitMessageRequest) read(r *tlsvec.Reader) {
	q.Protocol = readProtocol(r)
	q.AppMessage = new(MLSMessage)
	q.AppMessage.read(r)
	if r.Err() == nil && !q.AppMessage.application() {
		r.Fail("appMessage is not a PrivateMessage of application data")
	}
	q.SendingURI = readUser(r)
}

func (m *MLSMessage) application() bool {
	return m.WireFormat == mls.WirePrivateMessage && m.ContentType == mls.ContentApplication
}

// Marshal returns the request's encoding.
func (q *SubmitMessageRequest) Marshal() []byte { return marshal(q) }

// ParseSubmitMessageRequest decodes a request.
func ParseSubmitMessageRequest(b []byte) (*SubmitMessageRequest, error) {
	q := new(SubmitMessageRequest)
	return q, parse("SubmitMessageRequest", b, q)
}

// A SubmitResponseCode says what the hub did with an application message.
type SubmitResponseCode uint8

// The codes of a submission. The draft calls the first one both accepted and
// success.
const (
	SubmitAccepted    SubmitResponseCode = 0
	SubmitNotAllowed  SubmitResponseCode = 1
	SubmitEpochTooOld SubmitResponseCode = 2
)

// A SubmitMessageResponse answers a SubmitMessageRequest.
//
//	struct {
//	    Protocol protocol;
//	    SubmitResponseCode statusCode;
//	    select (statusCode) {
//	        case accepted:
//	            uint64 accepted_timestamp;
//	            optional<Frank> frank;
//	        case epochTooOld:
//	            uint64 currentEpoch;
//	        case notAllowed:
//	            struct {};
//	    };
//	} SubmitMessageResponse;
type SubmitMessageResponse struct {
	Protocol          Protocol
	StatusCode        SubmitResponseCode
	AcceptedTimestamp uint64 // with SubmitAccepted, in milliseconds
	Frank             *Frank // with SubmitAccepted, or nil
	CurrentEpoch      uint64 // with SubmitEpochTooOld
}

func (p *SubmitMessageResponse) append(b *tlsvec.Builder) {
	b.Uint8(uint8(p.Protocol))
	b.Uint8(uint8(p.StatusCode))
	switch p.StatusCode {
	case SubmitAccepted:
		b.Uint64(p.AcceptedTimestamp)
		appendOptionalFrank(b, p.Frank)
	case SubmitEpochTooOld:
		b.Uint64(p.CurrentEpoch)
	}
}

func (p *SubmitMessageResponse) read(r *tlsvec.Reader) {
	p.Protocol = readProtocol(r)
	p.StatusCode = readCode(r, "statusCode", SubmitAccepted, SubmitEpochTooOld)
	if r.Err() != nil {
		return
	}
	switch p.StatusCode {
	case SubmitAccepted:
		p.AcceptedTimestamp = r.Uint64()
		p.Frank = readOptionalFrank(r)
	case SubmitEpochTooOld:
		p.CurrentEpoch = r.Uint64()
	}
}

func appendOptionalFrank(b *tlsvec.Builder, f *Frank) {
	b.Optional(f != nil)
	if f != nil {
		f.append(b)
	}
}

func readOptionalFrank(r *tlsvec.Reader) *Frank {
	if !r.Optional() {
		return nil
	}
	f := new(Frank)
	f.read(r)
	return f
}

// Marshal returns the response's encoding.
func (p *SubmitMessageResponse) Marshal() []byte { return marshal(p) }

// ParseSubmitMessageResponse decodes a response.
func ParseSubmitMessageResponse(b []byte) (*SubmitMessageResponse, error) {
	p := new(SubmitMessageResponse)
	return p, parse("SubmitMessageResponse", b, p)
}
