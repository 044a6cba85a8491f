package policy

import (
	"fmt"

	"github.com/privyseal/privyseal/mimi"
)

// judgeGroup puts what one actor does to one user into its row, or into the two
// rows of which it consists, and checks them.
func (j *judge) judgeGroup(g *group) *Refusal {
	if g.own() {
		return j.judgeOwn(g)
	}
	switch {
	case j.hubRemoves(g):
		return nil
	case g.change == nil && len(g.adds) == 0:
		return j.pass(RowKick, g.kick())
	case g.change == nil:
		return g.refuse(RowOther, CheckUnclassified, "clients of another user, whom the actor does not add")
	case g.change.from == mimi.RoleNone:
		return j.pass(RowAdd, g.add())
	case g.change.to == mimi.RoleNone:
		return j.pass(RowRemove, g.remove())
	case g.change.to == mimi.RoleBanned:
		return j.ban(g)
	case g.change.from == mimi.RoleBanned:
		return j.pass(RowUnban, g.unban())
	}
	return j.changeRole(g)
}

// hubRemoves reports whether the group is a removal that Config.HubRemoves
// allows, and notes its row.
func (j *judge) hubRemoves(g *group) bool {
	if !j.s.config.HubRemoves || !g.by.hub || len(g.adds) > 0 || g.tally.entry == nil {
		return false
	}
	switch {
	case g.change == nil:
		j.effect.met(RowKick)
		return true
	case g.change.to == mimi.RoleNone && g.tally.after == 0:
		j.effect.met(RowRemove)
		return true
	}
	return false
}

// judgeOwn judges what an actor does to itself.
func (j *judge) judgeOwn(g *group) *Refusal {
	switch {
	case g.change == nil:
		return j.ownClients(g)
	case g.change.from == mimi.RoleNone:
		return j.join(g)
	case g.change.to == mimi.RoleNone:
		return j.pass(RowLeave, g.leave())
	}
	if refusal := j.pass(RowOwnRole, j.ownRole(g)); refusal != nil {
		return refusal
	}
	return j.ownClients(g)
}

// ownClients judges the clients that an actor adds of its own, and those that it
// removes. What an external commit removes belongs to its joining.
func (j *judge) ownClients(g *group) *Refusal {
	if len(g.adds) > 0 {
		if refusal := j.pass(RowOwnClient, j.addOwn(g)); refusal != nil {
			return refusal
		}
	}
	if len(g.removals) > 0 && !g.joins {
		return j.pass(RowDropOwn, g.dropOwn())
	}
	return nil
}

// pass notes a row that was met.
func (j *judge) pass(row Row, refusal *Refusal) *Refusal {
	if refusal == nil {
		j.effect.met(row)
	}
	return refusal
}

func (g *group) refuse(row Row, check Check, detail string) *Refusal {
	return g.by.refuse(row, check, g.tally.user, detail)
}

func (g *group) needs(row Row, c Capability) *Refusal { return g.by.needs(row, c, g.tally.user) }

func (g *group) mayChange(row Row) *Refusal {
	return g.by.mayChange(row, g.change.from, g.change.to, g.tally.user)
}

// noClients refuses if the user would keep clients: a removal or a ban takes
// them all, whoever proposes to remove them.
func (g *group) noClients(row Row) *Refusal {
	if g.tally.after == 0 {
		return nil
	}
	return g.refuse(row, CheckClientsRemain, fmt.Sprintf("%d clients of the user would remain", g.tally.after))
}

