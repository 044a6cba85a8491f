package main

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

var roleLists = map[string]func() *policy.RoleData{
	"cooperative": policy.CooperativeRoles, "strict": policy.StrictRoles, "moderated": policy.ModeratedRoles, "multi-org": policy.MultiOrganizationRoles,
}

// roomFlags say what a new room is.
type roomFlags struct {
	name, subject, roles, role, parent string

	semiPrivate, oneDevice, pseudonyms bool
	maxUsers, maxClients               uint32
	senders, preauthorize              []string
}

const roomCreateHelp = `Makes a room at the client's own provider, which is its hub. Whoever makes it is
alone at first: "client add" brings others in.

Roles say who may do what ("client policy ROOM" prints them):
  cooperative  users add and remove each other; administrators ban and kick
  strict       administrators run it; others come by join code or preauthorised
  moderated    guests read, speakers write, moderators let people speak
  multi-org    three organisations with users and administrators of their own

With --semi-private the providers of other members do not see who comes, goes and
may do what: only members and the hub read that. The hub must have a receiver key.

With --preauthorize ROLE=WHO whoever is WHO enters by itself, with "client join",
in that role. Names count only as a credential proves them. WHO is one of
  mimi://a.example/u/alice     a user
  mimi://b.example             a provider that --sender lists
  x509:2.5.4.10=Acme           an attribute of a certificate's subject, by its OID
  sd-jwt:department=sales      a claim of an SD-JWT
  sd-cwt:department=sales      a claim of an SD-CWT; a number names a registered one
Of several that fit, the first counts. Roles that may come so have the capability
canJoinIfPreauthorized: ordinary_user of strict rooms, for one.

With --sender FILE another provider may propose changes, beside the hub: those of
the role for which --preauthorize names it, such as policy_enforcer. FILE has the
chain of certificates of its hub's key (PEM), which it gives you.

With --parent ROOM only participants of that room, of the same hub, come in, and
who leaves it leaves this one too. A room whose participants stay the same, such as
a direct message, is made like any other and then fixed: "client room fix".`

func (f *roomFlags) define(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.name, "name", "", "the room's name")
	fl.StringVar(&f.subject, "subject", "", "what it is about")
	fl.StringVar(&f.roles, "roles", "cooperative", "`list` of roles: "+strings.Join(slices.Sorted(maps.Keys(roleLists)), ", "))
	fl.StringVar(&f.role, "role", "", "the creator's `role` by name (default: the highest with clients in the room)")
	fl.BoolVar(&f.semiPrivate, "semi-private", false, "hide from other providers who comes, goes and may do what")
	fl.StringVar(&f.parent, "parent", "", "`room` of whose participants this room has some")
	fl.BoolVar(&f.oneDevice, "one-device", false, "let each user have one client in the room")
	fl.BoolVar(&f.pseudonyms, "pseudonyms", false, "let users come under pseudonyms (mimi://host/p/name)")
	fl.Uint32Var(&f.maxUsers, "max-users", 0, "the most participants (default: no limit)")
	fl.Uint32Var(&f.maxClients, "max-clients", 0, "the most clients (default: no limit)")
	fl.StringArrayVar(&f.preauthorize, "preauthorize", nil, "`ROLE=WHO` may enter by itself; may be repeated")
	fl.StringArrayVar(&f.senders, "sender", nil, "`file` with the certificates of another provider that may propose changes; may be repeated")
}

// options are those of the room. They are made when the client is open: the
// trust configuration says which numbers the types of credentials have.
func (f *roomFlags) options(c *client.Client) (*client.RoomOptions, error) {
	list := roleLists[f.roles]
	if list == nil {
		return nil, usageError{fmt.Errorf("--roles is one of %s, not %q", strings.Join(slices.Sorted(maps.Keys(roleLists)), ", "), f.roles)}
	}
	opts := &client.RoomOptions{
		Roles: list(), Metadata: mimi.RoomMetaData{RoomName: f.name, RoomSubject: f.subject}, SemiPrivate: f.semiPrivate,
		Base: &policy.BaseRoomPolicy{MultiDevice: !f.oneDevice, PseudonymsAllowed: f.pseudonyms, MaxUsers: orNone(f.maxUsers), MaxClients: orNone(f.maxClients)},
	}
	if f.parent != "" {
		parent, err := parseRoom(f.parent)
		if err != nil {
			return nil, err
		}
		opts.Base.ParentDependant, opts.Base.ParentRoom = true, parent.String()
	}
	if f.role != "" {
		role, err := roleOf(opts.Roles, f.role)
		if err != nil {
			return nil, usageError{fmt.Errorf("--role: %w", err)}
		}
		opts.Role = role.Index
	}
	if len(f.preauthorize) > 0 {
		entries, err := parsePreauth(opts.Roles, f.preauthorize)
		if err != nil {
			return nil, err
		}
		opts.Components = map[policy.ComponentID][]byte{policy.ComponentPreauth: entries.Marshal()}
	}
	for _, file := range f.senders {
		s, err := readSender(c.CipherSuite(), file)
		if err != nil {
			return nil, fmt.Errorf("--sender: %s: %w", file, err)
		}
		opts.Senders = append(opts.Senders, *s)
	}
	return opts, nil
}

