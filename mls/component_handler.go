package mls

import (
	"errors"
	"iter"
	"slices"
)

// Components are the components that an application knows, beside those that
// this package handles itself. AppDataUpdate and AppEphemeral proposals of
// others are refused, by members and by delivery services alike.
type Components map[ComponentID]ComponentHandler

// A ComponentHandler is the application's part of one component. Its
// functions must give the same answer to every member and delivery service:
// they depend on nothing but their argument, change nothing, and may be called
// several times for one commit. The zero value makes a component known that
// takes neither updates nor ephemeral data.
type ComponentHandler struct {
	// Update turns the component's data into its next data, or refuses.
	Update func(*ComponentCall) ([]byte, error)
	// Remove judges the removal of the data. Without it, a component that has
	// Update may be removed.
	Remove func(*ComponentCall) error
	// Ephemeral judges one AppEphemeral, the only one of Inputs.
	Ephemeral func(*ComponentCall) error
}

// ReplaceData is a handler for data that an update replaces as a whole. A
// commit may hold one such update; parse judges the new data.
func ReplaceData(parse func([]byte) error) ComponentHandler {
	return ComponentHandler{Update: func(c *ComponentCall) ([]byte, error) {
		if len(c.Inputs) != 1 {
			return nil, errors.New("several updates replace the same data")
		}
		return c.Inputs[0].Data, parse(c.Inputs[0].Data)
	}}
}

// A ComponentCall is what a component is asked to judge. It is read-only.
type ComponentCall struct {
	Component ComponentID
	Old       []byte // the data so far; nil if there is none
	Present   bool   // there is data
	Inputs    []ComponentInput

	// Committer sends the commit, with all of Proposals.
	Committer Sender
	Proposals []StagedProposal

	base *publicState
}

// A ComponentInput is what one AppDataUpdate or AppEphemeral brings.
type ComponentInput struct {
	Component   ComponentID
	Data        []byte
	Sender      Sender
	ByReference bool
}

// Context is the GroupContext before the commit.
func (c *ComponentCall) Context() GroupContext { return c.base.context }

// Members yields the members before the commit.
func (c *ComponentCall) Members() iter.Seq[Member] { return c.base.members() }

// Member returns the leaf of a member before the commit, or nil.
func (c *ComponentCall) Member(l LeafIndex) *LeafNode { return c.base.tree.leaf(l) }

// Size is the number of members before the commit.
func (c *ComponentCall) Size() int { return c.base.tree.members() }

// A ComponentChange is what a commit does to one component's data.
type ComponentChange struct {
	Component ComponentID
	Old, New  []byte
	Added     bool // there was no data before
	Removed   bool // there is none afterwards
	Inputs    []ComponentInput
}

// builtin handles the components of the draft itself.
func builtin(id ComponentID) (ComponentHandler, bool) {
	if id != 0 && id == ComponentExternalReceivers {
		return ComponentHandler{Update: updateReceivers}, true
	}
	switch id {
	case ComponentAppComponents, ComponentSafeAAD:
		return ReplaceData(func(b []byte) error { _, err := ParseComponentsList(b); return err }), true
	case ComponentContentMediaTypes:
		return ReplaceData(func(b []byte) error { _, err := ParseMediaTypeList(b); return err }), true
	case ComponentAppAck:
		return ComponentHandler{Ephemeral: func(c *ComponentCall) error { _, err := ParseAppAck(c.Inputs[0].Data); return err }}, true
	}
	return ComponentHandler{}, false
}

func (cs Components) find(id ComponentID) (ComponentHandler, error) {
	if h, ok := cs[id]; ok {
		return h, nil
	}
	if h, ok := builtin(id); ok {
		return h, nil
	}
	return ComponentHandler{}, broken(RuleComponentUnknown, "component 0x%04x is unknown here; register it in Components", uint16(id))
}

// known lists all components, for app_components.
func (cs Components) known() ComponentsList {
	list := ComponentsList{ComponentAppComponents, ComponentSafeAAD, ComponentContentMediaTypes, ComponentAppAck}
	if ComponentExternalReceivers != 0 {
		list = append(list, ComponentExternalReceivers)
	}
	for id := range cs {
		list = append(list, id)
	}
	return list.sorted()
}

