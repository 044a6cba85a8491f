package policy

import "github.com/privyseal/privyseal/internal/tlsvec"

// JoinLinkPolicy is the value and the update of component join_link_policy
// (0x0029, section 6.2).
//
//	struct {
//	  bool on_request;
//	  Uri join_link;
//	  bool multiuser;
//	  uint32 expiration;
//	} JoinLinkPolicy;
type JoinLinkPolicy struct {
	OnRequest  bool
	JoinLink   string // or empty
	Multiuser  bool
	Expiration uint32 // seconds that a new link is valid
}

// Marshal returns the policy's encoding.
func (p *JoinLinkPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		appendBool(b, p.OnRequest)
		b.String(p.JoinLink)
		appendBool(b, p.Multiuser)
		b.Uint32(p.Expiration)
	})
}

// ParseJoinLinkPolicy decodes a join link policy.
func ParseJoinLinkPolicy(data []byte) (*JoinLinkPolicy, error) {
	return parse("JoinLinkPolicy", data, func(r *tlsvec.Reader) JoinLinkPolicy {
		return JoinLinkPolicy{readBool(r), readURI(r), readBool(r), r.Uint32()}
	}, noRule)
}

// JoinLinksData is the value of component join_links (0x002A): the links that
// are valid now.
//
//	struct {
//	  opaque join_link<V>;
//	} JoinLink;
//
//	JoinLink JoinLinksData<V>;
type JoinLinksData struct {
	Links []string
}

// JoinLinksUpdate is the update of component join_links.
//
//	struct {
//	  uint32 removedIndices<V>;
//	  JoinLink added_links<V>;
//	} JoinLinksUpdate;
type JoinLinksUpdate struct {
	RemovedIndices []uint32 // into the list as it was when the epoch began
	AddedLinks     []string
}

func readLink(r *tlsvec.Reader) string { return readText(r, maxURI) }

// Marshal returns the list's encoding.
func (d *JoinLinksData) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) { appendList(b, d.Links, appendText) })
}

// ParseJoinLinksData decodes a list of join links.
func ParseJoinLinksData(data []byte) (*JoinLinksData, error) {
	return parse("JoinLinksData", data, func(r *tlsvec.Reader) JoinLinksData {
		return JoinLinksData{readList(r, maxList, readLink)}
	}, func(d *JoinLinksData) error { return checkLinks(d.Links) })
}

// Marshal returns the update's encoding.
func (u *JoinLinksUpdate) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		appendList(b, u.RemovedIndices, appendUint32)
		appendList(b, u.AddedLinks, appendText)
	})
}

// ParseJoinLinksUpdate decodes an update. What it means for a list is judged by
// Apply.
func ParseJoinLinksUpdate(data []byte) (*JoinLinksUpdate, error) {
	return parse("JoinLinksUpdate", data, func(r *tlsvec.Reader) JoinLinksUpdate {
		return JoinLinksUpdate{readList(r, maxList, readUint32[uint32]), readList(r, maxList, readLink)}
	}, func(u *JoinLinksUpdate) error {
		if len(u.RemovedIndices)+len(u.AddedLinks) == 0 {
			return invalid("the update is empty")
		}
		return checkLinks(u.AddedLinks)
	})
}

func checkLinks(links []string) error {
	seen := make(map[string]bool, len(links))
	for _, link := range links {
		if link == "" || seen[link] {
			return invalid("a join link is empty or there twice")
		}
		seen[link] = true
	}
	return nil
}

// Apply returns the list after an update: removals first, by index into the list
// as it was, then additions at the end.
func (d *JoinLinksData) Apply(u *JoinLinksUpdate) (*JoinLinksData, error) {
	removed := make(map[uint32]bool, len(u.RemovedIndices))
	for _, i := range u.RemovedIndices {
		if int64(i) >= int64(len(d.Links)) || removed[i] {
			return nil, invalid("join link %d is not in the list of %d, or removed twice", i, len(d.Links))
		}
		removed[i] = true
	}
	next := &JoinLinksData{}
	for i, link := range d.Links {
		if !removed[uint32(i)] {
			next.Links = append(next.Links, link)
		}
	}
	next.Links = append(next.Links, u.AddedLinks...)
	if len(next.Links) > maxList {
		return nil, invalid("more than %d join links", maxList)
	}
	return next, checkLinks(next.Links)
}

// LinkPreviewPolicy is the value and the update of component
// link_preview_policy (0x002B, section 6.3).
//
//	struct {
//	  Optionality autodetect_hyperlinks_in_text;
//	  Optionality send_link_previews;
//	  Optionality automatic_link_previews;
//	  Optionality link_preview_proxy_use;
//	  select (link_preview_proxy_use) {
//	    case mandatory: case optional:
//	      Uri link_preview_proxy<V>;
//	    case forbidden:
//	      struct {};
//	  }
//	} LinkPreviewPolicy;
type LinkPreviewPolicy struct {
	AutodetectHyperlinksInText Optionality // never required
	SendLinkPreviews           Optionality
	AutomaticLinkPreviews      Optionality
	LinkPreviewProxyUse        Optionality
	LinkPreviewProxy           string // unless the use is forbidden
}

// Marshal returns the policy's encoding.
func (p *LinkPreviewPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		for _, o := range []Optionality{p.AutodetectHyperlinksInText, p.SendLinkPreviews, p.AutomaticLinkPreviews, p.LinkPreviewProxyUse} {
			b.Uint8(uint8(o))
		}
		if p.LinkPreviewProxyUse != Forbidden {
			appendMaybeURI(b, p.LinkPreviewProxy)
		}
	})
}

// ParseLinkPreviewPolicy decodes a link preview policy.
func ParseLinkPreviewPolicy(data []byte) (*LinkPreviewPolicy, error) {
	return parse("LinkPreviewPolicy", data, func(r *tlsvec.Reader) LinkPreviewPolicy {
		p := LinkPreviewPolicy{readOptionality(r), readOptionality(r), readOptionality(r), readOptionality(r), ""}
		if p.LinkPreviewProxyUse != Forbidden {
			p.LinkPreviewProxy = readMaybeURI(r)
		}
		return p
	}, (*LinkPreviewPolicy).check)
}

func (p *LinkPreviewPolicy) check() error {
	if p.AutodetectHyperlinksInText == Required {
		return invalid("autodetect_hyperlinks_in_text must not be required")
	}
	if p.LinkPreviewProxyUse != Forbidden && p.LinkPreviewProxy == "" {
		return invalid("a link preview proxy may be used and none is named")
	}
	return nil
}

// mergeLinks returns one update that does what several of one commit do, since each
// of them means the list as it was when the epoch began.
func mergeLinks(updates []*JoinLinksUpdate) *JoinLinksUpdate {
	merged := new(JoinLinksUpdate)
	for _, u := range updates {
		merged.RemovedIndices = append(merged.RemovedIndices, u.RemovedIndices...)
		merged.AddedLinks = append(merged.AddedLinks, u.AddedLinks...)
	}
	return merged
}
