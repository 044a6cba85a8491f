package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// consents are the words of a user about a consent with another.
var consents = []struct {
	name, short string
	do          func(*client.Client, context.Context, mimi.URI, mimi.URI) error
}{
	{"request", "Ask USER to let us add it to rooms", (*client.Client).RequestConsent},
	{"cancel", "Take a request to USER back", (*client.Client).CancelConsent},
	{"grant", "Let USER add us to rooms, asked or not", (*client.Client).GrantConsent},
	{"revoke", "No longer let USER add us to rooms", (*client.Client).RevokeConsent},
}

func newClientConsent(a *app, f *clientFlags) *cobra.Command {
	list := []*cobra.Command{newClientConsentList(a, f)}
	for _, w := range consents {
		var room string
		c := &cobra.Command{Use: w.name + " USER", Short: w.short, Args: exactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				user, err := parseUser(args[0])
				if err != nil {
					return err
				}
				var only mimi.URI
				if room != "" {
					if only, err = parseRoom(room); err != nil {
						return err
					}
				}
				return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
					if err := w.do(c, ctx, user, only); err != nil {
						return err
					}
					return a.print(map[string]string{"operation": w.name, "user": user.String(), "room": only.String()}, func(out io.Writer) {
						fmt.Fprintf(out, "%-11s %s  %s\n", w.name, user, inRoom(only))
					})
				})
			}}
		c.Flags().StringVar(&room, "room", "", "only for this `room` (default: for any)")
		list = append(list, c)
	}
	g := group("consent", "Say who may add us to rooms, and ask others", list...)
	g.Long = "A provider hands out the KeyPackages of a user, with which it is added to rooms, to\n" +
		"those to whom the user has given its consent (and, by its default, to users of the\n" +
		"same provider). A word about one room goes before one about any room."
	return g
}

func inRoom(room mimi.URI) string {
	if room.IsZero() {
		return "any room"
	}
	return room.String()
}

// A shown thing can be printed.
type shown interface{ writeText(io.Writer) }

// A shownConsent is a consent, or what was said of one.
type shownConsent struct {
	State string `json:"state"` // asked, granted, revoked or cancelled
	// By is the user that asks and may add, Of the one that is added.
	By   string `json:"requester"`
	Of   string `json:"target"`
	Room string `json:"room,omitempty"`
	At   string `json:"at"`
}

func (s *shownConsent) writeText(w io.Writer) {
	room := s.Room
	if room == "" {
		room = "any room"
	}
	words := map[string]string{
		"asked": "%s asks to add %s", "granted": "%s may add %s", "revoked": "%s may not add %s", "cancelled": "%s no longer asks to add %s",
	}
	fmt.Fprintf(w, "consent     "+words[s.State]+" to %s  %s\n", s.By, s.Of, room, s.At)
}

func showConsent(state string, scope mimi.ConsentScope, at time.Time) *shownConsent {
	return &shownConsent{state, scope.RequesterURI.String(), scope.TargetURI.String(), scope.RoomID.String(), at.UTC().Format(time.RFC3339)}
}

func showConsentEvent(e *client.ConsentEvent) *shownConsent {
	states := map[mimi.ConsentOperation]string{
		mimi.ConsentRequest: clientapi.ConsentAsked.String(), mimi.ConsentGrant: clientapi.ConsentGranted.String(),
		mimi.ConsentRevoke: clientapi.ConsentRevoked.String(), mimi.ConsentCancel: "cancelled",
	}
	return showConsent(states[e.Operation], e.ConsentScope, e.At)
}

func newClientConsentList(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "Print the consents that wait or stand, ours and those of others", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				list, err := c.Consents(ctx)
				if err != nil {
					return err
				}
				shown := []*shownConsent{}
				for _, one := range list {
					shown = append(shown, showConsent(one.State.String(), one.ConsentScope, time.UnixMilli(int64(one.At))))
				}
				return a.print(shown, func(w io.Writer) {
					for _, s := range shown {
						s.writeText(w)
					}
				})
			})
		}}
}
