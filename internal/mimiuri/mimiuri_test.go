package mimiuri_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/internal/mimiuri"
)

// accepted lists canonical URIs; the first ten are those of the drafts and of
// the trust table.
var accepted = []struct {
	uri, host string
	kind      mimiuri.Kind
	segments  []string
}{
	{"mimi://a.example", "a.example", mimiuri.Provider, nil},
	{"mimi://a.example/u/alice", "a.example", mimiuri.User, []string{"alice"}},
	{"mimi://a.example/d/ClientA1", "a.example", mimiuri.Client, []string{"ClientA1"}},
	{"mimi://a.example/d/alice/ClientA1", "a.example", mimiuri.Client, []string{"alice", "ClientA1"}},
	{"mimi://a.example/r/clubhouse", "a.example", mimiuri.Room, []string{"clubhouse"}},
	{"mimi://a.example/g/clubhouse", "a.example", mimiuri.Group, []string{"clubhouse"}},
	{"mimi://example.com/d/SvPfLlwBQi-6oddVRrkqpw/04c7", "example.com", mimiuri.Client, []string{"SvPfLlwBQi-6oddVRrkqpw", "04c7"}},
	{"mimi://example.com/u/alice.smith", "example.com", mimiuri.User, []string{"alice.smith"}},
	{"mimi://example.com/p/x~y", "example.com", mimiuri.Pseudonym, []string{"x~y"}},
	{"mimi://example.com/t/sales", "example.com", mimiuri.Team, []string{"sales"}},
	{"mimi://xn--bcher-kva.example/u/b%C3%BCcher", "xn--bcher-kva.example", mimiuri.User, []string{"bücher"}},
	{"mimi://localhost/u/a@b:c!$&'()*+,;=", "localhost", mimiuri.User, []string{"a@b:c!$&'()*+,;="}},
	{"mimi://a.example/u/a%2Fb", "a.example", mimiuri.User, []string{"a/b"}},
	{"mimi://a.example/u/...", "a.example", mimiuri.User, []string{"..."}},
}

func TestAccepted(t *testing.T) {
	for _, tt := range accepted {
		u, err := mimiuri.Parse(tt.uri)
		if err != nil {
			t.Errorf("%s: %v", tt.uri, err)
			continue
		}
		if u.String() != tt.uri || u.Host() != tt.host || u.Kind() != tt.kind || strings.Join(u.Segments(), "\x00") != strings.Join(tt.segments, "\x00") {
			t.Errorf("%s parsed as %q host %q %v %q", tt.uri, u, u.Host(), u.Kind(), u.Segments())
		}
		again, err := mimiuri.New(tt.host, tt.kind, tt.segments...)
		if err != nil || again != u {
			t.Errorf("New(%q, %v, %q) = %v, %v", tt.host, tt.kind, tt.segments, again, err)
		}
		back, err := mimiuri.FromPathSegment(u.PathSegment())
		if err != nil || back != u {
			t.Errorf("path segment %s gives %v, %v", u.PathSegment(), back, err)
		}
		if std, err := url.PathUnescape(u.PathSegment()); err != nil || std != tt.uri {
			t.Errorf("net/url decodes %s to %q", u.PathSegment(), std)
		}
	}
}

func TestRefused(t *testing.T) {
	long := "mimi://a.example/u/" + strings.Repeat("a", mimiuri.MaxLen)
	for _, s := range []string{
		"", "mimi:", "mimi://", "mimi:///u/a", "mimi:/a.example", "MIMI://a.example", "Mimi://a.example/u/a", "https://a.example/u/a", "im:a@b",
		"mimi://A.example/u/a", "mimi://a.example:443/u/a", "mimi://a.example:/u/a", "mimi://me@a.example/u/a", "mimi://a.example?x", "mimi://a.example#x",
		"mimi://a.example/", "mimi://a.example/u", "mimi://a.example/u/", "mimi://a.example/u//", "mimi://a.example/u//a", "mimi://a.example/u/a/", "mimi://a.example//u/a",
		"mimi://a.example/b/bob", "mimi://a.example/U/bob", "mimi://a.example/uu/bob", "mimi://a.example/%75/bob",
		"mimi://a.example/u/b%6Fb", "mimi://a.example/u/b%6fb", "mimi://a.example/u/b%2fb", "mimi://a.example/u/b%", "mimi://a.example/u/b%2", "mimi://a.example/u/b%GG",
		"mimi://a.example/u/a?x", "mimi://a.example/u/a#x", "mimi://a.example/u/a b", "mimi://a.example/u/a\x00", "mimi://a.example/u/bücher", "mimi://a.example/u/a\"b",
		"mimi://a.example/u/.", "mimi://a.example/u/..", "mimi://a.example/u/a/../b",
		"mimi://1.2.3.4/u/a", "mimi://[::1]/u/a", "mimi://a.example./u/a", "mimi://.example/u/a", "mimi://a..example/u/a", "mimi://-a.example/u/a", "mimi://a-.example/u/a",
		"mimi://a_b.example/u/a", "mimi://bücher.example/u/a", "mimi://a.%65xample/u/a", "mimi://" + strings.Repeat("a", 64) + ".example/u/a",
		"mimi://" + strings.Repeat("a.", 130) + "example/u/a", long, " mimi://a.example/u/a", "mimi://a.example/u/a ", "mimi://a.example/u/a\n",
	} {
		_, err := mimiuri.Parse(s)
		var e *mimiuri.Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%q) = %v, want a *mimiuri.Error", s, err)
		} else if e.Offset < 0 || e.Offset > len(s) {
			t.Errorf("Parse(%q): offset %d", s, e.Offset)
		}
	}
}

