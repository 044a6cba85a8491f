package room_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// names reads identities from basic credentials.
type names struct{}

func (names) Leaf(_ context.Context, leaf *mls.LeafNode) (room.Identity, error) {
	id, err := identity.FromBasic(leaf.Credential.Identity(), "")
	if err != nil {
		return room.Identity{}, err
	}
	return room.Identity{Client: policy.Client{User: id.User, URI: id.Client}}, nil
}

func (names) Credentials(context.Context, *mls.LeafNode) ([]policy.Credential, error) {
	return nil, nil
}

func (names) ExternalSender(_ context.Context, s mls.ExternalSender) (room.Sender, error) {
	uri, err := mimi.ParseURI(string(s.Credential.Identity()))
	return room.Sender{URI: uri}, err
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func uri(t *testing.T, s string) mimi.URI { return must[mimi.URI](t)(mimi.ParseURI(s)) }

func newKey(t *testing.T) *ecdsa.PrivateKey {
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func publicKey(t *testing.T, k *ecdsa.PrivateKey) []byte { return must[[]byte](t)(k.PublicKey.Bytes()) }

func newClient(t *testing.T, name string) *mls.Client {
	return must[*mls.Client](t)(mls.NewClient(mls.Config{
		CipherSuite: mls.P256AES128SHA256P256, Signer: newKey(t), Credential: mls.BasicCredential([]byte(name)),
		Capabilities: room.Capabilities(), Components: room.Components(), SafeAADItems: room.SafeAADItems(), MediaTypes: room.MediaTypes(),
	}))
}

// clubhouse is a room of alice, whose hub's external sender has the key.
func clubhouse(t *testing.T, hub *ecdsa.PrivateKey) *mls.Group {
	ext := must[mls.Extensions](t)((&room.Setup{
		URI: uri(t, "mimi://a.example/r/clubhouse"), Creator: uri(t, "mimi://a.example/u/alice"), CreatorRole: 3,
		Roles: policy.CooperativeRoles(), Metadata: &mimi.RoomMetaData{RoomName: "Clubhouse"},
		Hub:           mls.ExternalSender{SignatureKey: publicKey(t, hub), Credential: mls.BasicCredential([]byte("mimi://a.example"))},
		FrankingAgent: mimi.FrankingAgent{SignatureKey: publicKey(t, hub), Credential: mls.BasicCredential([]byte("mimi://a.example"))},
	}).Extensions())
	return must[*mls.Group](t)(newClient(t, "mimi://a.example/d/alice/phone").CreateGroup(t.Context(), nil, mls.GroupOptions{Extensions: ext}))
}

func stateOf(t *testing.T, g *mls.Group) *policy.State {
	gc := g.Context()
	return must[*policy.State](t)(room.NewState(t.Context(), policy.Config{Member: true}, gc.Extensions, g.Members(), names{}))
}

func addition(t *testing.T, role mimi.RoleIndex, user string) mls.Proposal {
	u := mimi.ParticipantListUpdate{AddedParticipants: []mimi.UserRolePair{{User: uri(t, user), Role: role}}}
	return mls.UpdateAppData(mls.ComponentID(policy.ComponentParticipantList), u.Marshal())
}

// What policy makes of a commit is what the group becomes.
func TestCommitOfAnAddition(t *testing.T) {
	g := clubhouse(t, newKey(t))
	s := stateOf(t, g)
	bob := must[*mls.KeyPackageEntry](t)(newClient(t, "mimi://b.example/d/bob/tablet").NewKeyPackage(t.Context(), mls.KeyPackageOptions{}))
	p := must[*mls.PendingCommit](t)(g.Commit(t.Context(), mls.CommitOptions{
		Proposals: []mls.Proposal{addition(t, 2, "mimi://b.example/u/bob"), &mls.Add{KeyPackage: bob.KeyPackage}}, WireFormat: mls.WirePublicMessage,
	}))
	effect := must[*policy.Effect](t)(policy.Authorize(s, must[*policy.Commit](t)(room.Action(t.Context(), p.Staged, names{}))))
	if rows := effect.Rows(); !slices.Contains(rows, "1") {
		t.Errorf("allowed by rows %v, want row 1 among them", rows)
	}
	if err := s.Apply(effect); err != nil {
		t.Fatal(err)
	}
	if err := g.MergePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*policy.State{s, stateOf(t, g)} {
		if role := s.RoleOf(uri(t, "mimi://b.example/u/bob")); role != 2 {
			t.Errorf("bob has role %d, want 2", role)
		}
		if c, _ := s.Client(1); c.URI != uri(t, "mimi://b.example/d/bob/tablet") {
			t.Errorf("leaf 1 is of %s", c.URI)
		}
	}
}

// An addition without the participant is well-formed MLS, and no policy allows
// it.
func TestCommitOfAStranger(t *testing.T) {
	g := clubhouse(t, newKey(t))
	eve := must[*mls.KeyPackageEntry](t)(newClient(t, "mimi://b.example/d/eve/tablet").NewKeyPackage(t.Context(), mls.KeyPackageOptions{}))
	p := must[*mls.PendingCommit](t)(g.Commit(t.Context(), mls.CommitOptions{Proposals: []mls.Proposal{&mls.Add{KeyPackage: eve.KeyPackage}}}))
	_, err := policy.Authorize(stateOf(t, g), must[*policy.Commit](t)(room.Action(t.Context(), p.Staged, names{})))
	var refusal *policy.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a refusal", err)
	}
}

// The hub proposes to remove a client, and stands for it by itself.
func TestProposalOfTheHub(t *testing.T) {
	hub := newKey(t)
	g := clubhouse(t, hub)
	gc := g.Context()
	raw := must[[]byte](t)(mls.ProposeExternally(t.Context(), hub, &gc, 0, addition(t, 2, "mimi://b.example/u/bob"), nil))
	v := must[mls.Verified](t)(g.Verify(must[*mls.Message](t)(mls.ParseMessage(raw)))).(*mls.VerifiedProposal)
	b := must[*policy.Bundle](t)(room.Bundle(t.Context(), gc.Extensions, g.Member, []*mls.VerifiedProposal{v}, names{}))
	if by := b.Proposals[0].By; by.Sender != policy.External || by.User != uri(t, "mimi://a.example") {
		t.Errorf("proposed by %+v", by)
	}
}

func TestCheckMissing(t *testing.T) {
	g := clubhouse(t, newKey(t))
	gc := g.Context()
	d := must[mls.AppDataDictionary](t)(gc.Extensions.AppData())
	for _, c := range d {
		less := d.Without(c.ID).Extension()
		if err := room.Check(gc.Extensions.With(less.Type, less.Data)); !errors.Is(err, room.ErrNotRoom) {
			t.Errorf("without component 0x%04x: %v", uint16(c.ID), err)
		}
	}
	none := mls.ExternalSendersExtension()
	if err := room.Check(gc.Extensions.With(none.Type, none.Data)); !errors.Is(err, room.ErrNotRoom) {
		t.Errorf("without external senders: %v", err)
	}
	few := mls.RequiredCapabilities{}.Extension()
	if err := room.Check(gc.Extensions.With(few.Type, few.Data)); !errors.Is(err, room.ErrNotRoom) {
		t.Errorf("without required capabilities: %v", err)
	}
	if err := room.Check(gc.Extensions); err != nil {
		t.Error(err)
	}
}

func TestFrankingAgentRoundTrip(t *testing.T) {
	want := mimi.FrankingAgent{SignatureKey: []byte{4, 1, 2}, Credential: mls.BasicCredential([]byte("mimi://a.example"))}
	b := want.Marshal()
	got := must[*mimi.FrankingAgent](t)(mimi.ParseFrankingAgent(b))
	if string(got.Marshal()) != string(b) {
		t.Errorf("%x became %x", b, got.Marshal())
	}
	for n := range b {
		if _, err := mimi.ParseFrankingAgent(b[:n]); err == nil {
			t.Errorf("prefix of %d octets is accepted", n)
		}
	}
}

// Every component that a room begins with is one that its members must support,
// as far as members can.
func TestRoomRequiresWhatItHas(t *testing.T) {
	hub := newKey(t)
	agent := mls.BasicCredential([]byte("mimi://a.example"))
	ext := must[mls.Extensions](t)((&room.Setup{
		URI: uri(t, "mimi://a.example/r/clubhouse"), Creator: uri(t, "mimi://a.example/u/alice"), CreatorRole: 3, Roles: policy.CooperativeRoles(),
		Others:        map[policy.ComponentID][]byte{policy.ComponentExpiration: {2}, policy.ComponentOperational: (&policy.OperationalParameters{}).Marshal()},
		Hub:           mls.ExternalSender{SignatureKey: publicKey(t, hub), Credential: agent},
		FrankingAgent: mimi.FrankingAgent{SignatureKey: publicKey(t, hub), Credential: agent},
	}).Extensions())
	d := must[mls.AppDataDictionary](t)(ext.AppData())
	raw, _ := d.Find(mls.ComponentID(policy.ComponentAppComponents))
	required := must[mls.ComponentsList](t)(mls.ParseComponentsList(raw))
	if !slices.IsSorted(required) {
		t.Errorf("app_components is not sorted: %v", required)
	}
	for _, e := range d {
		if !slices.Contains(required, e.ID) {
			t.Errorf("the room has component 0x%04x and does not require it", uint16(e.ID))
		}
	}
	// A client that supports all of a room's components can make it.
	must[*mls.Group](t)(newClient(t, "mimi://a.example/d/alice/phone").CreateGroup(t.Context(), nil, mls.GroupOptions{Extensions: ext}))
}
