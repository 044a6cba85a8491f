package policy_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

func mustURI(s string) mimi.URI {
	u, err := mimi.ParseURI(s)
	if err != nil {
		panic(err)
	}
	return u
}

// uri returns the URI of a user by name. The room's hub is a.example, and a name
// may have another host: bob@b.
func uri(name string) mimi.URI {
	local, host, ok := strings.Cut(name, "@")
	if !ok {
		host = "a"
	}
	kind := "u"
	if strings.HasPrefix(local, "anon") {
		kind = "p"
	}
	return mustURI("mimi://" + host + ".example/" + kind + "/" + local)
}

func clientOf(name string, n int) policy.Client {
	u := uri(name)
	return policy.Client{User: u, URI: mustURI(fmt.Sprintf("mimi://%s/d/%s/%d", u.Host(), u.Segments()[len(u.Segments())-1], n))}
}

// A tester is a testing.TB or a rapid.T.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// A kit is a room drawn in a small language. People are "alice:3 bob:2/2
// dave:1/0": name, role and number of clients, which is one unless said.
type kit struct {
	t       tester
	s       *policy.State
	code    policy.JoinCode
	holds   map[string][]policy.Credential
	clients int // numbers new clients
}

func newKit(t tester, config policy.Config, people string, components ...any) *kit {
	t.Helper()
	s, err := policy.NewState(config, drawRoom(people, components...))
	if err != nil {
		t.Fatal(err)
	}
	return &kit{t: t, s: s, holds: make(map[string][]policy.Credential), clients: 100}
}

func drawRoom(people string, components ...any) policy.Room {
	room := policy.Room{URI: mustURI("mimi://a.example/r/clubhouse"), Components: map[policy.ComponentID][]byte{
		policy.ComponentBase:         (&policy.BaseRoomPolicy{MultiDevice: true}).Marshal(),
		policy.ComponentRoomMetadata: clubhouse().Marshal(),
	}}
	for _, c := range components {
		room.Components[idOf(c)] = c.(value).Marshal()
	}
	list := new(mimi.ParticipantListData)
	for p := range strings.FieldsSeq(people) {
		name, rest, _ := strings.Cut(p, ":")
		role, clients, some := strings.Cut(rest, "/")
		if !some {
			clients = "1"
		}
		list.Participants = append(list.Participants, mimi.UserRolePair{User: uri(name), Role: mimi.RoleIndex(number(role))})
		for n := range number(clients) {
			room.Leaves = append(room.Leaves, policy.Leaf{Index: uint32(len(room.Leaves)), Client: clientOf(name, n)})
		}
	}
	room.Components[policy.ComponentParticipantList] = list.Marshal()
	return room
}

func clubhouse() *mimi.RoomMetaData {
	return &mimi.RoomMetaData{RoomURI: mustURI("mimi://a.example/r/clubhouse"), RoomName: "Clubhouse"}
}

