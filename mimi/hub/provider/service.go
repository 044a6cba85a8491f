package provider

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"sync"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// Migrations make the tables of a provider (sqldb.Options.Migrations).
//
//go:embed migrations
var Migrations embed.FS

// OpenDB opens a provider's database: the path of a SQLite file, or the URL of
// a PostgreSQL.
func OpenDB(ctx context.Context, source string) (*sqldb.DB, error) {
	return sqldb.Open(ctx, source, sqldb.Options{Name: "provider", Migrations: Migrations, Lanes: 1, MaxConns: 16})
}

// Errors of a Service, beside those of package hub.
var (
	ErrNoRoom     = errors.New("no such room")
	ErrRoomExists = errors.New("the room exists")
)

// A Service is a provider. Its methods may be called at the same time.
type Service struct {
	cfg Config
	hub hub.Config
	db  *sqldb.DB

	mu    sync.Mutex // guards rooms and their use counts
	rooms map[mimi.URI]*entry
	clock uint64 // of uses, to find the room that was not used for longest

	writer  writer
	callers callers

	wake  waiters
	work  chan struct{} // a follower has something due
	fault func(step string) error
}

// New returns the service of a provider.
func New(cfg Config) (*Service, error) {
	uri, err := mimi.NewURI(cfg.Domain, mimi.KindProvider)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	s := &Service{cfg: cfg.withDefaults(), db: cfg.DB, rooms: make(map[mimi.URI]*entry), work: make(chan struct{}, 1)}
	s.writer = writer{s: s, enough: make(chan struct{}, 1)}
	s.hub = hub.Config{
		Provider: uri, Evaluator: cfg.Evaluator, SenderKey: s.senderKey, FrankingKey: s.frankingKey, ReceiverKey: cfg.ReceiverKey,
		Parent: s.parent, Envelope: cfg.Envelope, AdmitBasic: cfg.AdmitBasic, MaxMembers: cfg.MaxMembers, Now: s.cfg.Now,
	}
	return s, nil
}

func (s *Service) senderKey(suite mls.CipherSuite) *hub.SenderKey {
	k := s.cfg.Keys(suite)
	if k == nil {
		return nil
	}
	return &hub.SenderKey{Sender: k.Sender, Signer: k.SenderSigner}
}

func (s *Service) frankingKey(suite mls.CipherSuite) []byte {
	if k := s.cfg.Keys(suite); k != nil {
		return k.Franking.SignatureKey
	}
	return nil
}

// parent gives a parent-dependant room its parent's participants as they are
// stored. The parent is loaded, and read without its lock: a parent that
// changes at the same moment may let one more or one less in, as it would if
// the two requests had come in the other order.
func (s *Service) parent(uri mimi.URI) policy.Parent {
	ctx := context.Background()
	e, err := s.room(ctx, uri)
	if err != nil {
		return nil
	}
	p := new(participants)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.room == nil {
		return nil
	}
	for _, q := range e.room.State().ParticipantList().Participants {
		if q.Role > mimi.RoleBanned {
			p.users = append(p.users, q.User)
		}
	}
	return p.index()
}

type participants struct {
	users []mimi.URI
	set   map[mimi.URI]bool
}

func (p *participants) index() *participants {
	p.set = make(map[mimi.URI]bool, len(p.users))
	for _, u := range p.users {
		p.set[u] = true
	}
	return p
}

func (p *participants) Has(u mimi.URI) bool { return p.set[u] }
func (p *participants) Len() int            { return len(p.users) }

func (s *Service) nowMS() int64 { return s.cfg.Now().UnixMilli() }

// step is where tests make the service stop between two steps.
func (s *Service) step(name string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(name)
}