func orNone(n uint32) *uint32 {
	if n == 0 {
		return nil
	}
	return &n
}

func roleOf(list *policy.RoleData, name string) (*policy.Role, error) {
	i := slices.IndexFunc(list.Roles, func(r policy.Role) bool { return strings.EqualFold(r.Name, name) })
	if i < 0 {
		var names []string
		for _, r := range list.Roles {
			names = append(names, r.Name)
		}
		return nil, fmt.Errorf("there is no role %q, but: %s", name, strings.Join(names, ", "))
	}
	return &list.Roles[i], nil
}

// readSender makes an entry of external_senders of a chain of certificates.
func readSender(suite mls.CipherSuite, file string) (*mls.ExternalSender, error) {
	text, err := readBounded(file, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	chain, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	public, err := mls.SignaturePublicKey(suite, chain[0].PublicKey)
	return &mls.ExternalSender{SignatureKey: public, Credential: chainCredential(chain)}, err
}

// parsePreauth reads what --preauthorize was given.
func parsePreauth(roles *policy.RoleData, list []string) (*policy.PreAuthData, error) {
	d := new(policy.PreAuthData)
	for _, s := range list {
		name, who, ok := strings.Cut(s, "=")
		if !ok || who == "" {
			return nil, usageError{fmt.Errorf("--preauthorize: %q is not of the form ROLE=WHO", s)}
		}
		role, err := roleOf(roles, name)
		if err != nil {
			return nil, usageError{fmt.Errorf("--preauthorize: %w", err)}
		}
		claims, err := parseClaims(who)
		if err != nil {
			return nil, usageError{fmt.Errorf("--preauthorize: %q: %w", who, err)}
		}
		for _, claim := range claims {
			d.PreauthorizedEntries = append(d.PreauthorizedEntries, policy.PreAuthRoleEntry{Claimset: []policy.Claim{claim}, TargetRole: *role})
		}
	}
	if _, err := policy.ParsePreAuthData(d.Marshal()); err != nil {
		return nil, usageError{fmt.Errorf("--preauthorize: %w", err)}
	}
	return d, nil
}

// parseClaims returns the claims by any of which WHO is known.
func parseClaims(who string) ([]policy.Claim, error) {
	if strings.HasPrefix(who, "mimi:") {
		return uriClaims(who)
	}
	kind, rest, _ := strings.Cut(who, ":")
	name, value, ok := strings.Cut(rest, "=")
	if !ok || name == "" || value == "" {
		return nil, errors.New("want the URI of a user or a provider, or TYPE:CLAIM=VALUE")
	}
	switch kind {
	case typeX509:
		id, err := oidContent(name)
		return []policy.Claim{{CredentialType: policy.CredentialX509, ID: id, Value: []byte(value)}}, err
	case typeSDJWT:
		return []policy.Claim{{CredentialType: uint16(mls.CredentialSDJWT), ID: []byte(name), Value: []byte(value)}}, nil
	case typeSDCWT:
		claim, err := cwtClaim(name, value)
		return []policy.Claim{claim}, err
	}
	return nil, fmt.Errorf("type %q is none of %s, %s, %s", kind, typeX509, typeSDJWT, typeSDCWT)
}

// uriClaims are those by which certificates and tokens name a user, and
// certificates a provider.
func uriClaims(s string) ([]policy.Claim, error) {
	u, err := mimi.ParseURI(s)
	if err != nil {
		return nil, err
	}
	san, _ := oidContent("2.5.29.17") // subjectAltName
	claims := []policy.Claim{{CredentialType: policy.CredentialX509, ID: san, Value: []byte(s)}}
	switch u.Kind() {
	case mimi.KindProvider:
		return claims, nil
	case mimi.KindUser, mimi.KindPseudonym:
		cwt, err := cwtClaim(claimUser, s)
		return append(claims, policy.Claim{CredentialType: uint16(mls.CredentialSDJWT), ID: []byte(claimUser), Value: []byte(s)}, cwt), err
	}
	return nil, errors.New("it names neither a user nor a provider")
}

func cwtClaim(name, value string) (policy.Claim, error) {
	var key any = name
	if n, err := strconv.ParseInt(name, 10, 64); err == nil {
		key = n
	}
	id, err := dcbor.FromNative(key)
	if err != nil {
		return policy.Claim{}, err
	}
	v, err := dcbor.FromNative(value)
	return policy.Claim{CredentialType: uint16(mls.CredentialSDCWT), ID: dcbor.Encode(id), Value: dcbor.Encode(v)}, err
}

// oidContent returns the content octets of an OID in dotted form.
func oidContent(dotted string) ([]byte, error) {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is no OID", dotted)
		}
		oid = append(oid, int(n))
	}
	der, err := asn1.Marshal(oid)
	if err != nil {
		return nil, fmt.Errorf("%q is no OID", dotted)
	}
	var raw asn1.RawValue
	_, err = asn1.Unmarshal(der, &raw)
	return raw.Bytes, err
}
