package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	problems "github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub/consent"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Bounds of what clients send.
const (
	maxConsentBody = 1 << 20 // with the KeyPackages of a grant
	maxQueryBody   = 64 << 10
)

// clientRoutes are the edges for our clients, by pattern of the client API.
func (e *edges) clientRoutes() map[string]http.Handler {
	routes := map[string]http.Handler{
		"POST " + clientapi.PathConsent:                    e.serving(e.postConsent),
		"GET " + clientapi.PathConsent:                     e.serving(e.getConsents),
		"POST " + clientapi.PathIdentifier + "/{provider}": e.serving(e.postQuery),
		"PUT " + clientapi.PathProfile:                     e.serving(e.putProfile),
		"GET " + clientapi.PathProfile:                     e.serving(e.getProfile),
		"DELETE " + clientapi.PathProfile:                  e.serving(e.deleteProfile),
	}
	if e.assets != nil {
		routes["POST "+clientapi.PathAssets] = e.assetRoute(func(w http.ResponseWriter, r *http.Request) error {
			return e.assets.Upload(w, r, provider.CallerOf(r.Context()).User)
		})
		routes["GET "+clientapi.PathAssets+"/{name}"] = e.assetRoute(func(w http.ResponseWriter, r *http.Request) error {
			return e.assets.Download(w, r, r.PathValue("name"))
		})
		routes["GET "+clientapi.PathDownload+"/{url}"] = e.assetRoute(e.getDownload)
	}
	if e.relay != nil {
		routes["POST "+clientapi.PathOHTTP+"/{gateway}"] = e.assetRoute(func(w http.ResponseWriter, r *http.Request) error {
			return e.relay.Serve(w, r, r.PathValue("gateway"))
		})
		routes["GET "+clientapi.PathOHTTP+"/{gateway}"] = e.assetRoute(func(w http.ResponseWriter, r *http.Request) error {
			return e.relay.ServeKeys(w, r, r.PathValue("gateway"))
		})
	}
	return routes
}

// serving writes the problem that an error is. It is for errors before the first
// octet of an answer.
func (e *edges) serving(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		p := problems.Of(err)
		if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
			e.log.Error("request failed", "method", r.Method, "pattern", r.Pattern, "err", err)
		}
		p.Write(w)
	})
}

// assetRoute is serving for as often as one client may.
func (e *edges) assetRoute(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return e.serving(func(w http.ResponseWriter, r *http.Request) error {
		if err := e.guard.Asset(provider.CallerOf(r.Context()).Client); err != nil {
			return err
		}
		return h(w, r)
	})
}

func readClientBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, clientapi.Problemf(clientapi.CodeTooLarge, "more than %d octets", most)
	case err != nil:
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "the body broke off: %w", err)
	}
	return b, nil
}

