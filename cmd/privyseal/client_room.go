package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/policy"
)

func newClientRoom(a *app, f *clientFlags) *cobra.Command {
	var flags roomFlags
	create := &cobra.Command{Use: "create ROOM", Short: "Make a room at the client's own provider", Args: exactArgs(1), Long: roomCreateHelp,
		Example: "  privyseal client room create mimi://a.example/r/club --name Club\n" +
			"  privyseal client room create mimi://a.example/r/team --roles strict --semi-private \\\n" +
			"    --preauthorize ordinary_user=mimi://b.example/u/bob",
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := parseRoom(args[0])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				opts, err := flags.options(c)
				if err != nil {
					return err
				}
				r, err := c.CreateRoom(ctx, uri, *opts)
				if err != nil {
					return err
				}
				return a.printRoom(ctx, r)
			})
		}}
	flags.define(create)
	show := &cobra.Command{Use: "show ROOM", Short: "Print what is known of a room", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoomAsItIs(cmd.Context(), f, args[0], a.printRoom)
		}}
	fix := &cobra.Command{Use: "fix ROOM", Short: "Keep a room's participants as they are, as in a direct message", Args: exactArgs(1),
		Long: "From then on nobody is added, removed or leaves; their clients come and go. The\n" +
			"hub has one such room for the same participants. It takes a role with\n" +
			"canChangeRoomMembershipStyle and canChangeRoleDefinitions, such as super_admin of\n" +
			"a strict room.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				done, err := r.FixMembership(ctx)
				if err != nil {
					return err
				}
				return a.printCommit(r, done)
			})
		}}
	return group("room", "Make and look at rooms", create, show, newClientRoomList(a, f), newClientRoomSenders(a, f), fix)
}

type shownInfo struct {
	Room          string   `json:"room"`
	Status        string   `json:"status"`
	Detail        string   `json:"detail,omitempty"`
	Name          string   `json:"name,omitempty"`
	Subject       string   `json:"subject,omitempty"`
	Epoch         uint64   `json:"epoch"`
	Participants  int      `json:"participants"`
	Clients       int      `json:"clients"`
	SemiPrivate   bool     `json:"semi_private,omitempty"`
	Fixed         bool     `json:"fixed_membership,omitempty"`
	Parent        string   `json:"parent,omitempty"`
	Senders       []string `json:"external_senders,omitempty"`
	Authenticator string   `json:"epoch_authenticator,omitempty"`
}

func (a *app) printRoom(ctx context.Context, r *client.Room) error {
	i, err := r.Info(ctx)
	if err != nil {
		return err
	}
	s := shownInfo{Room: i.URI.String(), Status: string(i.Status), Detail: i.Detail, Epoch: i.Epoch, Participants: len(i.Participants),
		Authenticator: fmt.Sprintf("%x", i.Authenticator)}
	for _, p := range i.Participants {
		s.Clients += len(p.Clients)
	}
	if i.Metadata != nil {
		s.Name, s.Subject = i.Metadata.RoomName, i.Metadata.RoomSubject
		s.SemiPrivate, s.Fixed, s.Parent = i.SemiPrivate, i.Base.FixedMembership, i.Base.ParentRoom
	}
	for _, u := range i.Senders {
		s.Senders = append(s.Senders, senderName(u))
	}
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "room        %s\nstatus      %s  %s\n", s.Room, s.Status, s.Detail)
		if i.Metadata != nil {
			s.writeText(w)
		}
	})
}

func senderName(u mimi.URI) string {
	if u.IsZero() {
		return "one that is not believed"
	}
	return u.String()
}

// writeText prints what a member knows of the room.
func (s *shownInfo) writeText(w io.Writer) {
	fmt.Fprintf(w, "name        %s\n", oneLine(s.Name))
	if s.Subject != "" {
		fmt.Fprintf(w, "subject     %s\n", oneLine(s.Subject))
	}
	fmt.Fprintf(w, "epoch       %d\nmembers     %d participants with %d clients%s\n", s.Epoch, s.Participants, s.Clients, mark(s.Fixed, ", who stay the same"))
	fmt.Fprintf(w, "handshakes  %s\n", mark(s.SemiPrivate, "members and the hub read them")+mark(!s.SemiPrivate, "every provider with members reads them"))
	if s.Parent != "" {
		fmt.Fprintf(w, "parent      %s\n", s.Parent)
	}
	fmt.Fprintf(w, "may propose %s\ncompare     %.32s\n", strings.Join(s.Senders, ", "), s.Authenticator)
}

