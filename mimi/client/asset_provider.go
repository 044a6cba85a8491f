package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// providerAssets are Assets at the client's own provider: it keeps what the
// client uploads, and fetches for it, so that the host of an asset never sees
// the client. By Oblivious HTTP it is the relay, and the room's hub the gateway
// (draft-ietf-mimi-protocol-06 section 5.10.3): the hub learns what is fetched
// and not by whom, the provider by whom and not what.
//
// The keys of the gateway come by way of the provider, as those of all of its
// clients do. A provider that gave out keys of its own would learn what is
// fetched; who is at the hub's own provider has one party for both.
type providerAssets struct{ p *provider }

// Upload does not tell the provider what the asset is.
func (a providerAssets) Upload(ctx context.Context, room mimi.URI, octets []byte) (string, error) {
	q := &clientapi.AssetQuery{Room: room}
	up, err := ask(ctx, a.p, http.MethodPost, clientapi.PathAssets+"?"+q.Values().Encode(), octets, clientapi.ParseAsset)
	if err != nil {
		return "", err
	}
	if up.Size != uint64(len(octets)) {
		return "", fmt.Errorf("client: the provider kept %d of %d octets", up.Size, len(octets))
	}
	return up.URL, nil
}

func (a providerAssets) Download(ctx context.Context, room mimi.URI, url string, how policy.DownloadPrivacyType, most uint64) ([]byte, error) {
	if how == policy.DownloadOHTTP {
		return a.oblivious(ctx, room.Host(), url, most)
	}
	return a.read(ctx, http.MethodGet, clientapi.DownloadPath(url), "", nil, most)
}

// read makes a request and reads at most so many octets of its answer.
func (a providerAssets) read(ctx context.Context, method, path, mediaType string, body []byte, most uint64) ([]byte, error) {
	resp, err := a.p.send(ctx, method, path, mediaType, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	switch {
	case err != nil:
		return nil, &LostError{err}
	case uint64(len(b)) > most:
		return nil, fmt.Errorf("%w: it has more than the %d octets that its sender named", ErrAssetTooLarge, most)
	}
	return b, nil
}

// maxGatewayKeys bounds the list of a gateway's keys, in octets.
const maxGatewayKeys = 4096

// oblivious fetches an asset from the gateway of a hub. If the gateway does not
// have the key any more, it is asked for once again.
func (a providerAssets) oblivious(ctx context.Context, hub, url string, most uint64) ([]byte, error) {
	target, err := neturl.Parse(url)
	if err != nil {
		return nil, err
	}
	q := &bhttp.Request{Method: http.MethodGet, Scheme: target.Scheme, Authority: target.Host, Path: target.RequestURI()}
	answer, err := a.encapsulated(ctx, hub, q, most)
	var p *problem.Problem
	if errors.As(err, &p) && p.Type == ohttp.ProblemKey {
		answer, err = a.encapsulated(ctx, hub, q, most)
	}
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, fmt.Errorf("client: the gateway of %s: %w", hub, refusalIn(answer))
	}
	if uint64(len(answer.Content)) > most {
		return nil, fmt.Errorf("%w: it has more than the %d octets that its sender named", ErrAssetTooLarge, most)
	}
	return answer.Content, nil
}

func (a providerAssets) encapsulated(ctx context.Context, hub string, q *bhttp.Request, most uint64) (*bhttp.Response, error) {
	path := clientapi.OHTTPPath(hub)
	list, err := a.read(ctx, http.MethodGet, path, "", nil, maxGatewayKeys)
	if err != nil {
		return nil, fmt.Errorf("client: keys of the gateway of %s: %w", hub, err)
	}
	keys, err := ohttp.ParseKeys(list)
	if err != nil {
		return nil, fmt.Errorf("client: keys of the gateway of %s: %w", hub, err)
	}
	// What is sealed is the asset, a head, and padding of at most an eighth.
	sealed := most + most/8 + 4096
	return ohttp.Do(ctx, keys[0], func(ctx context.Context, body []byte) ([]byte, error) {
		return a.read(ctx, http.MethodPost, path, ohttp.MediaTypeRequest, body, sealed)
	}, q)
}

// refusalIn is the problem that an encapsulated answer tells.
func refusalIn(r *bhttp.Response) error {
	return problem.Read(&http.Response{
		StatusCode: r.Status, Header: http.Header{"Content-Type": {r.Get("content-type")}}, Body: io.NopCloser(bytes.NewReader(r.Content)),
	}, time.Time{})
}
