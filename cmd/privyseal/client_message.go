package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
)

var zeroTime time.Time

// A shownMessage is a message with what was verified of it.
type shownMessage struct {
	Room       string            `json:"room"`
	ID         string            `json:"id"`
	Accepted   string            `json:"accepted"`
	Kind       string            `json:"kind"`
	Sender     string            `json:"sender"`
	Client     string            `json:"client"`
	Level      string            `json:"level"`
	Issuer     string            `json:"issuer,omitempty"`
	Target     string            `json:"target,omitempty"`
	Type       string            `json:"content_type,omitempty"`
	Text       string            `json:"text,omitempty"`
	Asset      *shownAsset       `json:"asset,omitempty"`
	Franked    bool              `json:"franked"`
	NotFranked string            `json:"not_franked,omitempty"`
	Quarantine string            `json:"quarantine,omitempty"`
	Statuses   map[string]string `json:"statuses,omitempty"`
}

var statusNames = []string{"unread", "delivered", "read", "expired", "deleted", "hidden", "error"}

func showMessage(room mimi.URI, m *client.Message) shownMessage {
	s := shownMessage{
		Room: room.String(), ID: hex.EncodeToString(m.ID[:]), Accepted: m.Accepted.UTC().Format(time.RFC3339Nano), Kind: m.Kind,
		Sender: m.Sender.String(), Client: m.Client.String(), Level: m.Level.String(), Issuer: m.Issuer,
		Franked: m.NotFranked == "", NotFranked: m.NotFranked, Quarantine: m.Quarantine,
	}
	for _, t := range []*content.MessageID{m.Content.InReplyTo, m.Content.Replaces} {
		if t != nil {
			s.Target = hex.EncodeToString(t[:])
		}
	}
	for _, part := range m.Content.Body.Walk() {
		switch c := part.Content.(type) {
		case *content.SinglePart:
			if s.Text == "" {
				s.Type, s.Text = c.ContentType, string(c.Content)
			}
		case *content.ExternalPart:
			if s.Asset == nil {
				s.Asset = &shownAsset{c.ContentType, c.Filename, c.Description, c.Size}
			}
		}
	}
	for user, status := range m.Statuses {
		if s.Statuses == nil {
			s.Statuses = make(map[string]string)
		}
		if int(status) < len(statusNames) {
			s.Statuses[user.String()] = statusNames[status]
		}
	}
	return s
}

// writeText prints a message for a person.
func (s *shownMessage) writeText(w io.Writer) {
	fmt.Fprintf(w, "%s  %s  %s  %s by %s  %s\n", s.ID[:16], s.Accepted, s.Sender, s.Level, mark(s.Issuer != "", s.Issuer)+mark(s.Issuer == "", "nobody"), s.Kind)
	if s.Target != "" {
		fmt.Fprintf(w, "    to %s\n", s.Target[:16])
	}
	if s.NotFranked != "" {
		fmt.Fprintf(w, "    NOT FRANKED: %s\n", s.NotFranked)
	}
	if s.Quarantine != "" {
		fmt.Fprintf(w, "    SENDER IN DOUBT: %s\n", s.Quarantine)
	}
	if f := s.Asset; f != nil {
		fmt.Fprintf(w, "    asset %s\n", oneLine(fmt.Sprintf("%s, %s, %d octets  %s", f.Filename, f.Type, f.Size, f.Description)))
	}
	for line := range strings.Lines(harmless(s.Text)) {
		fmt.Fprintf(w, "    %s\n", strings.TrimRight(line, "\n"))
	}
}

// oneLine is harmless and has no line feeds.
func oneLine(s string) string { return strings.TrimSpace(strings.ReplaceAll(harmless(s), "\n", " ")) }

func (a *app) printSent(r *client.Room, s *client.Sent) error {
	id := hex.EncodeToString(s.ID[:])
	return a.print(map[string]any{"room": r.URI().String(), "id": id, "accepted": s.Accepted.UTC().Format(time.RFC3339Nano), "franked": s.NotFranked == ""},
		func(w io.Writer) {
			fmt.Fprintf(w, "sent        %s%s\n", id, mark(s.NotFranked != "", "  NOT FRANKED: "+s.NotFranked))
		})
}

// messageText is an argument, or standard input for "-".
func (a *app) messageText(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	b, err := readInput(a.in, arg)
	return strings.TrimRight(string(b), "\n"), err
}

func newClientSend(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "send ROOM TEXT|-", Short: "Send a text", Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.messageText(args[1])
			if err != nil {
				return err
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				s, err := r.Text(ctx, text)
				if err != nil {
					return err
				}
				return a.printSent(r, s)
			})
		}}
}

