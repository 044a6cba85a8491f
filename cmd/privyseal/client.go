package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// clientFlags are those of every subcommand of client.
type clientFlags struct{ name string }

func newClientCommand(a *app) *cobra.Command {
	var f clientFlags
	c := group("client", "Take part in rooms as a client of a MIMI provider",
		newClientRegister(a), newClientUnregister(a, &f), newClientRoom(a, &f), newClientMembership(a, &f, "add"), newClientMembership(a, &f, "remove"),
		newClientMembership(a, &f, "ban"), newClientMembership(a, &f, "kick"), newClientRole(a, &f), newClientJoin(a, &f), newClientCode(a, &f), newClientLeave(a, &f),
		newClientSend(a, &f), newClientAnswer(a, &f, "reply"), newClientAnswer(a, &f, "react"), newClientAnswer(a, &f, "edit"), newClientDelete(a, &f),
		newClientAttach(a, &f), newClientFetch(a, &f), newClientConsent(a, &f), newClientProfile(a, &f), newClientFind(a, &f),
		newClientRecv(a, &f), newClientWatch(a, &f), newClientMembers(a, &f), newClientPolicy(a, &f), newClientReport(a, &f), newClientVerify(a, &f), newClientStatus(a, &f))
	c.PersistentFlags().StringVar(&f.name, "client", "", "`name` that the client was registered with; may be left out if there is one")
	return c
}

// clientsDir is the folder of the clients below the state folder.
func clientsDir(c *Config) string { return filepath.Join(c.stateDir(), "clients") }

var clientName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// clientDir finds the folder of a client.
func clientDir(c *Config, name string) (string, error) {
	if name != "" {
		if !clientName.MatchString(name) {
			return "", usageError{fmt.Errorf("%q is no name for a client; use 1 to 32 of a-z, 0-9 and '-'", name)}
		}
		return filepath.Join(clientsDir(c), name), nil
	}
	entries, err := os.ReadDir(clientsDir(c))
	switch {
	case errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0:
		return "", errors.New("there is no client; run: privyseal client register --help")
	case err != nil:
		return "", err
	case len(entries) > 1:
		return "", usageError{errors.New("there are several clients; say which with --client NAME")}
	}
	return filepath.Join(clientsDir(c), entries[0].Name()), nil
}

// withClient runs f with a registered client open.
func (a *app) withClient(ctx context.Context, flags *clientFlags, f func(context.Context, *client.Client) error) error {
	return a.withWiring(ctx, func(w *wiring) error {
		dir, err := clientDir(w.config, flags.name)
		if err != nil {
			return err
		}
		return w.withClient(ctx, dir, f)
	})
}

// withClient runs f with the client of a directory open.
func (w *wiring) withClient(ctx context.Context, dir string, f func(context.Context, *client.Client) error) error {
	r, err := loadClientRecord(dir)
	if err != nil {
		return err
	}
	c, done, err := w.openClient(ctx, dir, r)
	if err != nil {
		return err
	}
	defer done()
	return errors.Join(clientError(f(ctx, c)), c.Close())
}

// withRoom runs f with a room of a client, after events were taken in.
func (a *app) withRoom(ctx context.Context, flags *clientFlags, room string, f func(context.Context, *client.Client, *client.Room) error) error {
	uri, err := parseRoom(room)
	if err != nil {
		return err
	}
	return a.withClient(ctx, flags, func(ctx context.Context, c *client.Client) error {
		if err := c.Sync(ctx); err != nil {
			return err
		}
		r, err := c.Room(ctx, uri)
		if err != nil {
			return err
		}
		return f(ctx, c, r)
	})
}

