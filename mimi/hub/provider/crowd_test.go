package provider_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A crowd is a large room at a hub, of which one member is played and the
// others are there. The tree has the parents that it takes for the member's
// commits to be as short as in a room that has lived.
type crowd struct {
	t     testing.TB
	w     *world
	node  *node
	uri   mimi.URI
	from  hub.From // the member
	user  mimi.URI
	group *mls.Group
}

// clientNames are those of a client of a user of its own.
func clientNames(host string, i int) (client, user string) {
	return fmt.Sprintf("mimi://%s/d/u%d/1", host, i), fmt.Sprintf("mimi://%s/u/u%d", host, i)
}

// engine is the MLS engine of client i of a host.
func (w *world) engine(host string, i int) *mls.Client {
	w.t.Helper()
	key := identitytest.NewKey(w.t)
	client, user := clientNames(host, i)
	return must[*mls.Client](w.t)(mls.NewClient(mls.Config{
		CipherSuite: suite, Signer: key, Credential: w.ca.Client(w.t, &key.PublicKey, client, user),
		Capabilities: room.Capabilities(), Components: room.Components(), SafeAADItems: room.SafeAADItems(), MediaTypes: room.MediaTypes(),
	}))
}

// A newcomer is a client that a group may add.
type newcomer struct {
	engine *mls.Client
	entry  *mls.KeyPackageEntry
}

func (w *world) newcomers(host string, from, n int) []newcomer {
	w.t.Helper()
	list := make([]newcomer, n)
	var wg sync.WaitGroup
	for part := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := part; i < n; i += runtime.GOMAXPROCS(0) {
				e := w.engine(host, from+i)
				list[i] = newcomer{e, must[*mls.KeyPackageEntry](w.t)(e.NewKeyPackage(w.t.Context(), mls.KeyPackageOptions{}))}
			}
		})
	}
	wg.Wait()
	return list
}

// crowd makes a room of n clients, each of a user of its own, at a hub.
func (w *world) crowd(host, name string, n int) *crowd {
	w.t.Helper()
	c := &crowd{t: w.t, w: w, node: w.hubs[host], uri: uri(w.t, "mimi://"+host+"/r/"+name)}
	client, user := clientNames(host, 0)
	c.from, c.user = hub.From{Provider: host, Client: uri(w.t, client)}, uri(w.t, user)
	c.group = must[*mls.Group](w.t)(w.engine(host, 0).CreateGroup(w.t.Context(), nil, mls.GroupOptions{Extensions: c.extensions(host, n)}))
	for size := 1; size < n; size *= 2 {
		c.double(w.newcomers(host, size, min(size, n-size)))
	}
	info := must[*mls.GroupInfo](w.t)(c.group.GroupInfo(w.t.Context(), mls.GroupInfoOptions{ExternalPub: true}))
	q := &clientapi.CreateRoomRequest{RoomID: c.uri, GroupInfo: info, RatchetTree: mls.FullTree(c.group.RatchetTree())}
	if r := must[*mimi.UpdateRoomResponse](w.t)(c.node.CreateRoom(w.t.Context(), c.from, q)); r.ResponseCode != mimi.UpdateSuccess {
		w.t.Fatal(r.ErrorDescription)
	}
	return c
}

// extensions are those of a room with n participants, of whom the first may do
// most.
func (c *crowd) extensions(host string, n int) mls.Extensions {
	roles := policy.CooperativeRoles()
	own := roles.Role(4) // the member's
	own.Capabilities = append(own.Capabilities, policy.CanChangeMlsOperationalPolicies)
	slices.Sort(own.Capabilities)
	keys := c.node.keys.keys
	ext := must[mls.Extensions](c.t)((&room.Setup{
		URI: c.uri, Creator: c.user, CreatorRole: 4, Roles: roles, Hub: keys.Sender, FrankingAgent: keys.Franking,
	}).Extensions())
	list := mimi.ParticipantListData{Participants: []mimi.UserRolePair{{User: c.user, Role: 4}}}
	for i := 1; i < n; i++ {
		_, user := clientNames(host, i)
		list.Participants = append(list.Participants, mimi.UserRolePair{User: uri(c.t, user), Role: 2})
	}
	d := must[mls.AppDataDictionary](c.t)(ext.AppData()).With(mls.ComponentID(policy.ComponentParticipantList), list.Marshal()).Extension()
	return ext.With(d.Type, d.Data)
}

