package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// AssetUploadLocation says where clients upload assets.
//
//	enum {
//	  unspecified(0),
//	  localProvider(1),
//	  hub(2),
//	  (255)
//	} AssetUploadLocation;
type AssetUploadLocation uint8

// The upload locations.
const (
	UploadUnspecified   AssetUploadLocation = 0
	UploadLocalProvider AssetUploadLocation = 1
	UploadHub           AssetUploadLocation = 2
)

// DownloadPrivacyType is a way of downloading an asset
// (draft-ietf-mimi-protocol-06 section 5.10).
//
//	enum {
//	  direct(0),
//	  hubProxy(1),
//	  ohttp(2),
//	  (255)
//	} DownloadPrivacyType;
type DownloadPrivacyType uint8

// The ways of downloading.
const (
	DownloadDirect   DownloadPrivacyType = 0
	DownloadHubProxy DownloadPrivacyType = 1
	DownloadOHTTP    DownloadPrivacyType = 2
)

// String returns the draft's name of the way.
func (t DownloadPrivacyType) String() string {
	if names := [...]string{"direct", "hubProxy", "ohttp"}; int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("download type %d", uint8(t))
}

// DownloadPrivacy says which ways of downloading are acceptable.
//
//	struct {
//	  DownloadPrivacyType allowed_download_types<V>;
//	  DownloadPrivacyType forbidden_download_types<V>;
//	  DownloadPrivacyType default_download_type;
//	} DownloadPrivacy;
type DownloadPrivacy struct {
	Allowed   []DownloadPrivacyType // none: all that are not forbidden
	Forbidden []DownloadPrivacyType
	Default   DownloadPrivacyType
}

// Allows reports whether assets may be downloaded in a way. What is forbidden
// is, even where it is allowed too.
func (p *DownloadPrivacy) Allows(t DownloadPrivacyType) bool {
	return !slices.Contains(p.Forbidden, t) && (len(p.Allowed) == 0 || slices.Contains(p.Allowed, t))
}

// ProviderAssetUploadDomains are the hosts to which clients of a provider
// upload.
//
//	struct {
//	  DomainName provider;
//	  DomainName asset_upload_destinations<V>;
//	} ProviderAssetUploadDomains;
type ProviderAssetUploadDomains struct {
	Provider     string
	Destinations []string
}

// A Parameter is one parameter of a media type.
//
//	struct { opaque parameter_name<V>; opaque parameter_value<V>; } Parameter;
type Parameter struct {
	Name  string
	Value string
}

// A MediaType is a media type (draft-ietf-mls-extensions, section 6.2.2).
//
//	struct { opaque type<V>; Parameter parameters<V>; } MediaType;
type MediaType struct {
	Type       string // type/subtype
	Parameters []Parameter
}

// AssetPolicy is the value and the update of component asset_policy (0x002C,
// section 6.4).
//
//	struct {
//	  AssetUploadLocation asset_upload_location;
//	  ProviderAssetUploadDomains upload_domains<V>;
//	  DownloadPrivacy download_privacy;
//	  uint64 max_image;
//	  uint64 max_audio;
//	  uint64 max_video;
//	  uint64 max_attachment;
//	  MediaType forbidden_media_types<V>;
//	  optional<MediaType> permitted_media_types<V>;
//	} AssetPolicy;
//
// The last field is read as an optional vector.
type AssetPolicy struct {
	AssetUploadLocation AssetUploadLocation
	UploadDomains       []ProviderAssetUploadDomains
	DownloadPrivacy     DownloadPrivacy
	MaxImage            uint64 // octets, as all four
	MaxAudio            uint64
	MaxVideo            uint64
	MaxAttachment       uint64
	ForbiddenMediaTypes []MediaType
	PermittedMediaTypes *[]MediaType // nil: all that are not forbidden
}

const (
	maxMediaType  = 255
	maxParameters = 16
	maxParameter  = 1024
)

func appendMediaType(b *tlsvec.Builder, m MediaType) {
	b.String(m.Type)
	appendList(b, m.Parameters, func(b *tlsvec.Builder, p Parameter) {
		b.String(p.Name)
		b.String(p.Value)
	})
}

func readMediaType(r *tlsvec.Reader) MediaType {
	m := MediaType{Type: readText(r, maxMediaType)}
	top, sub, ok := strings.Cut(m.Type, "/")
	if !ok || top == "" || sub == "" || strings.ContainsAny(m.Type, " ;\t") {
		r.Fail("not type/subtype")
	}
	m.Parameters = readList(r, maxParameters, func(r *tlsvec.Reader) Parameter {
		return Parameter{readText(r, maxMediaType), readText(r, maxParameter)}
	})
	return m
}

func appendUploadDomains(b *tlsvec.Builder, d ProviderAssetUploadDomains) {
	b.String(d.Provider)
	appendList(b, d.Destinations, appendText)
}

func readUploadDomains(r *tlsvec.Reader) ProviderAssetUploadDomains {
	return ProviderAssetUploadDomains{readDomain(r), readList(r, maxList, readDomain)}
}

func readDownloadType(r *tlsvec.Reader) DownloadPrivacyType {
	return readEnum(r, "download type", DownloadOHTTP)
}

