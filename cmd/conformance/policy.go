package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// runPolicy judges actions in rooms (draft-ietf-mimi-room-policy-03).
//
// A file is {"format":"mimi-room-policy", "defaults":{...}, "cases":[...]}. A
// case inherits the members of defaults, and members that are not named here
// are ignored. It has a room, what credentials say, and actions; each accepted
// action is carried out before the next is judged:
//
//	{"id": "...",
//	 "room": {
//	   "uri": "mimi://a.example/r/club",        // its host is the hub
//	   "roles": "cooperative",                  // strict, moderated, multi-organization, or a list:
//	     // [{"role_index":2, "role_name":"user", "role_description":"",
//	     //   "role_capabilities":["canSendMessage", "0xF001"],
//	     //   "minimum_participants_constraint":0, "maximum_participants_constraint":9,
//	     //   "minimum_active_participants_constraint":0, "maximum_active_participants_constraint":9,
//	     //   "authorized_role_changes":[[0,[2]], [2,[0]]]}]
//	   "base": {"fixed_membership":false, "parent_dependant":false, "parent_room":"", "multi_device":true,
//	            "max_clients":9, "max_users":9, "pseudonyms_allowed":false},   // multi_device is true if absent
//	   "operational": {"external_proposal_allowed":true, "external_commit_allowed":true},
//	   "preauth": [{"claimset":[{"credential_type":6, "id":"groups", "value":"staff"}], "role":2}],
//	   "components": {"0x002e": "02"},          // any component, in hexadecimal
//	   "participants": [{"user":"mimi://a.example/u/ann", "role":2, "clients":["mimi://a.example/d/ann/1"]}],
//	   "parent": ["mimi://a.example/u/ann"],    // users of the parent room
//	   "member": false,                         // judge as a member does, not as the hub
//	   "self_role_changes": false, "pending_preference": false},
//	 "credentials": {"mimi://a.example/u/eve": [{"type":6, "jwt":{"groups":["staff"]}}]},
//	 "actions": [
//	   {"kind":"bundle", "by":"mimi://a.example/d/ann/1",
//	    "proposals":[{"type":"participants", "remove":["mimi://a.example/u/bob"]},
//	                 {"type":"remove", "client":"mimi://a.example/d/bob/1"}],
//	    "expect":"accept", "rows":["3"]},
//	   {"kind":"message", "by":"...", "expect":"refuse", "row":"13", "check":"capability"}]}
//
// The leaves of the clients are numbered in the order of the list. In a claim
// of preauth, id_hex and value_hex stand for id and value that are not text. A
// credential has jwt, or cwt or x509 in hexadecimal.
//
// kind is commit, bundle (bare proposals), message (by a user, with needs),
// delivery (to a user) or deed (by an actor, with needs: ["canDestroyRoom"]).
// The actor is a member's client URI, or {"sender":"external", "user":...},
// {"sender":"new_member_commit" or "new_member_proposal", "user":..., "client":...}
// or {"sender":"member", "leaf":0}. A proposal may have a by of its own. A
// commit may have "code":{"valid":true, "role":2} and "path":{"user":..., "client":...}.
// The types of proposals are add, update (user and client), remove (client or
// leaf), self_remove, psk, reinit, external_init, group_context_extensions,
// app_data_update (component, and value in hexadecimal, or roles, or preauth, or
// remove_component), participants (add and change: lists of user and role;
// remove: users; indices are looked up), app_ephemeral (component) and custom.
//
// expect is accept if absent; rows, row and check are compared where they are
// given. A case passes if all its actions do. A line of output is
// FAIL id#action want=VERDICT got=VERDICT (why).
func runPolicy(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(stderr, "usage: conformance policy FILE...")
		return exitUsage
	}
	var t tally
	for _, file := range args {
		cases, err := loadCorpus(file)
		if err != nil {
			fmt.Fprintf(stderr, "conformance policy: %s: %v\n", file, err)
			t.failed++
			continue
		}
		for _, c := range cases {
			t.judgePolicy(c, stdout)
		}
	}
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 {
		return exitFailed
	}
	return exitOK
}

