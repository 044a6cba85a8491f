package trust

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
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
		return s.settle(ctx, listSubject(ref.URI, ref.Index), answer(err, false, time.Time{}, ref.URI), e.ends)
	}
	table := r.value.(*statusTable)
	st := answer(table.list.Judge(ref.Index), stale, r.refresh, ref.URI)
	st.issue = r.issue
	st = s.settle(ctx, listSubject(ref.URI, ref.Index), st, e.ends)
	return s.bySigner(ctx, st, s.statusIssuer(i), table, at)
}

// statusIssuer is the entry whose keys sign the lists of an entry.
func (s *Snapshot) statusIssuer(i *Issuer) *Issuer {
	if name := i.config.Revocation.StatusIssuer; name != "" {
		return s.byName[name]
	}
	return i
}

// bySigner weighs what a list said by the certificates that it was signed with,
// where the entry of the status issuer says whom to ask of those. A list of a
// key that was taken back says nothing: neither that a token is good, nor, for
// good, that it is revoked.
func (s *Snapshot) bySigner(ctx context.Context, st Status, signer *Issuer, t *statusTable, at time.Time) Status {
	if len(t.signers) == 0 || !signer.config.Revocation.asksOfCertificates() {
		return st
	}
	by := s.chainStatus(ctx, signer, t.signers, at)
	if by.Standing >= Invalid {
		by.Err = credentials.Errorf(credentials.CodeStatusInvalid, "status", "the certificate that the list was signed with: %w", by.Err)
		by.Standing, by.Until = Invalid, earlier(st.Until, by.Until)
		return by
	}
	return worse(st, by)
}

// coversStatus reports whether a list is fetched for an issuer. A prefix that
// does not end in a slash is a whole URI.
func (i *Issuer) coversStatus(uri string) bool {
	return statuslist.Covered(uri, i.config.Revocation.StatusPrefixes)
}

// A statusTable is a verified list.
type statusTable struct {
	token   *statuslist.Token // without the list
	list    *statuslist.List
	signers []*x509.Certificate // that certify its key, up to the anchor; nil if none do
	ends    time.Time           // when the first of them does
}

// renew keeps a list that is still the newest for another ttl, and never past
// its exp.
func (t *statusTable) renew(_ reading, fetched time.Time, _ time.Duration) reading {
	return t.life(fetched)
}

func (t *statusTable) life(fetched time.Time) reading {
	end := earlier(t.token.Expires, t.ends)
	r := reading{value: t, hard: end, octets: len(t.list.Octets())}
	switch ttl := t.token.TTL; {
	case ttl > 0:
		r.refresh = fetched.Add(min(max(ttl, minTTL), maxAge))
	case !t.token.Expires.IsZero():
		// It may be used until exp, and is asked for again before: a revocation
		// would else be learned of no sooner.
		r.refresh, r.until = fetched.Add(maxAge), end
	default:
		r.refresh = fetched.Add(defaultAge)
	}
	r.refresh = earlier(r.refresh, end)
	r.until = later(r.refresh, r.until)
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
	signer, formats := s.statusIssuer(i), i.formats()
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
			keys := &statusKeys{issuer: signer}
			rules := statuslist.Rules{Keys: keys, Now: s.list.opts.Now, Skew: s.Skew()}
			token, list, err := rules.Verify(ctx, formats[n], in.body, uri)
			if err != nil {
				return reading{}, err
			}
			if err := keys.valid(s.list.opts.Now(), s.Skew()); err != nil {
				return reading{}, err
			}
			if prev, ok := in.prev.(*statusTable); ok && token.IssuedAt.Before(prev.token.IssuedAt) {
				return reading{}, credentials.Errorf(credentials.CodeStatusUnavailable, "status", "the list is older than the one at hand; a revocation does not go back")
			}
			token.Compressed = nil // list has it
			r := (&statusTable{token, list, keys.found.chain, keys.found.notAfter}).life(in.fetched)
			r.issue = orderOf(token.IssuedAt, nil, in.fetched)
			return r, nil
		},
		changed: func(_, _ any) { s.list.watch.wake() },
	}
}

// statusKeys are all keys of a status issuer, or the one that the certificates
// of a list lead to.
type statusKeys struct {
	issuer *Issuer
	found  candidate
}

// StatusKeys implements statuslist.Keys.
func (k *statusKeys) StatusKeys(ctx context.Context, hint statuslist.KeyHint) ([]crypto.PublicKey, error) {
	h := keyHint{kid: hint.KeyID, chain: hint.X5Chain}
	certified, ok := k.issuer.keys.(*certifiedKeys)
	if !ok {
		return k.issuer.keys.all(ctx, h)
	}
	found, err := certified.find(ctx, h)
	if err != nil {
		return nil, err
	}
	k.found = *found
	return []crypto.PublicKey{found.public}, nil
}

// valid wants the certificates of the key to be valid now.
func (k *statusKeys) valid(now time.Time, skew time.Duration) error {
	from, until := k.found.notBefore, k.found.notAfter
	if now.Add(skew).Before(from) || !until.IsZero() && now.Add(-skew).After(until) {
		return credentials.Errorf(credentials.CodeStatusUnavailable, "status", "the certificates that the list was signed with are valid from %s to %s",
			from.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	return nil
}
