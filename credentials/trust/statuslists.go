package trust

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

// Bounds of status lists (draft-ietf-oauth-status-list-21; the sizes are ours).
const (
	maxStatusToken = 6 << 20
	minTTL         = time.Minute
	statusHops     = 3
)

// reference reads the status claim of a token.
func (e *Evidence) reference() (statuslist.Reference, error) {
	if e.Issuer.Type == TypeSDCWT {
		return statuslist.ParseReferenceCBOR(e.status)
	}
	return statuslist.ParseReferenceJSON(e.status)
}

// listStatus looks a token up in its status list.
func (s *Snapshot) listStatus(ctx context.Context, e *Evidence, at time.Time) Status {
	i := e.Issuer
	if e.status == nil {
		return i.missing("the token")
	}
	ref, err := e.reference()
	if err != nil {
		return answer(err, false, time.Time{}, "its status claim")
	}
	if !i.coversStatus(ref.URI) {
		return answer(credentials.Errorf(credentials.CodeStatusURI, "status", "issuer %q is not configured for a status list at %.200q", i.Name, ref.URI), false, time.Time{}, ref.URI)
	}
	r, stale, err := s.list.docs.get(ctx, s.statusList(i, ref.URI), i.MaxStale, asDue)
	if err != nil && !stale {
		return answer(err, false, time.Time{}, ref.URI)
	}
	return answer(r.value.(*statusTable).list.Judge(ref.Index), stale, r.refresh, ref.URI)
}

// coversStatus reports whether a list is fetched for an issuer. A prefix that
// does not end in a slash is a whole URI.
func (i *Issuer) coversStatus(uri string) bool {
	return slices.ContainsFunc(i.config.Revocation.StatusPrefixes, func(p string) bool {
		return uri == p || strings.HasSuffix(p, "/") && strings.HasPrefix(uri, p)
	})
}

// A statusTable is a verified list.
type statusTable struct {
	token *statuslist.Token
	list  *statuslist.List
}

// renew keeps a list that is still the newest for another ttl, and never past
// its exp.
func (t *statusTable) renew(_ reading, fetched time.Time, _ time.Duration) reading {
	return t.life(fetched)
}

func (t *statusTable) life(fetched time.Time) reading {
	r := reading{value: t, hard: t.token.Expires}
	switch ttl := t.token.TTL; {
	case ttl > 0:
		r.refresh = fetched.Add(min(max(ttl, minTTL), maxAge))
	case !t.token.Expires.IsZero():
		r.refresh = t.token.Expires
	default:
		r.refresh = fetched.Add(defaultAge)
	}
	r.refresh = earlier(r.refresh, t.token.Expires)
	r.until = r.refresh
	return r
}

// formats are those that an entry takes: by default that of its tokens.
func (i *Issuer) formats() []statuslist.Format {
	names := i.config.Revocation.StatusFormats
	if names == nil {
		names = map[string][]string{TypeSDJWT: {"jwt"}, TypeSDCWT: {"cwt"}}[i.Type]
	}
	var out []statuslist.Format
	for _, n := range names {
		if n == "jwt" {
			out = append(out, statuslist.JWT)
		} else {
			out = append(out, statuslist.CWT)
		}
	}
	return out
}

// statusList is the document of a list, verified by the keys of the entry's
// status issuer.
func (s *Snapshot) statusList(i *Issuer, uri string) *document {
	signer := i
	if name := i.config.Revocation.StatusIssuer; name != "" {
		signer = s.byName[name]
	}
	formats := i.formats()
	var accept []string
	for _, f := range formats {
		accept = append(accept, f.MediaType())
	}
	return &document{
		kind: "status-list " + i.Name, uri: uri, owner: i.Name, accept: accept, limit: maxStatusToken, hops: statusHops, client: i.client,
		read: func(ctx context.Context, in input) (reading, error) {
			n := slices.Index(accept, in.mediaType)
			if n < 0 {
				return reading{}, fmt.Errorf("the answer is of type %q, want one of %q", in.mediaType, accept)
			}
			rules := statuslist.Rules{Keys: statusKeys{signer}, Now: s.list.opts.Now, Skew: s.Skew()}
			token, list, err := rules.Verify(ctx, formats[n], in.body, uri)
			if err != nil {
				return reading{}, err
			}
			if prev, ok := in.prev.(*statusTable); ok && token.IssuedAt.Before(prev.token.IssuedAt) {
				return reading{}, credentials.Errorf(credentials.CodeStatusUnavailable, "status", "the list is older than the one at hand; a revocation does not go back")
			}
			return (&statusTable{token, list}).life(in.fetched), nil
		},
		changed: func(_, _ any) { s.list.watch.wake() },
	}
}

// statusKeys are all keys of a status issuer.
type statusKeys struct{ issuer *Issuer }

// StatusKeys implements statuslist.Keys.
func (k statusKeys) StatusKeys(ctx context.Context, hint statuslist.KeyHint) ([]crypto.PublicKey, error) {
	return k.issuer.keys.all(ctx, keyHint{kid: hint.KeyID, chain: hint.X5Chain})
}
