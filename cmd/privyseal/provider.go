package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// newProvider is "privyseal provider": what an operator does to the provider of
// the configuration. It works on the database, beside a running serve.
func newProvider(a *app) *cobra.Command {
	c := &cobra.Command{Use: "provider", Short: "Run the MIMI provider of the configuration: invitations, and where a client is"}
	c.AddCommand(newProviderInvite(a), newProviderWhere(a))
	return c
}

func newProviderInvite(a *app) *cobra.Command {
	var lifetime time.Duration
	c := &cobra.Command{
		Use: "invite USER", Short: "Make an invitation for a client of a user, such as mimi://a.example/u/alice", Args: exactArgs(1),
		Long: `Makes an invitation with which one client of the user may register although its
credential proves nothing. It is printed once; only its hash is kept.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			user, err := mimi.ParseURI(args[0])
			if err != nil {
				return usageError{err}
			}
			return withProvider(cmd.Context(), a, func(s *provider.Service) error {
				code, err := s.Invite(cmd.Context(), user, lifetime)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.out, "%s\n", code)
				return err
			})
		},
	}
	c.Flags().DurationVar(&lifetime, "lifetime", 72*time.Hour, "how long the invitation is good")
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
				if err := printWhereabouts(a, list); err != nil {
					return err
				}
				unknown, err := s.Unfollowed(cmd.Context(), client)
				for _, room := range unknown {
					if _, err := fmt.Fprintf(a.out, "%s\tnot known: ask its hub\n", room); err != nil {
						return err
					}
				}
				return err
			})
		},
	}
}

func printWhereabouts(a *app, list []provider.Gone) error {
	for _, g := range list {
		state := "is there"
		if g.Removed {
			state = fmt.Sprintf("gone in epoch %d at %s", g.Epoch, time.UnixMilli(int64(g.At)).UTC().Format(time.RFC3339Nano))
		}
		if _, err := fmt.Fprintf(a.out, "%s\tsince epoch %d\t%s\n", g.Room, g.Since, state); err != nil {
			return err
		}
	}
	return nil
}

// withProvider opens the provider's database for a question or a small change.
func withProvider(ctx context.Context, a *app, do func(*provider.Service) error) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	return withProviderOf(ctx, c, do)
}