func (t *tally) judgePolicy(c *corpusCase, stdout io.Writer) {
	failures, err := judgePolicyCase(c)
	if err != nil {
		failures = []string{fmt.Sprintf("FAIL %s want=readable got=unread (%v)", c.ID, err)}
	}
	if len(failures) == 0 {
		t.passed++
		return
	}
	t.failed++
	for _, line := range failures {
		fmt.Fprintln(stdout, line)
	}
}

// judgePolicyCase returns a line for each action whose verdict differs.
func judgePolicyCase(c *corpusCase) ([]string, error) {
	var room policyRoom
	var actions []policyAction
	p := &policyCase{credentials: make(map[string][]policyCredential)}
	for name, to := range map[string]any{"room": &room, "actions": &actions, "credentials": &p.credentials} {
		if _, err := c.decode(name, to); err != nil {
			return nil, err
		}
	}
	if len(actions) == 0 {
		return nil, errors.New("no actions")
	}
	var err error
	if p.state, p.roles, err = room.state(); err != nil {
		return nil, err
	}
	var failures []string
	for i := range actions {
		line, err := p.judge(&actions[i])
		if err != nil {
			return nil, fmt.Errorf("action %d: %w", i, err)
		}
		if line != "" {
			failures = append(failures, fmt.Sprintf("FAIL %s#%d %s", c.ID, i, line))
		}
	}
	return failures, nil
}

// A policyCase is a case on its way through its actions.
type policyCase struct {
	state       *policy.State
	roles       *policy.RoleData
	credentials map[string][]policyCredential
}

// A policyAction is one action and what becomes of it.
type policyAction struct {
	Kind      string           `json:"kind"`
	By        *policyActor     `json:"by"`
	To        mimi.URI         `json:"to"`
	Proposals []policyProposal `json:"proposals"`
	Code      *struct {
		Valid bool           `json:"valid"`
		Role  mimi.RoleIndex `json:"role"`
	} `json:"code"`
	Path  policyClient `json:"path"`
	Needs []string     `json:"needs"`

	Expect string   `json:"expect"`
	Rows   []string `json:"rows"`
	Row    string   `json:"row"`
	Check  string   `json:"check"`
}

// judge judges one action, carries it out if it is accepted, and returns what
// differs.
func (p *policyCase) judge(a *policyAction) (string, error) {
	if a.Expect == "" {
		a.Expect = "accept"
	}
	if a.Expect != "accept" && a.Expect != "refuse" {
		return "", fmt.Errorf("expect is %q, want accept or refuse", a.Expect)
	}
	action, err := p.action(a)
	if err != nil {
		return "", err
	}
	effect, err := policy.Authorize(p.state, action)
	var refusal *policy.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return "", err
	}
	if err == nil {
		if err := p.state.Apply(effect); err != nil {
			return "", err
		}
	}
	want, got := a.want(), a.got(effect, refusal)
	if want == got {
		return "", nil
	}
	why := "accepted"
	if refusal != nil {
		why = refusal.Error()
	}
	return fmt.Sprintf("want=%s got=%s (%s)", want, got, why), nil
}

// want returns the verdict that is asked for, as far as it is.
func (a *policyAction) want() string {
	if a.Expect == "accept" {
		return verdictText("accept", strings.Join(a.Rows, ","))
	}
	return verdictText("refuse", a.Row, a.Check)
}

// got returns the verdict in the detail in which it is asked for.
func (a *policyAction) got(effect *policy.Effect, refusal *policy.Refusal) string {
	if refusal != nil {
		row, check := string(refusal.Row), string(refusal.Check)
		if a.Expect == "refuse" && a.Row == "" {
			row = ""
		}
		if a.Expect == "refuse" && a.Check == "" {
			check = ""
		}
		return verdictText("refuse", row, check)
	}
	var rows []string
	for _, r := range effect.Rows() {
		rows = append(rows, string(r))
	}
	if a.Expect == "accept" && len(a.Rows) == 0 {
		rows = nil
	}
	return verdictText("accept", strings.Join(rows, ","))
}

