package statuslist

import (
	"context"
	"crypto"
	"errors"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// A Fetcher gets a Status List Token over HTTP. It is called with URIs that the
// Checker's configuration covers, and must itself refuse private addresses and
// redirects that leave the host.
type Fetcher interface {
	// Fetch returns the body of a successful answer, of at most limit octets
	// after its content coding is removed, and its Content-Type.
	Fetch(ctx context.Context, uri string, accept []string, limit int64) (body []byte, contentType string, err error)
}

// Keys finds the keys of the status issuer that is configured for a list.
type Keys interface {
	StatusKeys(ctx context.Context, hint KeyHint) ([]crypto.PublicKey, error)
}

// StaticKeys are the keys of a status issuer that are known beforehand.
type StaticKeys []crypto.PublicKey

// StatusKeys implements Keys.
func (k StaticKeys) StatusKeys(context.Context, KeyHint) ([]crypto.PublicKey, error) { return k, nil }

// Rules are those of one configured status issuer.
type Rules struct {
	Keys    Keys
	Formats []Format         // accepted, in order of preference; nil for both
	Now     func() time.Time // time.Now if nil
	Skew    time.Duration
}

func (r *Rules) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func (r *Rules) formats() []Format {
	if r.Formats != nil {
		return r.Formats
	}
	return []Format{JWT, CWT}
}

// Verify checks a Status List Token that was found under uri, and returns it
// with its list (steps 5 to 8 of a check).
func (r *Rules) Verify(ctx context.Context, f Format, token []byte, uri string) (*Token, *List, error) {
	return r.verify(ctx, f, token, uri, r.now())
}

func (r *Rules) verify(ctx context.Context, f Format, octets []byte, uri string, now time.Time) (*Token, *List, error) {
	t, err := parse(f, octets)
	if err != nil {
		return nil, nil, err
	}
	t.hint.URI = uri
	keys, err := r.Keys.StatusKeys(ctx, t.hint)
	if err != nil {
		return nil, nil, unavailable("key of the status issuer: %w", err)
	}
	if !slices.ContainsFunc(keys, t.verifies) {
		return nil, nil, invalid("the signature is by none of the status issuer's %d keys", len(keys))
	}
	if err := t.at(now, r.Skew, uri); err != nil {
		return nil, nil, err
	}
	list, err := Inflate(t.Bits, t.Compressed)
	if err != nil {
		return nil, nil, unavailable("%w", err)
	}
	return &t.Token, list, nil
}

// at checks sub and the times.
func (t *Token) at(now time.Time, skew time.Duration, uri string) error {
	switch {
	case t.Subject != uri:
		return invalid("sub is not the URI of the list")
	case t.IssuedAt.After(now.Add(skew)):
		return unavailable("issued in the future")
	case !t.NotBefore.IsZero() && t.NotBefore.After(now.Add(skew)): // RFC 7519 section 4.1.5
		return unavailable("not valid yet")
	case !t.Expires.IsZero() && !t.Expires.After(now.Add(-skew)):
		return unavailable("expired")
	}
	return nil
}

// Judge turns the status of an entry into a verdict: nil if it is valid.
func (l *List) Judge(index int64) error {
	s, ok := l.Get(index)
	switch {
	case !ok:
		return invalid("no entry %d in a list of %d", index, l.Len())
	case s == Valid:
		return nil
	case s == Invalid:
		return credentials.Errorf(credentials.CodeRevoked, whereReference, "entry %d", index)
	case s == Suspended:
		return credentials.Errorf(credentials.CodeSuspended, whereReference, "entry %d", index)
	}
	return credentials.Errorf(credentials.CodeStatusUnknownValue, whereReference, "entry %d has %s", index, s)
}

// A Checker checks the status of credentials of one issuer. It keeps each list
// until its ttl is over, and never past its exp.
type Checker struct {
	Rules
	Fetcher  Fetcher
	Prefixes []string      // URIs, or prefixes ending in a slash, that are fetched
	NoTTL    time.Duration // how long a list without ttl is kept; 5 minutes if 0
	MaxStale time.Duration // how long after its ttl a list serves while it cannot be fetched
	MaxLists int           // lists kept; 64 if 0

	mu    sync.Mutex // guards lists
	lists map[string]*kept
}

// kept is a list that was fetched. fetch serialises those who want it anew.
type kept struct {
	fetch sync.Mutex // guards the fields below
	token *Token
	list  *List
	until time.Time
}

// Check judges the credential that has ref. It must be asked only once the
// credential, and the key binding around it, have been accepted.
func (c *Checker) Check(ctx context.Context, ref Reference) error {
	if err := c.mayFetch(ref); err != nil {
		return err
	}
	list, err := c.list(ctx, ref.URI)
	if err != nil {
		return err
	}
	return list.Judge(ref.Index)
}

func (c *Checker) mayFetch(ref Reference) error {
	if err := ref.check(); err != nil {
		return err
	}
	if !Covered(ref.URI, c.Prefixes) {
		return credentials.Errorf(credentials.CodeStatusURI, whereReference, "the issuer's configuration does not cover %q", ref.URI)
	}
	return nil
}

func (c *Checker) entry(uri string) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = make(map[string]*kept)
	}
	k := c.lists[uri]
	if k == nil {
		limit := c.MaxLists
		if limit == 0 {
			limit = 64
		}
		for other := range c.lists { // any one; those in use stay alive
			if len(c.lists) < limit {
				break
			}
			delete(c.lists, other)
		}
		k = &kept{}
		c.lists[uri] = k
	}
	return k
}