// memberships are the changes of one user's part in a room.
var memberships = map[string]struct {
	short string
	do    func(context.Context, *client.Room, mimi.URI, mimi.RoleIndex) (*client.Committed, error)
}{
	"add": {"Add a user with all clients", func(ctx context.Context, r *client.Room, u mimi.URI, role mimi.RoleIndex) (*client.Committed, error) {
		return r.Add(ctx, u, client.AddOptions{Role: role})
	}},
	"remove": {"Remove a user and all of its clients", func(ctx context.Context, r *client.Room, u mimi.URI, _ mimi.RoleIndex) (*client.Committed, error) {
		return r.Remove(ctx, u)
	}},
	"ban": {"Remove a user's clients and keep the user out", func(ctx context.Context, r *client.Room, u mimi.URI, _ mimi.RoleIndex) (*client.Committed, error) {
		return r.Ban(ctx, u)
	}},
	"kick": {"Remove a user's clients; the user may come back", func(ctx context.Context, r *client.Room, u mimi.URI, _ mimi.RoleIndex) (*client.Committed, error) {
		return r.Kick(ctx, u, mimi.URI{})
	}},
}

func newClientMembership(a *app, f *clientFlags, what string) *cobra.Command {
	var role string
	m := memberships[what]
	c := &cobra.Command{Use: what + " ROOM USER", Short: m.short, Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := parseUser(args[1])
			if err != nil {
				return err
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				index, err := roleIndex(ctx, r, role)
				if err != nil {
					return err
				}
				done, err := m.do(ctx, r, user, index)
				if err != nil {
					return err
				}
				return a.printCommit(r, done)
			})
		}}
	if what == "add" {
		c.Flags().StringVar(&role, "role", "", "`role` of the user, by name (default: the first that may be given)")
	}
	return c
}

func roleIndex(ctx context.Context, r *client.Room, name string) (mimi.RoleIndex, error) {
	if name == "" {
		return mimi.RoleNone, nil
	}
	return r.RoleNamed(ctx, name)
}

func newClientRole(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "role ROOM USER ROLE", Short: "Give a participant another role; this also ends a ban", Args: exactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := parseUser(args[1])
			if err != nil {
				return err
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				role, err := r.RoleNamed(ctx, args[2])
				if err != nil {
					return err
				}
				done, err := r.SetRole(ctx, user, role)
				if err != nil {
					return err
				}
				return a.printCommit(r, done)
			})
		}}
}

func newClientJoin(a *app, f *clientFlags) *cobra.Command {
	var code string
	var role uint32
	c := &cobra.Command{Use: "join ROOM", Short: "Enter a room by oneself", Args: exactArgs(1),
		Long: "Enters a room of which the user is a participant, an open room, one for which the\n" +
			"user is preauthorised, or one for which a join code was passed on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := parseRoom(args[0])
			if err != nil {
				return err
			}
			opts := client.JoinOptions{Role: mimi.RoleIndex(role)}
			if code != "" {
				text, err := readInput(a.in, code)
				if err != nil {
					return err
				}
				opts.Code = []byte(strings.TrimSpace(string(text)))
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				if err := c.Sync(ctx); err != nil { // it may have been removed meanwhile
					return err
				}
				r, err := c.Join(ctx, uri, opts)
				if err != nil {
					return err
				}
				return a.printRoom(ctx, r)
			})
		}}
	c.Flags().StringVar(&code, "code-file", "", "`file` with a join code, or - for standard input")
	c.Flags().Uint32Var(&role, "role", 0, "index of the `role` to take (default: what the room offers)")
	return c
}

