package policy_test

import (
	"slices"
	"testing"

	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
)

func text(s string) content.NestedPart {
	return content.NestedPart{Disposition: content.Render, Content: &content.SinglePart{ContentType: "text/markdown;variant=GFM-MIMI", Content: []byte(s)}}
}

func asset(d content.Disposition, mediaType string) content.NestedPart {
	return content.NestedPart{Disposition: d, Content: &content.ExternalPart{ContentType: mediaType, URL: "https://a.example/x"}}
}

func TestMessageNeeds(t *testing.T) {
	id := new(content.MessageID)
	mine, theirs := &policy.Target{Sender: uri("ann")}, &policy.Target{Sender: uri("bob"), TopicID: []byte("tea")}
	null := content.NestedPart{Content: content.NullPart{}}
	heart := text("x")
	heart.Disposition = content.Reaction
	preview := text("https://a.example")
	preview.Disposition = content.Preview
	several := content.NestedPart{Disposition: content.Render, Content: &content.MultiPart{Semantics: content.ProcessAll,
		Parts: []content.NestedPart{text("look"), asset(content.Render, "image/png"), asset(content.Render, "application/pdf")}}}
	for _, c := range []struct {
		name               string
		m                  content.Message
		replaced, answered *policy.Target
		want               []policy.Capability
	}{
		{"plain", content.Message{Body: text("hello")}, nil, nil, nil},
		{"new topic", content.Message{TopicID: []byte("tea"), Body: text("x")}, nil, nil, []policy.Capability{policy.CanStartTopic}},
		{"reply", content.Message{InReplyTo: id, Body: text("x")}, nil, mine, []policy.Capability{policy.CanReplyToMessage}},
		{"reply in topic", content.Message{InReplyTo: id, TopicID: []byte("tea"), Body: text("x")}, nil, theirs, []policy.Capability{policy.CanReplyToMessage, policy.CanReplyInTopic}},
		{"reply into another topic", content.Message{InReplyTo: id, TopicID: []byte("tea"), Body: text("x")}, nil, mine, []policy.Capability{policy.CanReplyToMessage, policy.CanStartTopic}},
		{"reaction", content.Message{InReplyTo: id, Body: heart}, nil, theirs, []policy.Capability{policy.CanReactToMessage}},
		{"reaction changed", content.Message{Replaces: id, Body: heart}, mine, nil, []policy.Capability{policy.CanEditReaction}},
		{"edit", content.Message{Replaces: id, Body: text("x")}, mine, nil, []policy.Capability{policy.CanEditOwnMessage}},
		{"edit with another topic", content.Message{Replaces: id, TopicID: []byte("t"), Body: text("x")}, mine, nil, []policy.Capability{policy.CanEditOwnMessage, policy.CanEditOwnTopic}},
		{"edit of another's", content.Message{Replaces: id, TopicID: []byte("tea"), Body: text("x")}, theirs, nil, []policy.Capability{policy.CanEditOwnMessage, policy.CanDeleteOtherMessage}},
		{"another topic for another's", content.Message{Replaces: id, Body: text("x")}, theirs, nil, []policy.Capability{policy.CanEditOtherTopic}},
		{"edit of what is not known", content.Message{Replaces: id, TopicID: []byte("tea"), Body: text("x")}, nil, nil, []policy.Capability{policy.CanEditOwnMessage, policy.CanDeleteOtherMessage}},
		{"delete", content.Message{Replaces: id, Body: null}, mine, nil, []policy.Capability{policy.CanDeleteOwnMessage}},
		{"delete another's", content.Message{Replaces: id, Body: null}, theirs, nil, []policy.Capability{policy.CanDeleteOtherMessage}},
		{"delete what is not known", content.Message{Replaces: id, Body: null}, nil, nil, []policy.Capability{policy.CanDeleteOtherMessage}},
		{"take back a reaction", content.Message{Replaces: id, Body: null}, &policy.Target{Sender: uri("ann"), Reaction: true}, nil, []policy.Capability{policy.CanDeleteOwnReaction}},
		{"another's reaction", content.Message{Replaces: id, Body: null}, &policy.Target{Sender: uri("bob"), Reaction: true}, nil, []policy.Capability{policy.CanDeleteOtherReaction}},
		{"link", content.Message{Body: text("see HTTPS://a.example")}, nil, nil, []policy.Capability{policy.CanSendLink}},
		{"preview", content.Message{Body: preview}, nil, nil, []policy.Capability{policy.CanSendLink, policy.CanSendLinkPreview}},
		{"image attached", content.Message{Body: asset(content.Attachment, "image/png")}, nil, nil, []policy.Capability{policy.CanUploadAttachment}},
		{"voice", content.Message{Body: asset(content.Render, "audio/opus")}, nil, nil, []policy.Capability{policy.CanUploadAudio}},
		{"film", content.Message{Body: asset(content.Render, "VIDEO/mp4")}, nil, nil, []policy.Capability{policy.CanUploadVideo}},
		{"several parts", content.Message{Body: several}, nil, nil, []policy.Capability{policy.CanUploadImage, policy.CanUploadAttachment}},
	} {
		if got := policy.MessageNeeds(&c.m, uri("ann"), c.replaced, c.answered); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDownloadNeeds(t *testing.T) {
	for _, c := range []struct {
		part content.NestedPart
		want policy.Capability
	}{
		{asset(content.Render, "image/png"), policy.CanDownloadImage},
		{asset(content.Inline, "Audio/opus"), policy.CanDownloadAudio},
		{asset(content.Disposition(77), "video/mp4"), policy.CanDownloadVideo}, // unknown: rendered
		{asset(content.Attachment, "video/mp4"), policy.CanDownloadAttachment},
		{asset(content.Render, "application/pdf"), policy.CanDownloadAttachment},
	} {
		if got := policy.DownloadNeeds(c.part.Disposition, c.part.Content.(*content.ExternalPart)); got != c.want {
			t.Errorf("%d %s: %s, want %s", c.part.Disposition, c.part.Content.(*content.ExternalPart).ContentType, got, c.want)
		}
	}
}
