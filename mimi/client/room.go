package client

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// A RoomStatus says how a client stands to a room.
type RoomStatus string

// The statuses. A room that is creating or joining waits for an answer of the
// hub, which Resume asks for again. A room that is lost had an event that this
// client could not follow; Rejoin brings it back.
const (
	RoomCreating RoomStatus = "creating"
	RoomJoining  RoomStatus = "joining"
	RoomMember   RoomStatus = "member"
	RoomLeaving  RoomStatus = "leaving" // this client proposed its own removal
	RoomLeft     RoomStatus = "left"    // removed, by itself or by others
	RoomClosed   RoomStatus = "closed"  // destroyed by its hub
	RoomLost     RoomStatus = "lost"
)

// Reasons for which a room cannot be used now.
var (
	ErrNoRoom      = errors.New("client: this client has no such room")
	ErrNotMember   = errors.New("client: this client is no member of the room")
	ErrLost        = errors.New("client: the room's events cannot be followed; rejoin it")
	ErrLeaving     = errors.New("client: this client has proposed to leave the room, and waits for another to commit that")
	ErrQuarantined = errors.New("client: the credential of a member is in doubt; nothing is sent until that is resolved")
)

// A Room is one room of a client. Its methods may be called at the same time.
// There is one for each room, so that nobody works on a state of a group that
// another has moved on from.
type Room struct {
	c   *Client
	uri mimi.URI

	asked atomic.Uint64 // epoch in which keepUp last asked for events
	stale atomic.Bool   // what is in memory may differ from the state, which counts
	known atomic.Bool   // the state has it, as far as memory knows

	mu      sync.Mutex // guards what follows; see lock
	status  RoomStatus // empty for a room that the state does not have
	detail  string
	groupID []byte
	request []byte // to be sent again while creating or joining
	since   uint64
	newest  uint64

	// What follows is loaded when it is needed, and dropped when a write
	// fails: the stored state counts.
	group *mls.Group
	state *policy.State
	past  []pastLeaf // those that are not stored yet are here too

	agents []pastAgent // as past

	signed *rejection // the last Commit that a signing service signed
}

// Room returns a room that the client is or was in.
func (c *Client) Room(ctx context.Context, uri mimi.URI) (*Room, error) {
	c.mu.Lock()
	r := c.rooms[uri]
	c.mu.Unlock()
	if r != nil && r.known.Load() && !r.stale.Load() {
		return r, nil
	}
	var n int
	if err := c.store.one(ctx, `SELECT count(*) FROM room WHERE uri = ?`, []any{uri.String()}, &n); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoRoom, uri)
	}
	r = c.roomAt(uri)
	r.known.Store(true)
	return r, nil
}

// roomAt returns the one Room of a URI, which the state need not have.
func (c *Client) roomAt(uri mimi.URI) *Room {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rooms[uri]
	if r == nil {
		r = &Room{c: c, uri: uri}
		r.stale.Store(true)
		c.rooms[uri] = r
	}
	return r
}

// lock locks the room, and reads it from the state first if what is in memory may
// differ. If it fails, the room is not locked.
func (r *Room) lock(ctx context.Context) error {
	r.mu.Lock()
	if !r.stale.Swap(false) {
		return nil
	}
	if err := r.read(ctx); err != nil {
		r.stale.Store(true)
		r.mu.Unlock()
		return err
	}
	return nil
}

// read reads the room's row. The group is loaded when it is needed.
func (r *Room) read(ctx context.Context) error {
	var since, newest, epoch int64
	var group, request, signed []byte
	var status RoomStatus
	var detail string
	err := r.c.store.one(ctx, `SELECT group_id, status, detail, request, since, newest, signed, signed_epoch FROM room WHERE uri = ?`, []any{r.uri.String()},
		&group, &status, &detail, &request, &since, &newest, &signed, &epoch)
	if err != nil && !errors.Is(err, mls.ErrNotFound) {
		return err
	}
	r.drop()
	r.known.Store(err == nil)
	r.groupID, r.status, r.detail, r.request = group, status, detail, request
	r.since, r.newest = uint64(since), uint64(newest)
	if signed != nil { // one that is in memory alone is yet to be reported
		r.signed = &rejection{signed, uint64(epoch)}
	}
	return nil
}

// distrust has the room read from the state again when it is next locked.
func (r *Room) distrust() {
	r.drop()
	r.stale.Store(true)
}

// Rooms lists the client's rooms, those it has left among them.
func (c *Client) Rooms(ctx context.Context) ([]*Room, error) {
	var uris []mimi.URI
	err := c.store.each(ctx, `SELECT uri FROM room ORDER BY uri`, nil, func(rows *sql.Rows) error {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		u, err := mimi.ParseURI(s)
		uris = append(uris, u)
		return err
	})
	var rooms []*Room
	for _, u := range uris {
		r, err := c.Room(ctx, u)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, r)
	}
	return rooms, err
}

