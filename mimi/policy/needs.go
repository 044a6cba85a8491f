package policy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/content"
)

// A Target is a message to which another refers, as far as capabilities depend
// on it.
type Target struct {
	Sender   mimi.URI // user
	TopicID  []byte
	Reaction bool
}

// MessageNeeds returns the capabilities that the content of a message takes,
// beyond canSendMessage, in ascending order: what clients put into Message.Needs.
// A hub cannot see them. replaced is the message that m edits or deletes and
// answered is the one that it answers; each is nil if there is none, or if it is
// not known here, and then counts as another user's.
//
// Links are looked for in text parts: http and https URIs as they stand.
func MessageNeeds(m *content.Message, sender mimi.URI, replaced, answered *Target) []Capability {
	n := needs{sender: sender}
	switch {
	case m.Replaces != nil:
		n.replace(m, replaced)
	case m.InReplyTo != nil && isReaction(m):
		n.add(CanReactToMessage)
	case m.InReplyTo != nil:
		n.answer(m, answered)
	case len(m.TopicID) > 0:
		n.add(CanStartTopic)
	}
	for _, part := range m.Body.Walk() {
		n.part(part)
	}
	slices.Sort(n.list)
	return slices.Compact(n.list)
}

func isReaction(m *content.Message) bool { return m.Body.Disposition == content.Reaction }

type needs struct {
	sender mimi.URI
	list   []Capability
}

func (n *needs) add(c Capability) { n.list = append(n.list, c) }

func (n *needs) choose(own bool, mine, others Capability) {
	if own {
		n.add(mine)
	} else {
		n.add(others)
	}
}

// replace covers edits and deletions. Nobody edits what another wrote, so that
// an edit of it takes the capability to delete it too; but who gives it another
// topic changes nothing of what it says (content.Timeline takes the topic alone
// from who may not edit it).
func (n *needs) replace(m *content.Message, target *Target) {
	own := target != nil && target.Sender == n.sender
	reaction := target != nil && target.Reaction || isReaction(m)
	retopics := target != nil && !m.Body.IsNull() && !bytes.Equal(target.TopicID, m.TopicID)
	switch {
	case m.Body.IsNull() && reaction:
		n.choose(own, CanDeleteOwnReaction, CanDeleteOtherReaction)
	case m.Body.IsNull():
		n.choose(own, CanDeleteOwnMessage, CanDeleteOtherMessage)
	case reaction:
		n.add(CanEditReaction)
	case own:
		n.add(CanEditOwnMessage)
	case !retopics:
		n.add(CanEditOwnMessage)
		n.add(CanDeleteOtherMessage)
	}
	if retopics {
		n.choose(own, CanEditOwnTopic, CanEditOtherTopic)
	}
}

func (n *needs) answer(m *content.Message, target *Target) {
	n.add(CanReplyToMessage)
	switch {
	case len(m.TopicID) == 0:
	case target != nil && bytes.Equal(target.TopicID, m.TopicID):
		n.add(CanReplyInTopic)
	default:
		n.add(CanStartTopic)
	}
}

// uploads and downloads are the capabilities for assets that are rendered, by the
// first part of their media type.
var (
	uploads   = map[string]Capability{"image": CanUploadImage, "audio": CanUploadAudio, "video": CanUploadVideo}
	downloads = map[string]Capability{"image": CanDownloadImage, "audio": CanDownloadAudio, "video": CanDownloadVideo}
)

// transfer finds the capability for the asset of a part.
func transfer(of map[string]Capability, attachment Capability, d content.Disposition, asset *content.ExternalPart) Capability {
	top, _, _ := strings.Cut(strings.ToLower(asset.ContentType), "/")
	if c, ok := of[top]; ok && d.Effective() != content.Attachment {
		return c
	}
	return attachment
}

// DownloadNeeds returns the capability that it takes to download the asset of a
// part. It is for clients to enforce upon themselves.
func DownloadNeeds(d content.Disposition, asset *content.ExternalPart) Capability {
	return transfer(downloads, CanDownloadAttachment, d, asset)
}

func (n *needs) part(p *content.NestedPart) {
	switch c := p.Content.(type) {
	case *content.ExternalPart:
		n.add(transfer(uploads, CanUploadAttachment, p.Disposition, c))
	case *content.SinglePart:
		if strings.HasPrefix(strings.ToLower(c.ContentType), "text/") && hasLink(c.Content) {
			n.add(CanSendLink)
		}
	}
	if p.Disposition == content.Preview && !p.IsNull() {
		n.add(CanSendLinkPreview)
	}
}

func hasLink(text []byte) bool {
	lower := bytes.ToLower(text)
	return bytes.Contains(lower, []byte("http://")) || bytes.Contains(lower, []byte("https://"))
}
