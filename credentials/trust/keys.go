package trust

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/internal/safehttp"
)

// A keyHint is what a token says of its key.
type keyHint struct {
	kid   []byte // nil if there is none
	alg   string // of JOSE, or ""
	chain [][]byte
}

// A candidate is the key that must have signed, with the time in which its own
// certificates are valid, and until when it is known to be the issuer's. Zero is
// no bound.
type candidate struct {
	public              crypto.PublicKey
	notBefore, notAfter time.Time
	until               time.Time
	chain               []*x509.Certificate // that certifies it, up to the anchor; nil if none does
}

// A keySource finds the keys of one issuer.
type keySource interface {
	find(ctx context.Context, hint keyHint) (*candidate, error)
	// all returns every key, for what has its own way of telling them apart.
	all(ctx context.Context, hint keyHint) ([]crypto.PublicKey, error)
	refresh(ctx context.Context) error
}

// keySource returns the source that an entry names.
func (b *builder) keySource(i *Issuer, at string) (keySource, error) {
	k := &i.config.Keys
	switch k.Source {
	case SourceJWKSFile:
		return b.keyFile(i, at+".file", parseKeyFile)
	case SourceCOSEFile:
		return b.keyFile(i, at+".file", parseCOSEKeySet)
	}
	client := b.snap.fetch
	if k.CAFile != "" {
		var err error
		if client, err = b.client(at+".ca_file", k.CAFile); err != nil {
			return nil, err
		}
	}
	i.client = client
	f := &fetchedKeys{issuer: i, list: b.list, client: client}
	switch k.Source {
	case SourceJWKSURI:
		f.uri, f.kind = k.URI, kindJWKS
	case SourceCOSEURI:
		f.uri, f.kind = k.URI, kindCOSE
	case SourceJWTVCIssuer:
		var err error
		if f.metadata, err = metadataURL(i.config.Iss); err != nil {
			return nil, wrong(at+".source", "%w", err)
		}
		f.kind = kindJWKS
	default:
		return nil, wrong(at+".source", "%q has no keys of tokens", k.Source)
	}
	return f, nil
}

func (b *builder) keyFile(i *Issuer, at string, parse func([]byte) (*keySet, error)) (keySource, error) {
	text, err := b.readFile(at, i.config.Keys.File)
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeySet {
		return nil, wrong(at, "%s has more than %d octets", i.config.Keys.File, maxKeySet)
	}
	set, err := parse(text)
	if err != nil {
		return nil, wrong(at, "%s: %w", i.config.Keys.File, err)
	}
	if len(set.keys) == 0 {
		return nil, wrong(at, "%s has no key that can verify", i.config.Keys.File)
	}
	return &fixedKeys{i, set}, nil
}

// fits reports whether the issuer may sign in a scheme, and a token of alg is
// signed in it.
func (i *Issuer) fits(alg string) func(*credentials.Scheme) bool {
	return func(s *credentials.Scheme) bool {
		if alg != "" && !s.AcceptsJOSE(alg) {
			return false
		}
		return i.config.Algs == nil || slices.ContainsFunc(i.config.Algs, func(name string) bool { return schemeByName(name) == s })
	}
}

func noKey(format string, args ...any) error {
	return credentials.Errorf(credentials.CodeIssuerKey, "issuer", format, args...)
}

// fixedKeys are those of a file.
type fixedKeys struct {
	issuer *Issuer
	set    *keySet
}

func (f *fixedKeys) find(_ context.Context, hint keyHint) (*candidate, error) {
	key, err := f.set.choose(hint.kid, f.issuer.fits(hint.alg))
	if err != nil {
		return nil, noKey("%w", err)
	}
	return &candidate{public: key}, nil
}

func (f *fixedKeys) all(context.Context, keyHint) ([]crypto.PublicKey, error) {
	return f.set.publics(), nil
}

func (f *fixedKeys) refresh(context.Context) error { return nil }

const (
	kindJWKS = "jwks"
	kindCOSE = "cose-key-set"
)

// fetchedKeys are fetched from a URI that is configured, or that the issuer's
// metadata names.
type fetchedKeys struct {
	issuer   *Issuer
	list     *List
	client   *safehttp.Client
	kind     string
	uri      string // or
	metadata string

	mu     sync.Mutex // guards missed
	missed time.Time  // when an unknown kid last made us fetch
}

// unknownKidInterval is how often an unknown kid may make us fetch.
const unknownKidInterval = 5 * time.Minute

func (f *fetchedKeys) find(ctx context.Context, hint keyHint) (*candidate, error) {
	set, until, err := f.keys(ctx, asDue)
	if err != nil {
		return nil, err
	}
	key, err := set.choose(hint.kid, f.issuer.fits(hint.alg))
	if err != nil && hint.kid != nil && f.mayRetry() {
		if set, until, err = f.keys(ctx, forced); err != nil {
			return nil, err
		}
		key, err = set.choose(hint.kid, f.issuer.fits(hint.alg))
	}
	if err != nil {
		return nil, noKey("%w", err)
	}
	return &candidate{public: key, until: until}, nil
}

