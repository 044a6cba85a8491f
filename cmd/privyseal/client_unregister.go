package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi/client"
)

func newClientUnregister(a *app, f *clientFlags) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "unregister", Short: "Have the provider forget the client", Args: noArgs,
		Long: "The provider forgets the client, its KeyPackages and what waits for it, and with the\n" +
			"last client of a user the user's profile. Leave its rooms first: there it would stay\n" +
			"and hear nothing. Its folder stays, with the messages; client register makes it known\n" +
			"again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				if !force {
					if err := outOfRooms(ctx, c); err != nil {
						return err
					}
				}
				if err := c.Unregister(ctx); err != nil {
					return err
				}
				return a.print(map[string]string{"client": c.URI().String()}, func(w io.Writer) { fmt.Fprintf(w, "forgotten   %s\n", c.URI()) })
			})
		}}
	c.Flags().BoolVar(&force, "force", false, "although it is in rooms")
	return c
}

// outOfRooms refuses for a client that is in rooms, or on its way in or out.
func outOfRooms(ctx context.Context, c *client.Client) error {
	if err := c.Sync(ctx); err != nil {
		return err
	}
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	var in []string
	for _, r := range rooms {
		switch status, _ := r.Status(); status {
		case client.RoomLeft, client.RoomClosed:
		default:
			in = append(in, fmt.Sprintf("%s (%s)", r.URI(), status))
		}
	}
	if len(in) > 0 {
		return refusedError{fmt.Errorf("the client is in rooms: %s; leave them first, or say --force", strings.Join(in, ", "))}
	}
	return nil
}