// withRoomAsItIs is withRoom for commands that only look: where the provider does
// not answer, they show what the client knows.
func (a *app) withRoomAsItIs(ctx context.Context, flags *clientFlags, room string, f func(context.Context, *client.Room) error) error {
	uri, err := parseRoom(room)
	if err != nil {
		return err
	}
	return a.withClient(ctx, flags, func(ctx context.Context, c *client.Client) error {
		if err := a.syncIfPossible(ctx, c); err != nil {
			return err
		}
		r, err := c.Room(ctx, uri)
		if err != nil {
			return err
		}
		return f(ctx, r)
	})
}

// syncIfPossible takes events in, and notes that it cannot.
func (a *app) syncIfPossible(ctx context.Context, c *client.Client) error {
	if err := c.Sync(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.note("privyseal: the provider does not answer, or refuses; what follows is as this client knows it: %v", err)
	}
	return nil
}

// clientError sorts what a client returns into the kinds of exit codes.
func clientError(err error) error {
	switch {
	case err == nil:
		return nil
	case is[*policy.Refusal](err), is[*client.RefusedError](err), is[*client.KeyMaterialError](err), isAny(err, refusals), forbidden(err):
		return refusedError{err}
	case is[*client.LostError](err), is[*problems.Problem](err), errors.Is(err, client.ErrUnknownOutcome):
		return remoteError{err}
	}
	return err
}

// refusals are the errors of a client by which it, or the hub, refuses.
var refusals = []error{
	client.ErrNotAllowed, client.ErrQuarantined, client.ErrAssetPolicy, client.ErrAssetTooLarge, client.ErrNotFetched,
	content.ErrAssetHash, content.ErrAssetSize, content.ErrAssetKey, content.ErrAssetURL, content.ErrAssetAlgorithm,
}

// forbidden reports whether a provider refused, as against failed.
func forbidden(err error) bool {
	p, ok := errors.AsType[*problems.Problem](err)
	return ok && p.Status == http.StatusForbidden
}

func isAny(err error, list []error) bool {
	return slices.ContainsFunc(list, func(target error) bool { return errors.Is(err, target) })
}

func parseRoom(s string) (mimi.URI, error) { return parseKind(s, mimi.KindRoom, "mimi://host/r/name") }

func parseUser(s string) (mimi.URI, error) {
	return parseKind(s, mimi.KindUser, "mimi://host/u/name")
}

func parseKind(s string, kind mimi.Kind, form string) (mimi.URI, error) {
	u, err := mimi.ParseURI(s)
	if err != nil || u.Kind() != kind {
		return u, usageError{fmt.Errorf("%q is not of the form %s", s, form)}
	}
	return u, nil
}

// parseMessageID finds a message of a room by the beginning of its ID.
func parseMessageID(ctx context.Context, r *client.Room, s string) (id content.MessageID, err error) {
	list, err := r.Messages(ctx, zeroTime)
	if err != nil {
		return id, err
	}
	var found []content.MessageID
	for _, m := range list {
		if strings.HasPrefix(hex.EncodeToString(m.ID[:]), strings.ToLower(s)) {
			found = append(found, m.ID)
		}
	}
	if len(s) < 8 || len(found) != 1 {
		return id, usageError{fmt.Errorf("%q names %d messages; give at least 8 digits of one ID, as recv prints it", s, len(found))}
	}
	return found[0], nil
}

