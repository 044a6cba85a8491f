//go:build soak

package stack

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
)

// A view is a room as a member has it.
type view struct {
	Status        string
	Epoch         uint64
	Context       []byte // hash of the GroupContext
	Authenticator []byte
	Members       int
	Pending       int // proposals
	Messages      []heard
}

// A heard message is one in a member's archive.
type heard struct {
	ID, Client, Text string
	Accepted         int64
	NotFranked       string `json:",omitempty"`
}

// A report is what a client has.
type report struct {
	Rooms   map[string]*view
	Refused []string // what came and could not be taken in
	Waiting int      // messages in the outbox, and commits whose fate is not known
}

// A talker is the process of a client.
type talker struct {
	*client.Client
	s    *settings
	mu   sync.Mutex // guards out
	out  *json.Encoder
	stop func() // the load; nil if there is none
}

// runClient is the main function of a client's process.
func runClient(ctx context.Context, s *settings) error {
	cfg, err := s.client()
	if err != nil {
		return err
	}
	c, err := client.Open(ctx, *cfg)
	if err != nil {
		return err
	}
	k := &talker{Client: c, s: s, out: json.NewEncoder(os.Stdout)}
	return obey(k.out, func(o *order) (any, error) {
		k.halt()
		return k.obey(ctx, o)
	})
}

func (s *settings) client() (*client.Config, error) {
	roots, err := s.roots()
	if err != nil {
		return nil, err
	}
	cert, err := s.TLS.certificate()
	if err != nil {
		return nil, err
	}
	key, err := s.Leaf.key()
	if err != nil {
		return nil, err
	}
	evaluator, err := s.evaluator()
	return &client.Config{
		State: s.State, Custody: client.Custody{Mode: client.Device, Key: key, Credential: s.Leaf.credential()},
		Judge: client.TrustJudge{Evaluator: evaluator}, Provider: "https://" + s.Provider, KeyPackages: 3,
		TLS: &tls.Config{RootCAs: roots, ServerName: s.Host, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}, Log: logger(),
	}, err
}

func (k *talker) obey(ctx context.Context, o *order) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	switch o.Do {
	case "register":
		return k.Register(ctx, nil)
	case "create":
		uri, err := mimi.ParseURI(o.Room)
		if err != nil {
			return nil, err
		}
		_, err = k.CreateRoom(ctx, uri, client.RoomOptions{Metadata: mimi.RoomMetaData{RoomName: "Clubhouse"}})
		return nil, err
	case "add":
		return k.in(ctx, o.Room, func(r *client.Room) error {
			user, err := mimi.ParseURI(o.User)
			if err != nil {
				return err
			}
			_, err = r.Add(ctx, user, client.AddOptions{})
			return err
		})
	case "load":
		return nil, k.load(o.Run)
	case "last": // a commit and a message that must succeed
		return k.in(ctx, o.Room, func(r *client.Room) error { return k.last(ctx, r) })
	case "report":
		if err := k.Sync(ctx); err != nil {
			return nil, err
		}
		return k.report(ctx)
	}
	return nil, errors.New("no such order: " + o.Do)
}

func (k *talker) in(ctx context.Context, room string, f func(*client.Room) error) (any, error) {
	uri, err := mimi.ParseURI(room)
	if err != nil {
		return nil, err
	}
	r, err := k.Room(ctx, uri)
	if err != nil {
		return nil, err
	}
	return nil, f(r)
}

func (k *talker) tell(l *line) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.out.Encode(l)
}

// load follows the events and speaks in all rooms until halt.
func (k *talker) load(run int) error {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	k.stop = func() { cancel(); wg.Wait() }
	wg.Go(func() {
		for ctx.Err() == nil {
			k.judge(ctx, "watching", k.Watch(ctx, nil))
		}
	})
	for _, room := range k.s.Rooms {
		uri, err := mimi.ParseURI(room)
		if err != nil {
			return err
		}
		r, err := k.Room(ctx, uri)
		if err != nil {
			return err
		}
		wg.Go(func() { k.speak(ctx, r, run) })
	}
	return nil
}

