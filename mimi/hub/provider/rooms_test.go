package provider_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// refusedFor fails unless an error says what it must.
func refusedFor(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want an error with %q", err, why)
	}
}

// sanIs is the claim that a certificate names a URI (a uniformResourceIdentifier
// of subjectAltName).
func sanIs(uri string) policy.Claim {
	return policy.Claim{CredentialType: uint16(mls.CredentialX509), ID: []byte{0x55, 0x1d, 0x11}, Value: []byte(uri)}
}

// preauth gives roles to those with the claims.
func preauth(roles *policy.RoleData, entries map[mimi.RoleIndex]policy.Claim) []byte {
	d := new(policy.PreAuthData)
	for i := range roles.Roles {
		if claim, ok := entries[roles.Roles[i].Index]; ok {
			d.PreauthorizedEntries = append(d.PreauthorizedEntries, policy.PreAuthRoleEntry{Claimset: []policy.Claim{claim}, TargetRole: roles.Roles[i]})
		}
	}
	return d.Marshal()
}

// Who is preauthorised joins by itself with the role that its credential gives,
// and changes its own role when the list says another; nobody else may.
func TestPreauthorized(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob, eve := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("eve/tablet@b.example")
		roles := policy.StrictRoles()
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{
			Roles: roles, Role: 4, Components: map[policy.ComponentID][]byte{policy.ComponentPreauth: preauth(roles, map[mimi.RoleIndex]policy.Claim{2: sanIs(bob.User().String())})},
		}))
		if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 2}); err == nil {
			t.Error("who is not preauthorised joins")
		}
		if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{Role: 3}); err == nil {
			t.Error("bob joins with a role for which he is not preauthorised")
		}
		must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		bob.say(clubhouse, "in")
		alice.hears(clubhouse, "in")
		_, err := bob.room(clubhouse).SetRole(t.Context(), bob.User(), 3)
		refusedFor(t, err, "row 10")
		// Now the list says that bob is an administrator.
		must[*client.Committed](t)(r.SetComponent(t.Context(), policy.ComponentPreauth, preauth(roles, map[mimi.RoleIndex]policy.Claim{3: sanIs(bob.User().String())})))
		bob.until("it has heard of it", func() bool { return bob.epoch(clubhouse) == alice.epoch(clubhouse) })
		must[*client.Committed](t)(bob.room(clubhouse).SetRole(t.Context(), bob.User(), 3))
		alice.until("bob is an administrator", func() bool { return alice.roleOf(clubhouse, bob.User()) == 3 })
		w.check(clubhouse, alice, bob)
	})
}

func (p *person) roleOf(room string, user mimi.URI) mimi.RoleIndex {
	p.t.Helper()
	for _, q := range must[*client.Info](p.t)(p.room(room).Info(p.t.Context())).Participants {
		if q.User == user {
			return q.Role
		}
	}
	return mimi.RoleNone
}

// A client that is kicked stays a participant and may come back; who is banned
// may not, until somebody lifts the ban.
func TestKickAndBan(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	out := func() { bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft }) }
	must[*client.Committed](t)(r.Kick(t.Context(), bob.User(), mimi.URI{}))
	out()
	if alice.roleOf(clubhouse, bob.User()) == mimi.RoleNone {
		t.Error("who was kicked is off the list")
	}
	must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	bob.say(clubhouse, "back")
	alice.hears(clubhouse, "back")
	must[*client.Committed](t)(r.Ban(t.Context(), bob.User()))
	out()
	if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
		t.Error("who is banned joins again")
	}
	must[*client.Committed](t)(r.SetRole(t.Context(), bob.User(), 2))
	must[*client.Room](t)(bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	w.check(clubhouse, alice, bob)
}