// answers are the messages that refer to another and have a text.
var answers = map[string]struct {
	short string
	do    func(*client.Room, context.Context, content.MessageID, string) (*client.Sent, error)
}{
	"reply": {"Answer a message", (*client.Room).Reply},
	"react": {"Put a reaction to a message", (*client.Room).React},
	"edit":  {"Replace the text of a message", (*client.Room).Edit},
}

func newClientAnswer(a *app, f *clientFlags, what string) *cobra.Command {
	kind := answers[what]
	return &cobra.Command{Use: what + " ROOM MESSAGE TEXT|-", Short: kind.short, Args: exactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.messageText(args[2])
			if err != nil {
				return err
			}
			return a.withMessage(cmd.Context(), f, args[0], args[1], func(ctx context.Context, r *client.Room, id content.MessageID) error {
				s, err := kind.do(r, ctx, id, text)
				if err != nil {
					return err
				}
				return a.printSent(r, s)
			})
		}}
}

func (a *app) withMessage(ctx context.Context, f *clientFlags, room, message string, do func(context.Context, *client.Room, content.MessageID) error) error {
	return a.withRoom(ctx, f, room, func(ctx context.Context, _ *client.Client, r *client.Room) error {
		id, err := parseMessageID(ctx, r, message)
		if err != nil {
			return err
		}
		return do(ctx, r, id)
	})
}

func newClientDelete(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "delete ROOM MESSAGE", Short: "Take a message or a reaction back", Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMessage(cmd.Context(), f, args[0], args[1], func(ctx context.Context, r *client.Room, id content.MessageID) error {
				s, err := r.Delete(ctx, id)
				if err != nil {
					return err
				}
				return a.printSent(r, s)
			})
		}}
}

func newClientRecv(a *app, f *clientFlags) *cobra.Command {
	var after string
	var read bool
	c := &cobra.Command{Use: "recv ROOM", Short: "Take in what waits and print a room's messages", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			since, err := parseAfter(after)
			if err != nil {
				return err
			}
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, c *client.Client, r *client.Room) error {
				list, err := r.Messages(ctx, since)
				if err != nil {
					return err
				}
				if err := a.printMessages(r.URI(), list); err != nil || !read {
					return err
				}
				return reportRead(ctx, c, r, list)
			})
		}}
	c.Flags().StringVar(&after, "after", "", "only messages accepted after this `time` (RFC 3339)")
	c.Flags().BoolVar(&read, "read", false, "tell the room that they were read")
	return c
}

func parseAfter(s string) (time.Time, error) {
	if s == "" {
		return zeroTime, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, usageError{fmt.Errorf("--after: %w", err)}
	}
	return t, nil
}

func (a *app) printMessages(room mimi.URI, list []*client.Message) error {
	shown := []shownMessage{}
	for _, m := range list {
		shown = append(shown, showMessage(room, m))
	}
	return a.print(shown, func(w io.Writer) {
		for i := range shown {
			shown[i].writeText(w)
		}
	})
}

// reportRead reports the messages of others as read.
func reportRead(ctx context.Context, c *client.Client, r *client.Room, list []*client.Message) error {
	var rows []content.MessageStatus
	for _, m := range list {
		if m.Sender != c.User() && len(rows) < content.MaxStatuses {
			rows = append(rows, content.MessageStatus{ID: m.ID, Status: content.StatusRead})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return r.Report(ctx, rows)
}

// eachNew gives do the messages of every room that came after those seen, and
// marks them as seen before it does.
func eachNew(ctx context.Context, c *client.Client, seen map[mimi.URI]time.Time, do func(*client.Room, *client.Message) error) error {
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	for _, r := range rooms {
		list, err := r.Messages(ctx, seen[r.URI()])
		if err != nil {
			return err
		}
		for _, m := range list {
			seen[r.URI()] = m.Accepted
			if err := do(r, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func newClientReport(a *app, f *clientFlags) *cobra.Command {
	var note string
	c := &cobra.Command{Use: "report ROOM MESSAGE...", Short: "Show abusive messages of one user to the hub", Args: cobra.MinimumNArgs(2),
		Long: "The hub tells from its franks whether it accepted exactly these messages from\n" +
			"that user. Only the messages that are named are shown to it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, _ *client.Client, r *client.Room) error {
				var ids []content.MessageID
				for _, s := range args[1:] {
					id, err := parseMessageID(ctx, r, s)
					if err != nil {
						return err
					}
					ids = append(ids, id)
				}
				verdicts, err := r.ReportAbuse(ctx, ids, note)
				if err != nil {
					return err
				}
				return a.print(verdicts, func(w io.Writer) {
					for i, v := range verdicts {
						fmt.Fprintf(w, "%.16s  %s\n", hex.EncodeToString(ids[i][:]), mark(v.Accepted, "the hub accepted it from that user")+mark(!v.Accepted, "not proven: "+string(v.Reason)))
					}
				})
			})
		}}
	c.Flags().StringVar(&note, "note", "", "what the moderators should know")
	return c
}
