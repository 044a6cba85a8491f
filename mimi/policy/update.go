package policy

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/mimi"
)

// metadataNeeds says which capability changes a field of the metadata. The
// room's URI never changes.
var metadataNeeds = map[mimi.MetadataField]Capability{
	mimi.FieldName:         CanChangeRoomName,
	mimi.FieldDescriptions: CanChangeRoomDescription,
	mimi.FieldAvatar:       CanChangeRoomAvatar,
	mimi.FieldSubject:      CanChangeRoomSubject,
	mimi.FieldMood:         CanChangeRoomMood,
}

// judgeUpdates is row 11.
func (j *judge) judgeUpdates() *Refusal {
	seen := make(map[ComponentID]bool, len(j.updates))
	for i := range j.updates {
		u := &j.updates[i]
		if seen[u.Component] && u.Component != ComponentJoinLinks {
			return u.refuse(RowRoom, CheckComponentTwice, "the commit updates the component twice")
		}
		seen[u.Component] = true
		if refusal := j.pass(RowPolicy, j.judgeUpdate(u)); refusal != nil {
			return refusal
		}
	}
	if refusal := j.applyLinks(); refusal != nil {
		return refusal
	}
	return j.references(seen)
}

func (j *judge) judgeUpdate(u *update) *Refusal {
	switch u.Component {
	case ComponentFrankingAgent:
		return j.frankingAgent(u)
	case ComponentRoomMetadata:
		return j.metadata(u)
	case ComponentJoinLinks:
		return j.joinLinks(u)
	}
	c, ok := components[u.Component]
	if !ok {
		if c, ok = privateComponents[u.Component]; !ok || !j.s.enabled(u.Component) {
			return u.refuse(RowPolicy, CheckUnknown, "the component is unknown in this room")
		}
	}
	if refusal := u.by.needs(RowPolicy, c.needs, mimi.URI{}); refusal != nil {
		return refusal
	}
	if u.Remove {
		return j.removeComponent(u, c.required)
	}
	v, err := c.parse(u.Update)
	if err != nil {
		return u.refuse(RowPolicy, CheckComponent, err.Error())
	}
	return j.put(u, u.Update, v)
}

func (u *update) refuse(row Row, check Check, detail string) *Refusal {
	return u.by.refuse(row, check, mimi.URI{}, fmt.Sprintf("%s: %s", u.Component, detail))
}

func (j *judge) removeComponent(u *update, required bool) *Refusal {
	if required {
		return u.refuse(RowPolicy, CheckNeeded, "every room has it")
	}
	if _, there := j.s.values[u.Component]; !there {
		return u.refuse(RowPolicy, CheckNoChange, "there is none to remove")
	}
	j.effect.gone = append(j.effect.gone, u.Component)
	j.effect.policies.set(u.Component, nil)
	return nil
}

// put notes the new value of a component, unless the provider does not accept
// it.
func (j *judge) put(u *update, value []byte, v any) *Refusal {
	if envelope := j.s.config.Envelope; envelope != nil && !j.s.config.Member {
		if err := envelope(u.Component, value); err != nil {
			return u.refuse(RowPolicy, CheckEnvelope, err.Error())
		}
	}
	if j.effect.values == nil {
		j.effect.values = make(map[ComponentID][]byte)
	}
	j.effect.values[u.Component] = bytes.Clone(value)
	j.effect.policies.set(u.Component, v)
	return nil
}

// frankingAgent lets the hub, and nobody else, set the franking agent, and put
// its next key in the place of the one before.
func (j *judge) frankingAgent(u *update) *Refusal {
	if !u.by.hub {
		return u.refuse(RowPolicy, CheckHubOnly, "only the hub sets it")
	}
	if u.Remove {
		return u.refuse(RowPolicy, CheckImmutable, "a room goes on being franked")
	}
	if bytes.Equal(j.s.values[u.Component], u.Update) {
		return u.refuse(RowPolicy, CheckNoChange, "it is what it was")
	}
	return j.put(u, u.Update, nil)
}