// In a room of fixed membership nobody comes or goes, but clients do; and there
// is one such room for a set of participants.
func TestFixedMembership(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@b.example")
	roles := policy.CooperativeRoles()
	for i := range roles.Roles {
		roles.Roles[i].Capabilities = without(roles.Roles[i].Capabilities, policy.CanAddParticipant)
	}
	// The membership is complete before it is fixed.
	r := alice.create(clubhouse, bob)
	fixed := policy.BaseRoomPolicy{MultiDevice: true, FixedMembership: true}
	_, err := r.SetComponent(t.Context(), policy.ComponentBase, fixed.Marshal())
	refusedFor(t, err, "fixed-membership") // as long as a role may add participants
	roles = withRole(t, roles, 4, policy.CanChangeRoleDefinitions)
	again := uri(t, "mimi://a.example/r/direct")
	d := must[*client.Room](t)(alice.CreateRoom(t.Context(), again, client.RoomOptions{Roles: withRole(t, policy.CooperativeRoles(), 4, policy.CanChangeRoleDefinitions)}))
	must[*client.Committed](t)(d.Add(t.Context(), bob.User(), client.AddOptions{}))
	must[*client.Committed](t)(d.SetComponent(t.Context(), policy.ComponentRoles, roles.Marshal()))
	must[*client.Committed](t)(d.SetComponent(t.Context(), policy.ComponentBase, fixed.Marshal()))
	_, err = d.Add(t.Context(), cathy.User(), client.AddOptions{Role: 2})
	refusedFor(t, err, "policy: refused")
	_, err = d.Remove(t.Context(), bob.User())
	refusedFor(t, err, "fixed-membership")
	laptop := w.person("bob/laptop@b.example")
	must[*client.Room](t)(laptop.Join(t.Context(), again, client.JoinOptions{}))
	bob.until("it is in the room", func() bool { return bob.status(again.String()) == client.RoomMember })
	w.check(again.String(), alice, bob, laptop)
	if _, err := bob.room(again.String()).Leave(t.Context()); err == nil {
		t.Error("a participant leaves a room of fixed membership")
	}
	// Another room of the same participants is not fixed, and goes on; one with
	// another participant is.
	other := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/other"), client.RoomOptions{Roles: policy.StrictRoles()}))
	must[*client.Committed](t)(other.Add(t.Context(), bob.User(), client.AddOptions{Role: 2}))
	_, err = other.FixMembership(t.Context())
	refusedFor(t, err, "another room of fixed membership")
	must[*client.Committed](t)(other.Add(t.Context(), cathy.User(), client.AddOptions{Role: 2}))
	must[*client.Committed](t)(other.FixMembership(t.Context()))
	if i := must[*client.Info](t)(other.Info(t.Context())); !i.Base.FixedMembership {
		t.Error("the membership is not fixed")
	}
	w.check(other.URI().String(), alice)
	_, err = other.Remove(t.Context(), cathy.User())
	refusedFor(t, err, "fixed-membership")
}

// commits takes in what is new, and commits what waits in rooms.
func (p *person) commits(rooms ...string) {
	p.t.Helper()
	ok(p.t, p.Sync(p.t.Context()))
	for _, room := range rooms {
		if p.status(room) == client.RoomMember && must[*client.Info](p.t)(p.room(room).Info(p.t.Context())).Pending > 0 {
			must[*client.Committed](p.t)(p.room(room).Refresh(p.t.Context()))
		}
	}
}

func without(list []policy.Capability, c policy.Capability) (rest []policy.Capability) {
	for _, have := range list {
		if have != c {
			rest = append(rest, have)
		}
	}
	return rest
}

// A room that depends on a parent takes nobody who is not in the parent, and
// whoever goes from the parent goes from it.
func TestParentRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		const side = "mimi://a.example/r/side"
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy, dave := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example"), w.person("dave/phone@a.example")
		parent := alice.create(clubhouse, bob, cathy)
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, side), client.RoomOptions{
			Base: &policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: clubhouse},
		}))
		_, err := r.Add(t.Context(), dave.User(), client.AddOptions{})
		refusedFor(t, err, "parent")
		must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
		bob.until("it is in the side room", func() bool { return bob.status(side) == client.RoomMember })
		_, err = r.Add(t.Context(), cathy.User(), client.AddOptions{})
		refusedFor(t, err, "parent") // all of the parent's would be in it
		must[*client.Committed](t)(parent.Add(t.Context(), dave.User(), client.AddOptions{}))
		must[*client.Committed](t)(r.Add(t.Context(), cathy.User(), client.AddOptions{}))
		cathy.until("it is in the side room", func() bool { return cathy.status(side) == client.RoomMember })
		// Bob is removed from the parent, and Cathy leaves it.
		must[*client.Committed](t)(parent.Remove(t.Context(), bob.User()))
		bob.until("it is out of both", func() bool {
			alice.commits(side)
			return bob.status(clubhouse) == client.RoomLeft && bob.status(side) == client.RoomLeft
		})
		must[client.RoomStatus](t)(cathy.room(clubhouse).Leave(t.Context()))
		cathy.until("it is out of both", func() bool {
			alice.commits(clubhouse, side)
			return cathy.status(clubhouse) == client.RoomLeft && cathy.status(side) == client.RoomLeft
		})
		if i := w.check(side, alice); len(i.Participants) != 1 || len(i.Members) != 1 {
			t.Errorf("the side room has %v with %v", i.Participants, i.Members)
		}
	})
}

