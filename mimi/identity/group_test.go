package identity_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

func someone(t testing.TB, user string, device int, level identity.Level) *identity.Identity {
	t.Helper()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	return &identity.Identity{
		Client: uri(t, fmt.Sprintf("mimi://acme.example/d/%s/%d", user, device)),
		User:   uri(t, "mimi://acme.example/u/"+user),
		Level:  level, Type: mls.CredentialX509, NotBefore: now, NotAfter: now.Add(time.Hour),
	}
}

func TestExpected(t *testing.T) {
	alice := someone(t, "alice", 1, identity.Issued)
	hidden := *alice
	hidden.User = uri(t, "mimi://acme.example/p/5fd1")
	forever := *alice
	forever.NotAfter = time.Time{}
	for _, c := range []struct {
		name string
		id   *identity.Identity
		e    identity.Expected
		want credentials.Code
	}{
		{"nothing asked", alice, identity.Expected{}, ""},
		{"all as asked", alice, identity.Expected{
			Client: alice.Client, User: alice.User, Host: "acme.example", Types: []mls.CredentialType{mls.CredentialMulti, mls.CredentialX509},
			Level: identity.Issued, MaxLifetime: time.Hour,
		}, ""},
		{"KeyPackage of another client", alice, identity.Expected{Client: uri(t, "mimi://acme.example/d/alice/2")}, credentials.CodeIdentityMismatch},
		{"another user", alice, identity.Expected{User: uri(t, "mimi://acme.example/u/bob")}, credentials.CodeIdentityMismatch},
		{"another provider speaks", alice, identity.Expected{Host: "globex.example"}, credentials.CodeIdentityHostMismatch},
		{"type not admitted", alice, identity.Expected{Types: []mls.CredentialType{mls.CredentialMulti}}, credentials.CodePolicy},
		{"level too low", alice, identity.Expected{Level: identity.Attested}, credentials.CodePolicy},
		{"pseudonym", &hidden, identity.Expected{}, credentials.CodePolicy},
		{"pseudonym admitted", &hidden, identity.Expected{Pseudonyms: true}, ""},
		{"lives too long", alice, identity.Expected{MaxLifetime: time.Minute}, credentials.CodePolicy},
		{"lives for ever", &forever, identity.Expected{MaxLifetime: time.Hour}, credentials.CodePolicy},
	} {
		wantCode(t, c.name, c.e.Check(c.id), c.want)
	}
}

func TestSuccessor(t *testing.T) {
	for _, c := range []struct {
		name      string
		old, next *identity.Identity
		want      credentials.Code
	}{
		{"renewed", someone(t, "alice", 1, identity.Issued), someone(t, "alice", 1, identity.Issued), ""},
		{"proven at last", someone(t, "alice", 1, identity.Asserted), someone(t, "alice", 1, identity.Attested), ""},
		{"another client", someone(t, "alice", 1, identity.Issued), someone(t, "alice", 2, identity.Issued), credentials.CodeIdentityMismatch},
		{"no longer proven", someone(t, "alice", 1, identity.Issued), someone(t, "alice", 1, identity.Vouched), credentials.CodeIdentityDowngrade},
		{"no longer attested", someone(t, "alice", 1, identity.Attested), someone(t, "alice", 1, identity.Issued), credentials.CodeIdentityDowngrade},
	} {
		wantCode(t, c.name, identity.CheckSuccessor(c.old, c.next), c.want)
	}
	other := someone(t, "alice", 1, identity.Issued)
	other.User = uri(t, "mimi://acme.example/p/5fd1")
	wantCode(t, "user became a pseudonym", identity.CheckSuccessor(someone(t, "alice", 1, identity.Issued), other), credentials.CodeIdentityMismatch)
}