func (k *talker) halt() {
	if k.stop != nil {
		k.stop()
		k.stop = nil
	}
}

// speak sends numbered messages to a room, and a commit now and then.
func (k *talker) speak(ctx context.Context, r *client.Room, run int) {
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("%s.%d.%d", k.s.Name, run, n)
		if rand.N(10) == 0 {
			k.commit(ctx, r, text)
		} else {
			k.say(ctx, r, text)
		}
		time.Sleep(rand.N(300 * time.Millisecond))
	}
}

func (k *talker) say(ctx context.Context, r *client.Room, text string) {
	sent, err := r.Text(ctx, text)
	switch {
	case err != nil:
		k.judge(ctx, "sending to "+r.URI().String(), err)
	case sent.NotFranked != "":
		k.tell(&line{Surprise: "own message is not franked: " + sent.NotFranked})
	default:
		k.tell(&line{Ack: &ack{r.URI().String(), text, hex.EncodeToString(sent.ID[:])}})
	}
}

// commit makes new keys, or gives the room a name that it never had.
func (k *talker) commit(ctx context.Context, r *client.Room, name string) {
	var err error
	if rand.N(2) == 0 {
		_, err = r.Refresh(ctx)
	} else {
		_, err = r.SetMetadata(ctx, func(m *mimi.RoomMetaData) { m.RoomName = name })
	}
	if err != nil {
		k.judge(ctx, "committing in "+r.URI().String(), err)
		return
	}
	k.tell(&line{Commit: true})
}

// judge tells errors that faults explain from those that they do not.
func (k *talker) judge(ctx context.Context, what string, err error) {
	var lost *client.LostError
	switch {
	case ctx.Err() != nil || err == nil:
	case errors.Is(err, client.ErrUnknownOutcome), errors.As(err, &lost), clientapi.Temporary(err), clientapi.CodeHubUnreachable.Is(err):
		k.tell(&line{Open: true})
	default:
		k.tell(&line{Surprise: fmt.Sprintf("%s: %v", what, err)})
	}
}

func (k *talker) last(ctx context.Context, r *client.Room) error {
	if _, err := r.Refresh(ctx); err != nil {
		return fmt.Errorf("the last commit: %w", err)
	}
	if _, err := r.Text(ctx, k.s.Name+".last"); err != nil {
		return fmt.Errorf("the last message: %w", err)
	}
	return nil
}

func (k *talker) report(ctx context.Context) (*report, error) {
	p := &report{Rooms: make(map[string]*view)}
	rooms, err := k.Rooms(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rooms {
		if p.Rooms[r.URI().String()], err = viewOf(ctx, r); err != nil {
			return nil, err
		}
	}
	refused, err := k.Refused(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range refused {
		p.Refused = append(p.Refused, f.Room.String()+": "+f.Reason)
	}
	p.Waiting, err = waiting(ctx, k.s.State)
	return p, err
}

func viewOf(ctx context.Context, r *client.Room) (*view, error) {
	i, err := r.Info(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{Status: strings.TrimSpace(string(i.Status) + " " + i.Detail), Epoch: i.Epoch, Context: i.Context[:], Authenticator: i.Authenticator, Pending: i.Pending}
	for _, p := range i.Participants {
		v.Members += len(p.Clients)
	}
	list, err := r.Messages(ctx, time.Time{})
	for _, m := range list {
		v.Messages = append(v.Messages, heard{hex.EncodeToString(m.ID[:]), m.Client.String(), textOf(m.Content), m.Accepted.UnixMilli(), m.NotFranked})
	}
	return v, err
}

func textOf(m *content.Message) string {
	if s, ok := m.Body.Content.(*content.SinglePart); ok {
		return string(s.Content)
	}
	return ""
}

// waiting looks into a client's state for what is not settled.
func waiting(ctx context.Context, path string) (n int, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM room WHERE pending <> 0 OR request IS NOT NULL)`).Scan(&n)
	return n, err
}