// A leave that waits is taken along by an external commit: the SelfRemove and
// the AppDataUpdate that takes the user off the list.
func TestLeaveInExternalCommit(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
		alice.create(clubhouse, bob)
		must[client.RoomStatus](t)(bob.room(clubhouse).Leave(t.Context()))
		laptop := w.person("alice/laptop@a.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		i := w.check(clubhouse, alice, laptop)
		if len(i.Participants) != 1 || len(i.Members) != 2 || i.Pending != 0 {
			t.Errorf("after the external commit: %v with %v, %d pending", i.Participants, i.Members, i.Pending)
		}
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
	})
}

// An external commit cannot have the hub's Remove: the hub proposes it anew,
// stapled to the commit, and a member commits it.
func TestHubProposesAnew(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		alice.create(clubhouse, bob, cathy)
		n := w.hubs["a.example"]
		ok(t, n.ExpelClient(t.Context(), bob.URI()))
		laptop := w.person("cathy/laptop@c.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
		if i := w.check(clubhouse); i.Pending != 1 {
			t.Errorf("%d proposals are pending after the external commit, want the hub's Remove again", i.Pending)
		}
		joined := must[*client.Info](t)(laptop.room(clubhouse).Info(t.Context())).Epoch
		for _, p := range []*person{alice, cathy, laptop} { // over notify, and to the joiner
			p.until("it has the proposal", func() bool {
				i := must[*client.Info](t)(p.room(clubhouse).Info(t.Context()))
				return i.Pending == 1 || i.Epoch > joined // a member that has it may have committed it by now
			})
		}
		laptop.say(clubhouse, "x")
		bob.until("it is out", func() bool { return bob.status(clubhouse) == client.RoomLeft })
		w.check(clubhouse, alice, cathy, laptop)
	})
}

// A room that is destroyed ends for its members here and elsewhere, and so does
// one that depends on it. What its hub says is the last that a follower hears.
func TestDestroyedRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		const side = "mimi://a.example/r/side"
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, adam, bob, cathy := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		r := alice.create(clubhouse, adam, bob, cathy)
		s := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, side), client.RoomOptions{
			Base: &policy.BaseRoomPolicy{MultiDevice: true, ParentDependant: true, ParentRoom: clubhouse},
		}))
		must[*client.Committed](t)(s.Add(t.Context(), bob.User(), client.AddOptions{}))
		bob.until("it is in the side room", func() bool { return bob.status(side) == client.RoomMember })
		if err := adam.room(clubhouse).Destroy(t.Context()); err == nil {
			t.Error("who may not destroys the room")
		}
		w.net.Name("c.example", "") // nobody reaches it
		ok(t, r.Destroy(t.Context()))
		for _, p := range []*person{alice, adam, bob} {
			p.until("the room is closed", func() bool { return p.status(clubhouse) == client.RoomClosed })
			p.nothingRefused()
		}
		bob.until("the side room is closed", func() bool { return bob.status(side) == client.RoomClosed })
		if _, err := bob.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
			t.Error("somebody joins a room that is no more")
		}
		// c.example has not heard of it, and finds out when it asks.
		if _, err := cathy.room(clubhouse).Text(t.Context(), "anybody?"); err == nil {
			t.Error("a message to a room that is no more is accepted")
		}
		cathy.until("the room is closed", func() bool { return cathy.status(clubhouse) == client.RoomClosed })
		if list, err := cathy.Client.Rooms(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("cathy's rooms: %v %v", list, err)
		}
		// What was under way to it comes late, and is no room's.
		w.servePeers(w.hubs["c.example"])
		cathy.nothingRefused()
	})
}

