package trust

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// Status returns what is known of a credential's revocation, fetching what is
// due. It never fails: what cannot be learned is Unavailable. A credential that
// was revoked stays so, whatever is said of it later.
func (s *Snapshot) Status(ctx context.Context, e *Evidence, at time.Time) Status {
	l := s.list
	if err := l.revoked.known(ctx, l.docs.store, e); err != nil {
		return answer(err, false, time.Time{}, "what was learned before")
	}
	if e.Issuer.Mode == ModeNone {
		return Status{Standing: Good}
	}
	var st Status
	if e.chain != nil {
		st = s.chainStatus(ctx, e.Issuer, e.chain, at)
	} else {
		st = s.tokenStatus(ctx, e, at)
	}
	if st.Standing == Revoked {
		if err := l.revoked.note(ctx, l.docs.store, e, st.Err, l.opts.Now()); err != nil {
			st.Err = credentials.Errorf(credentials.CodeRevoked, "status", "%s (and it could not be stored: %v)", st.Err, err)
		}
	}
	return st
}

// methods are the ways in which an entry learns of revocations, in their order.
func (i *Issuer) methods() []string {
	if i.config.Revocation.Methods != nil {
		return i.config.Revocation.Methods
	}
	return i.config.methods()
}

// missing answers for a credential that says nowhere how to learn of its
// revocation.
func (i *Issuer) missing(what string) Status {
	if i.Mode == ModeSoft {
		return Status{Standing: Good, Source: "nowhere"}
	}
	return answer(credentials.Errorf(credentials.CodeClaimMissing, "status", "%s does not say how its revocation is learned, and issuer %q must", what, i.Name), false, time.Time{}, "nowhere")
}

// revocations are the credentials that are known to be revoked, in memory
// beside the database.
type revocations struct {
	mu  sync.Mutex // guards all
	all map[[sha256.Size]byte]string
}

const maxRevocations = 1 << 16

// known returns the error of a credential that was revoked.
func (r *revocations) known(ctx context.Context, db store, e *Evidence) error {
	r.mu.Lock()
	detail, there := r.all[e.id]
	r.mu.Unlock()
	if !there {
		var err error
		if detail, err = db.revoked(ctx, e.id); err != nil {
			return credentials.Errorf(credentials.CodeStatusUnavailable, "status", "%w", err)
		}
	}
	if detail == "" {
		return nil
	}
	return credentials.Errorf(credentials.CodeRevoked, "status", "%s", detail)
}

// note remembers a revocation, durably first.
func (r *revocations) note(ctx context.Context, db store, e *Evidence, why error, now time.Time) error {
	detail := why.Error()
	err := db.revoke(context.WithoutCancel(ctx), e, detail, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil || len(r.all) >= maxRevocations && db.db != nil {
		r.all = map[[sha256.Size]byte]string{}
	}
	r.all[e.id] = detail
	return err
}

// Refresh fetches at once all that is known of an issuer: its keys, CRLs, OCSP
// answers and status lists; those that were fetched in the last five seconds
// stay. Whoever watches the List is told. It returns the first error, and goes
// on to the rest.
func (l *List) Refresh(ctx context.Context, issuer string) error {
	i := l.Snapshot().Issuer(issuer)
	if i == nil {
		return credentials.Errorf(credentials.CodeIssuerUnknown, "issuer", "no issuer entry is named %q", issuer)
	}
	var failed refreshErrors
	for _, doc := range l.docs.of(issuer) {
		_, _, err := l.docs.get(ctx, doc, i.MaxStale, forced)
		failed.add(doc, err)
	}
	l.watch.wake()
	return failed.first()
}

// refreshErrors keeps what could not be fetched. Of the CRLs of one CA it is
// enough that one can be: where several are configured, each is tried for
// every CA of the chain, and is another's for most of them.
type refreshErrors struct {
	kinds []string
	errs  map[string]error // of a kind; nil where one was fetched
}

func (r *refreshErrors) add(doc *document, err error) {
	kind := doc.kind
	if !strings.HasPrefix(kind, "crl") {
		kind += " " + doc.uri
	}
	if r.errs == nil {
		r.errs = make(map[string]error)
	}
	if old, known := r.errs[kind]; known {
		if old == nil {
			return
		}
	} else {
		r.kinds = append(r.kinds, kind)
	}
	r.errs[kind] = err
}

func (r *refreshErrors) first() error {
	for _, kind := range r.kinds {
		if err := r.errs[kind]; err != nil {
			return err
		}
	}
	return nil
}

// fetchAhead fetches several at a time, so that one server that does not answer
// does not keep the others' revocations from being learned of.
func (l *List) fetchAhead(ctx context.Context, docs []*document) {
	const atOnce = 8
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, doc := range docs {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			l.docs.get(ctx, doc, 0, ahead) // a failure is kept with the document
		})
	}
	all.Wait()
}

// Run fetches what is due until ctx ends, so that nobody waits for it and what
// was revoked is learned of within the time that its issuer states.
func (l *List) Run(ctx context.Context) error {
	const atMost, atLeast = time.Minute, time.Second
	for {
		docs, next := l.docs.due(l.opts.Now())
		l.fetchAhead(ctx, docs)
		wait := atMost
		if !next.IsZero() {
			wait = min(max(next.Sub(l.opts.Now()), atLeast), atMost)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
