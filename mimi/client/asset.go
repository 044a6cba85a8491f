package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"time"

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
	if _, err := checkAsset(p, a.ContentType, uint64(len(a.Octets))); err != nil {
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

// FetchOptions say how an asset is fetched. The zero value fetches the first
// asset of a message in the way that the room prefers.
type FetchOptions struct {
	// By is a way to fetch that the room must allow; nil is the room's default,
	// which is through the own provider where the room says nothing.
	By *policy.DownloadPrivacyType
	// Part is the index of the part, as content.NestedPart.Walk counts; 0 is the
	// first that is an asset.
	Part int
	// Unasked marks a fetch that no person has just asked for. It begins after
	// a random part of Config.FetchJitter, so that neither hub nor sender learn
	// from its time who reads at once, and is refused for what was deleted or
	// is expired (ErrNotFetched).
	Unasked bool
	// Within is in the place of Config.FetchJitter, if it is not zero.
	Within time.Duration
}

// ErrNotFetched is returned for an asset that nobody asked for and that its
// sender has taken back, or that is expired.
var ErrNotFetched = errors.New("client: the message was deleted or is expired; its asset is not fetched unasked")

// Fetch downloads and decrypts the asset of a message, and checks that it is
// the one that the sender meant.
func (r *Room) Fetch(ctx context.Context, id content.MessageID, opts FetchOptions) (*Attachment, error) {
	if opts.Unasked {
		if err := r.fetchLater(ctx, id, opts.Within); err != nil {
			return nil, err
		}
	}
	m, err := r.Message(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("client: message %s: %w", id, err)
	}
	part, disposition := assetIn(&m.Content.Body, opts.Part)
	if part == nil {
		return nil, fmt.Errorf("%w: message %s", ErrNoAsset, id)
	}
	if err := r.mayFetch(ctx, policy.DownloadNeeds(disposition, part)); err != nil {
		return nil, err
	}
	p, err := r.assetPolicy(ctx)
	if err != nil {
		return nil, err
	}
	how, err := howToFetch(p, opts.By)
	if err != nil {
		return nil, err
	}
	if err := r.checkHost(p, part, m.Sender); err != nil {
		return nil, err
	}
	most, err := checkAsset(p, part.ContentType, part.Size)
	if err != nil {
		return nil, err
	}
	octets, err := r.c.cfg.Assets.Download(ctx, r.uri, part.URL, how, sealedSize(part, most))
	if err != nil {
		return nil, fmt.Errorf("client: downloading an asset: %w", err)
	}
	plain, err := part.Open(octets)
	if err != nil {
		return nil, err
	}
	return &Attachment{plain, part.ContentType, part.Filename, part.Description}, nil
}

// Errors of fetching, beside those of package content.
var (
	ErrNoAsset       = errors.New("client: the message has no asset")
	ErrAssetTooLarge = errors.New("client: the asset is too large")
)

// fetchLater waits, and looks if the asset is still wanted.
func (r *Room) fetchLater(ctx context.Context, id content.MessageID, within time.Duration) error {
	if within <= 0 {
		within = r.c.cfg.FetchJitter
	}
	if err := wait(ctx, rand.N(within)); err != nil {
		return err
	}
	t, err := r.Timeline(ctx)
	if err != nil {
		return err
	}
	t.Expire(r.c.now(), nil)
	if e := t.Entry(id); e == nil || e.Deleted() {
		return ErrNotFetched
	}
	return nil
}

// assetIn returns the part with an index if it is an asset, or the first asset
// for index 0, and what it is for; nil if there is none.
func assetIn(body *content.NestedPart, index int) (*content.ExternalPart, content.Disposition) {
	for i, part := range body.Walk() {
		if asset, ok := part.Content.(*content.ExternalPart); ok && (index == 0 || index == i) {
			return asset, part.Disposition
		}
	}
	return nil, 0
}

// mayFetch judges by the role of this user, which nobody else can.
func (r *Room) mayFetch(ctx context.Context, needs policy.Capability) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return err
	}
	own := policy.Actor{Sender: policy.Member, Leaf: uint32(r.group.OwnLeaf())}
	_, err := policy.Authorize(r.state, &policy.Deed{Actor: own, Needs: []policy.Capability{needs}})
	return err
}

func howToFetch(p *policy.AssetPolicy, by *policy.DownloadPrivacyType) (policy.DownloadPrivacyType, error) {
	switch {
	case by == nil && p == nil:
		return policy.DownloadHubProxy, nil
	case by == nil:
		return p.DownloadPrivacy.Default, nil
	case p != nil && !p.DownloadPrivacy.Allows(*by):
		return 0, fmt.Errorf("%w: assets are not fetched by %s", ErrAssetPolicy, *by)
	}
	return *by, nil
}

// sealedSize is the most octets that an asset may have at its URL: what its
// sender says, or what the room allows. Either may count the plaintext, so that
// there may be a tag more.
func sealedSize(part *content.ExternalPart, most uint64) uint64 {
	if part.Size > 0 {
		most = min(most, part.Size)
	}
	return min(most, maxAsset) + 64
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

// checkAsset judges an asset by the room's policy, and returns how many octets
// it may have.
func checkAsset(p *policy.AssetPolicy, contentType string, size uint64) (most uint64, err error) {
	if p == nil {
		return maxAsset, nil
	}
	t, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, fmt.Errorf("client: content type %q: %w", contentType, err)
	}
	m := policy.MediaType{Type: t}
	for name, value := range parameters {
		m.Parameters = append(m.Parameters, policy.Parameter{Name: name, Value: value})
	}
	if !p.AllowsMediaType(m) {
		return 0, fmt.Errorf("%w: no assets of type %s", ErrAssetPolicy, t)
	}
	if most = p.MaxSize(t); size > most {
		return 0, fmt.Errorf("%w: %d octets of %s, at most %d", ErrAssetPolicy, size, t, most)
	}
	return most, nil
}
