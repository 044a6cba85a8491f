package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/policy"
)

var roleLists = map[string]func() *policy.RoleData{
	"cooperative": policy.CooperativeRoles, "strict": policy.StrictRoles, "moderated": policy.ModeratedRoles, "multi-org": policy.MultiOrganizationRoles,
}

func newClientRoom(a *app, f *clientFlags) *cobra.Command {
	var name, roles, role string
	create := &cobra.Command{Use: "create ROOM", Short: "Make a room at the client's own provider", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := parseRoom(args[0])
			if err != nil {
				return err
			}
			opts, err := roomOptions(name, roles, role)
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				r, err := c.CreateRoom(ctx, uri, *opts)
				if err != nil {
					return err
				}
				return a.printRoom(ctx, r)
			})
		}}
	fl := create.Flags()
	fl.StringVar(&name, "name", "", "the room's name")
	fl.StringVar(&roles, "roles", "cooperative", "`list` of roles: "+strings.Join(slices.Sorted(maps.Keys(roleLists)), ", "))
	fl.StringVar(&role, "role", "", "the creator's `role` by name (default: the highest with clients in the room)")
	show := &cobra.Command{Use: "show ROOM", Short: "Print what is known of a room", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error { return a.printRoom(ctx, r) })
		}}
	return group("room", "Make and look at rooms", create, show)
}

func roomOptions(name, roles, role string) (*client.RoomOptions, error) {
	list := roleLists[roles]
	if list == nil {
		return nil, usageError{fmt.Errorf("--roles is one of %s, not %q", strings.Join(slices.Sorted(maps.Keys(roleLists)), ", "), roles)}
	}
	opts := &client.RoomOptions{Roles: list(), Metadata: mimi.RoomMetaData{RoomName: name}}
	if role == "" {
		return opts, nil
	}
	i := slices.IndexFunc(opts.Roles.Roles, func(r policy.Role) bool { return r.Name == role })
	if i < 0 {
		return nil, usageError{fmt.Errorf("--role: the list %s has no role %q", roles, role)}
	}
	opts.Role = opts.Roles.Roles[i].Index
	return opts, nil
}

type shownInfo struct {
	Room          string `json:"room"`
	Status        string `json:"status"`
	Detail        string `json:"detail,omitempty"`
	Name          string `json:"name,omitempty"`
	Epoch         uint64 `json:"epoch"`
	Participants  int    `json:"participants"`
	Clients       int    `json:"clients"`
	Authenticator string `json:"epoch_authenticator,omitempty"`
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
		s.Name = i.Metadata.RoomName
	}
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "room        %s\nstatus      %s  %s\n", s.Room, s.Status, s.Detail)
		if i.Metadata != nil {
			fmt.Fprintf(w, "name        %s\nepoch       %d\nmembers     %d participants with %d clients\ncompare     %.32s\n", s.Name, s.Epoch, s.Participants, s.Clients, s.Authenticator)
		}
	})
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
				for component, file := range set {
					if err := a.setComponent(ctx, r, component, file); err != nil {
						return err
					}
				}
				return a.printPolicy(ctx, r)
			})
		}}
	c.Flags().StringVar(&name, "name", "", "the room's new name")
	c.Flags().StringVar(&subject, "subject", "", "the room's new subject")
	c.Flags().StringToStringVar(&set, "set", nil, "`component=file`: replace a component by the encoding in a file")
	return c
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
