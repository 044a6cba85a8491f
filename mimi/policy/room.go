package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/privyseal/privyseal/mimi"
)

// room is step Z: the constraints of the room as it would be. Minimums bind only
// what lowers a count and maximums only what raises one, so that a room that
// begins below or above one can still move towards it.
func (j *judge) room() *Refusal {
	return first(
		j.roleCounts(),
		j.newRoles(),
		j.baseMembership(),
		j.baseLimits(),
		j.newBase(),
		j.leaves(),
		j.oneLeafEach(),
		j.together(),
	)
}

func constraint(check Check, role mimi.RoleIndex, format string, args ...any) *Refusal {
	return &Refusal{Row: RowRoom, Check: check, Role: role, Detail: fmt.Sprintf(format, args...)}
}

// roleCounts checks the constraints of the roles whose counts change.
func (j *judge) roleCounts() *Refusal {
	deltas := make(map[mimi.RoleIndex]count)
	j.deltas = deltas
	for _, t := range j.touched {
		add(deltas, t.before(), -1, -min(t.leaves, 1))
		add(deltas, t.now(), 1, min(max(t.after, 0), 1))
	}
	delete(deltas, mimi.RoleNone)
	for _, role := range slices.Sorted(maps.Keys(deltas)) {
		if refusal := j.roleCount(role, deltas[role]); refusal != nil {
			return refusal
		}
	}
	return nil
}

func add(deltas map[mimi.RoleIndex]count, role mimi.RoleIndex, participants, active int) {
	d := deltas[role]
	deltas[role] = count{d.participants + participants, d.active + active}
}

func (j *judge) roleCount(index mimi.RoleIndex, d count) *Refusal {
	role, was := j.effect.policies.roles[index], j.s.counts[index]
	now := count{was.participants + d.participants, was.active + d.active}
	switch {
	case role == nil:
		return nil // references has refused, or nobody has it
	case d.participants > 0 && over(now.participants, role.MaximumParticipants):
		return constraint(CheckMaxParticipants, index, "role %d would have %d participants", index, now.participants)
	case d.active > 0 && (over(now.active, role.MaximumActiveParticipants) || index == mimi.RoleBanned):
		return constraint(CheckMaxActive, index, "role %d would have %d active participants", index, now.active)
	case d.participants < 0 && now.participants < int(role.MinimumParticipants):
		return constraint(CheckMinParticipants, index, "role %d would have %d participants", index, now.participants)
	case d.active < 0 && now.active < int(role.MinimumActiveParticipants):
		return constraint(CheckMinActive, index, "role %d would have %d active participants", index, now.active)
	}
	return nil
}

func over(n int, most *uint32) bool { return most != nil && n > int(*most) }

func (j *judge) changes(id ComponentID) bool {
	_, ok := j.effect.values[id]
	return ok
}

// newRoles checks new role definitions against everybody in the room: no role is
// too small for its holders.
func (j *judge) newRoles() *Refusal {
	if !j.changes(ComponentRoles) {
		return nil
	}
	for _, index := range slices.Sorted(maps.Keys(j.s.counts)) {
		role, c, d := j.effect.policies.roles[index], j.s.counts[index], j.deltas[index]
		c = count{c.participants + d.participants, c.active + d.active}
		if role == nil {
			continue
		}
		if over(c.participants, role.MaximumParticipants) {
			return constraint(CheckMaxParticipants, index, "role %d has %d participants", index, c.participants)
		}
		if over(c.active, role.MaximumActiveParticipants) {
			return constraint(CheckMaxActive, index, "role %d has %d active participants", index, c.active)
		}
	}
	return nil
}

// baseMembership checks who may come and go at all.
func (j *judge) baseMembership() *Refusal {
	base := j.effect.policies.base
	if base.FixedMembership && len(j.effect.added)+len(j.effect.removed) > 0 {
		return constraint(CheckFixedMembership, 0, "nobody is added to or removed from a room of fixed membership")
	}
	coming := j.coming()
	if len(coming) == 0 {
		return nil
	}
	for _, p := range coming {
		if p.User.Kind() == mimi.KindPseudonym && !base.PseudonymsAllowed {
			return constraint(CheckPseudonym, p.Role, "%s is a pseudonym", p.User)
		}
	}
	if base.ParentDependant {
		return j.inParent(coming)
	}
	return nil
}

// coming are those who come into the room: onto the list, or back from a ban.
func (j *judge) coming() []mimi.UserRolePair {
	coming := slices.Clone(j.effect.added)
	for _, p := range j.effect.roles {
		if j.s.roster.find(p.User).pair.Role == mimi.RoleBanned {
			coming = append(coming, p)
		}
	}
	return coming
}

// inParent checks that participants are of the parent room, and that the room
// stays a strict subset of it.
func (j *judge) inParent(users []mimi.UserRolePair) *Refusal {
	parent := j.s.config.Parent
	if parent == nil {
		if j.s.config.Member {
			return nil
		}
		return constraint(CheckParent, 0, "the parent room is not known here")
	}
	for _, p := range users {
		if p.Role != mimi.RoleBanned && !parent.Has(p.User) {
			return constraint(CheckParent, p.Role, "%s is not in the parent room", p.User)
		}
	}
	if n := j.usersAfter(); n >= parent.Len() {
		return constraint(CheckParent, 0, "%d users, and the parent room has %d", n, parent.Len())
	}
	return nil
}

