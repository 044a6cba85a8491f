package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A policyRoom is a room in a policy corpus.
type policyRoom struct {
	URI          mimi.URI          `json:"uri"`
	Roles        json.RawMessage   `json:"roles"`
	Base         *policyBase       `json:"base"`
	Operational  *policyOps        `json:"operational"`
	Preauth      []policyEntry     `json:"preauth"`
	Components   map[string]string `json:"components"`
	Participants []struct {
		User    mimi.URI       `json:"user"`
		Role    mimi.RoleIndex `json:"role"`
		Clients []mimi.URI     `json:"clients"`
	} `json:"participants"`
	Parent            []mimi.URI `json:"parent"`
	Member            bool       `json:"member"`
	SelfRoleChanges   bool       `json:"self_role_changes"`
	PendingPreference bool       `json:"pending_preference"`
}

type policyBase struct {
	FixedMembership   bool    `json:"fixed_membership"`
	ParentDependant   bool    `json:"parent_dependant"`
	ParentRoom        string  `json:"parent_room"`
	MultiDevice       *bool   `json:"multi_device"`
	MaxClients        *uint32 `json:"max_clients"`
	MaxUsers          *uint32 `json:"max_users"`
	PseudonymsAllowed bool    `json:"pseudonyms_allowed"`
}

type policyOps struct {
	ExternalProposalAllowed bool `json:"external_proposal_allowed"`
	ExternalCommitAllowed   bool `json:"external_commit_allowed"`
}

type policyRole struct {
	Index               mimi.RoleIndex `json:"role_index"`
	Name                string         `json:"role_name"`
	Description         string         `json:"role_description"`
	Capabilities        []looseText    `json:"role_capabilities"`
	MinimumParticipants uint32         `json:"minimum_participants_constraint"`
	MaximumParticipants *uint32        `json:"maximum_participants_constraint"`
	MinimumActive       uint32         `json:"minimum_active_participants_constraint"`
	MaximumActive       *uint32        `json:"maximum_active_participants_constraint"`
	Changes             []policyChange `json:"authorized_role_changes"`
}

