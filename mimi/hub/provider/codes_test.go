package provider_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// proposal has the member sign a proposal, which it forgets again.
func (c *crowd) proposal(p mls.Proposal) *mimi.MLSMessage {
	c.t.Helper()
	raw := must[[]byte](c.t)(c.group.Propose(c.t.Context(), p, mls.ProposeOptions{WireFormat: mls.WirePublicMessage}))
	c.group.ClearProposals()
	return must[*mimi.MLSMessage](c.t)(mimi.ParseMLSMessage(raw))
}

// role is a change of the role of user i.
func (c *crowd) role(i uint32, role mimi.RoleIndex) mls.Proposal {
	u := mimi.ParticipantListUpdate{ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: i, Role: role}}}
	return mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), u.Marshal())
}

// answer is what the hub says to a bundle.
func (c *crowd) answer(u *mimi.HandshakeBundle) *mimi.UpdateRoomResponse {
	c.t.Helper()
	u = must[*mimi.HandshakeBundle](c.t)(mimi.ParseHandshakeBundle(u.Marshal()))
	return must[*mimi.UpdateRoomResponse](c.t)(c.node.Update(c.t.Context(), c.from, c.uri, u))
}

// Each way in which an update is wrong has its code, and what is refused leaves
// nothing behind.
func TestUpdateCodes(t *testing.T) {
	w := newWorld(t, false, "a.example")
	c := w.crowd("a.example", "codes", 4)
	pending := func() int {
		t.Helper()
		return must[int](t)(func() (int, error) {
			i, err := c.node.Inspect(t.Context(), c.uri)
			if err != nil {
				return 0, err
			}
			return i.Pending, nil
		}())
	}
	want := func(what string, p *mimi.UpdateRoomResponse, code mimi.UpdateResponseCode, why string, refs ...[]byte) {
		t.Helper()
		same := len(p.InvalidProposals) == len(refs)
		for i := range refs {
			same = same && bytes.Equal(p.InvalidProposals[i], refs[i])
		}
		if p.ResponseCode != code || why != "" && p.ErrorDescription != why || !same {
			t.Errorf("%s: code %d, %q, refs %x; want %d, %q, %x", what, p.ResponseCode, p.ErrorDescription, p.InvalidProposals, code, why, refs)
		}
	}
	discard := func() { t.Helper(); ok(t, c.group.DiscardPending(t.Context())) }

	// A reference to a proposal that the hub never saw is told.
	raw := must[[]byte](t)(c.group.Propose(t.Context(), c.role(1, 3), mls.ProposeOptions{WireFormat: mls.WirePublicMessage}))
	ref := must[[]byte](t)(must[*mls.Message](t)(mls.ParseMessage(raw)).PublicMessage.ProposalRef(suite))
	unseen := c.commit()
	discard()
	c.group.ClearProposals()
	want("an unknown reference", c.answer(unseen), mimi.UpdateInvalidProposal, "", ref)

	// What comes with a commit that adds somebody fits it.
	newcomer := w.newcomers("a.example", 10, 2)
	_, user := clientNames("a.example", 10)
	users := []mimi.URI{uri(t, user)}
	add := c.commit(c.adding(newcomer[:1], users)...)
	discard()
	other := c.commit(c.adding(newcomer[1:], users)...)
	discard()
	for what, welcome := range map[string]*mls.Welcome{"no Welcome": nil, "another's Welcome": other.Welcome} {
		changed := *add
		changed.Welcome = welcome
		want(what, c.answer(&changed), mimi.UpdateNotAllowed, "")
	}
	more := *add.Welcome
	more.Secrets = append(append([]mls.EncryptedGroupSecrets(nil), more.Secrets...), other.Welcome.Secrets...)
	changed := *add
	changed.Welcome = &more
	want("a Welcome for one more", c.answer(&changed), mimi.UpdateNotAllowed, "")
	partial := *add.GroupInfo.Partial
	partial.Signature = bytes.Clone(partial.Signature)
	partial.Signature[len(partial.Signature)-1] ^= 1
	changed = *add
	changed.GroupInfo = mimi.GroupInfoOption{Partial: &partial}
	if p := c.answer(&changed); p.ResponseCode == mimi.UpdateSuccess {
		t.Error("a GroupInfo that is not signed well is taken")
	}

	// A room stays with its group: after a ReInit it could take nothing more.
	gc := c.group.Context()
	reinit := &mls.ReInit{GroupID: []byte("another"), Version: mls.MLS10, CipherSuite: suite, Extensions: gc.Extensions}
	closing := c.commit(reinit)
	discard()
	want("a commit of a ReInit", c.answer(closing), mimi.UpdateNotAllowed, "")
	if p := c.answer(&mimi.HandshakeBundle{ProposalOrCommit: c.proposal(reinit)}); p.ResponseCode == mimi.UpdateSuccess || pending() != 0 {
		t.Errorf("a ReInit: code %d, %d pending", p.ResponseCode, pending())
	}

	// A bundle is one intent: taken whole, or refused whole.
	good, bad := c.proposal(c.role(1, 3)), c.proposal(c.role(3, 77))
	if p := c.answer(&mimi.HandshakeBundle{ProposalOrCommit: good, MoreProposals: []*mimi.MLSMessage{bad}}); p.ResponseCode == mimi.UpdateSuccess || pending() != 0 {
		t.Errorf("a bundle with a bad proposal: code %d, %d pending", p.ResponseCode, pending())
	}
	late := c.commit() // of before
	discard()
	want("a good proposal", c.answer(&mimi.HandshakeBundle{ProposalOrCommit: good}), mimi.UpdateSuccess, "")
	if pending() != 1 {
		t.Errorf("%d proposals are pending, want 1", pending())
	}

	// What was accepted is not contradicted, though the roles of the epoch allow it.
	if p := c.answer(&mimi.HandshakeBundle{ProposalOrCommit: c.proposal(c.role(1, 4))}); p.ResponseCode == mimi.UpdateSuccess || pending() != 1 {
		t.Errorf("a second change of one user: code %d, %d pending", p.ResponseCode, pending())
	}
	if p := c.answer(&mimi.HandshakeBundle{ProposalOrCommit: good}); p.ResponseCode != mimi.UpdateSuccess || pending() != 1 {
		t.Errorf("the same proposal again: code %d, %d pending; want the first answer", p.ResponseCode, pending())
	}
	// And a commit leaves nothing out.
	want("a commit without what is pending", c.answer(late), mimi.UpdateNotAllowed, mimi.PendingProposals)
	if i := must[clientapi.RoomList](t)(c.node.Rooms(t.Context(), c.from.Client, c.user)); len(i) != 1 || i[0].Epoch != c.group.Epoch() {
		t.Errorf("the room is in %+v, the member in epoch %d", i, c.group.Epoch())
	}
}