// Marshal returns the policy's encoding.
func (p *AssetPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		b.Uint8(uint8(p.AssetUploadLocation))
		appendList(b, p.UploadDomains, appendUploadDomains)
		appendList(b, p.DownloadPrivacy.Allowed, appendUint8)
		appendList(b, p.DownloadPrivacy.Forbidden, appendUint8)
		b.Uint8(uint8(p.DownloadPrivacy.Default))
		for _, most := range []uint64{p.MaxImage, p.MaxAudio, p.MaxVideo, p.MaxAttachment} {
			b.Uint64(most)
		}
		appendList(b, p.ForbiddenMediaTypes, appendMediaType)
		b.Optional(p.PermittedMediaTypes != nil)
		if p.PermittedMediaTypes != nil {
			appendList(b, *p.PermittedMediaTypes, appendMediaType)
		}
	})
}

// ParseAssetPolicy decodes an asset policy.
func ParseAssetPolicy(data []byte) (*AssetPolicy, error) {
	return parse("AssetPolicy", data, readAssetPolicy, (*AssetPolicy).check)
}

func readAssetPolicy(r *tlsvec.Reader) AssetPolicy {
	p := AssetPolicy{
		AssetUploadLocation: readEnum(r, "upload location", UploadHub),
		UploadDomains:       readList(r, maxEntries, readUploadDomains),
		DownloadPrivacy: DownloadPrivacy{
			readList(r, maxList, readDownloadType), readList(r, maxList, readDownloadType), readDownloadType(r),
		},
		MaxImage: r.Uint64(), MaxAudio: r.Uint64(), MaxVideo: r.Uint64(), MaxAttachment: r.Uint64(),
		ForbiddenMediaTypes: readList(r, maxList, readMediaType),
	}
	if r.Optional() {
		permitted := readList(r, maxList, readMediaType)
		p.PermittedMediaTypes = &permitted
	}
	return p
}

func (p *AssetPolicy) check() error {
	if !p.DownloadPrivacy.Allows(p.DownloadPrivacy.Default) {
		return invalid("default_download_type %d is not allowed or forbidden", p.DownloadPrivacy.Default)
	}
	if p.AssetUploadLocation == UploadHub && len(p.UploadDomains) != 1 {
		return invalid("assets are uploaded to the hub and upload_domains has %d providers, want 1", len(p.UploadDomains))
	}
	seen := make(map[string]bool, len(p.UploadDomains))
	for _, d := range p.UploadDomains {
		if seen[d.Provider] {
			return invalid("upload_domains has provider %s twice", d.Provider)
		}
		seen[d.Provider] = true
	}
	return nil
}

// AllowsHost reports whether an asset that a user of provider sent may be at a
// host. hub is the provider that hosts the room.
func (p *AssetPolicy) AllowsHost(host, provider, hub string) bool {
	switch p.AssetUploadLocation {
	case UploadUnspecified:
		return true
	case UploadHub:
		provider = hub
	}
	for _, d := range p.UploadDomains {
		if d.Provider == provider {
			return slices.Contains(d.Destinations, host)
		}
	}
	return false
}

// AllowsMediaType reports whether the room allows assets of a media type.
func (p *AssetPolicy) AllowsMediaType(m MediaType) bool {
	covers := func(entry MediaType) bool { return entry.covers(m) }
	if slices.ContainsFunc(p.ForbiddenMediaTypes, covers) {
		return false
	}
	return p.PermittedMediaTypes == nil || slices.ContainsFunc(*p.PermittedMediaTypes, covers)
}

// covers reports whether an entry of a list means m: the same type and, if the
// entry has parameters, the same parameters in any order. Types and names of
// parameters are compared without case.
func (entry *MediaType) covers(m MediaType) bool {
	if !strings.EqualFold(entry.Type, m.Type) {
		return false
	}
	if len(entry.Parameters) == 0 {
		return true
	}
	if len(entry.Parameters) != len(m.Parameters) {
		return false
	}
	for _, want := range entry.Parameters {
		if !slices.ContainsFunc(m.Parameters, want.same) {
			return false
		}
	}
	return true
}

func (p Parameter) same(o Parameter) bool {
	if strings.EqualFold(p.Name, "charset") {
		return strings.EqualFold(o.Name, "charset") && strings.EqualFold(p.Value, o.Value)
	}
	return strings.EqualFold(p.Name, o.Name) && p.Value == o.Value
}

// MaxSize returns the most octets that an asset of a media type may have; an
// unknown kind of media is an attachment. Zero admits none.
func (p *AssetPolicy) MaxSize(mediaType string) uint64 {
	top, _, _ := strings.Cut(mediaType, "/")
	switch strings.ToLower(top) {
	case "image":
		return p.MaxImage
	case "audio":
		return p.MaxAudio
	case "video":
		return p.MaxVideo
	}
	return p.MaxAttachment
}

// MaxAny returns the most octets that any asset may have.
func (p *AssetPolicy) MaxAny() uint64 {
	return max(p.MaxImage, p.MaxAudio, p.MaxVideo, p.MaxAttachment)
}