// A componentGroup collects a commit's proposals for one component.
type componentGroup struct {
	id         ComponentID
	ephemerals []ComponentInput
	updates    []ComponentInput
	removes    int
}

// componentGroups sorts proposals by component, each in commit order.
func componentGroups(items []proposalItem) []*componentGroup {
	byID := map[ComponentID]*componentGroup{}
	for i := range items {
		id, ok := items[i].component()
		if !ok {
			continue
		}
		if byID[id] == nil {
			byID[id] = &componentGroup{id: id}
		}
		byID[id].add(&items[i])
	}
	groups := make([]*componentGroup, 0, len(byID))
	for _, id := range sortedKeys(byID) {
		groups = append(groups, byID[id])
	}
	return groups
}

// component is the component of an AppDataUpdate or AppEphemeral.
func (it *proposalItem) component() (ComponentID, bool) {
	switch p := it.proposal.(type) {
	case *AppDataUpdate:
		return p.Component, true
	case *AppEphemeral:
		return p.Component, true
	}
	return 0, false
}

func (g *componentGroup) add(it *proposalItem) {
	in := ComponentInput{Component: g.id, Sender: it.sender, ByReference: it.ref != nil}
	switch p := it.proposal.(type) {
	case *AppEphemeral:
		in.Data = p.Data
		g.ephemerals = append(g.ephemerals, in)
	case *AppDataUpdate:
		if p.Op == AppDataRemove {
			g.removes++
		}
		in.Data = p.Update
		g.updates = append(g.updates, in)
	}
}

// applyComponents applies AppEphemeral and AppDataUpdate proposals, after all
// others and before a path is made or merged (sections 3.8, 3.9).
func (c *change) applyComponents() error {
	groups := componentGroups(c.items)
	if c.rules.leaving {
		groups = slices.DeleteFunc(groups, func(g *componentGroup) bool { _, err := c.rules.components.find(g.id); return err != nil })
	}
	if len(groups) == 0 {
		return nil
	}
	d, err := c.extensions.AppData()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := c.judgeEphemerals(g); err != nil {
			return err
		}
		c.ephemerals = append(c.ephemerals, g.ephemerals...)
	}
	touched := false
	for _, g := range groups {
		if len(g.updates) == 0 {
			continue
		}
		ch, err := c.updateComponent(g, d)
		if err != nil {
			return err
		}
		if touched = true; ch.Removed {
			d = d.Without(g.id)
		} else {
			d = d.With(g.id, ch.New)
		}
		c.components = append(c.components, *ch)
	}
	if touched {
		c.extensions = c.extensions.withAppData(d)
	}
	return nil
}

func (c *change) call(g *componentGroup, inputs []ComponentInput) *ComponentCall {
	if c.staged == nil {
		c.staged = stagedProposals(c.items)
	}
	return &ComponentCall{Component: g.id, Inputs: inputs, Committer: c.from, Proposals: c.staged, base: c.base}
}

func (c *change) judgeEphemerals(g *componentGroup) error {
	h, err := c.rules.components.find(g.id)
	if err != nil {
		return err
	}
	for i := range g.ephemerals {
		if h.Ephemeral == nil {
			return broken(RuleAppEphemeralRefused, "component 0x%04x takes no AppEphemeral", uint16(g.id))
		}
		if err := h.Ephemeral(c.call(g, g.ephemerals[i:i+1])); err != nil {
			return brokenBy(RuleAppEphemeralRefused, err, "component 0x%04x", uint16(g.id))
		}
	}
	return nil
}

