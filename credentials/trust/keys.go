package trust

import (
	"context"
	"crypto"
	"time"
)

// A keyHint is what a token says of its key.
type keyHint struct {
	kid   []byte // nil if there is none
	alg   string // of JOSE, or ""
	chain [][]byte
}

// A candidate is a key that may have signed, with the time in which its own
// certificates are valid; zero is no bound.
type candidate struct {
	public              crypto.PublicKey
	notBefore, notAfter time.Time
}

// A keySource finds the keys of one issuer.
type keySource interface {
	find(ctx context.Context, hint keyHint) ([]candidate, error)
}

type certifiedKeys struct{ issuer *Issuer }

func (c *certifiedKeys) find(context.Context, keyHint) ([]candidate, error) { return nil, nil }

func (b *builder) keySource(i *Issuer, at string) (keySource, error) {
	return nil, wrong(at+".source", "%q is not read yet", i.config.Keys.Source)
}

type documents struct{}

func newDocuments(Options) *documents { return nil }
