package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What callers branch on.
var (
	ErrUsage    = errors.New("bad request")                  // an argument is wrong
	ErrUnknown  = errors.New("not a caller of this service") // certificate or token of nobody
	ErrExists   = errors.New("there is a caller of that name")
	ErrNoCaller = errors.New("no such caller")
)

// A Role is what a caller is in its tenant.
type Role string

// The roles. What a caller may do with keys is for its grants alone to say,
// whatever the role.
const (
	Admin    Role = "admin"    // callers, keys and their destruction
	Operator Role = "operator" // makes, rotates and disables keys
	Auditor  Role = "auditor"  // sees everything of the tenant, changes nothing
	Client   Role = "client"   // sees the keys of its grants
)

var roles = []Role{Admin, Operator, Auditor, Client}

// ParseRole returns the Role of that name.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(roles, r) {
		return r, nil
	}
	return "", fmt.Errorf("%w: there is no role %q; use admin, operator, auditor or client", ErrUsage, clip(s))
}

// A Use is one thing that a grant allows.
type Use string

// The uses. A grant for UseSign does not cover bare digests.
const (
	UseSign  Use = "sign"
	UseMAC   Use = "mac"
	UseAgree Use = "agree"
	UseRaw   Use = "raw"
)

var uses = []Use{UseSign, UseMAC, UseAgree, UseRaw}

// A Grant lets a caller use keys of its tenant.
type Grant struct {
	Key  string `json:"key"` // name, or a prefix of names and then '*'
	Uses []Use  `json:"uses"`
}

// ParseGrant reads "NAME:USE[,USE…]", such as "leaf-*:sign".
func ParseGrant(s string) (Grant, error) {
	key, list, ok := strings.Cut(s, ":")
	g := Grant{Key: key}
	if !ok {
		return g, fmt.Errorf("%w: %q is no grant; write NAME:USE, such as leaf-1:sign or leaf-*:sign,raw", ErrUsage, clip(s))
	}
	for _, u := range strings.Split(list, ",") {
		g.Uses = append(g.Uses, Use(u))
	}
	return g, g.Check()
}

// Check refuses a grant that names no key or an unknown use.
func (g *Grant) Check() error {
	if !keyName.MatchString(strings.TrimSuffix(g.Key, "*")) && g.Key != "*" {
		return fmt.Errorf("%w: %q names no key; it is a name, or a prefix and '*'", ErrUsage, clip(g.Key))
	}
	if len(g.Uses) == 0 {
		return fmt.Errorf("%w: the grant for %s allows nothing", ErrUsage, g.Key)
	}
	for _, u := range g.Uses {
		if !slices.Contains(uses, u) {
			return fmt.Errorf("%w: there is no use %q; use sign, mac, agree or raw", ErrUsage, clip(string(u)))
		}
	}
	return nil
}

func (g *Grant) matches(key string) bool {
	if prefix, ok := strings.CutSuffix(g.Key, "*"); ok {
		return strings.HasPrefix(key, prefix)
	}
	return g.Key == key
}

// A State is where a caller stands.
type State string

// The states.
const (
	Invited State = "invited"
	Active  State = "active"
	Revoked State = "revoked"
)

// A Caller is somebody who may call, or might have.
type Caller struct {
	Tenant   string    `json:"tenant"`
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	Grants   []Grant   `json:"grants,omitempty"`
	State    State     `json:"state"`
	Reason   string    `json:"reason,omitempty"` // of the revocation
	Created  time.Time `json:"created_at"`
	NotAfter time.Time `json:"not_after,omitzero"` // of the newest certificate
}

// May reports whether a grant of the caller covers that use of a key.
func (c *Caller) May(key string, use Use) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.matches(key) && slices.Contains(g.Uses, use) })
}

// Sees reports whether the caller may know of a key.
func (c *Caller) Sees(key string) bool {
	return c.Role != Client || slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.matches(key) })
}

// Is reports whether the caller has one of these roles.
func (c *Caller) Is(roles ...Role) bool { return slices.Contains(roles, c.Role) }

var (
	tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,22}$`)
	callerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	keyName    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
)

// CheckTenant refuses what is no name of a tenant.
func CheckTenant(s string) error {
	if !tenantName.MatchString(s) {
		return fmt.Errorf("%w: %q is no tenant; use 1 to 23 of a-z, 0-9 and '-', starting with a letter or digit", ErrUsage, clip(s))
	}
	return nil
}

// CheckKey refuses what is no name of a key within a tenant.
func CheckKey(s string) error {
	if !keyName.MatchString(s) {
		return fmt.Errorf("%w: %q is no key name; use 1 to 40 of a-z, 0-9, '-' and '_', starting with a letter or digit", ErrUsage, clip(s))
	}
	return nil
}

func (c *Caller) check() error {
	if err := CheckTenant(c.Tenant); err != nil {
		return err
	}
	if !callerName.MatchString(c.Name) {
		return fmt.Errorf("%w: %q is no caller name; use 1 to 63 of a-z, 0-9, '.', '_' and '-'", ErrUsage, clip(c.Name))
	}
	if _, err := ParseRole(string(c.Role)); err != nil {
		return err
	}
	if len(c.Grants) > maxGrants {
		return fmt.Errorf("%w: more than %d grants", ErrUsage, maxGrants)
	}
	for _, g := range c.Grants {
		if err := g.Check(); err != nil {
			return err
		}
	}
	return nil
}

const maxGrants = 100

// clip bounds text from outside that is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
