package policy

import (
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// BannedRoleName is the name that role 1 has if the room has that role.
const BannedRoleName = "banned"

// SingleSourceRoleChangeTargets says to which roles a holder may move a user
// who has one role. Role 0 stands for not being in the participant list.
//
//	struct {
//	   uint32 from_role_index;
//	   uint32 target_role_indexes<V>;
//	} SingleSourceRoleChangeTargets;
type SingleSourceRoleChangeTargets struct {
	From    mimi.RoleIndex
	Targets []mimi.RoleIndex
}

// A Role is what the participants who have it may do (section 3).
//
//	struct {
//	  uint32 role_index;
//	  opaque role_name<V>;
//	  opaque role_description<V>;
//	  CapabilityType role_capabilities<V>;
//	  uint32 minimum_participants_constraint;
//	  optional uint32 maximum_participants_constraint;
//	  uint32 minimum_active_participants_constraint;
//	  optional uint32 maximum_active_participants_constraint;
//	  SingleSourceRoleChangeTargets authorized_role_changes<V>;
//	} Role;
type Role struct {
	Index                     mimi.RoleIndex
	Name                      string
	Description               string
	Capabilities              []Capability
	MinimumParticipants       uint32
	MaximumParticipants       *uint32 // nil: no maximum
	MinimumActiveParticipants uint32
	MaximumActiveParticipants *uint32 // nil: no maximum; 0: no clients
	AuthorizedRoleChanges     []SingleSourceRoleChangeTargets
}

// RoleData is the value and the update of component roles_list (0x0025).
//
//	struct {
//	  Role roles<V>;
//	} RoleData;
type RoleData struct {
	Roles []Role
}

// Has reports whether the role has a capability.
func (r *Role) Has(c Capability) bool { return slices.Contains(r.Capabilities, c) }

// MayChange reports whether a holder of the role may move a user from one role
// to another.
func (r *Role) MayChange(from, to mimi.RoleIndex) bool { return slices.Contains(r.Targets(from), to) }

// Targets returns the roles to which a holder may move a user who has role from.
func (r *Role) Targets(from mimi.RoleIndex) []mimi.RoleIndex {
	for i := range r.AuthorizedRoleChanges {
		if r.AuthorizedRoleChanges[i].From == from {
			return r.AuthorizedRoleChanges[i].Targets
		}
	}
	return nil
}

// inert reports whether the role's holders may do nothing at all.
func (r *Role) inert() bool { return r.Index == mimi.RoleBanned || len(r.Capabilities) == 0 }

// clientless reports whether the role's holders may not have clients in the
// group.
func (r *Role) clientless() bool {
	return r.Index == mimi.RoleBanned || r.MaximumActiveParticipants != nil && *r.MaximumActiveParticipants == 0
}

func appendChange(b *tlsvec.Builder, c SingleSourceRoleChangeTargets) {
	b.Uint32(uint32(c.From))
	appendList(b, c.Targets, appendUint32)
}

func readChange(r *tlsvec.Reader) SingleSourceRoleChangeTargets {
	return SingleSourceRoleChangeTargets{mimi.RoleIndex(r.Uint32()), readList(r, maxRoles, readUint32[mimi.RoleIndex])}
}

func appendRole(b *tlsvec.Builder, v Role) {
	b.Uint32(uint32(v.Index))
	b.String(v.Name)
	b.String(v.Description)
	appendList(b, v.Capabilities, appendUint16)
	b.Uint32(v.MinimumParticipants)
	appendOptional(b, v.MaximumParticipants)
	b.Uint32(v.MinimumActiveParticipants)
	appendOptional(b, v.MaximumActiveParticipants)
	appendList(b, v.AuthorizedRoleChanges, appendChange)
}

func readRole(r *tlsvec.Reader) Role {
	return Role{
		Index:                     mimi.RoleIndex(r.Uint32()),
		Name:                      readText(r, maxName),
		Description:               readText(r, maxText),
		Capabilities:              readList(r, maxList, readUint16[Capability]),
		MinimumParticipants:       r.Uint32(),
		MaximumParticipants:       readOptional(r),
		MinimumActiveParticipants: r.Uint32(),
		MaximumActiveParticipants: readOptional(r),
		AuthorizedRoleChanges:     readList(r, maxRoles, readChange),
	}
}

// Marshal returns the role's encoding.
func (r *Role) Marshal() []byte { return marshal(func(b *tlsvec.Builder) { appendRole(b, *r) }) }

// ParseRole decodes a role.
func ParseRole(data []byte) (*Role, error) { return parse("Role", data, readRole, checkRole) }

// Marshal returns the list's encoding.
func (d *RoleData) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) { appendList(b, d.Roles, appendRole) })
}