// postConsent takes what a user says. Asking is limited, answering is not.
func (e *edges) postConsent(w http.ResponseWriter, r *http.Request) error {
	b, err := readClientBody(w, r, maxConsentBody)
	if err != nil {
		return err
	}
	entry, err := mimi.ParseConsentEntry(b)
	if err != nil {
		return clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	}
	user := provider.CallerOf(r.Context()).User
	if entry.Operation == mimi.ConsentRequest {
		if err := e.guard.Ask(user, entry.TargetURI); err != nil {
			return err
		}
	}
	if entry.Operation == mimi.ConsentGrant && entry.TargetURI == user {
		if err := e.rooms.Granted(r.Context(), provider.CallerOf(r.Context()), entry); err != nil {
			return err
		}
	}
	if err := e.consent.FromClient(r.Context(), user, entry); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// getConsents lists what a user was asked, has said, asks and was told.
func (e *edges) getConsents(w http.ResponseWriter, r *http.Request) error {
	user := provider.CallerOf(r.Context()).User
	var list clientapi.ConsentList
	for _, part := range []struct {
		read  func(context.Context, mimi.URI, int) ([]consent.Word, error)
		asked bool
	}{{e.consent.Pending, true}, {e.consent.Asked, true}, {e.consent.Words, false}, {e.consent.Told, false}} {
		words, err := part.read(r.Context(), user, clientapi.MaxConsentsListed)
		if err != nil {
			return err
		}
		for _, word := range words {
			c := clientapi.Consent{ConsentScope: word.ConsentScope, State: clientapi.ConsentRevoked, At: uint64(word.At.UnixMilli())}
			switch {
			case part.asked:
				c.State = clientapi.ConsentAsked
			case word.Granted:
				c.State = clientapi.ConsentGranted
			}
			list = append(list, c)
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", clientapi.ContentType)
	_, err := w.Write(list.Marshal())
	return err
}

// postQuery searches here, or at another provider.
func (e *edges) postQuery(w http.ResponseWriter, r *http.Request) error {
	b, err := readClientBody(w, r, maxQueryBody)
	if err != nil {
		return err
	}
	q, err := mimi.ParseIdentifierRequest(b)
	if err != nil {
		return clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	}
	if err := e.guard.Search(provider.CallerOf(r.Context()).User); err != nil {
		return err
	}
	answer, err := e.query(r, r.PathValue("provider"), q)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", clientapi.ContentType)
	_, err = w.Write(answer.Marshal())
	return err
}

func (e *edges) query(r *http.Request, at string, q *mimi.IdentifierRequest) (*mimi.IdentifierResponse, error) {
	if at == e.domain {
		return e.directory.Query(r.Context(), e.domain, q)
	}
	if _, err := mimi.NewURI(at, mimi.KindProvider); err != nil {
		return nil, clientapi.Problemf(clientapi.CodeMalformed, "%q is no provider: %w", at, err)
	}
	if e.peers == nil {
		return nil, errAlone
	}
	q.Extensions = nil // none is defined
	b, err := e.peers.Do(r.Context(), at, peer.IdentifierQuery, at, q.Marshal())
	if err != nil {
		return nil, upstream(at, err)
	}
	answer, err := mimi.ParseIdentifierResponse(b)
	if err == nil {
		err = answer.CheckHost(at)
	}
	if err != nil {
		return nil, clientapi.Problemf(clientapi.CodeHubUnreachable, "%s gave no proper answer: %w", at, err)
	}
	return answer, nil
}

// upstream tells a client what became of a call of another provider.
func upstream(at string, err error) error {
	var p *problems.Problem
	if errors.As(err, &p) && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests {
		return clientapi.Problemf(clientapi.CodeRefused, "%s refused: %s", at, p.Code)
	}
	after, _ := peer.Retry(err)
	out := clientapi.Problemf(clientapi.CodeHubUnreachable, "%s did not answer", at).After(after) // the cause has addresses of ours
	out.Err = err
	return out
}

// getDownload fetches an asset for a client, so that its host does not see it:
// from here, or through the provider that fetches from that host.
func (e *edges) getDownload(w http.ResponseWriter, r *http.Request) error {
	target := r.PathValue("url")
	u, err := url.Parse(target)
	if err != nil {
		return clientapi.Problemf(clientapi.CodeMalformed, "the path has no URL")
	}
	if name, ours := strings.CutPrefix(target, e.assetsURL); ours { // its listener may want a client certificate
		return e.assets.Download(w, r, name)
	}
	via := e.config.Assets.Via[u.Host]
	if via == "" || e.peers == nil {
		return e.proxy.Serve(w, r, target)
	}
	resp, err := e.peers.Open(r.Context(), peer.Call{Provider: via, Endpoint: peer.ProxyDownload, Value: peer.Value(target)})
	if err != nil {
		return upstream(via, err)
	}
	defer resp.Body.Close()
	return passAsset(w, resp, e.config.Assets.maxSize())
}

// passTime bounds how long a client takes to read an asset.
const passTime = 5 * time.Minute

// passAsset passes an asset on. One that turns out longer than allowed is broken
// off, which the client notices.
func passAsset(w http.ResponseWriter, resp *http.Response, most int64) error {
	if resp.ContentLength > most {
		return clientapi.Problemf(clientapi.CodeTooLarge, "the asset has more than %d octets", most)
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(passTime))
	h := w.Header()
	h.Set("Content-Type", clientapi.ContentType)
	h.Set("Content-Disposition", "attachment")
	h.Set("X-Content-Type-Options", "nosniff")
	n, err := io.Copy(w, io.LimitReader(resp.Body, most+1))
	if err != nil || n > most {
		panic(http.ErrAbortHandler)
	}
	return nil
}