// Messages of the epoch before somebody came are answered with the new epoch:
// the newcomer could not read them. The sender sends again.
func TestNobodyMissesWhatComesAfter(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example")
		alice, adam, bob := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example")
		r := alice.create(clubhouse, adam)
		must[*client.Committed](t)(r.Refresh(t.Context()))
		adam.say(clubhouse, "one") // of the epoch before: nobody came in this one
		must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
		w.hubs["a.example"].Forget() // what the store knows decides as well
		adam.say(clubhouse, "two")   // Adam has not heard of Bob
		bob.until("it is in the room", func() bool { return bob.status(clubhouse) == client.RoomMember })
		bob.hears(clubhouse, "two")
		bob.nothingRefused()
		alice.hears(clubhouse, "one two")
	})
}

// What mls_operational_policy says, the hub holds everybody to.
func TestOperationalParameters(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example")
	room := func(name string, change func(*policy.OperationalParameters)) (*client.Room, error) {
		ops := &policy.OperationalParameters{ExternalCommitAllowed: true, ExternalProposalAllowed: true}
		change(ops)
		return alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/"+name), client.RoomOptions{
			Components: map[policy.ComponentID][]byte{policy.ComponentOperational: ops.Marshal()},
		})
	}
	_, err := room("component", func(o *policy.OperationalParameters) {
		o.MandatoryCapabilities.ComponentIDs = []policy.ComponentID{0x7777}
	})
	refusedFor(t, err, "component")
	_, err = room("credential", func(o *policy.OperationalParameters) {
		o.ForbiddenCapabilities.Credentials = []uint16{uint16(mls.CredentialX509)}
	})
	refusedFor(t, err, "credential")
	_, err = room("lifetime", func(o *policy.OperationalParameters) { o.MaxKPLifetime = 60 })
	refusedFor(t, err, "the room allows 60")
	r := must[*client.Room](t)(room("closed", func(o *policy.OperationalParameters) { o.ExternalCommitAllowed = false }))
	must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
	if _, err := w.person("bob/watch@b.example").Join(t.Context(), r.URI(), client.JoinOptions{}); err == nil {
		t.Error("a client joins by external commit where none is allowed")
	}
	for _, tolerance := range []uint8{0, 2} {
		r := must[*client.Room](t)(room(fmt.Sprint("tolerance", tolerance), func(o *policy.OperationalParameters) {
			o.AppMessagePolicy.EpochTolerance = tolerance
		}))
		must[*client.Sent](t)(r.Text(t.Context(), "one"))
		old := w.messageAt(alice, "a.example")
		for behind := range uint8(4) {
			q := &mimi.SubmitMessageRequest{Protocol: mimi.ProtocolMLS10, AppMessage: rewriteAs(t, old, behind), SendingURI: alice.User()}
			p := must[*mimi.SubmitMessageResponse](t)(w.hubs["a.example"].Submit(t.Context(), hub.From{Provider: "a.example", Client: alice.URI()}, r.URI(), q))
			if taken := p.StatusCode == mimi.SubmitAccepted; taken != (behind <= tolerance) || !taken && p.CurrentEpoch != uint64(behind) {
				t.Errorf("tolerance %d: a message %d epochs behind gets %+v", tolerance, behind, p)
			}
			must[*client.Committed](t)(r.Refresh(t.Context()))
		}
	}
}

// rewriteAs is rewrite with octets of which there are several.
func rewriteAs(t *testing.T, m *mimi.MLSMessage, n uint8) *mimi.MLSMessage {
	b := append([]byte(nil), m.Bytes()...)
	b[len(b)-1] ^= n + 1
	return must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(b))
}

