package clientapi

import (
	"net/url"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// MaxAsset is the most octets of an asset, unless the provider or the room
// allows less.
const MaxAsset = 1 << 30

// An AssetQuery is the query of an upload, POST
// /client/v1/assets?room=URI&type=TYPE&lifetime=SECONDS, whose body is the
// encrypted asset.
//
// With a room the upload is judged by its asset policy. The media type is that
// of the plaintext; without it the largest of the room's limits holds, and
// nothing of what the asset is becomes known to the provider.
type AssetQuery struct {
	Room     mimi.URI      // zero for no room
	Type     string        // such as image/png, or empty
	Lifetime time.Duration // whole seconds; zero for as long as the provider keeps assets
}

// Values returns the query for a URL.
func (q *AssetQuery) Values() url.Values {
	v := url.Values{}
	if !q.Room.IsZero() {
		v.Set("room", q.Room.String())
	}
	if q.Type != "" {
		v.Set("type", q.Type)
	}
	if q.Lifetime > 0 {
		v.Set("lifetime", strconv.FormatInt(int64(q.Lifetime/time.Second), 10))
	}
	return v
}

// ParseAssetQuery reads the query of a URL.
func ParseAssetQuery(v url.Values) (*AssetQuery, error) {
	q := &AssetQuery{Type: v.Get("type")}
	for name, values := range v {
		if len(values) != 1 || name != "room" && name != "type" && name != "lifetime" {
			return nil, Problemf(CodeMalformed, "query parameter %q", name)
		}
	}
	if err := q.Room.UnmarshalText([]byte(v.Get("room"))); err != nil {
		return nil, Problemf(CodeMalformed, "room: %w", err)
	}
	if len(q.Type) > 255 {
		return nil, Problemf(CodeMalformed, "type of %d octets", len(q.Type))
	}
	if s := v.Get("lifetime"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, Problemf(CodeMalformed, "lifetime is not a number of seconds")
		}
		q.Lifetime = time.Duration(n) * time.Second
	}
	return q, nil
}

// An Asset answers an upload.
//
//	struct { opaque url<V>; uint64 size; uint64 expires; } Asset;
type Asset struct {
	URL     string // for ExternalPart
	Size    uint64 // octets
	Expires uint64 // milliseconds since the UNIX epoch
}

func (a *Asset) append(b *tlsvec.Builder) {
	b.String(a.URL)
	b.Uint64(a.Size)
	b.Uint64(a.Expires)
}

func (a *Asset) read(r *tlsvec.Reader) {
	u := r.Vector()
	if len(u) > 2048 {
		r.Fail("url is too long")
	}
	a.URL, a.Size, a.Expires = string(u), r.Uint64(), r.Uint64()
}

// Marshal returns the asset's encoding.
func (a *Asset) Marshal() []byte { return marshal(a) }

// ParseAsset decodes the answer to an upload.
func ParseAsset(b []byte) (*Asset, error) {
	a := new(Asset)
	return a, parse("Asset", b, a)
}