// A policyChange is a pair of a role and those that it may be changed to, or the
// draft's struct.
type policyChange struct {
	From    mimi.RoleIndex   `json:"from_role_index"`
	Targets []mimi.RoleIndex `json:"target_role_indexes"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *policyChange) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '[' {
		type plain policyChange
		return json.Unmarshal(b, (*plain)(c))
	}
	var pair []json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("a role change of %d items, want a role and a list of roles", len(pair))
	}
	return errors.Join(json.Unmarshal(pair[0], &c.From), json.Unmarshal(pair[1], &c.Targets))
}

type policyEntry struct {
	Claimset []struct {
		CredentialType policyCredentialType `json:"credential_type"`
		ID             string               `json:"id"`
		IDHex          string               `json:"id_hex"`
		Value          string               `json:"value"`
		ValueHex       string               `json:"value_hex"`
	} `json:"claimset"`
	Role mimi.RoleIndex `json:"role"`
}

// A policyCredential is what a verified credential says.
type policyCredential struct {
	Type policyCredentialType `json:"type"`
	JWT  json.RawMessage      `json:"jwt"`
	CWT  string               `json:"cwt"`
	X509 string               `json:"x509"`
}

// A policyCredentialType is a credential type by its number or a name of it.
type policyCredentialType uint16

var credentialTypes = map[string]policyCredentialType{
	"basic": 1, "x509": 2, "multi": 3, "weak-multi": 4, "cwt": 5, "sd-cwt": 5, "jwt": 6, "sd-jwt": 6,
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *policyCredentialType) UnmarshalJSON(b []byte) error {
	var s looseText
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	if known, ok := credentialTypes[strings.ReplaceAll(strings.ToLower(string(s)), "_", "-")]; ok {
		*t = known
		return nil
	}
	n, err := parseUint(string(s), 16)
	*t = policyCredentialType(n)
	return err
}

// A policyClient is the identity of a client.
type policyClient struct {
	User   mimi.URI `json:"user"`
	Client mimi.URI `json:"client"`
}

func (c policyClient) client() policy.Client { return policy.Client{User: c.User, URI: c.Client} }

// parentUsers is a parent room by its users.
type parentUsers []mimi.URI

func (p parentUsers) Has(user mimi.URI) bool { return slices.Contains(p, user) }
func (p parentUsers) Len() int               { return len(p) }

var exampleRoles = map[string]func() *policy.RoleData{
	"cooperative": policy.CooperativeRoles, "strict": policy.StrictRoles,
	"moderated": policy.ModeratedRoles, "multi-organization": policy.MultiOrganizationRoles,
}

func (r *policyRoom) state() (*policy.State, *policy.RoleData, error) {
	roles, err := readRoles(r.Roles)
	if err != nil {
		return nil, nil, err
	}
	room := policy.Room{URI: r.URI}
	if room.Components, err = r.values(roles); err != nil {
		return nil, nil, err
	}
	list := new(mimi.ParticipantListData)
	for _, p := range r.Participants {
		list.Participants = append(list.Participants, mimi.UserRolePair{User: p.User, Role: p.Role})
		for _, c := range p.Clients {
			room.Leaves = append(room.Leaves, policy.Leaf{Index: uint32(len(room.Leaves)), Client: policy.Client{User: p.User, URI: c}})
		}
	}
	room.Components[policy.ComponentParticipantList] = list.Marshal()
	config := policy.Config{Member: r.Member, SelfRoleChanges: r.SelfRoleChanges, PendingPreference: r.PendingPreference}
	if r.Parent != nil {
		config.Parent = parentUsers(r.Parent)
	}
	s, err := policy.NewState(config, room)
	return s, roles, err
}

// values returns the components, of which those in hexadecimal have the last
// word.
func (r *policyRoom) values(roles *policy.RoleData) (map[policy.ComponentID][]byte, error) {
	values := map[policy.ComponentID][]byte{policy.ComponentRoles: roles.Marshal(), policy.ComponentBase: r.Base.data().Marshal()}
	if o := r.Operational; o != nil {
		values[policy.ComponentOperational] = (&policy.OperationalParameters{
			ExternalProposalAllowed: o.ExternalProposalAllowed, ExternalCommitAllowed: o.ExternalCommitAllowed}).Marshal()
	}
	if r.Preauth != nil {
		data, err := preauthData(r.Preauth, roles)
		if err != nil {
			return nil, err
		}
		values[policy.ComponentPreauth] = data.Marshal()
	}
	for name, text := range r.Components {
		id, err := componentID(name)
		if err != nil {
			return nil, err
		}
		if values[id], err = looseOctets(text, -1); err != nil {
			return nil, fmt.Errorf("component %s: %w", name, err)
		}
	}
	return values, nil
}

func (b *policyBase) data() *policy.BaseRoomPolicy {
	if b == nil {
		return &policy.BaseRoomPolicy{MultiDevice: true}
	}
	return &policy.BaseRoomPolicy{
		FixedMembership: b.FixedMembership, ParentDependant: b.ParentDependant, ParentRoom: b.ParentRoom,
		MultiDevice: b.MultiDevice == nil || *b.MultiDevice, MaxClients: b.MaxClients, MaxUsers: b.MaxUsers, PseudonymsAllowed: b.PseudonymsAllowed,
	}
}

// componentID returns the component of a number or of a name.
func componentID(name string) (policy.ComponentID, error) {
	if n, err := parseUint(name, 16); err == nil {
		return policy.ComponentID(n), nil
	}
	for id := policy.ComponentAppComponents; id < 0x0080; id++ {
		if id.String() == strings.ToLower(name) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no component %q", name)
}

// readRoles reads the name of an example or a list of roles.
func readRoles(raw json.RawMessage) (*policy.RoleData, error) {
	if len(raw) == 0 {
		return nil, errors.New("no roles")
	}
	if raw[0] == '"' {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return nil, err
		}
		if example, ok := exampleRoles[name]; ok {
			return example(), nil
		}
		return nil, fmt.Errorf("no example of roles named %q", name)
	}
	var list []policyRole
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	data := new(policy.RoleData)
	for _, r := range list {
		role, err := r.role()
		if err != nil {
			return nil, fmt.Errorf("role %d: %w", r.Index, err)
		}
		data.Roles = append(data.Roles, role)
	}
	return data, nil
}

func (r *policyRole) role() (policy.Role, error) {
	role := policy.Role{
		Index: r.Index, Name: r.Name, Description: r.Description,
		MinimumParticipants: r.MinimumParticipants, MaximumParticipants: r.MaximumParticipants,
		MinimumActiveParticipants: r.MinimumActive, MaximumActiveParticipants: r.MaximumActive,
	}
	var err error
	if role.Capabilities, err = capabilities(r.Capabilities); err != nil {
		return role, err
	}
	for _, c := range r.Changes {
		role.AuthorizedRoleChanges = append(role.AuthorizedRoleChanges, policy.SingleSourceRoleChangeTargets{From: c.From, Targets: c.Targets})
	}
	return role, nil
}

func capabilities(names []looseText) (list []policy.Capability, _ error) {
	for _, name := range names {
		c, ok := policy.ParseCapability(string(name))
		if !ok {
			n, err := parseUint(string(name), 16)
			if err != nil {
				return nil, fmt.Errorf("no capability %q", name)
			}
			c = policy.Capability(n)
		}
		list = append(list, c)
	}
	return list, nil
}

func preauthData(entries []policyEntry, roles *policy.RoleData) (*policy.PreAuthData, error) {
	data := new(policy.PreAuthData)
	for i, e := range entries {
		role := roles.Role(e.Role)
		if role == nil {
			role = &policy.Role{Index: e.Role}
		}
		entry := policy.PreAuthRoleEntry{TargetRole: *role}
		for _, c := range e.Claimset {
			id, err := textOrHex(c.ID, c.IDHex)
			if err != nil {
				return nil, fmt.Errorf("preauth %d: %w", i, err)
			}
			value, err := textOrHex(c.Value, c.ValueHex)
			if err != nil {
				return nil, fmt.Errorf("preauth %d: %w", i, err)
			}
			entry.Claimset = append(entry.Claimset, policy.Claim{CredentialType: uint16(c.CredentialType), ID: id, Value: value})
		}
		data.PreauthorizedEntries = append(data.PreauthorizedEntries, entry)
	}
	return data, nil
}

func textOrHex(text, hexadecimal string) ([]byte, error) {
	if hexadecimal == "" {
		return []byte(text), nil
	}
	return looseOctets(hexadecimal, -1)
}

func (c *policyCredential) credential() (policy.Credential, error) {
	switch {
	case c.JWT != nil:
		return policy.NewJWT(uint16(c.Type), "", c.JWT)
	case c.CWT != "":
		claims, err := looseOctets(c.CWT, -1)
		if err != nil {
			return nil, err
		}
		return policy.NewCWT(uint16(c.Type), "", claims)
	case c.X509 != "":
		der, err := looseOctets(c.X509, -1)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		return policy.NewX509(cert), nil
	}
	return nil, errors.New("a credential has jwt, cwt or x509")
}
