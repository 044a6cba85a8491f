package client

import (
	"context"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// SetProfile tells the provider's directory what it may tell of the user, in the
// place of what it was told before: nothing of a user who has told it nothing.
func (c *Client) SetProfile(ctx context.Context, p *clientapi.Profile) error {
	_, err := c.provider.call(ctx, http.MethodPut, clientapi.PathProfile, p.Marshal())
	return err
}

// Profile returns what the directory may tell of the user.
func (c *Client) Profile(ctx context.Context) (*clientapi.Profile, error) {
	return ask(ctx, c.provider, http.MethodGet, clientapi.PathProfile, nil, clientapi.ParseProfile)
}

// DeleteProfile takes back all that the directory was told.
func (c *Client) DeleteProfile(ctx context.Context) error {
	_, err := c.provider.call(ctx, http.MethodDelete, clientapi.PathProfile, nil)
	return err
}

// Find searches the directory of a provider, ours or another, by its domain. All
// of the query's elements must fit.
func (c *Client) Find(ctx context.Context, provider string, q *mimi.IdentifierRequest) (*mimi.IdentifierResponse, error) {
	return ask(ctx, c.provider, http.MethodPost, clientapi.IdentifierPath(provider), q.Marshal(), mimi.ParseIdentifierResponse)
}