func TestFromPathSegmentRefuses(t *testing.T) {
	for _, s := range []string{
		"mimi://a.example/u/a", "mimi%3a%2F%2Fa.example", "mimi%3A%2F%2Fa.example%2Fu%2F%61", "mimi%253A%252F%252Fa.example", "", "%", strings.Repeat("%3A", 2000),
	} {
		if u, err := mimiuri.FromPathSegment(s); err == nil {
			t.Errorf("FromPathSegment(%q) = %v", s, u)
		}
	}
	u := mimiuri.MustParse("mimi://a.example/r/clubhouse")
	if got, want := u.PathSegment(), "mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse"; got != want {
		t.Errorf("PathSegment() = %s, want %s", got, want)
	}
}

func TestParts(t *testing.T) {
	u := mimiuri.MustParse("mimi://a.example/d/al%20ice/phone")
	if got := u.Provider().String(); got != "mimi://a.example" {
		t.Errorf("Provider() = %s", got)
	}
	owner, ok := u.ClientOwner()
	if !ok || owner != mimiuri.MustParse("mimi://a.example/u/al%20ice") || owner.Kind() != mimiuri.User {
		t.Errorf("ClientOwner() = %v, %v", owner, ok)
	}
	for _, s := range []string{"mimi://a.example/d/phone", "mimi://a.example/d/a/b/c", "mimi://a.example/u/a/b", "mimi://a.example"} {
		if owner, ok := mimiuri.MustParse(s).ClientOwner(); ok {
			t.Errorf("ClientOwner(%s) = %v", s, owner)
		}
	}
	if got := u.Path(); got != "d/al%20ice/phone" {
		t.Errorf("Path() = %s", got)
	}
	var zero mimiuri.URI
	if !zero.IsZero() || zero.Host() != "" || zero.String() != "" || zero.Provider() != zero || zero.Path() != "" {
		t.Error("the zero URI has parts")
	}
	if got := mimiuri.Kind('x').String(); got != `kind "x"` {
		t.Errorf("Kind = %s", got)
	}
}

func TestText(t *testing.T) {
	var u mimiuri.URI
	if err := u.UnmarshalText([]byte("mimi://a.example/u/a")); err != nil || u.Kind() != mimiuri.User {
		t.Errorf("UnmarshalText: %v, %v", u, err)
	}
	if err := u.UnmarshalText([]byte("mimi://A.example/u/a")); err == nil || !u.IsZero() {
		t.Errorf("UnmarshalText left %v, %v", u, err)
	}
	if err := u.UnmarshalText(nil); err != nil || !u.IsZero() {
		t.Errorf("UnmarshalText of nothing: %v, %v", u, err)
	}
}

func TestPrefixes(t *testing.T) {
	const s = "mimi://a.example/d/alice/phone"
	canonical := map[string]bool{}
	for i := range s {
		if u, err := mimiuri.Parse(s[:i]); err == nil {
			canonical[u.String()] = true
		}
	}
	// Hosts, and the paths cut inside the last two segments, are URIs too.
	if canonical["mimi://a.example/"] || canonical["mimi://a.example/d"] || canonical["mimi://a.example/d/alice/"] {
		t.Errorf("a prefix was accepted: %v", canonical)
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range accepted {
		f.Add(tt.uri)
	}
	f.Add("mimi://a.example/u/b%6Fb")
	f.Add("mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse")
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := mimiuri.FromPathSegment(s); err == nil && u.PathSegment() != s {
			t.Fatalf("%q is not what PathSegment writes", s)
		}
		u, err := mimiuri.Parse(s)
		if err != nil {
			var e *mimiuri.Error
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		checkAccepted(t, s, u)
	})
}

// checkAccepted holds what must be true of every accepted URI, against
// net/url as a second reader.
func checkAccepted(t *testing.T, s string, u mimiuri.URI) {
	t.Helper()
	std, err := url.Parse(s)
	if err != nil {
		t.Fatalf("accepted %q, net/url: %v", s, err)
	}
	if std.Host != u.Host() || std.User != nil || std.RawQuery != "" || std.Fragment != "" || std.Port() != "" {
		t.Fatalf("%q: net/url reads %#v", s, std)
	}
	if u.String() != s {
		t.Fatalf("%q became %q", s, u)
	}
	segments := u.Segments()
	if again, err := mimiuri.New(u.Host(), u.Kind(), segments...); err != nil || len(again.Segments()) != len(segments) {
		t.Fatalf("%q: rebuilt as %v, %v", s, again, err)
	}
	if back, err := mimiuri.FromPathSegment(u.PathSegment()); err != nil || back != u {
		t.Fatalf("%q: path segment gives %v, %v", s, back, err)
	}
}
