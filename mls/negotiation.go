package mls

import (
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// needs are the lists of section 4: in a GroupContext what every member must
// support, in a LeafNode what its client supports.
type needs struct {
	components ComponentsList
	safeAAD    ComponentsList
	media      MediaTypeList
	wire       []WireFormat
}

// readNeeds decodes the lists of a dictionary and one of the wire format
// extensions.
func (e Extensions) readNeeds(wire ExtensionType) (*needs, error) {
	n := new(needs)
	d, err := e.AppData()
	if err != nil {
		return nil, err
	}
	if n.components, err = d.list(ComponentAppComponents); err != nil {
		return nil, err
	}
	if n.safeAAD, err = d.list(ComponentSafeAAD); err != nil {
		return nil, err
	}
	if n.media, err = e.ContentMediaTypes(); err != nil {
		return nil, err
	}
	n.wire, err = e.wireFormats(wire)
	return n, err
}

// list decodes a component's list; absent is empty.
func (d AppDataDictionary) list(id ComponentID) (ComponentsList, error) {
	data, ok := d.Find(id)
	if !ok {
		return nil, nil
	}
	list, err := ParseComponentsList(data)
	if err != nil {
		return nil, brokenBy(RuleComponentValue, err, "component 0x%04x", uint16(id))
	}
	return list, nil
}

// groupNeeds reads what a GroupContext requires.
func (e Extensions) groupNeeds() (*needs, error) { return e.readNeeds(ExtensionRequiredWireFormats) }

func (n *needs) empty() bool {
	return n == nil || len(n.components)+len(n.safeAAD)+len(n.media)+len(n.wire) == 0
}

func (n *needs) equal(o *needs) bool {
	return slices.Equal(n.components, o.components) && slices.Equal(n.safeAAD, o.safeAAD) && slices.Equal(n.wire, o.wire) &&
		slices.EqualFunc(n.media, o.media, func(a, b MediaType) bool { return a.Equal(&b) })
}

// MetBy checks that a leaf supports what a GroupContext with these extensions
// requires of every member: its required_capabilities, its extensions, and the lists
// of components, Safe AAD items, media types and wire formats. The error is a
// *ValidationError. It is for who chooses whom to add; a commit checks it anyway.
func (e Extensions) MetBy(l *LeafNode) error {
	required, err := e.RequiredCapabilities()
	if err != nil {
		return err
	}
	if err := l.meets(required, e); err != nil {
		return err
	}
	n, err := e.groupNeeds()
	if err != nil {
		return err
	}
	return n.metBy(l)
}

// metBy checks that a leaf supports what the group requires.
func (n *needs) metBy(l *LeafNode) error {
	if n.empty() {
		return nil
	}
	has, err := l.Extensions.readNeeds(ExtensionSupportedWireFormats)
	if err != nil {
		return err
	}
	if id, lacks := n.components.missing(has.components); lacks {
		return broken(RuleLeafComponents, "required component 0x%04x is not supported", uint16(id))
	}
	if id, lacks := n.safeAAD.missing(has.safeAAD); lacks {
		return broken(RuleLeafSafeAAD, "required Safe AAD item 0x%04x is not supported", uint16(id))
	}
	for i := range n.media {
		if !has.media.contains(&n.media[i]) {
			return broken(RuleLeafMediaTypes, "required media type %q is not supported", n.media[i].Type)
		}
	}
	for _, w := range n.wire {
		if _, ok := slices.BinarySearch(has.wire, w); !ok {
			return broken(RuleLeafWireFormats, "required wire format 0x%04x is not supported", uint16(w))
		}
	}
	return nil
}

// metByAll checks every leaf of a tree.
func (n *needs) metByAll(t *ratchetTree) error {
	if n.empty() {
		return nil
	}
	for _, leaf := range t.leaves() {
		if err := n.metBy(leaf); err != nil {
			return err
		}
	}
	return nil
}

// WireFormatsExtension encodes supported_wire_formats or
// required_wire_formats (section 4). Formats of RFC 9420 are not listed.
//
//	struct {
//	   WireFormat wire_formats<V>;
//	} WireFormats;
func WireFormatsExtension(t ExtensionType, formats ...WireFormat) Extension {
	var b tlsvec.Builder
	writeUint16s(&b, formats)
	return Extension{t, b.Bytes()}
}

func (e Extensions) wireFormats(t ExtensionType) ([]WireFormat, error) {
	data, ok := e.Find(t)
	if !ok {
		return nil, nil
	}
	r := tlsvec.NewReader(data)
	list := readUint16s[WireFormat](r)
	if err := r.Done(); err != nil {
		return nil, brokenBy(RuleComponentValue, &ParseError{"WireFormats", err}, "extension 0x%04x", uint16(t))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// SupportedWireFormats are the formats beyond RFC 9420 that a leaf supports.
func (e Extensions) SupportedWireFormats() ([]WireFormat, error) {
	return e.wireFormats(ExtensionSupportedWireFormats)
}

// RequiredWireFormats are the formats beyond RFC 9420 that a GroupContext
// requires.
func (e Extensions) RequiredWireFormats() ([]WireFormat, error) {
	return e.wireFormats(ExtensionRequiredWireFormats)
}

// ExtendedCapabilities are DefaultCapabilities with the extensions and
// proposals of draft-ietf-mls-extensions. A client with them says in its
// leaves which components it knows.
func ExtendedCapabilities() Capabilities {
	c := DefaultCapabilities()
	c.Extensions = []ExtensionType{ExtensionAppDataDictionary, ExtensionSupportedWireFormats, ExtensionRequiredWireFormats}
	c.Proposals = []ProposalType{ProposalAppDataUpdate, ProposalAppEphemeral, ProposalSelfRemove}
	return c
}

// advertise adds to a leaf's extensions what this client supports, where its
// capabilities let it. Entries that the application gave are completed.
func (c *Client) advertise(ext Extensions, caps *Capabilities) Extensions {
	if len(c.cfg.WireFormats) > 0 && caps.supportsExtension(ExtensionSupportedWireFormats) {
		x := WireFormatsExtension(ExtensionSupportedWireFormats, c.cfg.WireFormats...)
		ext = ext.With(x.Type, x.Data)
	}
	if !caps.supportsExtension(ExtensionAppDataDictionary) {
		return ext
	}
	d, err := ext.AppData()
	if err != nil {
		return ext // refused when the leaf is validated
	}
	d = c.completeList(d, ComponentAppComponents, c.cfg.Components.known())
	d = c.completeList(d, ComponentSafeAAD, c.cfg.SafeAADItems)
	if _, has := d.Find(ComponentContentMediaTypes); !has && len(c.cfg.MediaTypes) > 0 {
		d = d.With(ComponentContentMediaTypes, c.cfg.MediaTypes.Bytes())
	}
	return ext.withAppData(c.greaseDictionary(d))
}

func (c *Client) completeList(d AppDataDictionary, id ComponentID, add ComponentsList) AppDataDictionary {
	data, has := d.Find(id)
	if !has {
		data = ComponentsList{}.Bytes()
	}
	list, err := ParseComponentsList(data)
	if err != nil {
		return d
	}
	list = append(list, add...)
	if !c.cfg.NoGREASE && !slices.ContainsFunc(list, ComponentID.isGREASE) {
		list = list.grease()
	}
	return d.With(id, list.Bytes())
}

// greaseDictionary adds a random GREASE entry to a dictionary that is not the
// GroupContext's (section 4.1).
func (c *Client) greaseDictionary(d AppDataDictionary) AppDataDictionary {
	if c.cfg.NoGREASE || slices.ContainsFunc(d, func(e ComponentData) bool { return e.ID.isGREASE() }) {
		return d
	}
	return d.With(randomComponent(), random(4))
}

// LastResort reports whether the KeyPackage may be used more than once when
// all others are spent (section 5.4).
func (k *KeyPackage) LastResort() bool {
	d, err := k.Extensions.AppData()
	_, component := d.Find(ComponentLastResort)
	_, extension := k.Extensions.Find(ExtensionLastResort)
	return err == nil && (component || extension)
}

// checkMarks validates the dictionary and the last-resort mark of a
// KeyPackage.
func (k *KeyPackage) checkMarks() error {
	d, err := k.Extensions.AppData()
	if err != nil {
		return err
	}
	mark, component := d.Find(ComponentLastResort)
	old, extension := k.Extensions.Find(ExtensionLastResort)
	if component && extension {
		return broken(RuleLastResort, "KeyPackage has the component and the extension")
	}
	if len(mark)+len(old) > 0 {
		return broken(RuleLastResort, "mark carries %d octets", len(mark)+len(old))
	}
	return nil
}

// markLastResort adds the component to a KeyPackage's extensions.
func (c *Client) markLastResort(ext Extensions) (Extensions, error) {
	d, err := ext.AppData()
	if err != nil {
		return nil, err
	}
	return ext.withAppData(c.greaseDictionary(d.With(ComponentLastResort, nil))), nil
}

// greaseInfo adds a GREASE component to a GroupInfo's extensions.
func (c *Client) greaseInfo(ext Extensions) Extensions {
	d, err := ext.AppData()
	if err != nil || !c.cfg.Capabilities.supportsExtension(ExtensionAppDataDictionary) {
		return ext
	}
	return ext.withAppData(c.greaseDictionary(d))
}
