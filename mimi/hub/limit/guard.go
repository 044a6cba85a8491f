package limit

import (
	"context"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Rates are the limits of a Guard.
type Rates struct {
	// Peer is how often one peer may call an endpoint. An endpoint without a
	// rate is not limited.
	Peer map[peer.Endpoint]Rate
	// Requester is how often one user may ask about others, and Target how
	// often one user may be asked about, by anybody.
	Requester, Target Rate
	// Assets is how often one client uploads and fetches assets.
	Assets Rate
}

// DefaultRates let the traffic of a large provider pass, and a search through a
// million users take a week.
func DefaultRates() Rates {
	return Rates{
		Peer: map[peer.Endpoint]Rate{
			peer.KeyMaterial:     {20, 200},
			peer.Update:          {100, 500},
			peer.Notify:          {1000, 5000},
			peer.SubmitMessage:   {500, 2000},
			peer.GroupInfo:       {50, 200},
			peer.RequestConsent:  {10, 100},
			peer.UpdateConsent:   {20, 200},
			peer.IdentifierQuery: {1.5, 50},
			peer.ReportAbuse:     {1, 50},
			peer.ProxyDownload:   {50, 200},
			peer.OHTTPGateway:    {50, 200},
			peer.OHTTPRelay:      {50, 200},
		},
		Requester: Rate{1, 60},
		Target:    Rate{2, 120},
		Assets:    Rate{5, 200},
	}
}

// A Guard limits the calls of peers.
type Guard struct {
	peer                      map[peer.Endpoint]*Buckets
	requester, target, assets *Buckets
}

// NewGuard returns a guard. now is nil for time.Now.
func NewGuard(rates Rates, now func() time.Time) *Guard {
	g := &Guard{peer: make(map[peer.Endpoint]*Buckets), requester: NewBuckets(rates.Requester, now), target: NewBuckets(rates.Target, now), assets: NewBuckets(rates.Assets, now)}
	for e, r := range rates.Peer {
		g.peer[e] = NewBuckets(r, now)
	}
	return g
}

func refusal(wait time.Duration, what string) error {
	return problem.New(http.StatusTooManyRequests, "too-many", "too many calls %s; wait", what).After(wait)
}

// Admit is for peer.ServerConfig: it limits each peer at each endpoint.
func (g *Guard) Admit(_ context.Context, r *peer.Request) error {
	b, ok := g.peer[r.Endpoint]
	if !ok {
		return nil
	}
	if wait, ok := b.Take(r.Peer.Domain); !ok {
		return refusal(wait, "of "+string(r.Endpoint)+" from "+r.Peer.Domain)
	}
	return nil
}

// Search limits how often one user searches for others.
func (g *Guard) Search(requester mimi.URI) error {
	if wait, ok := g.requester.Take(requester.String()); !ok {
		return refusal(wait, "by one user")
	}
	return nil
}

// Asset limits how often one client of ours uploads or fetches an asset.
func (g *Guard) Asset(client mimi.URI) error {
	if wait, ok := g.assets.Take(client.String()); !ok {
		return refusal(wait, "for assets by one client")
	}
	return nil
}

// Ask limits how often one user asks about others, and how often somebody is
// asked about. The answer to the target's limit is the same whether the target
// exists.
func (g *Guard) Ask(requester, target mimi.URI) error {
	if err := g.Search(requester); err != nil {
		return err
	}
	if wait, ok := g.target.Take(target.String()); !ok {
		return refusal(wait, "about one user")
	}
	return nil
}
