package policy

import "github.com/privyseal/privyseal/mimi"

// An Action is something that Authorize judges: *Commit, *Bundle, *Message,
// *Delivery or *Deed.
type Action interface{ action() }

// A Sender is the kind of an actor: the MLS sender types (RFC 9420 section 6).
type Sender uint8

// The senders.
const (
	Member            Sender = 1 // a member's leaf
	External          Sender = 2 // an entry of external_senders: a hub, a provider, an enforcer
	NewMemberProposal Sender = 3 // a KeyPackage that proposes itself
	NewMemberCommit   Sender = 4 // the joiner of an external commit
)

// An Actor is who sent a proposal or a commit, as signatures and credentials
// have proved it.
type Actor struct {
	Sender Sender
	Leaf   uint32 // of a Member; its user and client are the State's

	// Of all others: the identity in the external_senders entry, the KeyPackage
	// or the commit's path leaf.
	User   mimi.URI // the hub's is its provider URI
	Client mimi.URI // of new members

	// Credentials are the actor's verified ones, which preauthorisation looks
	// at: one, or those of a multi-credential. A basic credential is none.
	Credentials []Credential
}

// A Client is the verified identity of a leaf: the user and the client URI.
type Client struct {
	User mimi.URI
	URI  mimi.URI
}

// A Leaf is a client's place in the group.
type Leaf struct {
	Index uint32
	Client
}

// A Proposal is what policy needs to know of an MLS proposal.
type Proposal interface{ proposal() }

// The proposals.
type (
	// Add adds the client in a KeyPackage.
	Add struct{ Client Client }
	// Update replaces the sender's leaf; Client is the new leaf's.
	Update struct{ Client Client }
	// Remove removes a leaf.
	Remove struct{ Leaf uint32 }
	// SelfRemove removes the sender's own leaf.
	SelfRemove struct{}
	// PreSharedKey injects a PSK.
	PreSharedKey struct{}
	// ReInit ends the group in favour of another.
	ReInit struct{}
	// ExternalInit belongs to external commits.
	ExternalInit struct{}
	// GroupContextExtensions changes extensions other than the
	// app_data_dictionary.
	GroupContextExtensions struct{}
	// AppDataUpdate updates a component, or removes it.
	AppDataUpdate struct {
		Component ComponentID
		Update    []byte
		Remove    bool
	}
	// AppEphemeral binds data of a component to the commit.
	AppEphemeral struct{ Component ComponentID }
	// Unknown is every other proposal.
	Unknown struct{ Type uint16 }
)

func (Add) proposal()                    {}
func (Update) proposal()                 {}
func (Remove) proposal()                 {}
func (SelfRemove) proposal()             {}
func (PreSharedKey) proposal()           {}
func (ReInit) proposal()                 {}
func (ExternalInit) proposal()           {}
func (GroupContextExtensions) proposal() {}
func (AppDataUpdate) proposal()          {}
func (AppEphemeral) proposal()           {}
func (Unknown) proposal()                {}

// A Proposed is a proposal and who stands for it: its sender if it came by
// reference, the committer if it stands in the commit by value.
type Proposed struct {
	By       Actor
	Proposal Proposal
}

// A Commit is a commit with all its proposals in commit order. A committer that
// is a NewMemberCommit makes it an external commit, which adds the committer's
// own leaf.
//
// Only the proposer answers for a proposal; the committer must merely be one who
// may commit.
type Commit struct {
	Committer Actor
	Proposals []Proposed
	Code      JoinCode // of the joiner in an external commit
	Path      Client   // of the committing member's new leaf; zero if its credential stays
}

// A Bundle is a list of bare proposals that are one intent. To see whether new
// proposals agree with those that are pending, a hub judges them together too.
type Bundle struct {
	Proposals []Proposed
}

// A JoinCode is what the hub found out about the code that a joiner showed.
type JoinCode struct {
	Shown bool
	Valid bool           // known, not expired, not used up
	Role  mimi.RoleIndex // that the code stands for
}

// A Message is an application message. The hub asks for nothing more; clients
// add what its content takes (MessageNeeds).
type Message struct {
	Sender mimi.URI // user
	Needs  []Capability
}

// A Delivery is the fan-out of an application message to the clients of a user.
type Delivery struct {
	To mimi.URI
}

// A Deed is anything else for which there are capabilities and no proposal:
// destroying the room, reporting abuse, calls.
type Deed struct {
	Actor Actor
	Needs []Capability
}

func (*Commit) action()   {}
func (*Bundle) action()   {}
func (*Message) action()  {}
func (*Delivery) action() {}
func (*Deed) action()     {}