// URI names the room.
func (r *Room) URI() mimi.URI { return r.uri }

// Status says how the client stands to the room, and why if that is not plain.
func (r *Room) Status() (RoomStatus, string) {
	if r.lock(context.Background()) != nil {
		r.mu.Lock() // what was known last
	}
	defer r.mu.Unlock()
	return r.status, r.detail
}

// load brings the group and the room's state into memory.
func (r *Room) load(ctx context.Context) error {
	switch r.status {
	case RoomLost:
		return fmt.Errorf("%w: %s: %s", ErrLost, r.uri, r.detail)
	case "":
		return fmt.Errorf("%w: %s", ErrNoRoom, r.uri)
	case RoomLeft, RoomClosed, RoomCreating, RoomJoining:
		return fmt.Errorf("%w: %s: it is %s", ErrNotMember, r.uri, r.status)
	}
	return r.loadGroup(ctx)
}

func (r *Room) loadGroup(ctx context.Context) error {
	if r.group != nil {
		return nil
	}
	g, err := r.c.engine().LoadGroup(ctx, r.groupID)
	if err != nil {
		return err
	}
	s, err := r.c.stateOf(ctx, r.uri, g)
	if err != nil {
		return err
	}
	r.group, r.state = g, s
	return nil
}

// drop has group and state loaded from storage when they are next needed.
func (r *Room) drop() { r.group, r.state, r.past, r.agents = nil, nil, nil, nil }

// stateOf makes the policy state of a group, which must be that of the room.
func (c *Client) stateOf(ctx context.Context, uri mimi.URI, g *mls.Group) (*policy.State, error) {
	gc := g.Context()
	if err := room.Check(gc.Extensions); err != nil {
		return nil, err
	}
	s, err := room.NewState(ctx, policy.Config{Member: true}, gc.Extensions, g.Members(), c.verdicts.in(uri))
	if err != nil {
		return nil, err
	}
	if s.Room() != uri {
		return nil, fmt.Errorf("client: the group is that of %s, not of %s", s.Room(), uri)
	}
	return s, nil
}

// step runs f, whose mls calls write into one unit, and stores that at once. If
// either fails, the stored state counts.
func (r *Room) step(ctx context.Context, f func(context.Context, *unit) error) error {
	unitCtx, u := collect(inRoom(ctx, r.uri))
	err := f(unitCtx, u)
	if err == nil {
		err = r.c.store.commit(ctx, u)
	}
	if err != nil {
		r.distrust()
	}
	return err
}

// setStatus is the step that stores a status.
func (r *Room) setStatus(ctx context.Context, u *unit, status RoomStatus, detail string) {
	r.status, r.detail, r.request = status, detail, nil
	uri := r.uri.String()
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE room SET status = ?, detail = ?, request = NULL WHERE uri = ?`, string(status), detail, uri)
		return err
	})
}

// store is the step that stores the whole row.
func (r *Room) store(ctx context.Context, u *unit) {
	r.known.Store(true)
	uri, group, status, request, since, newest := r.uri.String(), r.groupID, string(r.status), r.request, int64(r.since), int64(r.newest)
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO room (uri, group_id, status, request, detail, since, newest) VALUES (?, ?, ?, ?, '', ?, ?)
			ON CONFLICT (uri) DO UPDATE SET group_id = excluded.group_id, status = excluded.status, request = excluded.request, detail = '', since = excluded.since, newest = max(newest, excluded.newest)`,
			uri, group, status, request, since, newest)
		return err
	})
}

// A Participant is one user of a room.
type Participant struct {
	User     mimi.URI
	Role     mimi.RoleIndex
	RoleName string
	Clients  []Member
}

// A Member is one client in a room's group.
type Member struct {
	Leaf mls.LeafIndex
	*Verdict
	Fingerprint identity.Fingerprint // of the leaf's signature key
	Verified    bool                 // a person compared the fingerprint
}

// An Info is a room as it is now.
type Info struct {
	URI          mimi.URI
	Status       RoomStatus
	Detail       string
	GroupID      []byte
	Epoch        uint64
	CipherSuite  mls.CipherSuite
	Metadata     *mimi.RoomMetaData
	Participants []Participant
	Components   []policy.ComponentID
	Pending      int // proposals that wait for a commit
	Base         *policy.BaseRoomPolicy
	SemiPrivate  bool // handshakes are read by members and the hub alone
	// Senders are the providers that may make external proposals, the hub among
	// them, in their order; zero for one whose credential is not believed.
	Senders []mimi.URI
	// ExternalSenders is the same list with what is known of each.
	ExternalSenders []ExternalSender
	// Authenticator is the same for all members of the epoch, for people to
	// compare.
	Authenticator []byte
	// Context is the hash of the GroupContext: of tree, components and
	// transcript. The hub has the same.
	Context [sha256.Size]byte
}