// Another provider that the room lists as an external sender may propose what
// the role allows for which it is preauthorised, and nothing without one. The
// room's members commit it.
func TestExternalSender(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example", "b.example", "c.example")
		alice, bob, cathy := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("cathy/watch@c.example")
		b, c := w.hubs["b.example"], w.hubs["c.example"]
		roles := policy.CooperativeRoles()
		room := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{
			Roles: roles, Role: 4, Senders: []mls.ExternalSender{b.keys.keys.Sender, c.keys.keys.Sender},
			Components: map[policy.ComponentID][]byte{policy.ComponentPreauth: preauth(roles, map[mimi.RoleIndex]policy.Claim{5: sanIs("mimi://b.example")})},
		}))
		for _, p := range []*person{bob, cathy} {
			must[*client.Committed](t)(room.Add(t.Context(), p.User(), client.AddOptions{Role: 2}))
			p.until("it is in the room", func() bool { return p.status(clubhouse) == client.RoomMember })
		}
		// propose has a provider propose, as the external sender with an index, to
		// take a user off the list with its clients.
		propose := func(n *node, index uint32, user mimi.URI) *mimi.UpdateRoomResponse {
			t.Helper()
			h := w.hubs["a.example"]
			i := must[*provider.Inspection](t)(h.Inspect(t.Context(), uri(t, clubhouse)))
			gc := must[mls.GroupContext](t)(h.GroupContext(t.Context(), uri(t, clubhouse)))
			var update mimi.ParticipantListUpdate
			for at, p := range i.Participants {
				if p.User == user {
					update.RemovedIndices = append(update.RemovedIndices, uint32(at))
				}
			}
			list := []mls.Proposal{mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), update.Marshal())}
			for _, m := range i.Members {
				if m.User == user {
					list = append(list, &mls.Remove{Removed: mls.LeafIndex(m.Leaf)})
				}
			}
			u := new(mimi.HandshakeBundle)
			for _, p := range list {
				m := must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(must[[]byte](t)(mls.ProposeExternally(t.Context(), n.keys.keys.SenderSigner, &gc, index, p, nil))))
				if u.ProposalOrCommit == nil {
					u.ProposalOrCommit = m
				} else {
					u.MoreProposals = append(u.MoreProposals, m)
				}
			}
			answer, err := n.peer.Do(t.Context(), "a.example", peer.Update, clubhouse, u.Marshal())
			ok(t, err)
			return must[*mimi.UpdateRoomResponse](t)(mimi.ParseUpdateRoomResponse(answer))
		}
		if p := propose(c, 2, bob.User()); p.ResponseCode != mimi.UpdateNotAllowed {
			t.Errorf("a sender without a role: %+v", p)
		}
		if p := propose(b, 1, cathy.User()); p.ResponseCode != mimi.UpdateSuccess {
			t.Fatalf("the enforcer: %+v", p)
		}
		alice.until("the removal is committed", func() bool { alice.commits(clubhouse); return w.size(clubhouse) == 2 })
		cathy.until("it is out", func() bool { return cathy.status(clubhouse) == client.RoomLeft })
		w.sendersFollow(alice, bob, cathy) // what the hub proposes next would move a check here
	})
}

// sendersFollow has the entry of c.example go, whose last participant has left,
// and come back with cathy. An external commit that cuts the proposal off does
// not change that, nor does what is in memory.
func (w *world) sendersFollow(alice, bob, cathy *person) {
	t, n := w.t, w.hubs["a.example"]
	t.Helper()
	// A removal that took two commits may have the entry gone with the second.
	pending := func() bool {
		gc := must[mls.GroupContext](t)(n.GroupContext(t.Context(), uri(t, clubhouse)))
		listed := must[[]mls.ExternalSender](t)(gc.Extensions.ExternalSenders())
		return len(listed) == 2 || must[*provider.Inspection](t)(n.Inspect(t.Context(), uri(t, clubhouse))).Pending == 1
	}
	lists := func(what, want string) {
		t.Helper()
		alice.until(what, func() bool {
			alice.commits(clubhouse)
			var hosts []string
			for _, u := range must[*client.Info](t)(alice.room(clubhouse).Info(t.Context())).Senders {
				hosts = append(hosts, u.Host())
			}
			return strings.Join(hosts, " ") == want
		})
	}
	n.eventually(t, "the entry's end is proposed", pending)
	laptop := w.person("bob/laptop@b.example")
	must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}))
	n.Forget()
	n.eventually(t, "it is proposed again", pending)
	lists("c.example is not listed any more", "a.example b.example")
	must[*client.Committed](t)(alice.room(clubhouse).Add(t.Context(), cathy.User(), client.AddOptions{Role: 2}))
	lists("c.example is listed again", "a.example b.example c.example")
	cathy.until("it is back", func() bool { return cathy.status(clubhouse) == client.RoomMember })
	n.eventually(t, "nothing is kept of it", func() bool { return len(n.delistedFrom(t)) == 0 })
	w.check(clubhouse, alice, bob, laptop, cathy)
}

