package trust

import (
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/internal/mimiuri"
)

// A Grant lets an issuer give names of one host.
//
// A template is compared with the path of a URI, segment by segment and as
// written: the first segment is a kind; in the others '*' stands for any run of
// characters of one segment, and for at least one if it is all there is. The
// empty template is the provider itself, and is for hubs.
type Grant struct {
	Host  string
	Paths []string
}

func newGrant(at string, g GrantConfig) (Grant, error) {
	if err := checkHost(at+".host", g.Host); err != nil {
		return Grant{}, err
	}
	if len(g.Paths) == 0 || len(g.Paths) > maxList {
		return Grant{}, wrong(at+".paths", "want 1 to %d templates, such as \"d/*/*\" and \"u/*\"", maxList)
	}
	for i, p := range g.Paths {
		if err := checkTemplate(g.Host, p); err != nil {
			return Grant{}, wrong(fmt.Sprintf("%s.paths[%d]", at, i), "%w", err)
		}
	}
	return Grant(g), nil
}

// checkTemplate wants a template to be a canonical path once every star is a
// letter. Rooms, groups and teams are no identities.
func checkTemplate(host, template string) error {
	if template == "" {
		return nil
	}
	u, err := mimiuri.Parse("mimi://" + host + "/" + strings.ReplaceAll(template, "*", "x"))
	if err != nil {
		return fmt.Errorf("%.100q is no template of a path: %w", template, err)
	}
	switch u.Kind() {
	case mimiuri.User, mimiuri.Pseudonym, mimiuri.Client:
		return nil
	}
	return fmt.Errorf("%.100q grants a %s, which is no identity", template, u.Kind())
}

// Allows reports whether the grant has the name.
func (g *Grant) Allows(u mimiuri.URI) bool {
	if u.IsZero() || u.Host() != g.Host {
		return false
	}
	for _, t := range g.Paths {
		if matchPath(t, u.Path()) {
			return true
		}
	}
	return false
}

func matchPath(template, path string) bool {
	if template == "" || path == "" {
		return template == path
	}
	t, p := strings.Split(template, "/"), strings.Split(path, "/")
	if len(t) != len(p) || t[0] != p[0] {
		return false
	}
	for i := 1; i < len(t); i++ {
		if !matchSegment(t[i], p[i]) {
			return false
		}
	}
	return true
}

// matchSegment compares a segment with its template. Each part between two
// stars is looked for as early as it can be, which is right because a star takes
// whatever is left.
func matchSegment(template, segment string) bool {
	parts := strings.Split(template, "*")
	if len(parts) == 1 {
		return template == segment
	}
	rest, ok := strings.CutPrefix(segment, parts[0])
	if !ok || segment == "" {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[last])
}

// String returns the grant as it stands in the configuration.
func (g *Grant) String() string {
	if g == nil {
		return "no grant"
	}
	return fmt.Sprintf("grant %s %q", g.Host, g.Paths)
}
