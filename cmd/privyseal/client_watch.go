package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
)

// A watching is one run of client watch.
type watching struct {
	*app
	client   *client.Client
	seen     map[mimi.URI]time.Time // the last message that was shown, by room
	consents uint64                 // the last event of a consent that was shown
	fetch    string                 // folder for assets, or none
	how      client.FetchOptions    // of an asset's fetch
	fetches  sync.WaitGroup
	print    sync.Mutex // is held while something is printed
}

func newClientWatch(a *app, f *clientFlags) *cobra.Command {
	var limit time.Duration
	var fetch, by string
	how := client.FetchOptions{Unasked: true}
	c := &cobra.Command{Use: "watch", Short: "Follow all rooms and print messages as they come", Args: noArgs,
		Long: "Prints messages, and what the user is asked and told of consents, until it is\n" +
			"interrupted; with --json one object a line. With --fetch the assets that others\n" +
			"send are fetched too, each after a random time, so that nobody learns from it who\n" +
			"reads at once.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if how.By, err = wayOf(by); err != nil {
				return err
			}
			if limit < 0 || how.Within < 0 {
				return usageError{errors.New("--for and --fetch-within cannot be negative")}
			}
			if fetch != "" {
				if info, err := os.Stat(fetch); err != nil || !info.IsDir() {
					return usageError{fmt.Errorf("--fetch: %s is no folder", fetch)}
				}
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				if limit > 0 { // of watching: opening a device may take longer
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, limit)
					defer cancel()
				}
				w := &watching{app: a, client: c, seen: make(map[mimi.URI]time.Time), fetch: fetch, how: how}
				defer w.fetches.Wait()
				return w.run(ctx)
			})
		}}
	c.Flags().DurationVar(&limit, "for", 0, "end after this time")
	c.Flags().StringVar(&fetch, "fetch", "", "`folder` for the assets that others send")
	c.Flags().StringVar(&by, "by", "", "with --fetch: the `way`, proxy or ohttp (default: what the room prefers)")
	c.Flags().DurationVar(&how.Within, "fetch-within", 30*time.Second, "the longest of the random times")
	return c
}

func (w *watching) run(ctx context.Context) error {
	err := w.skip(ctx)
	if err == nil {
		err = w.client.Watch(ctx, func() {
			if err := w.show(ctx); err != nil && ctx.Err() == nil {
				w.note("privyseal: %v", err)
			}
		})
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// skip passes over what was there before.
func (w *watching) skip(ctx context.Context) error {
	list, err := w.client.ConsentEvents(ctx, 0)
	for _, e := range list {
		w.consents = e.Seq
	}
	return errors.Join(err, eachNew(ctx, w.client, w.seen, func(*client.Room, *client.Message) error { return nil }))
}

func (w *watching) show(ctx context.Context) error {
	list, err := w.client.ConsentEvents(ctx, w.consents)
	if err != nil {
		return err
	}
	for _, e := range list {
		w.consents = e.Seq
		if err := w.tell(showConsentEvent(&e)); err != nil {
			return err
		}
	}
	return eachNew(ctx, w.client, w.seen, func(r *client.Room, m *client.Message) error {
		s := showMessage(r.URI(), m)
		if s.Asset != nil && w.fetch != "" && m.Sender != w.client.User() {
			w.fetches.Go(func() { w.fetchAsset(ctx, r, m) })
		}
		return w.tell(&s)
	})
}

// tell prints one thing at a time.
func (w *watching) tell(s shown) error {
	w.print.Lock()
	defer w.print.Unlock()
	if w.json {
		return json.NewEncoder(w.out).Encode(s)
	}
	return w.app.print(nil, s.writeText)
}

// fetchAsset fetches the asset of a message that has just come.
func (w *watching) fetchAsset(ctx context.Context, r *client.Room, m *client.Message) {
	got, err := r.Fetch(ctx, m.ID, w.how)
	if err == nil {
		var s *shownFetched
		if s, err = keepAsset(w.fetch, m.ID, got); err == nil {
			err = w.tell(s)
		}
	}
	if err != nil && ctx.Err() == nil {
		w.print.Lock()
		defer w.print.Unlock()
		w.note("privyseal: the asset of %.16s: %v", hex.EncodeToString(m.ID[:]), err)
	}
}
