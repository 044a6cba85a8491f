package client

import (
	"context"
	"net/http"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// startOver is what a client does that was away for longer than its provider
// keeps events: it cannot follow its rooms any more, and rejoins them from
// where the provider is now.
func (c *Client) startOver(ctx context.Context) error {
	reg, err := ask(ctx, c.provider, http.MethodGet, clientapi.PathDevice, nil, clientapi.ParseRegistration)
	if err != nil {
		return err
	}
	if err := c.loseRooms(ctx, reg.Cursor); err != nil {
		return err
	}
	c.log.Warn("the provider has dropped events that this client has not seen; it rejoins its rooms")
	return c.rejoinLost(ctx)
}

// loseRooms gives up all rooms and sets the cursor, in one step.
func (c *Client) loseRooms(ctx context.Context, cursor uint64) error {
	c.events.Lock()
	defer c.events.Unlock()
	err := c.store.write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE room SET status = 'lost', detail = 'its events were dropped' WHERE status IN ('member', 'leaving')`)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE client SET cursor = ?`, int64(cursor))
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.rooms {
		r.stale.Store(true)
	}
	return err
}

// rejoinLost rejoins the rooms that were given up.
func (c *Client) rejoinLost(ctx context.Context) error {
	rooms, err := c.Rooms(ctx)
	if err != nil {
		return err
	}
	for _, r := range rooms {
		if status, _ := r.Status(); status != RoomLost {
			continue
		}
		if err := r.Rejoin(ctx); err != nil {
			c.log.Warn("a room could not be rejoined", "room", r.uri, "err", err)
		}
	}
	return nil
}