// Info returns the room as this client knows it.
func (r *Room) Info(ctx context.Context) (*Info, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if r.status != RoomMember && r.status != RoomLeaving {
		return &Info{URI: r.uri, Status: r.status, Detail: r.detail, GroupID: r.groupID}, nil
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	d, err := r.dictionary()
	if err != nil {
		return nil, err
	}
	i := &Info{
		URI: r.uri, Status: r.status, Detail: r.detail, GroupID: r.groupID, Epoch: r.group.Epoch(), CipherSuite: r.group.CipherSuite(),
		Pending: len(r.group.PendingProposals()), Authenticator: r.group.EpochAuthenticator(), Context: sha256.Sum256(r.group.ContextBytes()),
	}
	for _, c := range d {
		i.Components = append(i.Components, policy.ComponentID(c.ID))
	}
	value, _ := d.Find(mls.ComponentID(policy.ComponentRoomMetadata))
	if i.Metadata, err = mimi.ParseRoomMetaData(value); err != nil {
		return nil, err
	}
	if err := r.traits(ctx, d, i); err != nil {
		return nil, err
	}
	i.Participants, err = r.participants(ctx)
	return i, err
}

// traits fills in what kind of room it is.
func (r *Room) traits(ctx context.Context, d mls.AppDataDictionary, i *Info) (err error) {
	value, _ := d.Find(mls.ComponentID(policy.ComponentBase))
	if i.Base, err = policy.ParseBaseRoomPolicy(value); err != nil {
		return err
	}
	gc := r.group.Context()
	i.SemiPrivate = room.SemiPrivate(gc.Extensions)
	senders, err := gc.Extensions.ExternalSenders()
	for n, s := range senders {
		e := ExternalSender{Index: uint32(n), Credential: s.Credential.Type, Fingerprint: identity.FingerprintOf(s.SignatureKey)}
		who, doubt := r.c.verdicts.in(r.uri).ExternalSender(ctx, s)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case doubt != nil:
			e.Doubt = doubt.Error()
		default:
			e.URI, e.Hub = who.URI, who.URI == r.uri.Provider()
		}
		i.Senders, i.ExternalSenders = append(i.Senders, e.URI), append(i.ExternalSenders, e)
	}
	return err
}

// An ExternalSender is one that may make external proposals: the room's hub, or
// another provider that the room lists.
type ExternalSender struct {
	Index       uint32   // in external_senders, by which proposals name it
	URI         mimi.URI // of the provider; zero if the credential is not believed
	Hub         bool     // it is the room's hub
	Doubt       string   // why the credential is not believed
	Credential  mls.CredentialType
	Fingerprint identity.Fingerprint // of the key that signs its proposals
}

func (r *Room) dictionary() (mls.AppDataDictionary, error) {
	gc := r.group.Context()
	return gc.Extensions.AppData()
}

func (r *Room) participants(ctx context.Context) ([]Participant, error) {
	var list []Participant
	at := make(map[mimi.URI]int)
	for _, p := range r.state.ParticipantList().Participants {
		at[p.User] = len(list)
		q := Participant{User: p.User, Role: p.Role}
		if role := r.state.Role(p.Role); role != nil {
			q.RoleName = role.Name
		}
		list = append(list, q)
	}
	for m := range r.group.Members() {
		v, err := r.c.verdicts.in(r.uri).of(ctx, m.Node)
		if err != nil {
			return nil, err
		}
		print := identity.FingerprintOf(m.Node.SignatureKey)
		verified, err := r.c.isVerified(ctx, v.Identity.Client, print)
		if err != nil {
			return nil, err
		}
		p := &list[at[v.User]]
		p.Clients = append(p.Clients, Member{m.Leaf, v, print, verified})
	}
	for i := range list {
		slices.SortFunc(list[i].Clients, func(a, b Member) int { return int(a.Leaf) - int(b.Leaf) })
	}
	return list, nil
}

// Component returns the value of a component of the room, decoded as
// policy.ParseComponent does, or nil if the room has none.
func (r *Room) Component(ctx context.Context, id policy.ComponentID) (any, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	value, ok := r.state.Value(id)
	if !ok {
		return nil, nil
	}
	return policy.ParseComponent(id, value)
}