// metadata asks for a capability for each field that differs.
func (j *judge) metadata(u *update) *Refusal {
	if u.Remove {
		return u.refuse(RowPolicy, CheckNeeded, "every room has it")
	}
	next, err := mimi.ParseRoomMetaData(u.Update)
	if err != nil {
		return u.refuse(RowPolicy, CheckComponent, err.Error())
	}
	changes, refusal := j.metadataChanges(u, next)
	if refusal != nil {
		return refusal
	}
	for _, field := range changes {
		if refusal := u.by.needs(RowPolicy, metadataNeeds[field], mimi.URI{}); refusal != nil {
			return refusal
		}
	}
	return j.put(u, u.Update, next)
}

func (j *judge) metadataChanges(u *update, next *mimi.RoomMetaData) ([]mimi.MetadataField, *Refusal) {
	old := j.s.policies.metadata
	if old == nil {
		old = &mimi.RoomMetaData{RoomURI: j.s.room}
	}
	changes := old.Changes(next)
	if slices.Contains(changes, mimi.FieldRoomURI) {
		return nil, u.refuse(RowPolicy, CheckImmutable, "room_uri never changes")
	}
	if len(changes) == 0 {
		return nil, u.refuse(RowPolicy, CheckNoChange, "the metadata is what it was")
	}
	return changes, nil
}

// joinLinks asks for one capability to add links and another to remove them.
func (j *judge) joinLinks(u *update) *Refusal {
	if u.Remove {
		if slices.Contains(j.effect.gone, u.Component) {
			return u.refuse(RowRoom, CheckComponentTwice, "the commit removes the component twice")
		}
		if refusal := u.by.needs(RowPolicy, CanDeleteJoinCode, mimi.URI{}); refusal != nil {
			return refusal
		}
		return j.removeComponent(u, false)
	}
	links, err := ParseJoinLinksUpdate(u.Update)
	if err != nil {
		return u.refuse(RowPolicy, CheckComponent, err.Error())
	}
	if len(links.AddedLinks) > 0 {
		if refusal := u.by.needs(RowPolicy, CanCreateJoinCode, mimi.URI{}); refusal != nil {
			return refusal
		}
	}
	if len(links.RemovedIndices) > 0 {
		if refusal := u.by.needs(RowPolicy, CanDeleteJoinCode, mimi.URI{}); refusal != nil {
			return refusal
		}
	}
	j.links = append(j.links, links)
	return nil
}

// applyLinks carries all updates of the join links out at once, since their
// indices mean the list as it was.
func (j *judge) applyLinks() *Refusal {
	if len(j.links) == 0 {
		return nil
	}
	last := &j.updates[slices.IndexFunc(j.updates, func(u update) bool { return u.Component == ComponentJoinLinks })]
	if slices.Contains(j.effect.gone, ComponentJoinLinks) {
		return last.refuse(RowRoom, CheckComponentTwice, "the commit updates and removes the component")
	}
	old := j.s.policies.links
	if old == nil {
		old = new(JoinLinksData)
	}
	next, err := old.Apply(mergeLinks(j.links))
	if err != nil {
		return last.refuse(RowPolicy, CheckComponent, err.Error())
	}
	return j.put(last, next.Marshal(), next)
}

// references checks, where roles or what refers to them have changed, that every
// role that is referred to exists and fits.
func (j *judge) references(changed map[ComponentID]bool) *Refusal {
	p := &j.effect.policies
	roles := changed[ComponentRoles]
	if roles {
		for role, c := range j.s.counts {
			if c.participants > 0 && p.roles[role] == nil {
				return roleInUse(role, "participants have it")
			}
		}
	}
	if (roles || changed[ComponentPreauth]) && p.preauth != nil {
		for i := range p.preauth.PreauthorizedEntries {
			if role := p.preauth.PreauthorizedEntries[i].TargetRole.Index; p.roles[role] == nil {
				return roleInUse(role, "a preauthorisation entry gives it")
			}
		}
	}
	if (roles || changed[ComponentHistory]) && p.history != nil {
		for _, role := range p.history.RolesThatCanShare {
			if p.roles[role] == nil || p.roles[role].clientless() {
				return roleInUse(role, "it can share history, and needs clients for it")
			}
		}
	}
	if (roles || changed[ComponentBots]) && p.bots != nil {
		for _, bot := range p.bots.AllowedBots {
			if bot.RoleIndex != mimi.RoleNone && p.roles[bot.RoleIndex] == nil {
				return roleInUse(bot.RoleIndex, "a bot has it")
			}
		}
	}
	if roles || changed[ComponentSelfRoleChanges] {
		return p.selfReferences()
	}
	return nil
}

