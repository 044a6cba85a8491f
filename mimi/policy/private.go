package policy

import (
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// Component IDs of our own, in the range for private use. A room has them only
// if every end is configured for them.
const (
	ComponentPendingPreference ComponentID = 0xF0B0 // PendingProposalPreference
	ComponentSelfRoleChanges   ComponentID = 0xF0B1 // SelfRoleChanges

	// ComponentRoomClosed is ephemeral and empty. The hub proposes it when it has
	// destroyed the room, so that followers and members hear of it by what the
	// hub has signed; nobody commits it.
	ComponentRoomClosed ComponentID = 0xF0B2
)

// PreferenceStrategy is a strategy for pending proposals that -02 of the draft
// named and -03 dropped. Neither version says what they mean; Turn does.
type PreferenceStrategy uint8

// The strategies, with the numbers of -02.
const (
	PreferenceWheel     PreferenceStrategy = 3 // preference_wheel
	DesignatedCommitter PreferenceStrategy = 4 // designated_committer
)

// PendingProposalPreference is the value and the update of our component
// 0xF0B0. mls_operational_policy then has strategy unspecified.
//
//	enum { preference_wheel(3), designated_committer(4), (255) } PreferenceStrategy;
//
//	struct {
//	  PreferenceStrategy strategy;
//	  uint64 minimum_delay_ms;
//	  uint64 maximum_delay_ms;
//	  select (strategy) {
//	    case preference_wheel:
//	      struct {};
//	    case designated_committer:
//	      IdentifierUri committers<V>;
//	  }
//	} PendingProposalPreference;
type PendingProposalPreference struct {
	Strategy       PreferenceStrategy
	MinimumDelayMS uint64
	MaximumDelayMS uint64
	Committers     []mimi.URI // users, in order of preference
}

// Marshal returns the preference's encoding.
func (p *PendingProposalPreference) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		b.Uint8(uint8(p.Strategy))
		b.Uint64(p.MinimumDelayMS)
		b.Uint64(p.MaximumDelayMS)
		if p.Strategy == DesignatedCommitter {
			appendList(b, p.Committers, func(b *tlsvec.Builder, u mimi.URI) { b.String(u.String()) })
		}
	})
}

// ParsePendingProposalPreference decodes a preference.
func ParsePendingProposalPreference(data []byte) (*PendingProposalPreference, error) {
	return parse("PendingProposalPreference", data, readPreference, (*PendingProposalPreference).check)
}

func readPreference(r *tlsvec.Reader) PendingProposalPreference {
	p := PendingProposalPreference{readEnum(r, "strategy", DesignatedCommitter), r.Uint64(), r.Uint64(), nil}
	switch p.Strategy {
	case PreferenceWheel:
	case DesignatedCommitter:
		p.Committers = readList(r, maxRoles, readUser)
	default:
		r.Fail("strategy belongs to mls_operational_policy")
	}
	return p
}

func readUser(r *tlsvec.Reader) mimi.URI {
	u, err := mimi.ParseURI(string(readOpaque(r, mimi.MaxURI)))
	if err != nil || u.Kind() != mimi.KindUser && u.Kind() != mimi.KindPseudonym {
		r.Fail("not the URI of a user")
	}
	return u
}

// maxDelayMS is a day.
const maxDelayMS = 24 * 60 * 60 * 1000

func (p *PendingProposalPreference) check() error {
	if p.MaximumDelayMS < p.MinimumDelayMS || p.MaximumDelayMS > maxDelayMS {
		return invalid("delays of %d to %d ms, want an ascending range within a day", p.MinimumDelayMS, p.MaximumDelayMS)
	}
	if p.Strategy == DesignatedCommitter && len(p.Committers) == 0 {
		return invalid("no committer is designated")
	}
	return nil
}

// Turn returns how long the client at a leaf waits before it commits what is
// pending in an epoch, and whether it commits at all. leaves are the group's
// leaves in ascending order.
//
// The wheel gives the minimum delay to one leaf, which moves by one place each
// epoch, and spreads the others in leaf order up to the maximum. Designated
// committers wait in the order of the list; all clients of the first have the
// minimum delay, and nobody else commits.
func (p *PendingProposalPreference) Turn(epoch uint64, leaf uint32, leaves []uint32, user mimi.URI) (time.Duration, bool) {
	place, places := 0, len(p.Committers)
	if p.Strategy == DesignatedCommitter {
		place = slices.Index(p.Committers, user)
	} else if places = len(leaves); places > 0 {
		if place = slices.Index(leaves, leaf); place >= 0 {
			place = (place + places - int(epoch%uint64(places))) % places
		}
	}
	if place < 0 || places == 0 {
		return 0, false
	}
	delay := p.MinimumDelayMS
	if places > 1 {
		delay += (p.MaximumDelayMS - p.MinimumDelayMS) * uint64(place) / uint64(places-1)
	}
	return time.Duration(delay) * time.Millisecond, true
}

// SelfRoleChanges is the value and the update of our component 0xF0B1: to which
// roles participants may move themselves, by the role that they have (issue #10
// of the draft, which has nothing of the kind). It needs Config.SelfRoleChanges
// and capability canChangeOwnRole.
//
//	struct {
//	  SingleSourceRoleChangeTargets self_role_changes<V>;
//	} SelfRoleChanges;
type SelfRoleChanges struct {
	Changes []SingleSourceRoleChangeTargets
}

// Marshal returns the encoding.
func (s *SelfRoleChanges) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) { appendList(b, s.Changes, appendChange) })
}

// ParseSelfRoleChanges decodes self role changes. Roles 0 and 1 cannot stand in
// them: leaving has its own capability and nobody lifts a ban of their own.
func ParseSelfRoleChanges(data []byte) (*SelfRoleChanges, error) {
	return parse("SelfRoleChanges", data, func(r *tlsvec.Reader) SelfRoleChanges {
		return SelfRoleChanges{readList(r, maxRoles, readChange)}
	}, (*SelfRoleChanges).check)
}

func (s *SelfRoleChanges) check() error {
	for _, c := range s.Changes {
		for _, role := range append([]mimi.RoleIndex{c.From}, c.Targets...) {
			if role == mimi.RoleNone || role == mimi.RoleBanned {
				return invalid("role %d cannot be part of a self role change", role)
			}
		}
	}
	return checkChanges(0, s.Changes)
}

// Allows reports whether a participant may move itself from one role to another.
func (s *SelfRoleChanges) Allows(from, to mimi.RoleIndex) bool {
	return s != nil && slices.ContainsFunc(s.Changes, func(c SingleSourceRoleChangeTargets) bool {
		return c.From == from && slices.Contains(c.Targets, to)
	})
}
