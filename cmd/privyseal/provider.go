package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// newProvider is "privyseal provider": what an operator does to the provider of
// the configuration. It works on the database, beside a running serve.
func newProvider(a *app) *cobra.Command {
	return group("provider", "Run the MIMI provider of the configuration: invitations, and where a client is", newProviderInvite(a), newProviderWhere(a))
}

func newProviderInvite(a *app) *cobra.Command {
	var lifetime time.Duration
	var out string
	c := &cobra.Command{
		Use: "invite USER", Short: "Make an invitation for a client of a user, such as mimi://a.example/u/alice", Args: exactArgs(1),
		Long: `Makes an invitation with which one client of the user may register although its
credential proves nothing. It is printed once; only its hash is kept.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := mimi.ParseURI(args[0])
			if err != nil {
				return usageError{err}
			}
			if lifetime <= 0 {
				return usageError{errors.New("--lifetime must be longer than zero")}
			}
			return withProvider(cmd.Context(), a, func(s *provider.Service) error {
				return a.giveOut(out, "invitation", func() (string, time.Time, error) {
					code, err := s.Invite(cmd.Context(), user, lifetime)
					return string(code), time.Now().Add(lifetime).UTC().Truncate(time.Second), err
				}, map[string]any{"user": user.String()})
			})
		},
	}
	c.Flags().DurationVar(&lifetime, "lifetime", 72*time.Hour, "how long the invitation is good")
	c.Flags().StringVar(&out, "out", "", "write the invitation into a new `file` of mode 0600 instead of standard output")
	return c
}

func newProviderWhere(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "where CLIENT", Short: "List the rooms in which a client is or was, with the epoch in which it was gone", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := mimi.ParseURI(args[0])
			if err != nil {
				return usageError{err}
			}
			return withProvider(cmd.Context(), a, func(s *provider.Service) error {
				list, err := s.ClientWhereabouts(cmd.Context(), client)
				if err != nil {
					return err
				}
				unknown, err := s.Unfollowed(cmd.Context(), client)
				if err != nil {
					return err
				}
				return a.printWhereabouts(list, unknown)
			})
		},
	}
}

// A shownWhere is a room in which a client is or was.
type shownWhere struct {
	Room  string    `json:"room"`
	Since uint64    `json:"since_epoch,omitempty"`
	Gone  bool      `json:"gone"`
	Epoch uint64    `json:"epoch,omitempty"` // the first without it
	At    time.Time `json:"at,omitzero"`     // when the hub accepted that epoch
	// Unknown says that the room is another provider's and that we cannot follow
	// who is in it.
	Unknown bool `json:"unknown,omitempty"`
}

func (s *shownWhere) writeText(w io.Writer) {
	switch {
	case s.Unknown:
		fmt.Fprintf(w, "%s\tnot known: ask its hub\n", s.Room)
	case s.Gone:
		fmt.Fprintf(w, "%s\tsince epoch %d\tgone in epoch %d at %s\n", s.Room, s.Since, s.Epoch, s.At.Format(time.RFC3339Nano))
	default:
		fmt.Fprintf(w, "%s\tsince epoch %d\tis there\n", s.Room, s.Since)
	}
}

func (a *app) printWhereabouts(list []provider.Gone, unknown []mimi.URI) error {
	shown := []shownWhere{}
	for _, g := range list {
		s := shownWhere{Room: g.Room.String(), Since: g.Since, Gone: g.Removed}
		if g.Removed {
			s.Epoch, s.At = g.Epoch, time.UnixMilli(int64(g.At)).UTC()
		}
		shown = append(shown, s)
	}
	for _, room := range unknown {
		shown = append(shown, shownWhere{Room: room.String(), Unknown: true})
	}
	return a.print(shown, func(w io.Writer) {
		for i := range shown {
			shown[i].writeText(w)
		}
	})
}

// withProvider opens the provider's database for a question or a small change.
func withProvider(ctx context.Context, a *app, do func(*provider.Service) error) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	return withProviderOf(ctx, c, do)
}