// first returns the first refusal.
func first(checks ...*Refusal) *Refusal {
	for _, refusal := range checks {
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

// add is row 1. To put somebody on the list as banned takes canBan too.
func (g *group) add() *Refusal {
	if refusal := first(g.needs(RowAdd, CanAddParticipant), g.mayChange(RowAdd)); refusal != nil {
		return refusal
	}
	if g.change.to == mimi.RoleBanned {
		return g.needs(RowAdd, CanBan)
	}
	return nil
}

// remove is row 3.
func (g *group) remove() *Refusal {
	return first(g.needs(RowRemove, CanRemoveParticipant), g.mayChange(RowRemove), g.noClients(RowRemove))
}

// leave is row 4.
func (g *group) leave() *Refusal {
	return first(g.needs(RowLeave, CanRemoveSelf), g.mayChange(RowLeave), g.noClients(RowLeave))
}

// dropOwn is row 5. Who may do nothing else may still take clients out.
func (g *group) dropOwn() *Refusal {
	if g.by.role != nil && g.by.role.inert() {
		return nil
	}
	return g.needs(RowDropOwn, CanRemoveOwnClient)
}

// kick is row 6, which consults no role changes.
func (g *group) kick() *Refusal {
	if g.tally.entry == nil {
		return g.refuse(RowKick, CheckParticipant, "the user does not participate")
	}
	return g.needs(RowKick, CanKick)
}

// ban is row 7, or for one who has not canBan rows 8 and 6.
func (j *judge) ban(g *group) *Refusal {
	row := RowBan
	if len(g.adds) > 0 {
		return g.refuse(row, CheckClientsAdded, "a ban adds no clients")
	}
	if refusal := g.needs(row, CanBan); refusal != nil {
		if g.needs(RowRole, CanChangeUserRole) != nil || len(g.removals) > 0 && g.needs(RowKick, CanKick) != nil {
			return refusal
		}
		row = RowRole
		if len(g.removals) > 0 {
			j.effect.met(RowKick)
		}
	}
	return j.pass(row, first(g.mayChange(row), g.noClients(row)))
}

// changeRole is row 8, with row 6 for clients that are removed beside it.
func (j *judge) changeRole(g *group) *Refusal {
	if len(g.adds) > 0 {
		return g.refuse(RowOther, CheckUnclassified, "clients of another user with a change of its role")
	}
	if refusal := j.pass(RowRole, first(g.needs(RowRole, CanChangeUserRole), g.mayChange(RowRole))); refusal != nil {
		return refusal
	}
	if len(g.removals) > 0 {
		return j.pass(RowKick, g.kick())
	}
	return nil
}

// unban is row 9. It adds no clients.
func (g *group) unban() *Refusal {
	if g.needs(RowUnban, CanUnBan) != nil && g.needs(RowUnban, CanChangeUserRole) != nil {
		return g.needs(RowUnban, CanUnBan)
	}
	if refusal := g.mayChange(RowUnban); refusal != nil {
		return refusal
	}
	if len(g.adds) > 0 {
		return g.refuse(RowUnban, CheckClientsAdded, "lifting a ban adds no clients")
	}
	return nil
}

// ownRole is row 10: to the first role for which the participant is
// preauthorised, whatever authorized_role_changes say.
func (j *judge) ownRole(g *group) *Refusal {
	if refusal := g.needs(RowOwnRole, CanChangeOwnRole); refusal != nil {
		return refusal
	}
	if j.s.policies.self.Allows(g.change.from, g.change.to) {
		return nil
	}
	i := j.match(g.change.by)
	if i < 0 || j.s.policies.preauth.PreauthorizedEntries[i].TargetRole.Index != g.change.to {
		return g.refuse(RowOwnRole, CheckPreauth, fmt.Sprintf("the first matching entry does not give role %d", g.change.to))
	}
	j.effect.entry = i
	return nil
}

// addOwn is row 2.
func (j *judge) addOwn(g *group) *Refusal {
	if g.tally.entry == nil {
		row := RowOther
		if g.joins {
			row = RowOwnClient
		}
		return g.refuse(row, CheckParticipant, "who does not participate joins by an external commit with an entry in the list")
	}
	if refusal := g.needs(RowOwnClient, CanAddOwnClient); refusal != nil {
		return refusal
	}
	switch {
	case g.proposes && !j.s.policies.externalProposals():
		return g.refuse(RowOwnClient, CheckExternalProposal, "the room takes no external proposals")
	case g.joins && !j.s.policies.externalCommits():
		return g.refuse(RowOwnClient, CheckExternalCommit, "the room takes no external commits")
	}
	return nil
}

// join judges rows J1, J2 and J3 in this order. If none allows the join, the
// refusal is that of the way that the joiner seems to have meant: the code it
// showed, else the entry it matches, else the open door.
func (j *judge) join(g *group) *Refusal {
	if !g.joins {
		return g.refuse(RowOther, CheckUnclassified, "who does not participate joins by an external commit")
	}
	preauth := j.joinPreauth(g)
	if preauth == nil {
		return j.pass(RowPreauth, nil)
	}
	door := &party{Actor: g.by.Actor, user: g.by.user, role: j.s.policies.roles[mimi.RoleNone]}
	code := j.joinByCode(g, door)
	if code == nil {
		return j.pass(RowJoinCode, nil)
	}
	open := j.joinOpen(g, door)
	switch {
	case open == nil:
		return j.pass(RowOpenJoin, nil)
	case j.code.Shown:
		return code
	case j.match(g.by) >= 0:
		return preauth
	}
	return open
}

// joinPreauth is row J1. Later entries are not tried.
func (j *judge) joinPreauth(g *group) *Refusal {
	i := j.match(g.by)
	if i < 0 || j.s.policies.preauth.PreauthorizedEntries[i].TargetRole.Index != g.change.to {
		return g.refuse(RowPreauth, CheckPreauth, fmt.Sprintf("the first matching entry does not give role %d", g.change.to))
	}
	target := *g.by
	target.role = j.s.policies.roles[g.change.to]
	if refusal := first(target.needs(RowPreauth, CanJoinIfPreauthorized, g.tally.user), j.externalCommit(g, RowPreauth)); refusal != nil {
		return refusal
	}
	j.effect.entry = i
	return nil
}

// joinByCode is row J2. A member has not seen the code and takes the hub's word.
func (j *judge) joinByCode(g *group, door *party) *Refusal {
	if refusal := first(door.needs(RowJoinCode, CanUseJoinCode, g.tally.user), j.externalCommit(g, RowJoinCode)); refusal != nil {
		return refusal
	}
	if !j.s.config.Member && !(j.code.Shown && j.code.Valid && j.code.Role == g.change.to) {
		return g.refuse(RowJoinCode, CheckJoinCode, fmt.Sprintf("no valid code for role %d was shown", g.change.to))
	}
	return door.mayChange(RowJoinCode, mimi.RoleNone, g.change.to, g.tally.user)
}

// joinOpen is row J3.
func (j *judge) joinOpen(g *group, door *party) *Refusal {
	return first(door.needs(RowOpenJoin, CanOpenJoin, g.tally.user), j.externalCommit(g, RowOpenJoin),
		door.mayChange(RowOpenJoin, mimi.RoleNone, g.change.to, g.tally.user))
}

func (j *judge) externalCommit(g *group, row Row) *Refusal {
	if j.s.policies.externalCommits() {
		return nil
	}
	return g.refuse(row, CheckExternalCommit, "the room takes no external commits")
}