func (n *node) delistedFrom(t testing.TB) []mimi.URI {
	t.Helper()
	return must[[]mimi.URI](t)(n.Delisted(t.Context()))
}

// A credential that is suspended keeps its leaf. Until it is valid again its
// holder is not heard, comes into no room, and nobody can add it.
func TestSuspension(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := knownWorld(t, pg, "a.example", "b.example")
		dir := t.TempDir()
		crl := filepath.Join(dir, "holds.crl")
		entry := w.ca.Entry(t, dir, "test", "a.example", "b.example")
		entry["revocation"] = map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": []string{"holds.crl"}}
		w.ca.WriteCRL(t, crl, 1)
		var later atomic.Int64 // a list is asked for every few seconds at most, by this clock
		_, strict := identitytest.Open(t, identitytest.WriteConfig(t, dir, nil, entry), func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
		w.mods = append(w.mods, func(c *provider.Config) {
			c.Evaluator = hub.TrustEvaluator{Evaluator: strict}
		})
		for _, h := range []string{"a.example", "b.example"} {
			w.hubs[h] = w.start(h, w.source(), newHubKeys(t, w.ca, h))
		}
		n := w.hubs["a.example"]
		go n.Follow(t.Context(), strict)
		alice, adam, bob, carol := w.person("alice/phone@a.example"), w.person("adam/phone@a.example"), w.person("bob/tablet@b.example"), w.person("carol/phone@b.example")
		r := alice.create(clubhouse, adam, bob)
		for _, p := range []*person{alice, adam, bob} {
			p.until("it is in the newest epoch", func() bool { return p.epoch(clubhouse) == alice.epoch(clubhouse) })
		}
		w.ca.WriteHolds(t, crl, 2, adam.serial(), bob.serial(), carol.serial())
		ok(t, strict.Refresh(t.Context(), "test"))
		n.eventually(t, "two leaves are held", func() bool { return n.held(t, clubhouse) == 2 })
		n.Forget()                               // what the store knows decides as well
		for _, p := range []*person{adam, bob} { // of the hub's provider and of another
			if _, err := p.room(clubhouse).Text(t.Context(), "hello"); !errors.Is(err, client.ErrNotAllowed) {
				t.Errorf("%s is suspended and sends: %v", p.name, err)
			}
			_, err := p.room(clubhouse).Refresh(t.Context())
			refusedFor(t, err, "not heard")
		}
		if _, err := r.Add(t.Context(), carol.User(), client.AddOptions{}); err == nil {
			t.Error("who is suspended is added")
		}
		if i := w.check(clubhouse, alice); len(i.Members) != 3 || i.Pending != 0 {
			t.Errorf("%d leaves and %d pending: a suspension removes nobody", len(i.Members), i.Pending)
		}
		// A node that cannot learn of the suspension does not end it.
		ok(t, os.Rename(crl, crl+".away"))
		_, blind := identitytest.Open(t, filepath.Join(dir, "trust.json"), nil)
		short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		n.Follow(short, blind)
		cancel()
		if n.held(t, clubhouse) != 2 {
			t.Error("a suspension ends because nothing can be learned of it")
		}
		w.ca.WriteCRL(t, crl, 3)
		later.Store(int64(10 * time.Second))
		ok(t, strict.Refresh(t.Context(), "test"))
		n.eventually(t, "nobody is held", func() bool { return n.held(t, clubhouse) == 0 })
		adam.say(clubhouse, "one")
		alice.hears(clubhouse, "one")
		bob.say(clubhouse, "two")
		alice.hears(clubhouse, "one two")
		must[*client.Committed](t)(r.Add(t.Context(), carol.User(), client.AddOptions{}))
		w.check(clubhouse, alice, adam, bob, carol)
		// Nor is anything else of the room done for who is suspended.
		w.ca.WriteHolds(t, crl, 4, alice.serial())
		later.Store(int64(20 * time.Second))
		ok(t, strict.Refresh(t.Context(), "test"))
		n.eventually(t, "the owner is held", func() bool { return n.held(t, clubhouse) == 1 })
		_, err := r.JoinCode(t.Context(), 2, 3600, 1)
		refusedFor(t, err, "not heard")
		refusedFor(t, r.Destroy(t.Context()), "not heard")
		w.check(clubhouse, alice, adam, bob, carol)
	})
}