func (f *fetchedKeys) mayRetry() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.list.opts.Now()
	if since := now.Sub(f.missed); !f.missed.IsZero() && since >= 0 && since < unknownKidInterval {
		return false
	}
	f.missed = now
	return true
}

func (f *fetchedKeys) all(ctx context.Context, _ keyHint) ([]crypto.PublicKey, error) {
	set, _, err := f.keys(ctx, asDue)
	if err != nil {
		return nil, err
	}
	return set.publics(), nil
}

func (f *fetchedKeys) refresh(ctx context.Context) error {
	_, _, err := f.keys(ctx, forced)
	return err
}

// keys returns the set, and when to ask for it again.
func (f *fetchedKeys) keys(ctx context.Context, m mood) (*keySet, time.Time, error) {
	uri := f.uri
	if f.metadata != "" {
		meta, until, err := f.readMetadata(ctx, m)
		if err != nil {
			return nil, until, err
		}
		if meta.set != nil {
			return meta.set, until, nil
		}
		uri = meta.uri
	}
	value, until, err := f.get(ctx, f.keySetAt(uri), m)
	if err != nil {
		return nil, until, err
	}
	return value.(*keySet), until, nil
}

// get fetches a document of the issuer. What cannot be had in time is
// issuer-key, which may be tried again.
func (f *fetchedKeys) get(ctx context.Context, doc *document, m mood) (any, time.Time, error) {
	r, stale, err := f.list.docs.get(ctx, doc, f.issuer.MaxStale, m)
	if ctx.Err() != nil {
		return nil, time.Time{}, ctx.Err()
	}
	if err != nil && !stale {
		return nil, time.Time{}, noKey("%w", err)
	}
	return r.value, r.refresh, nil
}

func (f *fetchedKeys) keySetAt(uri string) *document {
	accept, parse := []string{typeJWKS, typeJSON}, parseJWKS
	if f.kind == kindCOSE {
		accept, parse = []string{typeCOSEKS}, parseCOSEKeySet
	}
	return &document{
		kind: f.kind + " " + f.issuer.Name, uri: uri, owner: f.issuer.Name, accept: accept, limit: maxKeySet, client: f.client,
		read: func(_ context.Context, in input) (reading, error) {
			if !slices.Contains(accept, in.mediaType) {
				return reading{}, fmt.Errorf("the answer is of type %q, want one of %q", in.mediaType, accept)
			}
			set, err := parse(in.body)
			return lifeOfKeys(set, in.fetched, in.maxAge), err
		},
		changed: func(prev, next any) {
			if !prev.(*keySet).same(next.(*keySet)) {
				f.list.keysChanged()
			}
		},
	}
}

// metadata is what an issuer says of itself: one of set and uri.
type metadata struct {
	set *keySet
	uri string
}

func (m *metadata) renew(_ reading, fetched time.Time, age time.Duration) reading {
	return lifeOfKeys(m, fetched, age)
}

func (f *fetchedKeys) readMetadata(ctx context.Context, m mood) (*metadata, time.Time, error) {
	value, until, err := f.get(ctx, &document{
		kind: "jwt-vc-issuer " + f.issuer.Name, uri: f.metadata, owner: f.issuer.Name, accept: []string{typeJSON}, limit: maxKeySet, client: f.client,
		read: func(_ context.Context, in input) (reading, error) {
			if in.mediaType != typeJSON {
				return reading{}, fmt.Errorf("the metadata is of type %q, want %q", in.mediaType, typeJSON)
			}
			meta, err := parseMetadata(in.body, f.issuer.config.Iss)
			return lifeOfKeys(meta, in.fetched, in.maxAge), err
		},
		changed: func(prev, next any) {
			a, b := prev.(*metadata), next.(*metadata)
			if a.uri != b.uri || (a.set == nil) != (b.set == nil) || a.set != nil && !a.set.same(b.set) {
				f.list.keysChanged()
			}
		},
	}, m)
	if err != nil {
		return nil, until, err
	}
	return value.(*metadata), until, nil
}

// parseMetadata reads the metadata of an issuer: its issuer must be iss, and
// there is exactly one of jwks and jwks_uri.
func parseMetadata(text []byte, iss string) (*metadata, error) {
	o, err := jose.ParseObject(string(text), keyDepth+1)
	if err != nil {
		return nil, fmt.Errorf("not issuer metadata: %w", err)
	}
	if got, _, _ := o.Text("issuer"); got != iss {
		return nil, fmt.Errorf("the metadata is of issuer %.200q, want %q", got, iss)
	}
	jwks, inline := o.Get("jwks")
	uri, there, ok := o.Text("jwks_uri")
	switch {
	case !ok || inline == there:
		return nil, fmt.Errorf("the metadata has jwks: %v, jwks_uri: %v; want exactly one", inline, there)
	case there:
		_, err := safehttp.CheckURL(uri, false)
		return &metadata{uri: uri}, err
	}
	set, isObject := jwks.(*jose.Object)
	if !isObject {
		return nil, fmt.Errorf("jwks of the metadata is not an object")
	}
	list, _ := set.Get("keys")
	keys, err := keysFrom(list)
	return &metadata{set: keys}, err
}