// ParseRoleData decodes a list of roles and checks that it is consistent.
func ParseRoleData(data []byte) (*RoleData, error) {
	return parse("RoleData", data, func(r *tlsvec.Reader) RoleData {
		return RoleData{readList(r, maxRoles, readRole)}
	}, (*RoleData).check)
}

// Role returns the role with an index, or nil.
func (d *RoleData) Role(i mimi.RoleIndex) *Role {
	for n := range d.Roles {
		if d.Roles[n].Index == i {
			return &d.Roles[n]
		}
	}
	return nil
}

// checkRole checks the rules that concern one role alone.
func checkRole(r *Role) error {
	switch {
	case r.Index == mimi.RoleBanned && r.Name != BannedRoleName:
		return invalid("role 1 is named %q, want %q", r.Name, BannedRoleName)
	case r.Index != mimi.RoleBanned && r.Name == BannedRoleName:
		return invalid("role %d is named %q, which is the name of role 1", r.Index, r.Name)
	case r.Index != mimi.RoleNone && r.Has(CanOpenJoin):
		return invalid("role %d has canOpenJoin, which belongs to role 0", r.Index)
	case r.Index == mimi.RoleNone && r.Has(CanJoinIfPreauthorized):
		return invalid("role 0 has canJoinIfPreauthorized, which belongs to the other roles")
	case r.MaximumParticipants != nil && *r.MaximumParticipants < r.MinimumParticipants:
		return invalid("role %d has a maximum of participants below its minimum", r.Index)
	case r.MaximumActiveParticipants != nil && *r.MaximumActiveParticipants < r.MinimumActiveParticipants:
		return invalid("role %d has a maximum of active participants below its minimum", r.Index)
	}
	return checkChanges(r.Index, r.AuthorizedRoleChanges)
}

func checkChanges(of mimi.RoleIndex, changes []SingleSourceRoleChangeTargets) error {
	seen := make(map[mimi.RoleIndex]bool, len(changes))
	for _, c := range changes {
		if seen[c.From] {
			return invalid("role %d has two entries of changes from role %d", of, c.From)
		}
		seen[c.From] = true
		if slices.Contains(c.Targets, c.From) {
			return invalid("role %d has a change from role %d to itself", of, c.From)
		}
	}
	return nil
}

func (d *RoleData) check() error {
	known := map[mimi.RoleIndex]bool{mimi.RoleNone: true}
	listed := make(map[mimi.RoleIndex]bool, len(d.Roles))
	for i := range d.Roles {
		r := &d.Roles[i]
		if listed[r.Index] {
			return invalid("role %d is defined twice", r.Index)
		}
		known[r.Index], listed[r.Index] = true, true
		if err := checkRole(r); err != nil {
			return err
		}
	}
	return d.checkTargets(known)
}

// checkTargets checks that every role to or from which a change leads exists.
func (d *RoleData) checkTargets(known map[mimi.RoleIndex]bool) error {
	for i := range d.Roles {
		for _, c := range d.Roles[i].AuthorizedRoleChanges {
			for _, to := range append([]mimi.RoleIndex{c.From}, c.Targets...) {
				if !known[to] {
					return invalid("role %d has changes of role %d, which is not defined", d.Roles[i].Index, to)
				}
			}
		}
	}
	return nil
}
