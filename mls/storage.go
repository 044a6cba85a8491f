package mls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrNotFound is what a Storage returns for a group or KeyPackage that it
// does not have.
var ErrNotFound = errors.New("mls: not in storage")

// A Storage keeps a client's groups and KeyPackages. Write is the only way in
// and must be atomic and durable: secrets that MLS says to delete are
// overwritten by the same call that stores what they led to. An application
// that stores more beside a group, such as the position in its queue, can
// carry its own transaction in the context.
type Storage interface {
	// Write applies the whole batch or nothing.
	Write(context.Context, *Batch) error
	// ReadGroup returns the last state written, or ErrNotFound.
	ReadGroup(ctx context.Context, groupID []byte) (*GroupState, error)
	// ReadKeyPackage returns an entry by its KeyPackageRef, or ErrNotFound.
	ReadKeyPackage(ctx context.Context, ref []byte) ([]byte, error)
}

// A Batch is what one step writes.
type Batch struct {
	Groups            []GroupState
	KeyPackages       []KeyPackageState
	DeleteKeyPackages [][]byte // refs
	DeleteGroups      [][]byte // group IDs
}

// A GroupState is a group's stored form in two parts, since the tree of a
// large group changes once in an epoch and the rest with every message.
type GroupState struct {
	ID     []byte
	Epoch  uint64
	Tree   []byte // nil in a Batch: as it was written before
	Secret []byte // holds keys
}

// A KeyPackageState is a stored KeyPackageEntry. It holds keys.
type KeyPackageState struct {
	Ref   []byte
	State []byte
}

// Save writes the group to the client's Storage, if it has one. The calls
// that start an epoch, make a commit or reserve generations save by
// themselves; after messages were received the caller saves, once for as many
// as it likes.
func (g *Group) Save(ctx context.Context) error { return g.save(ctx, &Batch{}) }

func (g *Group) save(ctx context.Context, b *Batch) error {
	st := g.client.cfg.Storage
	if st == nil {
		return nil
	}
	b.Groups = append(b.Groups, g.state(g.savedTree != g.public.tree))
	if err := st.Write(ctx, b); err != nil {
		return fmt.Errorf("mls: saving the group: %w", err)
	}
	g.savedTree = g.public.tree
	return nil
}

func (c *Client) storeKeyPackage(ctx context.Context, e *KeyPackageEntry) error {
	if c.cfg.Storage == nil {
		return nil
	}
	state, err := e.MarshalBinary()
	if err != nil {
		return err
	}
	b := &Batch{KeyPackages: []KeyPackageState{{e.Ref(), state}}}
	if err := c.cfg.Storage.Write(ctx, b); err != nil {
		return fmt.Errorf("mls: saving the KeyPackage: %w", err)
	}
	return nil
}

// idUnused checks that a group_id is new to this client.
func (c *Client) idUnused(ctx context.Context, id []byte) error {
	if c.cfg.Storage == nil {
		return nil
	}
	switch st, err := c.cfg.Storage.ReadGroup(ctx, id); {
	case err == nil && st.left():
		return nil
	case err == nil:
		return broken(RuleGroupIDUnique, "this client is in a group with that group_id")
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("mls: looking for the group: %w", err)
	}
	return nil
}

// LoadGroup reads a group from the client's Storage.
func (c *Client) LoadGroup(ctx context.Context, id []byte) (*Group, error) {
	if c.cfg.Storage == nil {
		return nil, errors.New("mls: Config.Storage is nil")
	}
	st, err := c.cfg.Storage.ReadGroup(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("mls: loading the group: %w", err)
	}
	return c.UnmarshalState(ctx, st)
}

// LoadKeyPackage reads a KeyPackage from the client's Storage.
func (c *Client) LoadKeyPackage(ctx context.Context, ref []byte) (*KeyPackageEntry, error) {
	if c.cfg.Storage == nil {
		return nil, errors.New("mls: Config.Storage is nil")
	}
	b, err := c.cfg.Storage.ReadKeyPackage(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("mls: loading the KeyPackage: %w", err)
	}
	return c.UnmarshalKeyPackage(ctx, b)
}

// MemoryStorage is a Storage for tests and short-lived programs.
type MemoryStorage struct {
	mu          sync.Mutex // guards the maps
	groups      map[string]GroupState
	keyPackages map[string][]byte
}

// NewMemoryStorage returns an empty MemoryStorage.
func NewMemoryStorage() *MemoryStorage {
	return &MemoryStorage{groups: map[string]GroupState{}, keyPackages: map[string][]byte{}}
}

// Write implements Storage.
func (m *MemoryStorage) Write(_ context.Context, b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range b.Groups {
		if g.Tree == nil {
			g.Tree = m.groups[string(g.ID)].Tree
		}
		m.groups[string(g.ID)] = g
	}
	for _, k := range b.KeyPackages {
		m.keyPackages[string(k.Ref)] = k.State
	}
	for _, ref := range b.DeleteKeyPackages {
		delete(m.keyPackages, string(ref))
	}
	for _, id := range b.DeleteGroups {
		delete(m.groups, string(id))
	}
	return nil
}

// ReadGroup implements Storage.
func (m *MemoryStorage) ReadGroup(_ context.Context, id []byte) (*GroupState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.groups[string(id)]
	if !ok {
		return nil, ErrNotFound
	}
	g.ID, g.Tree, g.Secret = bytes.Clone(g.ID), bytes.Clone(g.Tree), bytes.Clone(g.Secret)
	return &g, nil
}

// ReadKeyPackage implements Storage.
func (m *MemoryStorage) ReadKeyPackage(_ context.Context, ref []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.keyPackages[string(ref)]
	if !ok {
		return nil, ErrNotFound
	}
	return bytes.Clone(b), nil
}
