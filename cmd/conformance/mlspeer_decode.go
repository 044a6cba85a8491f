package main

import (
	"context"

	"github.com/privyseal/privyseal/mls"
)

type decodeParams struct {
	Message octets `json:"message"`
}

// A decodeResult says what an MLSMessage is, from what it says in the clear.
type decodeResult struct {
	WireFormat  string  `json:"wire_format"`
	Message     octets  `json:"mls_message"` // encoded again
	GroupID     *octets `json:"group_id,omitempty"`
	Epoch       *uint64 `json:"epoch,omitempty"`
	Content     string  `json:"content_type,omitempty"`
	SenderType  uint8   `json:"sender_type,omitempty"`
	Sender      *uint32 `json:"sender,omitempty"`
	Proposal    uint16  `json:"proposal_type,omitempty"`
	CipherSuite uint16  `json:"suite,omitempty"`
	Ref         octets  `json:"ref,omitzero"`
}

var wireFormatNames = map[mls.WireFormat]string{
	mls.WirePublicMessage: "mls_public_message", mls.WirePrivateMessage: "mls_private_message",
	mls.WireWelcome: "mls_welcome", mls.WireGroupInfo: "mls_group_info", mls.WireKeyPackage: "mls_key_package",
	mls.WireSemiPrivateMessage: "mls_semiprivate_message",
}

var contentTypeNames = map[mls.ContentType]string{
	mls.ContentApplication: "application", mls.ContentProposal: "proposal", mls.ContentCommit: "commit",
}

func (p *peer) decode(_ context.Context, q *decodeParams) (any, error) {
	if q.Message == nil {
		return nil, malformed("params: message is needed")
	}
	m, err := mls.ParseMessage(q.Message)
	if err != nil {
		return nil, err
	}
	r := &decodeResult{WireFormat: wireFormatNames[m.WireFormat], Message: m.Bytes()}
	if id, epoch, ok := m.GroupID(); ok {
		group := nonNil(id)
		r.GroupID, r.Epoch = &group, &epoch
	}
	r.describe(m)
	return r, nil
}

func (r *decodeResult) describe(m *mls.Message) {
	switch {
	case m.PublicMessage != nil:
		c := &m.PublicMessage.Content
		r.Content, r.SenderType = contentTypeNames[c.ContentType], uint8(c.Sender.Type)
		if c.Sender.Type == mls.SenderMember || c.Sender.Type == mls.SenderExternal {
			r.Sender = &c.Sender.Index
		}
		if c.Proposal != nil {
			r.Proposal = uint16(c.Proposal.ProposalType())
		}
	case m.PrivateMessage != nil:
		r.Content = contentTypeNames[m.PrivateMessage.ContentType]
	case m.Welcome != nil:
		r.CipherSuite = uint16(m.Welcome.CipherSuite)
	case m.GroupInfo != nil:
		r.CipherSuite = uint16(m.GroupInfo.GroupContext.CipherSuite)
	case m.KeyPackage != nil:
		r.CipherSuite, r.Ref = uint16(m.KeyPackage.CipherSuite), m.KeyPackage.Ref()
	}
}