// A shownIdentity is how a client is shown: never without its level.
type shownIdentity struct {
	Client      string `json:"client"`
	User        string `json:"user"`
	Level       string `json:"level"`
	Issuer      string `json:"issuer,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Verified    bool   `json:"verified,omitempty"`
	Quarantine  string `json:"quarantine,omitempty"`
}

// vouch says in words who stands behind an identity.
func vouch(level identity.Level, issuer string) string {
	if issuer == "" {
		return level.String()
	}
	return level.String() + " by " + issuer
}

func showMember(m *client.Member) shownIdentity {
	return shownIdentity{
		Client: m.Identity.Client.String(), User: m.User.String(), Level: m.Level.String(), Issuer: m.Issuer,
		Fingerprint: hex.EncodeToString(m.Fingerprint[:]), Verified: m.Verified, Quarantine: m.Quarantine,
	}
}

// A shownCommit is what a change of a room came to.
type shownCommit struct {
	Room  string `json:"room"`
	Epoch uint64 `json:"epoch"`
	Tries int    `json:"tries"`
}

func (a *app) printCommit(r *client.Room, c *client.Committed) error {
	return a.print(shownCommit{r.URI().String(), c.Epoch, c.Tries}, func(w io.Writer) {
		fmt.Fprintf(w, "epoch       %d\n", c.Epoch)
	})
}

func newClientStatus(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Print who the client is, its rooms and what was refused", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error { return a.clientStatus(ctx, c) })
		}}
}

type shownRoom struct {
	Room   string `json:"room"`
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// A shownWho is a client with what stands behind it, and for how long.
type shownWho struct {
	shownIdentity
	Credential string `json:"credential"`
	Until      string `json:"valid_until,omitempty"`
	LeafKey    string `json:"leaf_key_until,omitempty"` // of mode bound
}

// credentialName names a type of credential, whose number may be configured.
func credentialName(t mls.CredentialType) string {
	switch t {
	case mls.CredentialBasic:
		return "basic"
	case mls.CredentialX509:
		return typeX509
	case mls.CredentialSDJWT:
		return typeSDJWT
	case mls.CredentialSDCWT:
		return typeSDCWT
	case mls.CredentialMulti:
		return "multi"
	case mls.CredentialWeakMulti:
		return "weak-multi"
	}
	return fmt.Sprintf("0x%04x", uint16(t))
}

func showWho(ctx context.Context, c *client.Client) (*shownWho, error) {
	self := c.Self()
	w := &shownWho{Credential: credentialName(self.Type), shownIdentity: shownIdentity{
		Client: c.URI().String(), User: c.User().String(), Level: self.Level.String(), Issuer: self.Issuer, Quarantine: self.Quarantine,
	}}
	if !self.NotAfter.IsZero() {
		w.Until = self.NotAfter.UTC().Format(time.RFC3339)
	}
	leaf, err := c.LeafUntil(ctx)
	if err == nil && !leaf.IsZero() {
		w.LeafKey = leaf.UTC().Format(time.RFC3339)
	}
	return w, err
}

func (w *shownWho) writeText(out io.Writer) {
	fmt.Fprintf(out, "client      %s\nuser        %s\nidentity    %s%s\ncredential  %s%s\n", w.Client, w.User, w.Level, mark(w.Issuer != "", " by "+w.Issuer),
		w.Credential, mark(w.Until != "", ", valid until "+w.Until))
	if w.Quarantine != "" {
		fmt.Fprintf(out, "IN DOUBT    %s\n", w.Quarantine)
	}
	if w.LeafKey != "" {
		fmt.Fprintf(out, "leaf key    in software, until %s\n", w.LeafKey)
	}
}

type shownStatus struct {
	shownWho
	SealedBy string      `json:"sealed_by"`
	Rooms    []shownRoom `json:"rooms"`
	Refused  []string    `json:"refused,omitempty"`
}

func (a *app) clientStatus(ctx context.Context, c *client.Client) error {
	if err := a.syncIfPossible(ctx, c); err != nil {
		return err
	}
	who, err := showWho(ctx, c)
	if err != nil {
		return err
	}
	s := shownStatus{shownWho: *who, SealedBy: string(c.SealedBy()), Rooms: []shownRoom{}}
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	for _, r := range rooms {
		status, detail := r.Status()
		s.Rooms = append(s.Rooms, shownRoom{r.URI().String(), string(status), detail})
	}
	refused, err := c.Refused(ctx)
	if err != nil {
		return err
	}
	for _, f := range refused {
		s.Refused = append(s.Refused, fmt.Sprintf("%s: %s", f.Room, f.Reason))
	}
	return a.print(s, func(w io.Writer) {
		s.writeText(w)
		fmt.Fprintf(w, "state key   %s\n", s.SealedBy)
		for _, r := range s.Rooms {
			fmt.Fprintf(w, "room        %s  %s  %s\n", r.Room, r.Status, r.Detail)
		}
		for _, f := range s.Refused {
			fmt.Fprintf(w, "refused     %s\n", f)
		}
	})
}

func newClientMembers(a *app, f *clientFlags) *cobra.Command {
	return &cobra.Command{Use: "members ROOM", Short: "Print a room's participants and their clients", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoomAsItIs(cmd.Context(), f, args[0], func(ctx context.Context, r *client.Room) error {
				i, err := r.Info(ctx)
				if err != nil {
					return err
				}
				return a.printMembers(i)
			})
		}}
}

type shownParticipant struct {
	User    string          `json:"user"`
	Role    uint32          `json:"role"`
	Name    string          `json:"role_name"`
	Clients []shownIdentity `json:"clients"`
}

func (a *app) printMembers(i *client.Info) error {
	list := []shownParticipant{}
	for _, p := range i.Participants {
		s := shownParticipant{p.User.String(), uint32(p.Role), p.RoleName, []shownIdentity{}}
		for n := range p.Clients {
			s.Clients = append(s.Clients, showMember(&p.Clients[n]))
		}
		list = append(list, s)
	}
	return a.print(map[string]any{"room": i.URI.String(), "epoch": i.Epoch, "participants": list}, func(w io.Writer) {
		for n, p := range i.Participants {
			fmt.Fprintf(w, "%s  %s\n", p.User, p.RoleName)
			for k, c := range list[n].Clients {
				fmt.Fprintf(w, "  %s  %s  key %s%s%s\n", c.Client, vouch(p.Clients[k].Level, c.Issuer), c.Fingerprint[:16], mark(c.Verified, "  compared"), quarantined(c.Quarantine))
			}
		}
	})
}

func mark(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func quarantined(why string) string { return mark(why != "", "  IN DOUBT: "+why) }

func newClientVerify(a *app, f *clientFlags) *cobra.Command {
	var print string
	c := &cobra.Command{Use: "verify ROOM CLIENT", Short: "Compare the key of a client with what its owner tells", Args: exactArgs(2),
		Long: "Without --fingerprint prints what is verified of a client and the fingerprint of\n" +
			"its signature key, for its owner to compare by another way. With it, records that\n" +
			"they were found equal.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRoom(cmd.Context(), f, args[0], func(ctx context.Context, c *client.Client, r *client.Room) error {
				return a.clientVerify(ctx, c, r, args[1], print)
			})
		}}
	c.Flags().StringVar(&print, "fingerprint", "", "`fingerprint` that the owner told")
	return c
}

func (a *app) clientVerify(ctx context.Context, c *client.Client, r *client.Room, name, told string) error {
	i, err := r.Info(ctx)
	if err != nil {
		return err
	}
	for _, p := range i.Participants {
		at := slices.IndexFunc(p.Clients, func(m client.Member) bool { return m.Identity.Client.String() == name })
		if at < 0 {
			continue
		}
		m := p.Clients[at]
		if told != "" {
			if !strings.EqualFold(strings.ReplaceAll(told, " ", ""), hex.EncodeToString(m.Fingerprint[:])) {
				return refusedError{fmt.Errorf("the key of %s has another fingerprint: %x", name, m.Fingerprint)}
			}
			if err := c.Verify(ctx, m.Identity.Client, m.Fingerprint); err != nil {
				return err
			}
			m.Verified = true
		}
		s := showMember(&m)
		return a.print(s, func(w io.Writer) {
			fmt.Fprintf(w, "client      %s\nuser        %s\nidentity    %s\nfingerprint %s\ncompared    %v\n", s.Client, s.User, vouch(m.Level, s.Issuer), s.Fingerprint, s.Verified)
		})
	}
	return fmt.Errorf("%s has no client %s", r.URI(), name)
}
