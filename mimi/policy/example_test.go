package policy_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A hub judges what the members of a room propose. The members run the same
// function on the same room and come to the same end.
func Example() {
	parse := func(s string) mimi.URI {
		u, err := mimi.ParseURI(s)
		if err != nil {
			log.Fatal(err)
		}
		return u
	}
	ann, ada := parse("mimi://a.example/u/ann"), parse("mimi://a.example/u/ada")
	list := mimi.ParticipantListData{Participants: []mimi.UserRolePair{{User: ann, Role: 2}, {User: ada, Role: 3}}}

	room, err := policy.NewState(policy.Config{}, policy.Room{
		URI: parse("mimi://a.example/r/clubhouse"),
		Components: map[policy.ComponentID][]byte{
			policy.ComponentRoles:           policy.CooperativeRoles().Marshal(),
			policy.ComponentBase:            (&policy.BaseRoomPolicy{MultiDevice: true}).Marshal(),
			policy.ComponentParticipantList: list.Marshal(),
		},
		Leaves: []policy.Leaf{
			{Index: 0, Client: policy.Client{User: ann, URI: parse("mimi://a.example/d/ann/phone")}},
			{Index: 1, Client: policy.Client{User: ada, URI: parse("mimi://a.example/d/ada/laptop")}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	// An ordinary user bans an admin, and the other way round.
	ban := func(by, leaf, index uint32) policy.Action {
		actor := policy.Actor{Sender: policy.Member, Leaf: by}
		update := mimi.ParticipantListUpdate{ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: index, Role: mimi.RoleBanned}}}
		return &policy.Bundle{Proposals: []policy.Proposed{
			{By: actor, Proposal: policy.Remove{Leaf: leaf}},
			{By: actor, Proposal: policy.AppDataUpdate{Component: policy.ComponentParticipantList, Update: update.Marshal()}},
		}}
	}
	_, err = policy.Authorize(room, ban(0, 1, 1))
	var refusal *policy.Refusal
	if errors.As(err, &refusal) {
		fmt.Println("row", refusal.Row, "check", refusal.Check, refusal.Capability)
	}

	effect, err := policy.Authorize(room, ban(1, 0, 0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("rows", effect.Rows(), "silences", effect.Silenced())
	if err := room.Apply(effect); err != nil {
		log.Fatal(err)
	}
	_, err = policy.Authorize(room, &policy.Message{Sender: ann})
	fmt.Println(err)
	// Output:
	// row 7 check capability canBan
	// rows [7] silences [mimi://a.example/u/ann]
	// policy: refused by row B, check inert-role: mimi://a.example/u/ann acts: role 1 may only remove its own clients
}