func TestRoster(t *testing.T) {
	var r identity.Roster
	phone := someone(t, "alice", 1, identity.Issued)
	must(t, r.Add(phone))
	wantCode(t, "same client", r.Add(someone(t, "alice", 1, identity.Issued)), credentials.CodeIdentityDuplicate)
	wantCode(t, "asserted beside proven", r.Add(someone(t, "alice", 2, identity.Vouched)), credentials.CodeIdentityDowngrade)
	must(t, r.Add(someone(t, "alice", 2, identity.Attested)))
	must(t, r.Add(someone(t, "bob", 1, identity.Asserted)))
	must(t, r.Add(someone(t, "bob", 2, identity.Issued)))
	wantCode(t, "asserted again", r.Add(someone(t, "bob", 3, identity.Asserted)), credentials.CodeIdentityDowngrade)
	must(t, r.Replace(someone(t, "bob", 1, identity.Issued)))
	wantCode(t, "downgrade", r.Replace(someone(t, "bob", 1, identity.Asserted)), credentials.CodeIdentityDowngrade)
	wantCode(t, "nobody replaced", r.Replace(someone(t, "carol", 1, identity.Issued)), credentials.CodeIdentityMismatch)
	if r.Len() != 4 || !r.Has(phone.User) || r.Client(phone.Client) != phone {
		t.Errorf("%d leaves", r.Len())
	}
	if identity.SameParticipant(phone, someone(t, "alice", 3, identity.Asserted)) || !identity.SameParticipant(phone, r.Client(uri(t, "mimi://acme.example/d/alice/2"))) {
		t.Error("participants are confused")
	}
	for _, d := range []string{"1", "2"} {
		if !r.Remove(uri(t, "mimi://acme.example/d/alice/"+d)) {
			t.Errorf("alice's leaf %s was not there", d)
		}
	}
	if r.Has(phone.User) || r.Remove(phone.Client) {
		t.Error("alice is still there")
	}
	must(t, r.Add(someone(t, "alice", 1, identity.Vouched)))
}

// In whatever order leaves come, go and change: no client is there twice,
// nobody joins a proven user by assertion, and what is refused or undone
// leaves no trace.
func TestRosterProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var r identity.Roster
		model := map[mimi.URI]identity.Level{}
		check := func(when string) {
			if r.Len() != len(model) {
				rt.Fatalf("%s: %d leaves, want %d", when, r.Len(), len(model))
			}
			for c, l := range model {
				if id := r.Client(c); id == nil || id.Level != l {
					rt.Fatalf("%s: %s is %v, want %s", when, c, id, l)
				}
			}
		}
		draw := func() *identity.Identity {
			return someone(t, rapid.SampledFrom([]string{"alice", "bob"}).Draw(rt, "user"), rapid.IntRange(1, 3).Draw(rt, "device"), identity.Level(rapid.IntRange(0, 3).Draw(rt, "level")))
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			var c identity.Change
			for range rapid.IntRange(0, 2).Draw(rt, "removed") {
				c.Removed = append(c.Removed, draw().Client)
			}
			for range rapid.IntRange(0, 2).Draw(rt, "replaced") {
				c.Replaced = append(c.Replaced, draw())
			}
			for range rapid.IntRange(0, 2).Draw(rt, "added") {
				c.Added = append(c.Added, draw())
			}
			next, ok := expect(model, &c)
			undo, err := r.Apply(&c)
			if (err == nil) != ok {
				rt.Fatalf("%+v: %v, want accepted %t", c, err, ok)
			}
			if ok && rapid.Bool().Draw(rt, "undo") {
				undo()
				ok = false
			}
			if ok {
				model = next
			}
			check("after a change")
		}
	})
}

// expect is Apply said another way: by looking through all leaves each time.
func expect(model map[mimi.URI]identity.Level, c *identity.Change) (map[mimi.URI]identity.Level, bool) {
	next := map[mimi.URI]identity.Level{}
	for u, l := range model {
		next[u] = l
	}
	for _, u := range c.Removed {
		if _, there := next[u]; !there {
			return nil, false
		}
		delete(next, u)
	}
	for _, id := range c.Replaced {
		if l, there := next[id.Client]; !there || id.Level < l {
			return nil, false
		}
		next[id.Client] = id.Level
	}
	for _, id := range c.Added {
		if _, there := next[id.Client]; there {
			return nil, false
		}
		for u, l := range next {
			if owner, _ := u.ClientOwner(); owner == id.User && l >= identity.Issued && id.Level < identity.Issued {
				return nil, false
			}
		}
		next[id.Client] = id.Level
	}
	return next, true
}