func verdictText(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/")
}

func (p *policyCase) action(a *policyAction) (policy.Action, error) {
	switch a.Kind {
	case "delivery":
		return &policy.Delivery{To: a.To}, nil
	case "commit", "bundle", "message", "deed":
	default:
		return nil, fmt.Errorf("no kind %q", a.Kind)
	}
	if a.By == nil {
		return nil, errors.New("nobody acts")
	}
	by, err := p.actor(a.By)
	if err != nil {
		return nil, err
	}
	if a.Kind != "message" && by.Sender == policy.Member && a.By.Leaf == nil && a.By.Client.IsZero() {
		return nil, errors.New("a member acts by a client or a leaf")
	}
	needs, err := capabilities(a.Needs)
	if err != nil {
		return nil, err
	}
	switch a.Kind {
	case "message":
		return &policy.Message{Sender: by.User, Needs: needs}, nil
	case "deed":
		return &policy.Deed{Actor: by, Needs: needs}, nil
	}
	proposals, err := p.proposals(a.Proposals, by)
	if err != nil || a.Kind == "bundle" {
		return &policy.Bundle{Proposals: proposals}, err
	}
	commit := &policy.Commit{Committer: by, Proposals: proposals, Path: a.Path.client()}
	if a.Code != nil {
		commit.Code = policy.JoinCode{Shown: true, Valid: a.Code.Valid, Role: a.Code.Role}
	}
	return commit, nil
}

// A policyActor is who acts: a client URI, or an object.
type policyActor struct {
	Sender string   `json:"sender"`
	Leaf   *uint32  `json:"leaf"`
	User   mimi.URI `json:"user"`
	Client mimi.URI `json:"client"`
}

// UnmarshalJSON takes the URI of a member's client, a user's for messages, or an
// object.
func (a *policyActor) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		type plain policyActor
		return json.Unmarshal(b, (*plain)(a))
	}
	a.Sender = "member"
	var u mimi.URI
	if err := json.Unmarshal(b, &u); err != nil {
		return err
	}
	if u.Kind() == mimi.KindClient {
		a.Client = u
	} else {
		a.User = u
	}
	return nil
}

var policySenders = map[string]policy.Sender{
	"member": policy.Member, "external": policy.External,
	"new_member_proposal": policy.NewMemberProposal, "new_member_commit": policy.NewMemberCommit,
}

func (p *policyCase) actor(a *policyActor) (policy.Actor, error) {
	sender, ok := policySenders[a.Sender]
	if !ok {
		return policy.Actor{}, fmt.Errorf("no sender %q", a.Sender)
	}
	actor := policy.Actor{Sender: sender, User: a.User, Client: a.Client}
	switch {
	case a.Leaf != nil:
		actor.Leaf = *a.Leaf
	case sender == policy.Member && !a.Client.IsZero():
		leaf, ok := p.leafOf(a.Client)
		if !ok {
			return policy.Actor{}, fmt.Errorf("%s is not in the group", a.Client)
		}
		actor.Leaf = leaf
	}
	if c, ok := p.state.Client(actor.Leaf); ok && sender == policy.Member && actor.User.IsZero() {
		actor.User = c.User
	}
	for _, c := range p.credentials[actor.User.String()] {
		credential, err := c.credential()
		if err != nil {
			return policy.Actor{}, err
		}
		actor.Credentials = append(actor.Credentials, credential)
	}
	return actor, nil
}

// leafOf returns the leaf of a client.
func (p *policyCase) leafOf(client mimi.URI) (uint32, bool) {
	for _, participant := range p.state.ParticipantList().Participants {
		for _, leaf := range p.state.LeavesOf(participant.User) {
			if c, _ := p.state.Client(leaf); c.URI == client {
				return leaf, true
			}
		}
	}
	return 0, false
}
