package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mls"
)

// waitInterval is between two looks at the provider's rooms.
const waitInterval = 250 * time.Millisecond

// A roomLeft says where a revoked credential was, and from which epoch on it was
// not there any more.
type roomLeft struct {
	Room   string    `json:"room"`
	Client string    `json:"client"`
	Gone   bool      `json:"gone"`
	Epoch  uint64    `json:"epoch,omitempty"` // the first without it
	At     time.Time `json:"at,omitzero"`     // when the hub accepted that epoch
	// Unknown says that the room is another provider's and that we cannot follow
	// who is in it. It is not waited for.
	Unknown bool `json:"unknown,omitempty"`
}

func (r roomLeft) String() string {
	if r.Unknown {
		return fmt.Sprintf("%s  may be in %s: ask its hub, whose members we cannot see", r.Client, r.Room)
	}
	if !r.Gone {
		return fmt.Sprintf("%s  is still in %s", r.Client, r.Room)
	}
	return fmt.Sprintf("%s  gone from %s in epoch %d at %s", r.Client, r.Room, r.Epoch, r.At.UTC().Format(time.RFC3339Nano))
}

// checkWait refuses, before anything is revoked, to wait where no provider can
// be asked.
func (o *targetOptions) checkWait(c *Config) error {
	if o.wait > 0 && (c.Serve == nil || c.Serve.Provider == nil) {
		return configErrorf("serve.provider", "is required for --wait: its rooms are asked")
	}
	return nil
}

// awaitRemoval waits until the rooms of the provider are without the credentials
// of the target that are revoked, by this call or an earlier one, and returns
// where they were.
func (o *targetOptions) awaitRemoval(ctx context.Context, w *wiring, b *registry.Store, t registry.Target) ([]roomLeft, error) {
	if o.wait <= 0 {
		return nil, nil
	}
	records, err := revokedOf(ctx, b, t)
	if err != nil {
		return nil, err
	}
	var rooms []roomLeft
	err = withProviderOf(ctx, w.config, func(s *provider.Service) (err error) {
		rooms, err = awaitGone(ctx, s, records, o.wait)
		return err
	})
	return rooms, err
}

// revokedOf returns the revoked credentials of a target.
func revokedOf(ctx context.Context, b *registry.Store, t registry.Target) (all []*registry.Record, err error) {
	if t.ID != "" {
		r, err := b.Get(ctx, t.ID)
		return []*registry.Record{r}, err
	}
	f := registry.Filter{State: registry.Revoked, Client: t.Client, User: t.User, Holder: t.Holder}
	for p := (registry.Page{}); ; {
		list, next, err := b.List(ctx, f, p)
		if all = append(all, list...); err != nil || next == "" {
			return all, err
		}
		p.After = next
	}
}

// awaitGone looks again and again, until no leaf has one of the credentials or
// the time is over.
func awaitGone(ctx context.Context, s *provider.Service, records []*registry.Record, most time.Duration) ([]roomLeft, error) {
	over := time.After(most)
	for {
		rooms, left, err := whereRevoked(context.WithoutCancel(ctx), s, records)
		if err != nil || left == 0 {
			return rooms, err
		}
		select {
		case <-over:
			return rooms, refusedError{fmt.Errorf("revoked, and after %v still in %d rooms", most, left)}
		case <-ctx.Done():
			return rooms, fmt.Errorf("revoked, and no longer waited for: still in %d rooms: %w", left, ctx.Err())
		case <-time.After(waitInterval):
		}
	}
}

// whereRevoked returns where the credentials are or were, and in how many places
// they still are.
func whereRevoked(ctx context.Context, s *provider.Service, records []*registry.Record) (rooms []roomLeft, left int, err error) {
	for client, list := range byClient(records) {
		found, err := s.CredentialWhereabouts(ctx, client, func(c *mls.Credential) bool { return isOneOf(c, list) })
		if err != nil {
			return nil, 0, err
		}
		for _, g := range found {
			r := roomLeft{Room: g.Room.String(), Client: g.Client.String(), Gone: g.Removed, Epoch: g.Epoch}
			if g.Removed {
				r.At = time.UnixMilli(int64(g.At))
			} else {
				left++
			}
			rooms = append(rooms, r)
		}
		unknown, err := s.Unfollowed(ctx, client)
		if err != nil {
			return nil, 0, err
		}
		for _, room := range unknown {
			rooms = append(rooms, roomLeft{Room: room.String(), Client: client.String(), Unknown: true})
		}
	}
	return rooms, left, nil
}

// byClient sorts records by the client that they name; those that name none are
// in no room.
func byClient(records []*registry.Record) map[mimi.URI][]*registry.Record {
	out := make(map[mimi.URI][]*registry.Record)
	for _, r := range records {
		if u, err := mimi.ParseURI(r.Client); err == nil {
			out[u] = append(out[u], r)
		}
	}
	return out
}

// isOneOf reports whether a leaf's credential is one that was revoked. A
// certificate is known by its octets. A token is shown in another form than it was
// issued in, so that any token of the client counts.
func isOneOf(c *mls.Credential, records []*registry.Record) bool {
	chain, err := c.Certificates()
	for _, r := range records {
		switch {
		case r.Type != registry.X509 && c.Type != mls.CredentialX509:
			return true
		case r.Type == registry.X509 && err == nil && len(chain) > 0:
			if sum := sha256.Sum256(chain[0]); bytes.Equal(sum[:], r.Digest) {
				return true
			}
		}
	}
	return false
}

// withProviderOf opens the database of the configuration's provider for a
// question or a small change.
func withProviderOf(ctx context.Context, c *Config, do func(*provider.Service) error) error {
	if c.Serve == nil || c.Serve.Provider == nil {
		return configErrorf("serve.provider", "is not there")
	}
	db, err := provider.OpenDB(ctx, c.databaseSource("provider"))
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := provider.New(provider.Config{Domain: c.Serve.Provider.Domain, DB: db, Keys: func(mls.CipherSuite) *provider.Keys { return nil }})
	if err != nil {
		return err
	}
	return do(s)
}