func newClientCode(a *app, f *clientFlags) *cobra.Command {
	var role string
	var lifetime time.Duration
	var uses uint32
	c := &cobra.Command{Use: "code ROOM", Short: "Ask the hub for a join code; whoever has it may enter", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lifetime < time.Second || lifetime/time.Second > math.MaxUint32 || uses == 0 {
				return usageError{errors.New("--lifetime is a second or longer, and --uses is at least 1")}
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				index, err := r.RoleNamed(ctx, role)
				if err != nil {
					return err
				}
				code, err := r.JoinCode(ctx, index, uint32(lifetime/time.Second), uses)
				if err != nil {
					return err
				}
				until := time.UnixMilli(int64(code.Expires)).UTC().Format(time.RFC3339)
				return a.print(map[string]string{"code": string(code.Code), "expires": until}, func(w io.Writer) { fmt.Fprintln(w, string(code.Code)) })
			})
		}}
	c.Flags().StringVar(&role, "role", "", "`role` that the code gives, by name (required)")
	c.Flags().DurationVar(&lifetime, "lifetime", 24*time.Hour, "how long it is good")
	c.Flags().Uint32Var(&uses, "uses", 1, "how often it is good")
	return c
}

func newClientLeave(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "leave ROOM", Short: "Leave a room with all clients of the user", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				status, err := r.Leave(ctx)
				if err != nil {
					return err
				}
				return a.print(shownRoom{Room: r.URI().String(), Status: string(status)}, func(w io.Writer) { fmt.Fprintf(w, "status      %s\n", status) })
			})
		}}
}

func newClientPolicy(a *app, f *clientFlags) *cobra.Command {
	var name, subject string
	var set map[string]string
	var preauthorize []string
	c := &cobra.Command{Use: "policy ROOM", Short: "Print or change a room's policy and metadata", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				changed := cmd.Flags().Changed("name") || cmd.Flags().Changed("subject")
				if changed {
					if _, err := r.SetMetadata(ctx, func(m *mimi.RoomMetaData) {
						if cmd.Flags().Changed("name") {
							m.RoomName = name
						}
						if cmd.Flags().Changed("subject") {
							m.RoomSubject = subject
						}
					}); err != nil {
						return err
					}
				}
				if len(preauthorize) > 0 {
					if err := setPreauth(ctx, r, preauthorize); err != nil {
						return err
					}
				}
				for _, component := range slices.Sorted(maps.Keys(set)) {
					if err := a.setComponent(ctx, r, component, set[component]); err != nil {
						return err
					}
				}
				return a.printPolicy(ctx, r)
			})
		}}
	c.Flags().StringVar(&name, "name", "", "the room's new name")
	c.Flags().StringVar(&subject, "subject", "", "the room's new subject")
	c.Flags().StringArrayVar(&preauthorize, "preauthorize", nil, "`ROLE=WHO` may enter by itself, in the place of who might before; see client room create")
	c.Flags().StringToStringVar(&set, "set", nil, "`component=file`: replace a component by the encoding in a file")
	return c
}

// setPreauth replaces the room's list of those who may enter by themselves.
func setPreauth(ctx context.Context, r *client.Room, list []string) error {
	v, err := r.Component(ctx, policy.ComponentRoles)
	if err != nil {
		return err
	}
	d, err := parsePreauth(v.(*policy.RoleData), list)
	if err != nil {
		return err
	}
	_, err = r.SetComponent(ctx, policy.ComponentPreauth, d.Marshal())
	return err
}

func (a *app) setComponent(ctx context.Context, r *client.Room, name, file string) error {
	value, err := readInput(a.in, file)
	if err != nil {
		return err
	}
	for id := policy.ComponentOperational; id <= policy.ComponentExpiration; id++ {
		if id.String() == name {
			_, err := r.SetComponent(ctx, id, value)
			return err
		}
	}
	return usageError{errors.New("--set: there is no component " + name)}
}

func (a *app) printPolicy(ctx context.Context, r *client.Room) error {
	i, err := r.Info(ctx)
	if err != nil {
		return err
	}
	values := map[string]any{}
	for _, id := range i.Components {
		v, err := r.Component(ctx, id)
		if err != nil {
			continue // one that this release does not know
		}
		values[id.String()] = v
	}
	return a.print(values, func(w io.Writer) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(w, "%s\n", name)
		}
		roles, ok := values[policy.ComponentRoles.String()].(*policy.RoleData)
		if !ok {
			return
		}
		for _, role := range roles.Roles {
			var names []string
			for _, c := range role.Capabilities {
				names = append(names, c.String())
			}
			fmt.Fprintf(w, "role %d %s: %s\n", role.Index, role.Name, strings.Join(names, " "))
		}
	})
}