// double adds the right half of a tree, and has its first leaf commit, so that
// the root of that half has a key.
func (c *crowd) double(right []newcomer) {
	c.t.Helper()
	ctx := c.t.Context()
	var proposals []mls.Proposal
	for _, m := range right {
		proposals = append(proposals, &mls.Add{KeyPackage: m.entry.KeyPackage})
	}
	p := must[*mls.PendingCommit](c.t)(c.group.Commit(ctx, mls.CommitOptions{Proposals: proposals}))
	ok(c.t, c.group.MergePending(ctx))
	joined := must[*mls.Group](c.t)(right[0].engine.Join(ctx, must[*mls.Welcome](c.t)(mls.ParseWelcome(p.Welcome)),
		[]*mls.KeyPackageEntry{right[0].entry}, mls.JoinOptions{RatchetTree: c.group.RatchetTree()}))
	q := must[*mls.PendingCommit](c.t)(joined.Commit(ctx, mls.CommitOptions{WireFormat: mls.WirePublicMessage}))
	v := must[mls.Verified](c.t)(c.group.Verify(must[*mls.Message](c.t)(mls.ParseMessage(q.Message))))
	ok(c.t, c.group.Merge(ctx, must[*mls.StagedCommit](c.t)(c.group.Stage(ctx, v.(*mls.VerifiedCommit)))))
}

// commit makes a commit of the member, which the hub has yet to see.
func (c *crowd) commit(proposals ...mls.Proposal) *mimi.HandshakeBundle {
	c.t.Helper()
	p := must[*mls.PendingCommit](c.t)(c.group.Commit(c.t.Context(), mls.CommitOptions{
		Proposals: proposals, WireFormat: mls.WirePublicMessage, GroupInfo: &mls.GroupInfoOptions{ExternalPub: true},
	}))
	partial := must[*mls.PartialGroupInfo](c.t)(must[*mls.GroupInfo](c.t)(mls.ParseGroupInfo(p.GroupInfo)).Partial())
	u := &mimi.HandshakeBundle{ProposalOrCommit: must[*mimi.MLSMessage](c.t)(mimi.ParseMLSMessage(p.Message)), GroupInfo: mimi.GroupInfoOption{Partial: partial}}
	if p.Welcome != nil {
		u.Welcome = must[*mls.Welcome](c.t)(mls.ParseWelcome(p.Welcome))
	}
	return must[*mimi.HandshakeBundle](c.t)(mimi.ParseHandshakeBundle(u.Marshal()))
}

// send has the hub accept a commit.
func (c *crowd) send(u *mimi.HandshakeBundle) {
	c.t.Helper()
	r := must[*mimi.UpdateRoomResponse](c.t)(c.node.Update(c.t.Context(), c.from, c.uri, u))
	if r.ResponseCode != mimi.UpdateSuccess {
		c.t.Fatalf("the hub refuses a commit: %s", r.ErrorDescription)
	}
}

// merge has the member enter the epoch of its commit.
func (c *crowd) merge() { c.t.Helper(); ok(c.t, c.group.MergePending(c.t.Context())) }

// adding are the proposals that let clients in, each with a user of its own.
func (c *crowd) adding(list []newcomer, users []mimi.URI) []mls.Proposal {
	var u mimi.ParticipantListUpdate
	for _, user := range users {
		u.AddedParticipants = append(u.AddedParticipants, mimi.UserRolePair{User: user, Role: 2})
	}
	proposals := []mls.Proposal{mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), u.Marshal())}
	for _, m := range list {
		proposals = append(proposals, &mls.Add{KeyPackage: m.entry.KeyPackage})
	}
	return proposals
}
