package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// providerAssets are Assets at the client's own provider: it keeps what the
// client uploads, and fetches for it through the room's hub or its own cache,
// so that the host of an asset never sees the client.
type providerAssets struct{ p *provider }

// ErrOHTTP is returned where a room allows downloads by Oblivious HTTP alone.
var ErrOHTTP = errors.New("client: the room allows Oblivious HTTP alone, which Config.Assets must do")

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

func (a providerAssets) Download(ctx context.Context, _ mimi.URI, url string, how policy.DownloadPrivacyType, most uint64) ([]byte, error) {
	if how == policy.DownloadOHTTP {
		return nil, ErrOHTTP
	}
	resp, err := a.p.do(ctx, http.MethodGet, clientapi.DownloadPath(url), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	switch {
	case err != nil:
		return nil, &LostError{err}
	case uint64(len(b)) > most:
		return nil, fmt.Errorf("client: the asset has more than the %d octets that its sender named", most)
	}
	return b, nil
}