// usersAfter returns how many participants would not be banned.
func (j *judge) usersAfter() int {
	n := j.s.users
	for _, t := range j.touched {
		n += counted(t.now()) - counted(t.before())
	}
	return n
}

func counted(role mimi.RoleIndex) int {
	if role == mimi.RoleNone || role == mimi.RoleBanned {
		return 0
	}
	return 1
}

// baseLimits checks the sizes that base_room_policy allows.
func (j *judge) baseLimits() *Refusal {
	base := j.effect.policies.base
	added := 0
	for _, t := range j.touched {
		if !base.MultiDevice && t.after > 1 && t.after > t.leaves {
			return constraint(CheckMultiDevice, 0, "%s would have %d clients", t.user, t.after)
		}
		added += t.after - t.leaves
	}
	renewed := j.changes(ComponentBase)
	if n := len(j.s.leaves) + added; (added > 0 || renewed) && over(n, base.MaxClients) {
		return constraint(CheckMaxClients, 0, "the group would have %d clients", n)
	}
	if n := j.usersAfter(); (n > j.s.users || renewed) && over(n, base.MaxUsers) {
		return constraint(CheckMaxUsers, 0, "the room would have %d users", n)
	}
	if n := j.s.roster.size() + len(j.effect.added) - len(j.effect.removed); n > mimi.MaxParticipants {
		return constraint(CheckMaxUsers, 0, "the list would have %d entries", n)
	}
	return nil
}

// newBase checks a new base_room_policy against the room, and new roles against
// a fixed membership.
func (j *judge) newBase() *Refusal {
	base, old := j.effect.policies.base, j.s.policies.base
	if base.FixedMembership && (j.changes(ComponentBase) || j.changes(ComponentRoles)) {
		for index, role := range j.effect.policies.roles {
			if index > mimi.RoleBanned && role.Has(CanAddParticipant) {
				return constraint(CheckFixedMembership, index, "role %d has canAddParticipant in a room of fixed membership", index)
			}
		}
	}
	if !base.MultiDevice && old.MultiDevice {
		if refusal := j.singleDevices(); refusal != nil {
			return refusal
		}
	}
	if !base.PseudonymsAllowed && old.PseudonymsAllowed {
		if refusal := j.noPseudonyms(); refusal != nil {
			return refusal
		}
	}
	if base.ParentDependant && base.ParentRoom != old.ParentRoom {
		return j.inParent(j.s.roster.pairs())
	}
	return nil
}

// noPseudonyms checks that nobody stays in the room under a pseudonym.
func (j *judge) noPseudonyms() *Refusal {
	for _, p := range j.s.roster.pairs() {
		if p.User.Kind() != mimi.KindPseudonym {
			continue
		}
		if t := j.tallies[p.User]; t == nil && p.Role != mimi.RoleBanned || t != nil && counted(t.now()) > 0 {
			return constraint(CheckPseudonym, p.Role, "%s is a pseudonym", p.User)
		}
	}
	return nil
}

func (j *judge) singleDevices() *Refusal {
	for i := range j.s.roster.slots {
		e := &j.s.roster.slots[i]
		n := len(e.leaves)
		if t := j.tallies[e.pair.User]; t != nil {
			n = t.after
		}
		if n > 1 {
			return constraint(CheckMultiDevice, e.pair.Role, "%s has %d clients", e.pair.User, n)
		}
	}
	return nil
}

// leaves checks that every client in the group is of a participant whose role
// may have clients.
func (j *judge) leaves() *Refusal {
	for _, t := range j.touched {
		if t.after <= 0 || t.after <= t.leaves && t.change == nil {
			continue
		}
		role := j.effect.policies.roles[t.now()]
		if t.now() == mimi.RoleNone {
			return constraint(CheckStrangerLeaf, 0, "%s would have clients and not participate", t.user)
		}
		if role == nil || role.clientless() {
			return constraint(CheckInactiveRole, t.now(), "%s would have clients with role %d", t.user, t.now())
		}
	}
	return nil
}

// oneLeafEach checks that no leaf comes of a client that has one and keeps it.
// One that goes in the same commit makes room for it, as when a client that has
// lost its state joins anew.
func (j *judge) oneLeafEach() *Refusal {
	e := j.effect
	if len(e.joined)+len(e.updated) == 0 {
		return nil
	}
	change := make(map[mimi.URI]int)
	came := slices.Clone(e.joined)
	for _, leaf := range e.dropped {
		change[j.s.leaves[leaf].URI]--
	}
	for _, l := range e.updated {
		if old := j.s.leaves[l.Index].URI; old != l.URI {
			change[old]--
			came = append(came, l.Client)
		}
	}
	for _, c := range came {
		change[c.URI]++
	}
	for _, c := range came {
		if refusal := duplicate(c.URI, j.s.seats[c.URI]+change[c.URI]); refusal != nil {
			refusal.User = c.User
			return refusal
		}
	}
	return nil
}

// together checks what may not share a commit.
func (j *judge) together() *Refusal {
	list := len(j.effect.added) + len(j.effect.roles) + len(j.effect.removed)
	if j.changes(ComponentRoles) && list > 0 {
		return constraint(CheckRolesWithList, 0, "roles_list changes with the participant list")
	}
	_, preauth := j.effect.Value(ComponentPreauth)
	if preauth && list > len(j.effect.removed) {
		return constraint(CheckPreauthWithList, 0, "preauth_list changes with more than removals from the participant list")
	}
	return nil
}
