package provider

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/privyseal/privyseal/internal/httpbody"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
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

	secrets atomic.Pointer[Secrets]
	tend    chan struct{} // tidy has something to do at once
	db      *sqldb.DB

	mu    sync.Mutex // guards rooms and their use counts
	rooms map[mimi.URI]*entry
	clock uint64 // of uses, to find the room that was not used for longest

	writer  writer
	callers callers

	bodies, registering *httpbody.Budget

	parents map[mimi.URI]*participants // of rooms on which others depend; guarded by mu
	orphans roomSet                    // in which somebody may be who is not in the parent any more
	listing roomSet                    // whose external senders may not fit the participants

	wake waiters
	work chan struct{} // a follower has something due

	delivering, beating, franking trouble
	fault                         atomic.Pointer[func(step string) error]
}

// New returns the service of a provider.
func New(cfg Config) (*Service, error) {
	uri, err := mimi.NewURI(cfg.Domain, mimi.KindProvider)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	s := &Service{cfg: cfg.withDefaults(), db: cfg.DB, rooms: make(map[mimi.URI]*entry), parents: make(map[mimi.URI]*participants), orphans: newRoomSet(), listing: newRoomSet(), work: make(chan struct{}, 1), tend: make(chan struct{}, 1)}
	s.bodies, s.registering = httpbody.NewBudget(maxBodies, maxClientBodies), httpbody.NewBudget(maxRegistering, 2*clientapi.MaxSmallRequest)
	s.secrets.Store(&Secrets{cfg.Keys, cfg.MAC, cfg.Franks})
	s.writer = writer{s: s, enough: make(chan struct{}, 1)}
	s.hub = hub.Config{
		Provider: uri, Evaluator: cfg.Evaluator, SenderKey: s.senderKey, FrankingAgent: s.frankingAgent, ReceiverKey: cfg.ReceiverKey,
		Parent: s.parent, Envelope: cfg.Envelope, AdmitBasic: cfg.AdmitBasic, MaxMembers: cfg.MaxMembers, Now: s.cfg.Now,
	}
	return s, nil
}

func (s *Service) senderKey(suite mls.CipherSuite) *hub.SenderKey {
	k := s.keysOf(suite)
	if k == nil {
		return nil
	}
	return &hub.SenderKey{Sender: k.Sender, Signer: k.SenderSigner}
}

func (s *Service) frankingAgent(suite mls.CipherSuite) *mimi.FrankingAgent {
	if k := s.keysOf(suite); k != nil {
		return &k.Franking
	}
	return nil
}

func (s *Service) nowMS() int64 { return s.cfg.Now().UnixMilli() }

// step is where tests make the service stop between two steps.
func (s *Service) step(name string) error {
	if f := s.fault.Load(); f != nil {
		return (*f)(name)
	}
	return nil
}
