package clientapi

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// A CreateRoomRequest makes a room at the client's own provider, which becomes
// its hub. The client has made the group, alone or with other clients of its
// users in it, and shows its GroupInfo with external_pub and its tree. The
// GroupContext must be that of a MIMI room: components 0x0001, 0x0002, 0x0003,
// 0x0021, 0x0022, 0x0023, 0x0025 and 0x0027, room_uri in 0x0023 equal to roomId,
// required_capabilities that list extension 0x0006 and proposals 0x0008, 0x0009
// and 0x000a, and external_senders and franking_agent as HubKeys gives them.
//
//	struct {
//	    IdentifierUri roomId;
//	    opaque group_info<V>;              /* MLSMessage, without ratchet_tree */
//	    opaque ratchet_tree_option<V>;     /* full */
//	} CreateRoomRequest;
//
// The answer is a mimi.UpdateRoomResponse. A request that repeats the one which
// made the room is answered as that was.
type CreateRoomRequest struct {
	RoomID      mimi.URI
	GroupInfo   *mls.GroupInfo
	RatchetTree *mls.RatchetTreeOption
}

func (q *CreateRoomRequest) append(b *tlsvec.Builder) {
	appendURI(b, q.RoomID)
	b.Vector(q.GroupInfo.Message())
	b.Vector(q.RatchetTree.Bytes())
}

func (q *CreateRoomRequest) read(r *tlsvec.Reader) {
	q.RoomID = readURI(r, mimi.KindRoom)
	q.GroupInfo = readStruct(r, mls.ParseGroupInfo, (*mls.GroupInfo).Message)
	q.RatchetTree = readStruct(r, mls.ParseRatchetTreeOption, (*mls.RatchetTreeOption).Bytes)
}

// Marshal returns the request's encoding.
func (q *CreateRoomRequest) Marshal() []byte { return marshal(q) }

// ParseCreateRoomRequest decodes a request.
func ParseCreateRoomRequest(b []byte) (*CreateRoomRequest, error) {
	q := new(CreateRoomRequest)
	return q, parse("CreateRoomRequest", b, q)
}

// HubKeys are what the GroupContext of a room at this provider must have, for
// one cipher suite (GET /client/v1/rooms/keys?suite=NUMBER).
//
//	struct {
//	    CipherSuite cipher_suite;
//	    ExternalSender hub_sender;         /* to be first in external_senders */
//	    opaque franking_agent<V>;          /* value of component 0x0021 */
//	    optional<ExternalReceiver> hub_receiver;  /* of rooms with SemiPrivateMessages */
//	} HubKeys;
type HubKeys struct {
	CipherSuite   mls.CipherSuite
	HubSender     mls.ExternalSender
	FrankingAgent []byte
	HubReceiver   *mls.ExternalReceiver // nil: the hub reads no SemiPrivateMessages
}

// PathHubKeys is where the HubKeys are.
const PathHubKeys = PathRooms + "/keys"

func (k *HubKeys) append(b *tlsvec.Builder) {
	b.Uint16(uint16(k.CipherSuite))
	b.Vector(k.HubSender.SignatureKey)
	appendCredential(b, k.HubSender.Credential)
	b.Vector(k.FrankingAgent)
	if appendBool(b, k.HubReceiver != nil); k.HubReceiver != nil {
		b.Vector(k.HubReceiver.PublicKey)
		appendCredential(b, k.HubReceiver.Credential)
	}
}

func (k *HubKeys) read(r *tlsvec.Reader) {
	k.CipherSuite = mls.CipherSuite(r.Uint16())
	k.HubSender = mls.ExternalSender{SignatureKey: readBounded(r, "signature_key", 1024), Credential: readCredential(r)}
	k.FrankingAgent = readBounded(r, "franking_agent", maxCredentialBytes+1024)
	if readBool(r) {
		k.HubReceiver = &mls.ExternalReceiver{PublicKey: readBounded(r, "external_receiver_public_key", 1024), Credential: readCredential(r)}
	}
}

// Marshal returns the encoding.
func (k *HubKeys) Marshal() []byte { return marshal(k) }

// ParseHubKeys decodes the keys.
func ParseHubKeys(b []byte) (*HubKeys, error) {
	k := new(HubKeys)
	return k, parse("HubKeys", b, k)
}

