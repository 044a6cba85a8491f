package main

import (
	"encoding/json"
	"fmt"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A policyPair is a user and the role that it gets.
type policyPair struct {
	User mimi.URI       `json:"user"`
	Role mimi.RoleIndex `json:"role"`
}

// A policyProposal is a proposal and, if it is not the action's actor, who
// stands for it.
type policyProposal struct {
	Type string       `json:"type"`
	By   *policyActor `json:"by"`
	policyClient
	Leaf *uint32 `json:"leaf"`

	Component       looseText       `json:"component"`
	Value           string          `json:"value"`
	RemoveComponent bool            `json:"remove_component"`
	Roles           json.RawMessage `json:"roles"`
	Preauth         []policyEntry   `json:"preauth"`

	Add    []policyPair `json:"add"`
	Change []policyPair `json:"change"`
	Remove []mimi.URI   `json:"remove"`
	Number uint16       `json:"number"`
}

func (p *policyCase) proposals(list []policyProposal, by policy.Actor) ([]policy.Proposed, error) {
	var proposed []policy.Proposed
	for i := range list {
		actor := by
		if list[i].By != nil {
			var err error
			if actor, err = p.actor(list[i].By); err != nil {
				return nil, fmt.Errorf("proposal %d: %w", i, err)
			}
		}
		proposal, err := p.proposal(&list[i])
		if err != nil {
			return nil, fmt.Errorf("proposal %d: %w", i, err)
		}
		proposed = append(proposed, policy.Proposed{By: actor, Proposal: proposal})
	}
	return proposed, nil
}

// plainProposals need nothing but their type.
var plainProposals = map[string]policy.Proposal{
	"self_remove": policy.SelfRemove{}, "psk": policy.PreSharedKey{}, "reinit": policy.ReInit{},
	"external_init": policy.ExternalInit{}, "group_context_extensions": policy.GroupContextExtensions{},
}

func (p *policyCase) proposal(q *policyProposal) (policy.Proposal, error) {
	if plain, ok := plainProposals[q.Type]; ok {
		return plain, nil
	}
	switch q.Type {
	case "add":
		return policy.Add{Client: q.client()}, nil
	case "update":
		return policy.Update{Client: q.client()}, nil
	case "remove":
		return p.removal(q)
	case "participants":
		return p.participants(q), nil
	case "app_data_update":
		return p.componentUpdate(q)
	case "app_ephemeral":
		id, err := componentID(string(q.Component))
		return policy.AppEphemeral{Component: id}, err
	case "custom":
		return policy.Unknown{Type: q.Number}, nil
	}
	return nil, fmt.Errorf("no type %q", q.Type)
}

func (p *policyCase) removal(q *policyProposal) (policy.Proposal, error) {
	if q.Leaf != nil {
		return policy.Remove{Leaf: *q.Leaf}, nil
	}
	leaf, ok := p.leafOf(q.Client)
	if !ok {
		return nil, fmt.Errorf("%s is not in the group", q.Client)
	}
	return policy.Remove{Leaf: leaf}, nil
}

// participants builds a ParticipantListUpdate. A user who is not in the list has
// an index beyond it.
func (p *policyCase) participants(q *policyProposal) policy.Proposal {
	index := func(user mimi.URI) uint32 {
		if i, ok := p.state.Index(user); ok {
			return i
		}
		return uint32(p.state.Participants())
	}
	u := new(mimi.ParticipantListUpdate)
	for _, c := range q.Change {
		u.ChangedRoleParticipants = append(u.ChangedRoleParticipants, mimi.UserIndexRolePair{UserIndex: index(c.User), Role: c.Role})
	}
	for _, user := range q.Remove {
		u.RemovedIndices = append(u.RemovedIndices, index(user))
	}
	for _, a := range q.Add {
		u.AddedParticipants = append(u.AddedParticipants, mimi.UserRolePair{User: a.User, Role: a.Role})
	}
	return policy.AppDataUpdate{Component: policy.ComponentParticipantList, Update: u.Marshal()}
}

func (p *policyCase) componentUpdate(q *policyProposal) (policy.Proposal, error) {
	id, err := componentID(string(q.Component))
	if err != nil {
		return nil, err
	}
	update := policy.AppDataUpdate{Component: id, Remove: q.RemoveComponent}
	switch {
	case q.Roles != nil:
		roles, err := readRoles(q.Roles)
		if err != nil {
			return nil, err
		}
		update.Update = roles.Marshal()
	case q.Preauth != nil:
		data, err := preauthData(q.Preauth, p.roles)
		if err != nil {
			return nil, err
		}
		update.Update = data.Marshal()
	default:
		update.Update, err = looseOctets(q.Value, -1)
	}
	return update, err
}