// A node that judged by an older list ends no suspension that another has noted
// since it looked.
func TestSuspensionNotedMeanwhile(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example")
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@a.example")
		alice.create(clubhouse, bob)
		n := w.hubs["a.example"]
		var id hub.CredentialID
		for _, m := range must[*provider.Inspection](t)(n.Inspect(t.Context(), uri(t, clubhouse))).Members {
			if m.Client == bob.URI() {
				id = m.Credential
			}
		}
		nothing := map[hub.CredentialID]bool{}
		before := must[provider.Suspensions](t)(n.Suspended(t.Context()))
		ok(t, n.Suspend(t.Context(), map[hub.CredentialID]bool{id: true}, before))
		ok(t, n.Suspend(t.Context(), nothing, before))
		if n.held(t, clubhouse) != 1 {
			t.Error("a suspension was ended by who had not seen it")
		}
		ok(t, n.Suspend(t.Context(), nothing, must[provider.Suspensions](t)(n.Suspended(t.Context()))))
		if n.held(t, clubhouse) != 0 {
			t.Error("a suspension that was seen is not ended")
		}
	})
}

// serial is the serial number of a client's certificate.
func (p *person) serial() *big.Int {
	p.t.Helper()
	chain := must[[][]byte](p.t)(p.cfg.Custody.Credential.Certificates())
	return must[*x509.Certificate](p.t)(x509.ParseCertificate(chain[0])).SerialNumber
}

// held counts the leaves of a room that are suspended.
func (n *node) held(t *testing.T, room string) (held int) {
	for _, m := range must[*provider.Inspection](t)(n.Inspect(t.Context(), uri(t, room))).Members {
		if m.Suspended {
			held++
		}
	}
	return held
}

func (n *node) eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %s did not come true", n.host, what)
		}
	}
}

// Nobody whom no issuer has proven gets a role above basic_max_role, whoever
// gives it.
func TestBasicMaxRole(t *testing.T) {
	w := knownWorld(t, false, "a.example")
	dir := t.TempDir()
	basic := map[string]any{"mode": "allow", "basic_max_role": 2}
	_, w.eval = identitytest.Open(t, identitytest.WriteConfig(t, dir, map[string]any{"basic": basic}, w.ca.Entry(t, dir, "test", "a.example")), nil)
	w.mods = append(w.mods, func(c *provider.Config) { c.AdmitBasic, c.OpenRegistration = true, true })
	w.hubs["a.example"] = w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
	alice := w.person("alice/phone@a.example")
	eve := w.person("eve/phone@a.example", func(c *client.Config) {
		c.Custody.Credential = mls.BasicCredential([]byte("mimi://a.example/d/eve/phone"))
	})
	const why = "basic_max_role"
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{}))
	_, err := r.Add(t.Context(), eve.User(), client.AddOptions{Role: 3})
	refusedFor(t, err, why)
	must[*client.Committed](t)(r.Add(t.Context(), eve.User(), client.AddOptions{Role: 2}))
	eve.until("it is in the room", func() bool { return eve.status(clubhouse) == client.RoomMember })
	w.hubs["a.example"].Forget()
	_, err = r.SetRole(t.Context(), eve.User(), 3)
	refusedFor(t, err, why)
	must[*client.Committed](t)(r.Remove(t.Context(), eve.User()))
	must[*client.Committed](t)(r.Add(t.Context(), eve.User(), client.AddOptions{Role: 3, WithoutClients: true}))
	if _, err := eve.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
		t.Error("a client without proof comes in under a role above the bound")
	}
	_, err = eve.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/eves"), client.RoomOptions{})
	refusedFor(t, err, why)
	eves := must[*client.Room](t)(eve.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/eves"), client.RoomOptions{Role: 2}))
	must[*client.Sent](t)(eves.Text(t.Context(), "hello"))
}