func (c *Checker) list(ctx context.Context, uri string) (*List, error) {
	k := c.entry(uri)
	k.fetch.Lock()
	defer k.fetch.Unlock()
	now := c.now()
	if k.token != nil && now.Before(k.until) && k.token.at(now, c.Skew, uri) == nil {
		return k.list, nil
	}
	err := c.refresh(ctx, uri, k, now)
	if err == nil {
		return k.list, nil
	}
	if k.token != nil && now.Before(k.until.Add(c.MaxStale)) && k.token.at(now, c.Skew, uri) == nil {
		return k.list, nil
	}
	return nil, err
}

// refresh fetches a list. One that is older than the one that is kept is
// refused: a revocation does not go back.
func (c *Checker) refresh(ctx context.Context, uri string, k *kept, now time.Time) error {
	token, list, err := c.get(ctx, uri, uri, now)
	if err != nil {
		return err
	}
	if k.token != nil && token.IssuedAt.Before(k.token.IssuedAt) {
		return unavailable("older than the list that was fetched before")
	}
	ttl := token.TTL
	if ttl == 0 {
		ttl = c.NoTTL
	}
	if ttl == 0 {
		ttl = 5 * time.Minute
	}
	k.token, k.list, k.until = token, list, now.Add(ttl)
	return nil
}

func (c *Checker) get(ctx context.Context, from, uri string, now time.Time) (*Token, *List, error) {
	if c.Fetcher == nil {
		return nil, nil, errors.New("statuslist: a Checker without a Fetcher")
	}
	accept := make([]string, 0, 2)
	for _, f := range c.formats() {
		accept = append(accept, f.MediaType())
	}
	body, contentType, err := c.Fetcher.Fetch(ctx, from, accept, maxToken)
	if err != nil {
		return nil, nil, unavailable("%w", err)
	}
	name, _, _ := mime.ParseMediaType(contentType)
	at := slices.Index(accept, name)
	if at < 0 {
		return nil, nil, unavailable("the answer is %q, want %v", contentType, accept)
	}
	return c.verify(ctx, c.formats()[at], body, uri, now)
}

// CheckAt judges the credential as of an earlier time. The answer must be a
// list that was valid then: a server that ignores the question is found out.
func (c *Checker) CheckAt(ctx context.Context, ref Reference, when time.Time) error {
	if err := c.mayFetch(ref); err != nil {
		return err
	}
	u, err := url.Parse(ref.URI)
	if err != nil {
		return badReference("%w", err)
	}
	q := u.Query()
	q.Set("time", strconv.FormatInt(when.Unix(), 10))
	u.RawQuery = q.Encode()
	token, list, err := c.get(ctx, u.String(), ref.URI, when)
	if err != nil {
		return err
	}
	if token.Expires.IsZero() {
		return unavailable("a list without exp says nothing about %d", when.Unix())
	}
	return list.Judge(ref.Index)
}
