package identity

import (
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// Expected is what is known of a leaf before its credential is looked at, and
// what the room asks of it. Zero fields ask nothing, but Pseudonyms: without
// it there are none.
type Expected struct {
	Client mimi.URI // for whom a KeyPackage was fetched
	User   mimi.URI // who is being added, or asks
	Host   string   // the provider that speaks for the user

	Types       []mls.CredentialType // that the room admits
	Level       Level                // the least
	Pseudonyms  bool                 // users may go by pseudonyms
	MaxLifetime time.Duration        // of the evidence
}

// Check compares an identity with what is expected of it.
func (e *Expected) Check(id *Identity) error {
	const where = "leaf"
	switch {
	case !e.Client.IsZero() && id.Client != e.Client:
		return credentials.Errorf(credentials.CodeIdentityMismatch, where, "it is of %s, want %s", id.Client, e.Client)
	case !e.User.IsZero() && id.User != e.User:
		return credentials.Errorf(credentials.CodeIdentityMismatch, where, "it is of %s, want %s", id.User, e.User)
	case e.Host != "" && id.Provider().Host() != e.Host:
		return credentials.Errorf(credentials.CodeIdentityHostMismatch, where, "it is of %s, and %q speaks for it", id.Client, e.Host)
	}
	return e.checkPolicy(id)
}

func (e *Expected) checkPolicy(id *Identity) error {
	const where = "room"
	switch {
	case len(e.Types) > 0 && !slices.Contains(e.Types, id.Type):
		return credentials.Errorf(credentials.CodePolicy, where, "credential type 0x%04x is not admitted", uint16(id.Type))
	case id.Level < e.Level:
		return credentials.Errorf(credentials.CodePolicy, where, "the identity is %s, want %s", id.Level, e.Level)
	case id.Pseudonymous() && !e.Pseudonyms:
		return credentials.Errorf(credentials.CodePolicy, where, "pseudonyms are not admitted")
	case e.MaxLifetime > 0 && (id.NotAfter.IsZero() || id.NotBefore.IsZero() || id.NotAfter.Sub(id.NotBefore) > e.MaxLifetime):
		return credentials.Errorf(credentials.CodePolicy, where, "the evidence is valid for longer than %v", e.MaxLifetime)
	}
	return nil
}

// CheckSuccessor judges a leaf that takes the place of another, by an Update
// or the path of a commit. It keeps its client and its user and is proven no
// less. Anything else is a Remove and an Add. The issuer may be another one,
// and the old credential may have expired.
func CheckSuccessor(old, next *Identity) error {
	const where = "successor"
	switch {
	case next.Client != old.Client:
		return credentials.Errorf(credentials.CodeIdentityMismatch, where, "client %s became %s", old.Client, next.Client)
	case next.User != old.User:
		return credentials.Errorf(credentials.CodeIdentityMismatch, where, "user %s became %s", old.User, next.User)
	case next.Level < old.Level:
		return credentials.Errorf(credentials.CodeIdentityDowngrade, where, "%s was %s and would be %s", old.Client, old.Level, next.Level)
	}
	return nil
}

// A Roster is the identities of a group's leaves. Its zero value has none. What
// a commit changes costs the same in a group of any size.
type Roster struct {
	clients map[mimi.URI]*Identity
	users   map[mimi.URI]leaves
}

// leaves counts a user's leaves.
type leaves struct{ proven, unproven int }

// Len returns the number of leaves.
func (r *Roster) Len() int { return len(r.clients) }

// Client returns the identity of a client, or nil.
func (r *Roster) Client(u mimi.URI) *Identity { return r.clients[u] }

// Has reports whether a user has a leaf.
func (r *Roster) Has(user mimi.URI) bool { return r.users[user] != leaves{} }

// Add takes a leaf in. A client has one leaf, and nobody joins a participant
// whose identity is proven by a mere assertion.
func (r *Roster) Add(id *Identity) error {
	if r.clients[id.Client] != nil {
		return credentials.Errorf(credentials.CodeIdentityDuplicate, "group", "%s has a leaf already", id.Client)
	}
	if !id.Proven() && r.users[id.User].proven > 0 {
		return credentials.Errorf(credentials.CodeIdentityDowngrade, "group", "%s is proven, and this leaf is only %s", id.User, id.Level)
	}
	r.put(id)
	return nil
}

// Remove takes a client's leaf out and reports whether there was one.
func (r *Roster) Remove(client mimi.URI) bool {
	id := r.clients[client]
	if id == nil {
		return false
	}
	delete(r.clients, client)
	r.count(id, -1)
	return true
}

// Replace puts a successor in the place of its client's leaf.
func (r *Roster) Replace(next *Identity) error {
	old := r.clients[next.Client]
	if old == nil {
		return credentials.Errorf(credentials.CodeIdentityMismatch, "group", "%s has no leaf to replace", next.Client)
	}
	if err := CheckSuccessor(old, next); err != nil {
		return err
	}
	r.count(old, -1)
	r.clients[next.Client] = next
	r.count(next, 1)
	return nil
}

// A Change is what a commit does to a group's leaves.
type Change struct {
	Removed  []mimi.URI  // clients
	Replaced []*Identity // successors, by Update or path
	Added    []*Identity
}

// Apply takes up a change: removals, then replacements, then additions. Either
// all of it is taken up, and undo takes it back, or none.
func (r *Roster) Apply(c *Change) (undo func(), err error) {
	var steps []func()
	undo = func() {
		for _, back := range slices.Backward(steps) {
			back()
		}
	}
	for _, client := range c.Removed {
		id := r.clients[client]
		if !r.Remove(client) {
			undo()
			return nil, credentials.Errorf(credentials.CodeIdentityMismatch, "group", "%s has no leaf to remove", client)
		}
		steps = append(steps, func() { r.put(id) })
	}
	for _, next := range c.Replaced {
		old := r.clients[next.Client]
		if err := r.Replace(next); err != nil {
			undo()
			return nil, err
		}
		steps = append(steps, func() { r.Remove(next.Client); r.put(old) })
	}
	for _, id := range c.Added {
		if err := r.Add(id); err != nil {
			undo()
			return nil, err
		}
		steps = append(steps, func() { r.Remove(id.Client) })
	}
	return undo, nil
}

// put takes a leaf in without a question.
func (r *Roster) put(id *Identity) {
	if r.clients == nil {
		r.clients, r.users = make(map[mimi.URI]*Identity), make(map[mimi.URI]leaves)
	}
	r.clients[id.Client] = id
	r.count(id, 1)
}

func (r *Roster) count(id *Identity, by int) {
	n := r.users[id.User]
	if id.Proven() {
		n.proven += by
	} else {
		n.unproven += by
	}
	if n == (leaves{}) {
		delete(r.users, id.User)
		return
	}
	r.users[id.User] = n
}
