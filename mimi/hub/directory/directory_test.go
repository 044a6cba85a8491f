package directory_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/directory"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mimi/peer/peertest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func onBoth(t *testing.T, policy directory.Policy, test func(t *testing.T, d *directory.Directory)) {
	for name, source := range map[string]func() string{
		"SQLite":     func() string { return filepath.Join(t.TempDir(), "x.db") },
		"PostgreSQL": func() string { return pgtest.Database(t) },
	} {
		t.Run(name, func(t *testing.T) {
			d, err := directory.Open(t.Context(), source(), policy, sqldb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			test(t, d)
		})
	}
}

func user(name string) mimi.URI {
	u, err := mimi.NewURI("a.example", mimi.KindUser, name)
	if err != nil {
		panic(err)
	}
	return u
}

func put(t *testing.T, d *directory.Directory, p *directory.Profile) {
	t.Helper()
	if err := d.Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// alice shows and hides, in every combination.
var alice = &directory.Profile{
	User: user("alice"), SearchableURI: true,
	Fields: []directory.Field{
		{Source: directory.Handle, Value: "im:alice@a.example", Searchable: true},
		{Source: directory.OIDCStdClaim, Name: "name", Value: "Alice Öhlund-Smith", Searchable: true, Disclosable: true},
		{Source: directory.OIDCStdClaim, Name: "nickname", Value: "Lis", Searchable: true},
		{Source: directory.OIDCStdClaim, Name: "email", Value: "alice@a.example", Searchable: true},
		{Source: directory.OIDCStdClaim, Name: "phone_number", Value: "+4612345678"}, // neither
		{Source: directory.VCard, Name: "ORG", Value: "100%_\\Sure", Searchable: true, Disclosable: true},
		{Source: directory.VCard, Name: "TITLE", Value: "Secret agent", Disclosable: true},
	},
}

func query(elements ...mimi.QueryElement) *mimi.IdentifierRequest {
	return &mimi.IdentifierRequest{QueryElements: elements}
}

func by(typ mimi.SearchIdentifierType, value string) mimi.QueryElement {
	return mimi.QueryElement{SearchType: typ, SearchValue: value}
}

func field(typ mimi.SearchIdentifierType, name, value string) mimi.QueryElement {
	return mimi.QueryElement{SearchType: typ, FieldName: name, SearchValue: value}
}

func ask(t *testing.T, d *directory.Directory, elements ...mimi.QueryElement) *mimi.IdentifierResponse {
	t.Helper()
	p, err := d.Query(t.Context(), "b.example", query(elements...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mimi.ParseIdentifierResponse(p.Marshal()); err != nil {
		t.Fatalf("the answer is not one: %v", err)
	}
	return p
}

func TestSearchTypes(t *testing.T) {
	onBoth(t, directory.Policy{}, func(t *testing.T, d *directory.Directory) {
		put(t, d, alice)
		put(t, d, &directory.Profile{User: user("bob"), Fields: []directory.Field{
			{Source: directory.OIDCStdClaim, Name: "name", Value: "Bob Smithson", Searchable: true},
			{Source: directory.VCard, Name: "EMAIL", Value: "bob@a.example", Searchable: true},
			{Source: directory.VCard, Name: "TEL", Value: "+1555", Searchable: true},
		}})
		for name, c := range map[string]struct {
			elements []mimi.QueryElement
			code     mimi.IdentifierQueryCode
			users    string
		}{
			"handle: own URI":             {[]mimi.QueryElement{by(mimi.SearchHandle, "mimi://a.example/u/alice")}, 0, "alice"},
			"handle: another":             {[]mimi.QueryElement{by(mimi.SearchHandle, "im:alice@a.example")}, 0, "alice"},
			"handle: a part":              {[]mimi.QueryElement{by(mimi.SearchHandle, "im:alice")}, 1, ""},
			"handle: not searchable":      {[]mimi.QueryElement{by(mimi.SearchHandle, "mimi://a.example/u/bob")}, 1, ""},
			"nick":                        {[]mimi.QueryElement{by(mimi.SearchNick, "Lis")}, 0, "alice"},
			"nick: user part":             {[]mimi.QueryElement{by(mimi.SearchNick, "alice")}, 0, "alice"},
			"nick: another case":          {[]mimi.QueryElement{by(mimi.SearchNick, "lis")}, 1, ""},
			"email":                       {[]mimi.QueryElement{by(mimi.SearchEmail, "alice@a.example")}, 0, "alice"},
			"email: vCard":                {[]mimi.QueryElement{by(mimi.SearchEmail, "bob@a.example")}, 0, "bob"},
			"phone":                       {[]mimi.QueryElement{by(mimi.SearchPhone, "+1555")}, 0, "bob"},
			"phone: not searchable":       {[]mimi.QueryElement{by(mimi.SearchPhone, "+4612345678")}, 1, ""},
			"name: part":                  {[]mimi.QueryElement{by(mimi.SearchPartialName, "smith")}, 0, "alice bob"},
			"name: beyond ASCII":          {[]mimi.QueryElement{by(mimi.SearchPartialName, "öHLUND")}, 0, "alice"},
			"name: not the other fields":  {[]mimi.QueryElement{by(mimi.SearchPartialName, "sure")}, 1, ""},
			"name: too short":             {[]mimi.QueryElement{by(mimi.SearchPartialName, "Öh")}, 3, ""},
			"profile":                     {[]mimi.QueryElement{by(mimi.SearchWholeProfile, "@A.EXAMPLE")}, 0, "alice bob"},
			"profile: not searchable":     {[]mimi.QueryElement{by(mimi.SearchWholeProfile, "agent")}, 1, ""},
			"profile: signs of LIKE":      {[]mimi.QueryElement{by(mimi.SearchWholeProfile, `%_\s`)}, 0, "alice"},
			"profile: no wildcard":        {[]mimi.QueryElement{by(mimi.SearchWholeProfile, `%%%`)}, 1, ""},
			"profile: grams out of order": {[]mimi.QueryElement{by(mimi.SearchWholeProfile, "alialice")}, 1, ""},
			"claim":                       {[]mimi.QueryElement{field(mimi.SearchOIDCStdClaim, "nickname", "Lis")}, 0, "alice"},
			"claim: no such":              {[]mimi.QueryElement{field(mimi.SearchOIDCStdClaim, "shoe_size", "41")}, 4, ""},
			"property: any case":          {[]mimi.QueryElement{field(mimi.SearchVCardField, "org", `100%_\Sure`)}, 0, "alice"},
			"property: no such":           {[]mimi.QueryElement{field(mimi.SearchVCardField, "X-SHOE", "41")}, 4, ""},
			"all must match":              {[]mimi.QueryElement{by(mimi.SearchPartialName, "smith"), by(mimi.SearchNick, "Lis")}, 0, "alice"},
			"of one user":                 {[]mimi.QueryElement{by(mimi.SearchEmail, "bob@a.example"), by(mimi.SearchNick, "Lis")}, 1, ""},
			"nothing":                     {nil, 3, ""},
			"an empty value":              {[]mimi.QueryElement{by(mimi.SearchNick, "")}, 1, ""},
			"NUL":                         {[]mimi.QueryElement{by(mimi.SearchNick, "a\x00b")}, 1, ""},
		} {
			p := ask(t, d, c.elements...)
			var users []string
			for _, u := range p.URIs {
				users = append(users, u.Segments()[0])
			}
			if p.ResponseCode != c.code || strings.Join(users, " ") != c.users {
				t.Errorf("%s: code %d, %v; want %d, %s", name, p.ResponseCode, users, c.code, c.users)
			}
		}
		p := ask(t, d, by(mimi.SearchPartialName, "smith"))
		want := []mimi.UserProfile{{StableURI: user("alice"), Fields: []mimi.ProfileField{
			{Source: mimi.FieldOIDCStdClaim, Name: "name", Value: []byte("Alice Öhlund-Smith")},
			{Source: mimi.FieldVCard, Name: "ORG", Value: []byte("100%_\\Sure")},
			{Source: mimi.FieldVCard, Name: "TITLE", Value: []byte("Secret agent")},
		}}}
		if !reflect.DeepEqual(p.FoundProfiles, want) {
			t.Errorf("disclosed %v", p.FoundProfiles)
		}
	})
}

func TestManyAreAmbiguous(t *testing.T) {
	onBoth(t, directory.Policy{}, func(t *testing.T, d *directory.Directory) {
		for i := range mimi.MaxIdentifierResults + 1 {
			put(t, d, &directory.Profile{User: user(fmt.Sprintf("user%02d", i)), SearchableURI: i > 0,
				Fields: []directory.Field{{Source: directory.VCard, Name: "FN", Value: "Sam Same", Searchable: true}}})
		}
		if p := ask(t, d, by(mimi.SearchPartialName, "same")); p.ResponseCode != mimi.QueryAmbiguous || len(p.URIs) != 0 {
			t.Errorf("21 users: %+v", p)
		}
		if p := ask(t, d, by(mimi.SearchPartialName, "same"), by(mimi.SearchWholeProfile, "/u/user")); len(p.URIs) != mimi.MaxIdentifierResults {
			t.Errorf("20 users: code %d, %d users", p.ResponseCode, len(p.URIs))
		}
	})
}

func TestProviderPolicyNarrows(t *testing.T) {
	policy := directory.Policy{
		Asks:        func(domain string) bool { return domain == "b.example" },
		Searchable:  func(s directory.Source, name string) bool { return name != "email" && name != "EMAIL" && name != "ORG" },
		Disclosable: func(s directory.Source, name string) bool { return name == "ORG" },
	}
	onBoth(t, policy, func(t *testing.T, d *directory.Directory) {
		put(t, d, alice)
		if p := ask(t, d, by(mimi.SearchEmail, "alice@a.example")); p.ResponseCode != mimi.QueryForbidden {
			t.Errorf("email: %+v", p)
		}
		if p := ask(t, d, by(mimi.SearchWholeProfile, "sure")); p.ResponseCode != mimi.QueryNotFound {
			t.Errorf("whole profile: %+v", p)
		}
		if p := ask(t, d, by(mimi.SearchNick, "Lis")); len(p.FoundProfiles) != 1 || len(p.FoundProfiles[0].Fields) != 1 {
			t.Errorf("nick: %+v", p)
		}
		p, err := d.Query(t.Context(), "c.example", query(by(mimi.SearchNick, "Lis")))
		if err != nil || p.ResponseCode != mimi.QueryForbidden {
			t.Errorf("a provider that may not ask: %+v, %v", p, err)
		}
	})
}

func TestReplaceAndDelete(t *testing.T) {
	onBoth(t, directory.Policy{}, func(t *testing.T, d *directory.Directory) {
		put(t, d, alice)
		got, err := d.Get(t.Context(), alice.User)
		if err != nil || !reflect.DeepEqual(got, alice) {
			t.Errorf("got %+v, %v", got, err)
		}
		put(t, d, &directory.Profile{User: alice.User})
		for _, e := range []mimi.QueryElement{by(mimi.SearchNick, "Lis"), by(mimi.SearchNick, "alice"), by(mimi.SearchWholeProfile, "alice")} {
			if p := ask(t, d, e); p.ResponseCode != mimi.QueryNotFound {
				t.Errorf("%v after all was hidden: %+v", e, p)
			}
		}
		put(t, d, alice)
		for range 2 {
			if err := d.Delete(t.Context(), alice.User); err != nil {
				t.Fatal(err)
			}
		}
		if p := ask(t, d, by(mimi.SearchWholeProfile, "alice")); p.ResponseCode != mimi.QueryNotFound {
			t.Errorf("deleted: %+v", p)
		}
		if _, err := d.Get(t.Context(), alice.User); !errors.Is(err, directory.ErrNoProfile) {
			t.Errorf("deleted: %v", err)
		}
	})
}

func TestProfilesAreChecked(t *testing.T) {
	d, err := directory.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), directory.Policy{}, sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	one := func(f directory.Field) *directory.Profile {
		return &directory.Profile{User: user("x"), Fields: []directory.Field{f}}
	}
	for name, p := range map[string]*directory.Profile{
		"no user":           {},
		"unknown claim":     one(directory.Field{Source: directory.OIDCStdClaim, Name: "shoe", Value: "41"}),
		"lower-case vCard":  one(directory.Field{Source: directory.VCard, Name: "fn", Value: "x"}),
		"unknown source":    one(directory.Field{Source: 2, Value: "x"}),
		"disclosed handle":  one(directory.Field{Source: directory.Handle, Value: "x", Disclosable: true}),
		"empty value":       one(directory.Field{Source: directory.VCard, Name: "FN"}),
		"not UTF-8":         one(directory.Field{Source: directory.VCard, Name: "FN", Value: "\xff"}),
		"NUL":               one(directory.Field{Source: directory.VCard, Name: "FN", Value: "\x00"}),
		"long and searched": one(directory.Field{Source: directory.VCard, Name: "NOTE", Value: strings.Repeat("x", 1025), Searchable: true}),
		"too long":          one(directory.Field{Source: directory.VCard, Name: "NOTE", Value: strings.Repeat("x", 17<<10)}),
		"too many":          {User: user("x"), Fields: make([]directory.Field, 65)},
	} {
		if err := d.Put(t.Context(), p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOverTheWire(t *testing.T) {
	n := peertest.New(t)
	d, err := directory.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), directory.Policy{}, sqldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put(t, d, alice)
	dir, err := peer.NewDirectory("a.example", peer.IdentifierQuery)
	if err != nil {
		t.Fatal(err)
	}
	s := peer.NewServer(peer.ServerConfig{
		Hosts: map[string]string{"a.example": "a.example"}, Directories: map[string]*peer.Directory{"a.example": dir}, Chains: n.Chains(),
	})
	d.Routes(s)
	n.Serve(t, s, "a.example")
	c := n.Client(t, "b.example")
	b, err := c.Do(t.Context(), "a.example", peer.IdentifierQuery, "a.example", query(by(mimi.SearchNick, "Lis")).Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := mimi.ParseIdentifierResponse(b); err != nil || len(p.URIs) != 1 || p.URIs[0] != alice.User {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Do(t.Context(), "a.example", peer.IdentifierQuery, "c.example", query().Marshal()); err == nil {
		t.Error("a query for another domain was answered")
	}
	if _, err := c.Do(t.Context(), "a.example", peer.IdentifierQuery, "a.example", []byte{1}); err == nil {
		t.Error("a malformed query was answered")
	}
}