// A room is made only with the hub's own entry, key and credential.
func TestRoomsHaveTheHubsKeys(t *testing.T) {
	w := newWorld(t, false, "a.example")
	node := w.hubs["a.example"]
	client, user := clientNames("a.example", 0)
	from := hub.From{Provider: "a.example", Client: uri(t, client)}
	other := newHubKeys(t, w.ca, "a.example").keys
	value := func(id policy.ComponentID, data []byte) func(mls.Extensions) mls.Extensions {
		return func(ext mls.Extensions) mls.Extensions {
			d := must[mls.AppDataDictionary](t)(ext.AppData()).With(mls.ComponentID(id), data).Extension()
			return ext.With(d.Type, d.Data)
		}
	}
	otherCredential := node.keys.keys.Franking
	otherCredential.Credential = other.Franking.Credential
	i := 0
	for name, change := range map[string]func(mls.Extensions) mls.Extensions{
		"as it should be": func(ext mls.Extensions) mls.Extensions { return ext },
		"another external sender": func(ext mls.Extensions) mls.Extensions {
			e := mls.ExternalSendersExtension(other.Sender)
			return ext.With(e.Type, e.Data)
		},
		"another franking key":        value(policy.ComponentFrankingAgent, other.Franking.Marshal()),
		"another franking credential": value(policy.ComponentFrankingAgent, otherCredential.Marshal()),
		"another room's metadata":     value(policy.ComponentRoomMetadata, (&mimi.RoomMetaData{RoomURI: uri(t, "mimi://a.example/r/other")}).Marshal()),
	} {
		i++
		c := &crowd{t: t, w: w, node: node, uri: uri(t, fmt.Sprintf("mimi://a.example/r/keys%d", i)), user: uri(t, user)}
		g := must[*mls.Group](t)(w.engine("a.example", 0).CreateGroup(t.Context(), nil, mls.GroupOptions{Extensions: change(c.extensions("a.example", 1))}))
		info := must[*mls.GroupInfo](t)(g.GroupInfo(t.Context(), mls.GroupInfoOptions{ExternalPub: true}))
		_, err := node.CreateRoom(t.Context(), from, &clientapi.CreateRoomRequest{RoomID: c.uri, GroupInfo: info, RatchetTree: mls.FullTree(g.RatchetTree())})
		if good := name == "as it should be"; good && err != nil || !good && !errors.Is(err, hub.ErrNotCreated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
