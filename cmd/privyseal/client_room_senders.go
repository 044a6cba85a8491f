package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/policy"
)

// A shownSender is one that may propose changes of a room from outside.
type shownSender struct {
	Index       uint32 `json:"index"`
	Provider    string `json:"provider,omitempty"` // none where it is in doubt
	Hub         bool   `json:"hub"`
	Credential  string `json:"credential"`
	Fingerprint string `json:"fingerprint"`
	Doubt       string `json:"doubt,omitempty"`
}

// shownSenders are all of them, with where the room stands.
type shownSenders struct {
	Room    string `json:"room"`
	Status  string `json:"status"`
	Detail  string `json:"detail,omitempty"`
	Epoch   uint64 `json:"epoch"`
	Pending int    `json:"pending_proposals"`
	// Taken says whether the room's policy lets anybody from outside propose at
	// all (external_proposal_allowed).
	Taken   bool          `json:"external_proposals_allowed"`
	Senders []shownSender `json:"external_senders"`
}

func newClientRoomSenders(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "senders ROOM", Short: "List who may propose changes of a room from outside", Args: exactArgs(1),
		Long: "Lists the room's external senders: its hub, and other providers that were listed when\n" +
			"the room was made. Beside each is the fingerprint of the key that its proposals are\n" +
			"verified with. One whose certificate is not believed is in doubt; nothing that it\n" +
			"proposes is committed. Where the provider does not answer, the list is as this\n" +
			"client knows it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoomAsItIs(cmd.Context(), f, args[0], a.printSenders)
		}}
}

func (a *app) printSenders(ctx context.Context, r *client.Room) error {
	i, err := r.Info(ctx)
	if err != nil {
		return err
	}
	s := shownSenders{Room: i.URI.String(), Status: string(i.Status), Detail: i.Detail, Epoch: i.Epoch, Pending: i.Pending, Senders: []shownSender{}}
	if i.Metadata != nil { // it is in the room
		if s.Taken, err = takesExternal(ctx, r, i); err != nil {
			return err
		}
	}
	for _, e := range i.ExternalSenders {
		one := shownSender{Index: e.Index, Hub: e.Hub, Credential: credentialName(e.Credential), Fingerprint: hex.EncodeToString(e.Fingerprint[:]), Doubt: e.Doubt}
		if e.Doubt == "" {
			one.Provider = e.URI.String()
		}
		s.Senders = append(s.Senders, one)
	}
	return a.print(s, s.writeText)
}

// takesExternal reads external_proposal_allowed, which a room without an
// operational policy has.
func takesExternal(ctx context.Context, r *client.Room, i *client.Info) (bool, error) {
	for _, id := range i.Components {
		if id != policy.ComponentOperational {
			continue
		}
		v, err := r.Component(ctx, id)
		if err != nil {
			return false, err
		}
		p, ok := v.(*policy.OperationalParameters)
		return ok && p.ExternalProposalAllowed, nil
	}
	return true, nil
}

func (s *shownSenders) writeText(w io.Writer) {
	fmt.Fprintf(w, "room        %s\nstatus      %s  %s\n", s.Room, s.Status, s.Detail)
	if s.Epoch == 0 && len(s.Senders) == 0 {
		return
	}
	fmt.Fprintf(w, "epoch       %d, %d proposals wait for a commit\n", s.Epoch, s.Pending)
	fmt.Fprintf(w, "proposals   %s\n", mark(s.Taken, "are taken from those below")+mark(!s.Taken, "are taken from nobody outside, not even the hub"))
	for _, e := range s.Senders {
		if e.Doubt != "" {
			fmt.Fprintf(w, "sender %d    IN DOUBT: %s  %s  key %.16s\n", e.Index, oneLine(e.Doubt), e.Credential, e.Fingerprint)
			continue
		}
		fmt.Fprintf(w, "sender %d    %s%s  %s  key %.16s\n", e.Index, e.Provider, mark(e.Hub, ", the hub"), e.Credential, e.Fingerprint)
	}
}

func newClientRoomList(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the rooms of a client with where each stands", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), f, a.listRooms)
		}}
}

// A listedRoom is one line of room list.
type listedRoom struct {
	shownRoom
	Name         string   `json:"name,omitempty"`
	Epoch        uint64   `json:"epoch,omitempty"`
	Participants int      `json:"participants,omitempty"`
	Senders      []string `json:"external_senders,omitempty"`
}

func (a *app) listRooms(ctx context.Context, c *client.Client) error {
	if err := a.syncIfPossible(ctx, c); err != nil {
		return err
	}
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	list := []listedRoom{}
	for _, r := range rooms {
		i, err := r.Info(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", r.URI(), err)
		}
		one := listedRoom{shownRoom: shownRoom{r.URI().String(), string(i.Status), i.Detail}, Epoch: i.Epoch, Participants: len(i.Participants)}
		if i.Metadata != nil {
			one.Name = i.Metadata.RoomName
		}
		for _, u := range i.Senders {
			one.Senders = append(one.Senders, senderName(u))
		}
		list = append(list, one)
	}
	return a.print(list, func(w io.Writer) {
		for _, r := range list {
			fmt.Fprintf(w, "%s  %s  epoch %d, %d participants  %s%s\n", r.Room, r.Status, r.Epoch, r.Participants, oneLine(r.Name), oneLine(mark(r.Detail != "", "  "+r.Detail)))
		}
	})
}