func idOf(v any) policy.ComponentID {
	switch v.(type) {
	case *policy.RoleData:
		return policy.ComponentRoles
	case *policy.PreAuthData:
		return policy.ComponentPreauth
	case *policy.BaseRoomPolicy:
		return policy.ComponentBase
	case *policy.OperationalParameters:
		return policy.ComponentOperational
	case *policy.HistoryPolicy:
		return policy.ComponentHistory
	case *policy.BotPolicy:
		return policy.ComponentBots
	case *policy.SelfRoleChanges:
		return policy.ComponentSelfRoleChanges
	case *policy.JoinLinksData:
		return policy.ComponentJoinLinks
	}
	panic(fmt.Sprintf("no component for %T", v))
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// actor reads who acts: a name is a member by its first leaf (alice#1: by its
// second), ~name joins by an external commit, +name proposes its own KeyPackage,
// and !name is an external sender, of which !hub is the hub.
func (k *kit) actor(name string) policy.Actor {
	a := policy.Actor{Sender: policy.Member}
	switch name[0] {
	case '~':
		a.Sender = policy.NewMemberCommit
	case '+':
		a.Sender = policy.NewMemberProposal
	case '!':
		a.Sender = policy.External
	}
	plain := strings.TrimLeft(name, "~+!")
	a.Credentials = k.holds[plain]
	switch {
	case name == "!hub":
		a.User = mustURI("mimi://a.example")
	case a.Sender == policy.Member:
		plain, nth, _ := strings.Cut(plain, "#")
		leaves := k.s.LeavesOf(uri(plain))
		i := 0
		if nth != "" {
			i = number(nth)
		}
		if i >= len(leaves) {
			return policy.Actor{Sender: policy.Member, Leaf: 1 << 19, User: uri(plain)}
		}
		a.Leaf, a.User = leaves[i], uri(plain)
	default:
		plain, nth, some := strings.Cut(plain, "#")
		a.User = uri(plain)
		k.clients++
		a.Client = clientOf(plain, k.clients).URI
		if some {
			a.Client = clientOf(plain, number(nth)).URI
		}
	}
	return a
}

// proposals reads a script: +erin:2, -bob and bob>3 change the list (in one
// update), add:bob adds a client, drop:bob removes all clients of a user and
// drop:bob#1 one, self is a SelfRemove, 0x0025=HEX and 0x0026=remove update
// components, and reinit, psk, gce, update, init and custom are themselves.
func (k *kit) proposals(by policy.Actor, script string) (list []policy.Proposed) {
	u := new(mimi.ParticipantListUpdate)
	for token := range strings.FieldsSeq(script) {
		for _, p := range k.proposal(by, token, u) {
			list = append(list, policy.Proposed{By: by, Proposal: p})
		}
	}
	if len(u.AddedParticipants)+len(u.ChangedRoleParticipants)+len(u.RemovedIndices) > 0 {
		list = append(list, policy.Proposed{By: by, Proposal: policy.AppDataUpdate{Component: policy.ComponentParticipantList, Update: u.Marshal()}})
	}
	return list
}

// plainly are the proposals of a script without who makes them.
func (k *kit) plainly(by, script string) (list []policy.Proposal) {
	for _, p := range k.proposals(k.actor(by), script) {
		list = append(list, p.Proposal)
	}
	return list
}

func (k *kit) proposal(by policy.Actor, token string, u *mimi.ParticipantListUpdate) []policy.Proposal {
	plain := map[string]policy.Proposal{
		"self": policy.SelfRemove{}, "reinit": policy.ReInit{}, "psk": policy.PreSharedKey{}, "gce": policy.GroupContextExtensions{},
		"init": policy.ExternalInit{}, "custom": policy.Unknown{Type: 0xF00D}, "ack": policy.AppEphemeral{Component: policy.ComponentAppAck},
		"retract": policy.AppEphemeral{Component: policy.ComponentHubRetractedRange},
	}
	if p, ok := plain[token]; ok {
		return []policy.Proposal{p}
	}
	verb, arg, _ := strings.Cut(token, ":")
	switch {
	case token[0] == '+':
		u.AddedParticipants = append(u.AddedParticipants, mimi.UserRolePair{User: uri(verb[1:]), Role: mimi.RoleIndex(number(arg))})
	case token[0] == '-':
		u.RemovedIndices = append(u.RemovedIndices, k.index(token[1:]))
	case strings.Contains(token, ">"):
		name, role, _ := strings.Cut(token, ">")
		u.ChangedRoleParticipants = append(u.ChangedRoleParticipants, mimi.UserIndexRolePair{UserIndex: k.index(name), Role: mimi.RoleIndex(number(role))})
	case verb == "add":
		k.clients++
		return []policy.Proposal{policy.Add{Client: clientOf(arg, k.clients)}}
	case verb == "drop":
		return k.drops(arg)
	case verb == "update":
		return []policy.Proposal{policy.Update{Client: clientOf(arg, 7)}}
	case strings.HasPrefix(token, "0x"):
		return []policy.Proposal{componentUpdate(token)}
	default:
		k.t.Fatalf("no token %q", token)
	}
	return nil
}

func componentUpdate(token string) policy.Proposal {
	id, arg, _ := strings.Cut(token, "=")
	n, err := strconv.ParseUint(id, 0, 16)
	if err != nil {
		panic(err)
	}
	p := policy.AppDataUpdate{Component: policy.ComponentID(n), Remove: arg == "remove"}
	if !p.Remove {
		if p.Update, err = hex.DecodeString(arg); err != nil {
			panic(err)
		}
	}
	return p
}

// index returns a user's index in the list; one who is not there is out of
// range.
func (k *kit) index(name string) uint32 {
	if i, ok := k.s.Index(uri(name)); ok {
		return i
	}
	return uint32(k.s.Participants())
}

func (k *kit) drops(arg string) (list []policy.Proposal) {
	name, nth, one := strings.Cut(arg, "#")
	for i, leaf := range k.s.LeavesOf(uri(name)) {
		if !one || i == number(nth) {
			list = append(list, policy.Remove{Leaf: leaf})
		}
	}
	return list
}

// action reads "alice: -bob drop:bob; bob: self" as bare proposals, and with
// "carol commits " before it as a commit. A first actor ~erin commits too.
func (k *kit) action(script string) policy.Action {
	committer, rest, commits := strings.Cut(script, " commits")
	if !commits {
		rest = script
	}
	var list []policy.Proposed
	for part := range strings.SplitSeq(rest, ";") {
		name, what, some := strings.Cut(strings.TrimSpace(part), ": ")
		if !some {
			if name = strings.TrimSuffix(name, ":"); name == "" {
				continue
			}
		}
		by := k.actor(name)
		list = append(list, k.proposals(by, what)...)
		if by.Sender == policy.NewMemberCommit && !commits {
			return &policy.Commit{Committer: by, Proposals: list, Code: k.code}
		}
	}
	if commits {
		return &policy.Commit{Committer: k.actor(committer), Proposals: list, Code: k.code}
	}
	return &policy.Bundle{Proposals: list}
}

// verdict judges a script and returns "ok ROWS" or "ROW CHECK".
func (k *kit) verdict(script string) string {
	k.t.Helper()
	return verdictOf(policy.Authorize(k.s, k.action(script)))
}

func verdictOf(e *policy.Effect, err error) string {
	var refusal *policy.Refusal
	switch {
	case err == nil:
		return strings.TrimSpace("ok " + strings.Trim(fmt.Sprint(e.Rows()), "[]"))
	case errors.As(err, &refusal):
		return fmt.Sprintf("%s %s", refusal.Row, refusal.Check)
	}
	return "error " + err.Error()
}

func (k *kit) expect(script, want string) {
	k.t.Helper()
	e, err := policy.Authorize(k.s, k.action(script))
	if got := verdictOf(e, err); got != want {
		k.t.Errorf("%s: %s, want %s (%v)", script, got, want, err)
	}
}

// apply carries an allowed script out.
func (k *kit) apply(script string) {
	k.t.Helper()
	e, err := policy.Authorize(k.s, k.action(script))
	if err != nil {
		k.t.Fatalf("%s: %v", script, err)
	}
	if err := k.s.Apply(e); err != nil {
		k.t.Fatalf("%s: %v", script, err)
	}
}
