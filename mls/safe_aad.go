package mls

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A SafeAADItem is one component's part of authenticated_data.
type SafeAADItem = ComponentData

// A SafeAAD is the whole authenticated_data of every message of a group whose
// GroupContext has the component safe_aad (section 3.10). It is strictly
// sorted. Nothing in it is secret: delivery services read it.
//
//	struct {
//	  ComponentID component_id;
//	  opaque aad_item_data<V>;
//	} SafeAADItem;
//
//	struct {
//	  SafeAADItem aad_items<V>;
//	} SafeAAD;
type SafeAAD []SafeAADItem

// NewSafeAAD sorts items, of which there may be one for each component.
func NewSafeAAD(items ...SafeAADItem) (SafeAAD, error) {
	s, twice := sortComponents(items)
	if twice != nil {
		return nil, fmt.Errorf("mls: component 0x%04x has two Safe AAD items", uint16(twice.ID))
	}
	return s, nil
}

// Find returns a component's item, and whether there is one.
func (s SafeAAD) Find(id ComponentID) ([]byte, bool) { return AppDataDictionary(s).Find(id) }

// Bytes returns the encoding, for authenticated_data.
func (s SafeAAD) Bytes() []byte { return encode(&s) }

// ParseSafeAAD decodes authenticated_data. Items must be strictly sorted, and
// nothing may follow them.
func ParseSafeAAD(b []byte) (SafeAAD, error) {
	var s SafeAAD
	if err := parse("SafeAAD", b, &s); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *SafeAAD) marshal(b *tlsvec.Builder)  { writeComponents(b, *s) }
func (s *SafeAAD) unmarshal(r *tlsvec.Reader) { *s = readComponents(r) }

// SafeAAD returns the message's items, or nil if authenticated_data is no
// SafeAAD. Group.UsesSafeAAD tells whether it must be one.
func (v *verifiedContent) SafeAAD() SafeAAD {
	s, err := ParseSafeAAD(v.AuthenticatedData())
	if err != nil {
		return nil
	}
	return s
}

// UsesSafeAAD reports whether authenticated_data is a SafeAAD in this epoch.
func (g *Group) UsesSafeAAD() bool { return g.public.context.Extensions.usesSafeAAD() }

// UsesSafeAAD reports whether authenticated_data is a SafeAAD in the epoch of
// this GroupContext.
func (c *GroupContext) UsesSafeAAD() bool { return c.Extensions.usesSafeAAD() }

func (e Extensions) usesSafeAAD() bool {
	d, err := e.AppData()
	_, ok := d.Find(ComponentSafeAAD)
	return ok && err == nil
}

// emptySafeAAD is what a message without items carries.
var emptySafeAAD = SafeAAD{}.Bytes()

// outgoingAAD checks authenticated_data that is about to be sent; where Safe
// AAD is used, nothing becomes an empty list.
func (e Extensions) outgoingAAD(data []byte) ([]byte, error) {
	if len(data) == 0 && e.usesSafeAAD() {
		return emptySafeAAD, nil
	}
	return data, e.checkAAD(data)
}

// checkAAD checks authenticated_data against the extensions of the epoch in
// which it is sent.
func (e Extensions) checkAAD(data []byte) error {
	if !e.usesSafeAAD() {
		return nil
	}
	var s SafeAAD
	if err := decode("SafeAAD", data, &s); err != nil {
		return brokenBy(RuleFrameAuthenticatedData, err, "authenticated_data")
	}
	return nil
}
