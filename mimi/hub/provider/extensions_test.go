package provider_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// Who may change the extensions of a room's group does not make it something that
// is no room of its hub, which nobody could load or join any more: neither in a
// commit, nor by a proposal that every commit would have to have.
func TestExtensionsStayThoseOfARoom(t *testing.T) {
	w := newWorld(t, false, "a.example")
	c := w.crowd("a.example", "x", 2)
	gc := c.group.Context()
	now := gc.Extensions
	none := mls.ExternalSendersExtension()
	few := mls.RequiredCapabilities{Proposals: []mls.ProposalType{mls.ProposalAppDataUpdate}}.Extension()
	stranger := must[*ecdh.PrivateKey](t)(ecdh.P256().GenerateKey(rand.Reader))
	reader := mls.ExternalReceiversExtension(mls.ExternalReceiver{PublicKey: stranger.PublicKey().Bytes(), Credential: mls.BasicCredential([]byte("mimi://evil.example"))})
	for name, ext := range map[string]mls.Extensions{
		"without the hub": now.With(none.Type, none.Data), "without what members must have": now.With(few.Type, few.Data), "read by a stranger": now.With(reader.Type, reader.Data),
	} {
		p := &mls.GroupContextExtensions{Extensions: ext}
		raw, err := c.group.Propose(t.Context(), p, mls.ProposeOptions{WireFormat: mls.WirePublicMessage})
		if err != nil {
			t.Logf("%s: the engine refuses it: %v", name, err)
			continue
		}
		c.group.ClearProposals()
		for kind, u := range map[string]func() *mimi.HandshakeBundle{
			"proposal": func() *mimi.HandshakeBundle {
				return &mimi.HandshakeBundle{ProposalOrCommit: must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(raw))}
			},
			"commit": func() *mimi.HandshakeBundle {
				defer func() { ok(t, c.group.DiscardPending(t.Context())) }()
				return c.commit(p)
			},
		} {
			r := must[*mimi.UpdateRoomResponse](t)(c.node.Update(t.Context(), c.from, c.uri, u()))
			if why := r.ErrorDescription; r.ResponseCode == mimi.UpdateSuccess || !strings.Contains(why, "room") && !strings.Contains(why, "external_receivers") {
				t.Errorf("%s: the hub says of the %s: %d %s", name, kind, r.ResponseCode, why)
			}
		}
	}
	if i := w.check(c.uri.String()); i.Pending != 0 {
		t.Errorf("%d proposals are pending", i.Pending)
	}
	c.send(c.commit()) // the room goes on
	c.merge()
	gc = c.group.Context()
	ok(t, room.Check(gc.Extensions))
}
