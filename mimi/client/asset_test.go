package client_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
)

func picture() client.Attachment {
	return client.Attachment{Octets: []byte("\x89PNG a picture"), ContentType: "image/png", Filename: "cat.png"}
}

// An asset is encrypted by its sender and checked by who fetches it.
func TestAsset(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	r := alice.create(clubhouse, bob)
	sent := must[*client.Sent](t)(r.Attach(t.Context(), picture()))
	bob.sync()
	got := must[*client.Attachment](t)(bob.room(clubhouse).Fetch(t.Context(), sent.ID, client.FetchOptions{}))
	if string(got.Octets) != string(picture().Octets) || got.Filename != "cat.png" {
		t.Errorf("bob got %+v", got)
	}
	h.SpoilAssets()
	if _, err := bob.room(clubhouse).Fetch(t.Context(), sent.ID, client.FetchOptions{}); !errors.Is(err, content.ErrAssetHash) {
		t.Errorf("a spoilt asset: %v", err)
	}
}

// Who may not download attachments does not, though the message is there.
func TestDownloadNeedsACapability(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	roles := policy.CooperativeRoles()
	member := roles.Role(2)
	member.Capabilities = slices.DeleteFunc(member.Capabilities, func(c policy.Capability) bool { return c == policy.CanDownloadAttachment })
	r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, clubhouse), client.RoomOptions{Roles: roles}))
	must[any](t)(r.Add(t.Context(), bob.User(), client.AddOptions{Role: 2}))
	bob.sync()
	sent := must[*client.Sent](t)(r.Attach(t.Context(), picture()))
	bob.sync()
	var refusal *policy.Refusal
	if _, err := bob.room(clubhouse).Fetch(t.Context(), sent.ID, client.FetchOptions{}); !errors.As(err, &refusal) || refusal.Capability != policy.CanDownloadAttachment {
		t.Errorf("bob: %v", err)
	}
	must[*client.Attachment](t)(r.Fetch(t.Context(), sent.ID, client.FetchOptions{}))
}

// What the room's asset policy forbids is neither uploaded nor fetched.
func TestAssetPolicy(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	alice := newPerson(t, h, "alice/phone@a.example")
	for name, p := range map[string]policy.AssetPolicy{
		"size": {MaxImage: 3},
		"type": {MaxImage: 1000, ForbiddenMediaTypes: []policy.MediaType{{Type: "image/png"}}},
		"host": {MaxImage: 1000, AssetUploadLocation: policy.UploadLocalProvider, UploadDomains: []policy.ProviderAssetUploadDomains{
			{Provider: "a.example", Destinations: []string{"elsewhere.example"}},
		}},
	} {
		r := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/"+name), client.RoomOptions{
			Metadata: mimi.RoomMetaData{RoomName: name}, Components: map[policy.ComponentID][]byte{policy.ComponentAssets: p.Marshal()},
		}))
		if _, err := r.Attach(t.Context(), picture()); !errors.Is(err, client.ErrAssetPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Bob reports a message of Alice; the hub recognises it, and not one that was
// changed or is blamed on another.
func TestReportAndStatus(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	alice, bob := newPerson(t, h, "alice/phone@a.example"), newPerson(t, h, "bob/tablet@b.example")
	alice.create(clubhouse, bob)
	sent := alice.say(clubhouse, "spam")
	bob.sync()
	r := bob.room(clubhouse)
	verdicts, err := r.ReportAbuse(t.Context(), []content.MessageID{sent.ID}, "spam")
	ok(t, err)
	if len(verdicts) != 1 || !verdicts[0].Accepted {
		t.Errorf("verdicts %+v", verdicts)
	}
	if _, err := r.ReportAbuse(t.Context(), []content.MessageID{{1}}, ""); err == nil {
		t.Error("a message that is not there is reported")
	}
	ok(t, r.Report(t.Context(), []content.MessageStatus{{ID: sent.ID, Status: content.StatusRead}, {ID: content.MessageID{1}, Status: content.StatusRead}}))
	alice.sync()
	m := must[*client.Message](t)(alice.room(clubhouse).Message(t.Context(), sent.ID))
	list := must[[]*client.Message](t)(alice.room(clubhouse).Messages(t.Context(), noTime))
	if len(list) != 1 || list[0].ID != m.ID || list[0].Statuses[bob.User()] != content.StatusRead {
		t.Errorf("alice has %+v", list)
	}
}
