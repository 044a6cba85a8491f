package mimi

import (
	"context"
	"crypto"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// The labels and limits of draft-mahy-mimi-hub-retracted-messages, an
// individual draft whose numbers and labels may change.
const (
	labelHubRetracted      = "HubRetractedComponentTBS"
	labelHubRetractedRange = "HubRetractedRangeComponentTBS"
	maxRetracted           = 1024
)

// MessageIDSize is the length of a MIMI message ID.
const MessageIDSize = 32

// HubRetracted asks all members to take messages out of view. It is the data
// of an AppEphemeral of component hub_retracted_messages (0x0050).
//
//	struct {
//	    uint64 hub_retracted_timestamp;
//	    IdentifierUri remover_uri;
//	    optional<AbuseType> reason_code;
//	    MessageId retracted_messages<V>;
//	    /* SignWithLabel(., "HubRetractedComponentTBS", HubRetractedComponentTBS) */
//	    opaque signature<V>;
//	} HubRetractedComponent;
//
// The draft does not name the key of the signature: here it is that of the
// proposal's sender, a leaf or an external sender.
type HubRetracted struct {
	Timestamp  uint64 // in milliseconds
	RemoverURI URI    // a user or pseudonym, or the hub itself
	Reason     *AbuseType
	Messages   [][MessageIDSize]byte
	Signature  []byte
}

func (h *HubRetracted) appendTBS(b *tlsvec.Builder) {
	b.Uint64(h.Timestamp)
	appendURI(b, h.RemoverURI)
	appendReason(b, h.Reason)
	appendList(b, h.Messages, func(b *tlsvec.Builder, id [MessageIDSize]byte) { b.Raw(id[:]) })
}

func (h *HubRetracted) append(b *tlsvec.Builder) {
	h.appendTBS(b)
	b.Vector(h.Signature)
}

func (h *HubRetracted) read(r *tlsvec.Reader) {
	h.Timestamp = r.Uint64()
	h.RemoverURI = readURI(r, KindUser, KindPseudonym, KindProvider)
	h.Reason = readReason(r)
	h.Messages = readList(r, "messages", maxRetracted, readMessageID)
	if r.Err() == nil && len(h.Messages) == 0 {
		r.Fail("no message is retracted")
	}
	h.Signature = readBounded(r, "signature", maxSignature)
}

func readMessageID(r *tlsvec.Reader) (id [MessageIDSize]byte) {
	copy(id[:], r.Bytes(MessageIDSize))
	return id
}

func appendReason(b *tlsvec.Builder, a *AbuseType) {
	b.Optional(a != nil)
	if a != nil {
		b.Uint8(uint8(*a))
	}
}

func readReason(r *tlsvec.Reader) *AbuseType {
	if !r.Optional() {
		return nil
	}
	a := AbuseType(r.Uint8())
	return &a
}

// Marshal returns the component's encoding.
func (h *HubRetracted) Marshal() []byte { return marshal(h) }

// ParseHubRetracted decodes the component.
func ParseHubRetracted(b []byte) (*HubRetracted, error) {
	h := new(HubRetracted)
	return h, parse("HubRetractedComponent", b, h)
}

// Sign signs the component in the group's cipher suite.
func (h *HubRetracted) Sign(ctx context.Context, suite mls.CipherSuite, key crypto.Signer) (err error) {
	h.Signature, err = sign(ctx, suite, key, labelHubRetracted, h)
	return err
}

// Verify checks the signature under the key of the proposal's sender.
func (h *HubRetracted) Verify(suite mls.CipherSuite, key []byte) error {
	return verify(suite, key, labelHubRetracted, h, h.Signature)
}

// HubRetractedRange retracts all messages of one sender from a time on. It is
// the data of an AppEphemeral of component hub_retracted_range (0x0051), of
// which a commit has at most one for each sender.
//
//	struct {
//	    uint64 hub_retracted_timestamp;
//	    IdentifierUri remover_uri;
//	    optional<AbuseType> reason_code;
//	    IdentifierUri abusive_sender_uri;
//	    optional<uint64> starting_timestamp;
//	    /* SignWithLabel(., "HubRetractedRangeComponentTBS", HubRetractedRangeComponentTBS) */
//	    opaque signature<V>;
//	} HubRetractedRangeComponent;
type HubRetractedRange struct {
	Timestamp        uint64 // in milliseconds
	RemoverURI       URI
	Reason           *AbuseType
	AbusiveSenderURI URI
	Start            *uint64 // nil for all of them
	Signature        []byte
}

func (h *HubRetractedRange) appendTBS(b *tlsvec.Builder) {
	b.Uint64(h.Timestamp)
	appendURI(b, h.RemoverURI)
	appendReason(b, h.Reason)
	appendURI(b, h.AbusiveSenderURI)
	b.Optional(h.Start != nil)
	if h.Start != nil {
		b.Uint64(*h.Start)
	}
}

func (h *HubRetractedRange) append(b *tlsvec.Builder) {
	h.appendTBS(b)
	b.Vector(h.Signature)
}

func (h *HubRetractedRange) read(r *tlsvec.Reader) {
	h.Timestamp = r.Uint64()
	h.RemoverURI = readURI(r, KindUser, KindPseudonym, KindProvider)
	h.Reason = readReason(r)
	h.AbusiveSenderURI = readUser(r)
	if r.Optional() {
		start := r.Uint64()
		h.Start = &start
	}
	h.Signature = readBounded(r, "signature", maxSignature)
}

// Marshal returns the component's encoding.
func (h *HubRetractedRange) Marshal() []byte { return marshal(h) }

// ParseHubRetractedRange decodes the component.
func ParseHubRetractedRange(b []byte) (*HubRetractedRange, error) {
	h := new(HubRetractedRange)
	return h, parse("HubRetractedRangeComponent", b, h)
}

// Sign signs the component in the group's cipher suite.
func (h *HubRetractedRange) Sign(ctx context.Context, suite mls.CipherSuite, key crypto.Signer) (err error) {
	h.Signature, err = sign(ctx, suite, key, labelHubRetractedRange, h)
	return err
}

// Verify checks the signature under the key of the proposal's sender.
func (h *HubRetractedRange) Verify(suite mls.CipherSuite, key []byte) error {
	return verify(suite, key, labelHubRetractedRange, h, h.Signature)
}
