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

// runPolicy judges actions in rooms (draft-ietf-mimi-room-policy-03), as
// help/policy.txt says.
func runPolicy(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var all bool // verdicts are told, and not those alone that differ
	if len(args) > 0 && args[0] == "-v" {
		all, args = true, args[1:]
	}
	files, ok := corpusFiles("policy", args, stderr)
	if !ok {
		return exitUsage
	}
	var t tally
	for _, file := range files {
		cases, err := loadCorpus(file, stdin)
		if err != nil {
			fmt.Fprintf(stderr, "conformance policy: %s: %v\n", file, err)
			t.failed++
			continue
		}
		for _, c := range cases {
			t.judgePolicy(c, all, stdout)
		}
	}
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 {
		return exitFailed
	}
	return exitOK
}

func (t *tally) judgePolicy(c *corpusCase, all bool, stdout io.Writer) {
	told := io.Discard
	if all {
		told = stdout
	}
	failures, err := judgePolicyCase(c, told)
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

// judgePolicyCase returns a line for each action whose verdict differs, and tells
// the verdict of each.
func judgePolicyCase(c *corpusCase, told io.Writer) ([]string, error) {
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
		line, verdict, err := p.judge(&actions[i])
		if err == nil {
			fmt.Fprintf(told, "%s#%d %s\n", c.ID, i, verdict)
		}
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
	Needs []looseText  `json:"needs"`

	Expect  looseVerdict `json:"expect"`
	Verdict looseVerdict `json:"verdict"` // the same
	Rows    []looseText  `json:"rows"`
	Row     looseText    `json:"row"`
	Check   string       `json:"check"`
}

// judge judges one action, carries it out if it is accepted, and returns what
// differs, and the whole verdict.
func (p *policyCase) judge(a *policyAction) (differs, verdict string, err error) {
	a.settle()
	action, err := p.action(a)
	if err != nil {
		return "", "", err
	}
	effect, err := policy.Authorize(p.state, action)
	var refusal *policy.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return "", "", err
	}
	if err == nil {
		if err := p.state.Apply(effect); err != nil {
			return "", "", err
		}
	}
	why := "accepted"
	if refusal != nil {
		why = refusal.Error()
		verdict = verdictText("refuse", string(refusal.Row), string(refusal.Check)) + " (" + why + ")"
	} else {
		verdict = verdictText("accept", rowsText(effect))
	}
	want, got := a.want(), a.got(effect, refusal)
	if want != got {
		differs = fmt.Sprintf("want=%s got=%s (%s)", want, got, why)
	}
	return differs, verdict, nil
}

// settle brings what has several names under one.
func (a *policyAction) settle() {
	for _, v := range []looseVerdict{a.Verdict, "accept"} {
		if a.Expect == "" {
			a.Expect = v
		}
	}
	a.Row = looseText(strings.ToUpper(string(a.Row)))
	for i, r := range a.Rows {
		a.Rows[i] = looseText(strings.ToUpper(string(r)))
	}
	if a.Row != "" && a.Expect == "accept" && len(a.Rows) == 0 {
		a.Rows = []looseText{a.Row}
	}
}

func rowsText(effect *policy.Effect) string {
	var rows []string
	for _, r := range effect.Rows() {
		rows = append(rows, string(r))
	}
	return strings.Join(rows, ",")
}

// want returns the verdict that is asked for, as far as it is.
func (a *policyAction) want() string {
	if a.Expect == "accept" {
		var rows []string
		for _, r := range a.Rows {
			rows = append(rows, string(r))
		}
		return verdictText("accept", strings.Join(rows, ","))
	}
	return verdictText("refuse", string(a.Row), a.Check)
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
	if a.Expect == "accept" && len(a.Rows) == 0 {
		return "accept"
	}
	return verdictText("accept", rowsText(effect))
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