// Nobody joins a user whom an issuer has proven by saying that it is one of its
// clients, neither by an Add nor by an external commit.
func TestAssertionJoinsNobodyProven(t *testing.T) {
	w := knownWorld(t, false, "a.example")
	dir := t.TempDir()
	basic := map[string]any{"mode": "allow", "basic_max_role": 9}
	_, w.eval = identitytest.Open(t, identitytest.WriteConfig(t, dir, map[string]any{"basic": basic}, w.ca.Entry(t, dir, "test", "a.example")), nil)
	w.mods = append(w.mods, func(c *provider.Config) { c.AdmitBasic, c.OpenRegistration = true, true })
	w.hubs["a.example"] = w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
	asserted := func(name string) *person {
		return w.person(name+"@a.example", func(c *client.Config) {
			c.Custody.Credential = mls.BasicCredential([]byte("mimi://a.example/d/" + name))
		})
	}
	alice, laptop := w.person("alice/phone@a.example"), asserted("alice/laptop")
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{}))
	if _, err := r.AddOwnClients(t.Context()); err == nil {
		t.Error("a client that is only asserted was added to one that is proven")
	}
	if _, err := laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{}); err == nil {
		t.Error("a client that is only asserted has joined one that is proven")
	}
	if n := w.size(clubhouse); n != 1 {
		t.Errorf("%d clients are in the room", n)
	}
	eve := asserted("eve/phone")
	must[*client.Committed](t)(r.Add(t.Context(), eve.User(), client.AddOptions{Role: 2})) // as there is nobody of that name
}

// In a room of SemiPrivateMessages members and the hub follow what happens, also
// over a restart, and a follower passes on what it cannot read.
func TestSemiPrivateRoom(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := knownWorld(t, pg, "a.example", "b.example")
		secret := must[*ecdh.PrivateKey](t)(ecdh.P256().GenerateKey(rand.Reader))
		key := must[hpke.PrivateKey](t)(hpke.NewDHKEMPrivateKey(secret))
		opened := new(atomic.Int64)
		w.mods = append(w.mods, func(c *provider.Config) {
			c.ReceiverKey = func(_ context.Context, public []byte) (hpke.PrivateKey, error) {
				if c.Domain != "a.example" || !bytes.Equal(public, secret.PublicKey().Bytes()) {
					return nil, nil
				}
				opened.Add(1)
				return key, nil
			}
		})
		for _, h := range []string{"a.example", "b.example"} {
			keys := newHubKeys(t, w.ca, h)
			if h == "a.example" {
				keys.keys.Receiver = &mls.ExternalReceiver{PublicKey: secret.PublicKey().Bytes(), Credential: keys.keys.Sender.Credential}
			}
			w.hubs[h] = w.start(h, w.source(), keys)
		}
		alice, bob, ben := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("ben/phone@b.example")
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{SemiPrivate: true}))
		must[*client.Committed](t)(r.Add(t.Context(), bob.User(), client.AddOptions{}))
		bob.until("it is in the room", func() bool { return bob.status(clubhouse) == client.RoomMember })
		must[*client.Committed](t)(r.Add(t.Context(), ben.User(), client.AddOptions{}))
		ben.until("it is in the room", func() bool { return ben.status(clubhouse) == client.RoomMember })
		bob.until("it has taken in the commit", func() bool { return bob.epoch(clubhouse) == alice.epoch(clubhouse) })
		must[*client.Committed](t)(bob.room(clubhouse).Refresh(t.Context()))
		ben.say(clubhouse, "hello")
		for _, p := range []*person{alice, bob, ben} {
			p.hears(clubhouse, "hello")
		}
		if opened.Load() == 0 {
			t.Error("the hub has opened no SemiPrivateMessage")
		}
		for _, e := range w.events(bob.URI(), "b.example") {
			if f, err := e.Fanout(); err == nil && f.Message.ContentType == mls.ContentCommit && f.Message.WireFormat != mls.WireSemiPrivateMessage {
				t.Errorf("a commit reached the follower in wire format 0x%04x", uint16(f.Message.WireFormat))
			}
		}
		w.check(clubhouse, alice, bob, ben) // and what the store makes of it
		laptop := w.person("alice/laptop@a.example")
		must[*client.Room](t)(laptop.Join(t.Context(), uri(t, clubhouse), client.JoinOptions{})) // in public, as MLS has it
		must[client.RoomStatus](t)(ben.room(clubhouse).Leave(t.Context()))
		laptop.until("the leave is committed", func() bool { laptop.commits(clubhouse); return w.size(clubhouse) == 3 })
		w.check(clubhouse, alice, bob, laptop)
		_, err := bob.CreateRoom(t.Context(), uri(t, "mimi://b.example/r/x"), client.RoomOptions{SemiPrivate: true})
		refusedFor(t, err, "reads no SemiPrivateMessages")
	})
}