// updateComponent works out what the AppDataUpdates of one component do.
func (c *change) updateComponent(g *componentGroup, d AppDataDictionary) (*ComponentChange, error) {
	h, err := c.rules.components.find(g.id)
	if err != nil {
		return nil, err
	}
	if g.removes > 0 && len(g.updates) > 1 {
		return nil, broken(RuleAppDataList, "component 0x%04x is removed and changed once more", uint16(g.id))
	}
	call := c.call(g, g.updates)
	call.Old, call.Present = d.Find(g.id)
	ch := &ComponentChange{Component: g.id, Old: call.Old, Added: !call.Present, Removed: g.removes > 0, Inputs: g.updates}
	if ch.Removed {
		return ch, removeComponent(h, call)
	}
	if h.Update == nil {
		return nil, broken(RuleAppDataRefused, "component 0x%04x takes no updates", uint16(g.id))
	}
	if ch.New, err = h.Update(call); err != nil {
		return nil, brokenBy(RuleAppDataRefused, err, "component 0x%04x", uint16(g.id))
	}
	return ch, nil
}

func removeComponent(h ComponentHandler, call *ComponentCall) error {
	if !call.Present {
		return broken(RuleAppDataAbsent, "component 0x%04x has no data to remove", uint16(call.Component))
	}
	if h.Remove == nil && h.Update == nil {
		return broken(RuleAppDataRefused, "component 0x%04x takes no updates", uint16(call.Component))
	}
	if h.Remove == nil {
		return nil
	}
	if err := h.Remove(call); err != nil {
		return brokenBy(RuleAppDataRefused, err, "removal of component 0x%04x", uint16(call.Component))
	}
	return nil
}

// checkComponent checks an AppDataUpdate or AppEphemeral by itself.
func (c *change) checkComponent(it *proposalItem) error {
	id, _ := it.component()
	if _, err := c.rules.components.find(id); err != nil {
		return err
	}
	p, ok := it.proposal.(*AppDataUpdate)
	if !ok {
		return c.judgeEphemerals(componentGroups(c.items)[0])
	}
	if p.Op == AppDataRemove {
		d, err := c.base.context.Extensions.AppData()
		if err != nil {
			return err
		}
		if _, ok := d.Find(id); !ok {
			return broken(RuleAppDataAbsent, "component 0x%04x has no data to remove", uint16(id))
		}
	}
	return nil
}

// checkDictionaryKept refuses a GroupContextExtensions proposal that changes
// the dictionary where AppDataUpdate is required of all members.
func (c *change) checkDictionaryKept(ext Extensions) error {
	old := c.base.context.Extensions
	if old.sameAppData(ext) {
		return nil
	}
	for _, e := range []Extensions{old, ext} {
		required, err := e.RequiredCapabilities()
		if err != nil {
			return err
		}
		if required != nil && slices.Contains(required.Proposals, ProposalAppDataUpdate) {
			return broken(RuleAppDataGCE, "GroupContextExtensions changes app_data_dictionary in a group that requires AppDataUpdate")
		}
	}
	return nil
}

// agreeing drops the kept proposals that a component refuses together with
// those given by value and those before them, so that nobody can block commits
// with them.
func (c *change) agreeing() []proposalItem {
	d, err := c.extensions.AppData()
	if err != nil {
		return c.items
	}
	drop := map[int]bool{}
	for _, g := range componentGroups(c.items) {
		if c.tryGroup(g, d) != nil {
			c.thinOut(g.id, d, drop)
		}
	}
	out := make([]proposalItem, 0, len(c.items))
	for i := range c.items {
		if !drop[i] {
			out = append(out, c.items[i])
		}
	}
	return out
}

// thinOut takes the kept proposals of a component one by one and drops each
// that is refused.
func (c *change) thinOut(id ComponentID, d AppDataDictionary, drop map[int]bool) {
	var kept []int
	for i := range c.items {
		if of, ok := c.items[i].component(); ok && of == id && c.items[i].ref != nil {
			drop[i] = true
			kept = append(kept, i)
		}
	}
	for _, i := range kept {
		delete(drop, i)
		g := &componentGroup{id: id}
		for j := range c.items {
			if of, ok := c.items[j].component(); ok && of == id && !drop[j] {
				g.add(&c.items[j])
			}
		}
		if c.tryGroup(g, d) != nil {
			drop[i] = true
		}
	}
}

func (c *change) tryGroup(g *componentGroup, d AppDataDictionary) error {
	if err := c.judgeEphemerals(g); err != nil {
		return err
	}
	if len(g.updates) == 0 {
		return nil
	}
	_, err := c.updateComponent(g, d)
	return err
}
