package main

import (
	"context"
	"errors"

	"github.com/privyseal/privyseal/mls"
)

type processParams struct {
	State   string `json:"state"`
	Message octets `json:"message"`
}

type processResult struct {
	Kind              string  `json:"kind"`
	Plaintext         *octets `json:"plaintext,omitempty"`
	AuthenticatedData *octets `json:"authenticated_data,omitempty"`
	Sender            *uint32 `json:"sender,omitempty"` // leaf of a member
	Active            bool    `json:"active"`
	Epoch             uint64  `json:"epoch"`
}

// process receives a message. A commit is merged at once; a proposal is kept.
func (p *peer) process(ctx context.Context, q *processParams) (any, error) {
	s, err := p.group(q.State)
	if err != nil {
		return nil, err
	}
	m, err := mls.ParseMessage(q.Message)
	if err != nil {
		return nil, err
	}
	if err := s.decide(ctx, m, q.Message); err != nil {
		return nil, err
	}
	if s.ownCommit(q.Message) {
		s.open, s.merged = false, false
		if err := s.MergePending(ctx); err != nil {
			return nil, err
		}
		own := uint32(s.OwnLeaf())
		return &processResult{Kind: "commit", Sender: &own, Active: s.Active(), Epoch: s.Epoch()}, nil
	}
	v, err := s.Verify(m)
	if err != nil {
		return nil, err
	}
	return s.take(ctx, v)
}

// decide settles an open commit if the message is of the epoch that it begins.
// A commit of its own epoch has won over it.
func (s *peerState) decide(ctx context.Context, m *mls.Message, raw []byte) error {
	_, epoch, ok := m.GroupID()
	if s.ownCommit(raw) || s.open && ok && epoch == s.Epoch() {
		return nil
	}
	return s.settle(ctx)
}

func (s *peerState) ownCommit(raw []byte) bool {
	return s.Pending() != nil && string(s.Pending().Message) == string(raw)
}

// take does what the message is for.
func (s *peerState) take(ctx context.Context, v mls.Verified) (any, error) {
	r := &processResult{}
	if from := v.Sender(); from.Type == mls.SenderMember {
		r.Sender = &from.Index
	}
	if aad := v.AuthenticatedData(); len(aad) > 0 {
		r.AuthenticatedData = (*octets)(&aad)
	}
	var err error
	switch v := v.(type) {
	case *mls.ApplicationMessage:
		data := nonNil(v.Data())
		r.Kind, r.Plaintext = "application", &data
	case *mls.VerifiedProposal:
		r.Kind = "proposal"
		s.client.learn(v.Proposal())
		err = s.Keep(v)
	case *mls.VerifiedCommit:
		r.Kind = "commit"
		err = s.merge(ctx, v, r)
	default:
		err = errors.New("a verified message of an unknown kind")
	}
	if err != nil {
		return nil, err
	}
	r.Active, r.Epoch = s.Active(), s.Epoch()
	return r, nil
}

func (s *peerState) merge(ctx context.Context, v *mls.VerifiedCommit, r *processResult) error {
	for _, p := range v.Commit().Proposals {
		s.client.learn(p.Proposal)
	}
	staged, err := s.Stage(ctx, v)
	if err != nil {
		return err
	}
	if err := s.Merge(ctx, staged); err != nil {
		return err
	}
	s.open, s.merged = false, false
	if r.Sender == nil {
		leaf := uint32(staged.Committer().Leaf)
		r.Sender = &leaf
	}
	return nil
}