func (p *policies) selfReferences() *Refusal {
	if p.self == nil {
		return nil
	}
	for _, c := range p.self.Changes {
		for _, role := range append([]mimi.RoleIndex{c.From}, c.Targets...) {
			if p.roles[role] == nil {
				return roleInUse(role, "self_role_changes names it")
			}
		}
	}
	return nil
}

func roleInUse(role mimi.RoleIndex, detail string) *Refusal {
	return &Refusal{Row: RowPolicy, Check: CheckRoleInUse, Role: role, Detail: fmt.Sprintf("role %d is not there or does not fit: %s", role, detail)}
}

// judgeOther is row 12, and row 14 for what nothing is known of.
func (j *judge) judgeOther(o *other) *Refusal {
	switch p := o.Proposal.(type) {
	case Update:
		if o.by.Sender != Member {
			return o.by.refuse(RowMLS, CheckSender, o.by.user, "only a member updates its leaf")
		}
		return j.path(o.by, p.Client)
	case ReInit:
		return j.pass(RowMLS, o.by.needs(RowMLS, CanSendMLSReinitProposal, mimi.URI{}))
	case PreSharedKey:
		return j.pass(RowMLS, o.by.needs(RowMLS, CanSendMLSPSKProposal, mimi.URI{}))
	case GroupContextExtensions:
		if o.by.hub {
			return j.pass(RowMLS, nil)
		}
		return j.pass(RowMLS, o.by.needs(RowMLS, CanChangeMlsOperationalPolicies, mimi.URI{}))
	case ExternalInit:
		if o.by.Sender == NewMemberCommit {
			return nil
		}
		return o.by.refuse(RowMLS, CheckSender, o.by.user, "external_init belongs to external commits")
	case AppEphemeral:
		return j.pass(RowMLS, j.ephemeral(o.by, p.Component))
	}
	return o.by.refuse(RowOther, CheckUnclassified, mimi.URI{}, "the proposal is none that a room knows")
}

// path judges the new leaf of a member: it must be of the same user.
func (j *judge) path(by *party, next Client) *Refusal {
	if next == (Client{}) {
		return j.pass(RowMLS, nil)
	}
	if next.User != by.user {
		return by.refuse(RowMLS, CheckOwnLeaf, next.User, "the new leaf is of another user")
	}
	if j.dropped[by.Leaf] {
		return by.refuse(RowClassify, CheckLeaf, by.user, fmt.Sprintf("leaf %d is updated and removed", by.Leaf))
	}
	j.effect.updated = append(j.effect.updated, Leaf{by.Leaf, next})
	return j.pass(RowMLS, nil)
}

// ephemeral lets every participant acknowledge, and those retract who may delete
// what others wrote.
func (j *judge) ephemeral(by *party, id ComponentID) *Refusal {
	switch id {
	case ComponentAppAck:
		if by.participant {
			return nil
		}
		return by.refuse(RowMLS, CheckParticipant, by.user, "only participants acknowledge messages")
	case ComponentHubRetracted:
		if by.role != nil && by.role.Has(CanDeleteOtherReaction) {
			return nil
		}
		return by.needs(RowMLS, CanDeleteOtherMessage, mimi.URI{})
	case ComponentHubRetractedRange:
		return by.needs(RowMLS, CanDeleteOtherMessage, mimi.URI{})
	}
	return by.refuse(RowMLS, CheckUnknown, mimi.URI{}, fmt.Sprintf("%s is not known as ephemeral", id))
}
