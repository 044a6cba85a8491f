package policy

import (
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// BaseRoomPolicy is the value and the update of component base_room_policy
// (0x0027, section 5).
//
//	struct {
//	    bool fixed_membership;
//	    bool parent_dependant;
//	    Uri parent_room<V>;
//	    bool multi_device;
//	    optional uint32 max_clients;
//	    optional uint32 max_users;
//	    bool pseudonyms_allowed;
//	    bool persistent_room;
//	    bool discoverable;
//	    Component policy_component_ids<V>;
//	} BaseRoomPolicy;
type BaseRoomPolicy struct {
	FixedMembership    bool
	ParentDependant    bool
	ParentRoom         string // the parent's room URI, or empty
	MultiDevice        bool   // false: each user has at most one client in the group
	MaxClients         *uint32
	MaxUsers           *uint32 // not counting those who are banned
	PseudonymsAllowed  bool
	PersistentRoom     bool
	Discoverable       bool
	PolicyComponentIDs []ComponentID
}

// Marshal returns the policy's encoding.
func (p *BaseRoomPolicy) Marshal() []byte {
	return marshal(func(b *tlsvec.Builder) {
		appendBool(b, p.FixedMembership)
		appendBool(b, p.ParentDependant)
		appendMaybeURI(b, p.ParentRoom)
		appendBool(b, p.MultiDevice)
		appendOptional(b, p.MaxClients)
		appendOptional(b, p.MaxUsers)
		appendBool(b, p.PseudonymsAllowed)
		appendBool(b, p.PersistentRoom)
		appendBool(b, p.Discoverable)
		appendList(b, p.PolicyComponentIDs, appendUint16)
	})
}

// ParseBaseRoomPolicy decodes a base room policy.
func ParseBaseRoomPolicy(data []byte) (*BaseRoomPolicy, error) {
	return parse("BaseRoomPolicy", data, readBase, (*BaseRoomPolicy).check)
}

func readBase(r *tlsvec.Reader) BaseRoomPolicy {
	return BaseRoomPolicy{
		FixedMembership:    readBool(r),
		ParentDependant:    readBool(r),
		ParentRoom:         readMaybeURI(r),
		MultiDevice:        readBool(r),
		MaxClients:         readOptional(r),
		MaxUsers:           readOptional(r),
		PseudonymsAllowed:  readBool(r),
		PersistentRoom:     readBool(r),
		Discoverable:       readBool(r),
		PolicyComponentIDs: readList(r, maxList, readUint16[ComponentID]),
	}
}

func (p *BaseRoomPolicy) check() error {
	if p.ParentDependant != (p.ParentRoom != "") {
		return invalid("parent_room must be set if and only if parent_dependant is true")
	}
	if p.ParentDependant {
		if u, err := mimi.ParseURI(p.ParentRoom); err != nil || u.Kind() != mimi.KindRoom {
			return invalid("parent_room is not the URI of a room")
		}
	}
	sorted := slices.Clone(p.PolicyComponentIDs)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(p.PolicyComponentIDs) {
		return invalid("policy_component_ids names a component twice")
	}
	return nil
}