// A RoomList is the rooms of which a client gets events.
//
//	struct {
//	    IdentifierUri roomId;
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    uint32 role_index;
//	    uint64 since;
//	} RoomEntry;
//	struct { RoomEntry rooms<V>; } RoomList;
type RoomList []RoomEntry

// A RoomEntry is one room.
type RoomEntry struct {
	RoomID  mimi.URI
	GroupID []byte         // empty if the provider does not know it
	Epoch   uint64         // the newest that the provider knows of
	Role    mimi.RoleIndex // of the user; 0 where the hub is elsewhere
	Since   uint64         // sequence number after which the room's events are the client's
}

func (l *RoomList) append(b *tlsvec.Builder) {
	appendList(b, *l, func(b *tlsvec.Builder, e RoomEntry) {
		appendURI(b, e.RoomID)
		b.Vector(e.GroupID)
		b.Uint64(e.Epoch)
		b.Uint32(uint32(e.Role))
		b.Uint64(e.Since)
	})
}

func (l *RoomList) read(r *tlsvec.Reader) {
	*l = readList(r, "rooms", MaxRoomsListed, func(r *tlsvec.Reader) RoomEntry {
		return RoomEntry{readURI(r, mimi.KindRoom), r.Vector(), r.Uint64(), mimi.RoleIndex(r.Uint32()), r.Uint64()}
	})
}

// Marshal returns the list's encoding.
func (l RoomList) Marshal() []byte { return marshal(&l) }

// ParseRoomList decodes a list.
func ParseRoomList(b []byte) (RoomList, error) {
	var l RoomList
	return l, parse("RoomList", b, &l)
}

// A JoinCodeRequest asks for a code with which others may join the room by an
// external commit, with the given role. The user needs canCreateJoinCode and
// the role a transition from 0. Only the hub ever knows the code.
//
//	struct { uint32 role_index; uint32 lifetime; uint32 uses; } JoinCodeRequest;
type JoinCodeRequest struct {
	Role     mimi.RoleIndex
	Lifetime uint32 // in seconds, at most 30 days
	Uses     uint32 // 1 to 10,000
}

func (q *JoinCodeRequest) append(b *tlsvec.Builder) {
	b.Uint32(uint32(q.Role))
	b.Uint32(q.Lifetime)
	b.Uint32(q.Uses)
}

func (q *JoinCodeRequest) read(r *tlsvec.Reader) {
	q.Role, q.Lifetime, q.Uses = mimi.RoleIndex(r.Uint32()), r.Uint32(), r.Uint32()
	if r.Err() == nil && (q.Role <= mimi.RoleBanned || q.Lifetime == 0 || q.Lifetime > 30*24*3600 || q.Uses == 0 || q.Uses > 10_000) {
		r.Fail("role, lifetime or uses are out of bounds")
	}
}

// Marshal returns the request's encoding.
func (q *JoinCodeRequest) Marshal() []byte { return marshal(q) }

// ParseJoinCodeRequest decodes a request.
func ParseJoinCodeRequest(b []byte) (*JoinCodeRequest, error) {
	q := new(JoinCodeRequest)
	return q, parse("JoinCodeRequest", b, q)
}

// A JoinCode is a code for mimi.GroupInfoRequest.JoiningCode. It is a secret.
//
//	struct { opaque code<V>; uint64 expires; } JoinCode;
type JoinCode struct {
	Code    []byte
	Expires uint64 // milliseconds since the UNIX epoch
}

func (c *JoinCode) append(b *tlsvec.Builder) {
	b.Vector(c.Code)
	b.Uint64(c.Expires)
}

func (c *JoinCode) read(r *tlsvec.Reader) {
	c.Code = readBounded(r, "code", MaxJoiningCode)
	c.Expires = r.Uint64()
}

// String keeps the code out of prints.
func (c *JoinCode) String() string { return "join code (not printed)" }

// Marshal returns the code's encoding.
func (c *JoinCode) Marshal() []byte { return marshal(c) }

// ParseJoinCode decodes a code.
func ParseJoinCode(b []byte) (*JoinCode, error) {
	c := new(JoinCode)
	return c, parse("JoinCode", b, c)
}
