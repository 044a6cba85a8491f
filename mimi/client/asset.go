package client

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
)

// Assets puts encrypted assets where others can fetch them, and fetches them.
// How it fetches, the room's policy and the user's wish for privacy decide.
type Assets interface {
	// Upload stores octets and returns their https URL.
	Upload(ctx context.Context, room mimi.URI, octets []byte) (url string, err error)
	// Download fetches at most so many octets in one of the ways that the
	// room allows.
	Download(ctx context.Context, room mimi.URI, url string, how policy.DownloadPrivacyType, most uint64) ([]byte, error)
}

// An Attachment is what is sent as an asset.
type Attachment struct {
	Octets      []byte
	ContentType string
	Filename    string
	Description string
}

// maxAsset bounds what is fetched where the sender and the room name no size.
const maxAsset = 100 << 20

// ErrAssetPolicy is returned for an asset that is neither sent nor fetched.
var ErrAssetPolicy = errors.New("client: the room's asset policy does not allow it")

// Attach encrypts an asset with a key of its own, uploads it and sends the
// message that says where it is.
func (r *Room) Attach(ctx context.Context, a Attachment) (*Sent, error) {
	p, err := r.assetPolicy(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkAsset(p, a.ContentType, uint64(len(a.Octets))); err != nil {
		return nil, err
	}
	sealed, part, err := content.SealAsset(a.Octets, a.ContentType)
	if err != nil {
		return nil, err
	}
	if part.URL, err = r.c.cfg.Assets.Upload(ctx, r.uri, sealed); err != nil {
		return nil, fmt.Errorf("client: uploading an asset: %w", err)
	}
	if err := r.checkHost(p, part, r.c.User()); err != nil {
		return nil, err
	}
	part.Filename, part.Description = a.Filename, a.Description
	return r.Send(ctx, &content.Message{Body: content.NestedPart{Disposition: content.Attachment, Content: part}})
}

// Fetch downloads and decrypts the asset of a message, and checks that it is
// the one that the sender meant.
func (r *Room) Fetch(ctx context.Context, id content.MessageID) (*Attachment, error) {
	m, err := r.Message(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("client: message %x: %w", id, err)
	}
	part, ok := m.Content.Body.Content.(*content.ExternalPart)
	if !ok {
		return nil, fmt.Errorf("client: message %x has no asset", id)
	}
	p, err := r.assetPolicy(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.checkHost(p, part, m.Sender); err != nil {
		return nil, err
	}
	if err := checkAsset(p, part.ContentType, part.Size); err != nil {
		return nil, err
	}
	how, most := policy.DownloadHubProxy, part.Size
	if p != nil {
		how = p.DownloadPrivacy.Default
	}
	if most == 0 || most > maxAsset {
		most = maxAsset
	}
	octets, err := r.c.cfg.Assets.Download(ctx, r.uri, part.URL, how, most+64)
	if err != nil {
		return nil, fmt.Errorf("client: downloading an asset: %w", err)
	}
	plain, err := part.Open(octets)
	return &Attachment{plain, part.ContentType, part.Filename, part.Description}, err
}

func (r *Room) assetPolicy(ctx context.Context) (*policy.AssetPolicy, error) {
	v, err := r.Component(ctx, policy.ComponentAssets)
	p, _ := v.(*policy.AssetPolicy)
	return p, err
}

// checkHost compares where an asset is with where the sender's provider may
// put it.
func (r *Room) checkHost(p *policy.AssetPolicy, part *content.ExternalPart, sender mimi.URI) error {
	u, err := part.FetchURL()
	if err != nil {
		return err
	}
	if p != nil && !p.AllowsHost(u.Hostname(), sender.Host(), r.uri.Host()) {
		return fmt.Errorf("%w: assets of %s are not at %s", ErrAssetPolicy, sender.Host(), u.Hostname())
	}
	return nil
}

func checkAsset(p *policy.AssetPolicy, contentType string, size uint64) error {
	if p == nil {
		return nil
	}
	t, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("client: content type %q: %w", contentType, err)
	}
	m := policy.MediaType{Type: t}
	for name, value := range parameters {
		m.Parameters = append(m.Parameters, policy.Parameter{Name: name, Value: value})
	}
	if !p.AllowsMediaType(m) {
		return fmt.Errorf("%w: no assets of type %s", ErrAssetPolicy, t)
	}
	most := p.MaxAttachment
	for prefix, limit := range map[string]uint64{"image/": p.MaxImage, "audio/": p.MaxAudio, "video/": p.MaxVideo} {
		if strings.HasPrefix(t, prefix) {
			most = limit
		}
	}
	if size > most {
		return fmt.Errorf("%w: %d octets of %s, at most %d", ErrAssetPolicy, size, t, most)
	}
	return nil
}
