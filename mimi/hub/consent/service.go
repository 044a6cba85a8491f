package consent

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
)

//go:embed migrations
var migrations embed.FS

// Bounds on what others can make us keep.
const (
	maxPending         = 1000 // requests that one user has open
	maxPendingProvider = 100  // of those, from the users of one provider
	maxSent            = 1000 // requests of one user that are not answered
	maxWords           = 100_000
	maxQueue           = 10_000              // for one destination, and of one provider
	maxUserQueue       = 1000                // of one user of ours
	maxUserOctets      = 16 << 20            // of what waits of one user of ours
	maxProviderOctets  = 64 << 20            // of what waits of one provider
	requestLifetime    = 90 * 24 * time.Hour // after which a request is forgotten
)

// Config is how a Service behaves.
type Config struct {
	// Serves reports whether a domain is a provider of ours.
	Serves func(domain string) bool
	// UserExists reports whether a URI of ours is a user.
	UserExists func(ctx context.Context, user mimi.URI) (bool, error)
	// RevealUnknown answers 404 for a user that does not exist. Otherwise the
	// answer is that for a user who does.
	RevealUnknown bool
	// TellRevocations sends revocations to the requester's provider. They
	// count either way, and the draft lets them be kept private.
	TellRevocations bool
	// Ask may refuse that one user asks about another, with a problem; see
	// limit.Guard. Nil refuses nobody.
	Ask func(requester, target mimi.URI) error
	// Default answers where no word was said. Nil denies.
	Default func(mimi.ConsentScope) bool
	Log     *slog.Logger
}

// A Service keeps the consents of a provider's users.
type Service struct {
	db   *sqldb.DB
	cfg  Config
	poke chan struct{}
}

// Open opens a service on a database; see sqldb.Open for the source.
func Open(ctx context.Context, source string, cfg Config, opt sqldb.Options) (*Service, error) {
	opt.Name, opt.Migrations = "consent", migrations
	db, err := sqldb.Open(ctx, source, opt)
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{db: db, cfg: cfg, poke: make(chan struct{}, 1)}, nil
}

// Close closes the database.
func (s *Service) Close() error { return s.db.Close() }

// A Verdict answers whether a requester may fetch KeyPackages.
type Verdict uint8

// The verdicts. The last two are the codes noConsent and noConsentForThisRoom
// of keyMaterial; the second tells the requester that another room was granted,
// and the first may always stand in for it.
const (
	Given Verdict = iota
	None
	NotForThisRoom
)

// May answers whether the requester of a scope may fetch the target's
// KeyPackages for the room. Without a room only a word about any room counts.
func (s *Service) May(ctx context.Context, scope mimi.ConsentScope) (v Verdict, err error) {
	var words mimi.Consents
	var elsewhere bool
	err = s.db.Read(ctx, func(tx *sqldb.Tx) error {
		words, err = readWords(ctx, tx, scope)
		if err != nil || len(words) > 0 {
			return err
		}
		elsewhere, err = grantedElsewhere(ctx, tx, scope)
		return err
	})
	switch {
	case err != nil:
		return None, fmt.Errorf("consent: %w", err)
	case words.Given(scope), len(words) == 0 && s.cfg.Default != nil && s.cfg.Default(scope):
		return Given, nil
	case elsewhere:
		return NotForThisRoom, nil
	}
	return None, nil
}

// FromClient takes what a client of a user of ours says: a request or a cancel
// as requester, a grant or a revoke as target. It is done, and will be told to
// the other side, when FromClient returns. Errors with a *problem.Problem are
// the client's.
func (s *Service) FromClient(ctx context.Context, user mimi.URI, e *mimi.ConsentEntry) error {
	speaker, other := e.RequesterURI, e.TargetURI
	answers := e.Operation == mimi.ConsentGrant || e.Operation == mimi.ConsentRevoke
	if answers {
		speaker, other = other, speaker
	}
	if speaker != user {
		return problem.New(http.StatusForbidden, "refused", "%s may not speak for %s", user, speaker)
	}
	if speaker == other {
		return problem.New(http.StatusBadRequest, "malformed", "a user needs no consent of its own")
	}
	e = plain(e)
	to, err := s.destination(ctx, other)
	if err != nil {
		return storeError(err)
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		if answers {
			return s.answer(ctx, tx, e, to)
		}
		return s.ask(ctx, tx, e, to)
	})
	s.wake()
	return storeError(err)
}

// plain is an entry without extensions: they have the numbers of MLS components,
// and none is defined for a consent. What is known is sent and kept.
func plain(e *mimi.ConsentEntry) *mimi.ConsentEntry {
	known := *e
	known.Extensions = nil
	return &known
}

// A destination says how the other side of an entry is told.
type destination uint8

const (
	elsewhere destination = iota // by its provider
	here                         // it is a user of ours
	nowhere                      // it would be one, and does not exist
)

func (s *Service) destination(ctx context.Context, user mimi.URI) (destination, error) {
	if !s.cfg.Serves(user.Host()) {
		return elsewhere, nil
	}
	if known, err := s.cfg.UserExists(ctx, user); err != nil || !known {
		return nowhere, err
	}
	return here, nil
}

// storeError leaves problems as they are and names the package in the others.
func storeError(err error) error {
	if err == nil || problem.Of(err).Status != http.StatusInternalServerError {
		return err
	}
	return fmt.Errorf("consent: %w", err)
}

// ask records a request or cancel of a user of ours, and passes it on.
func (s *Service) ask(ctx context.Context, tx *sqldb.Tx, e *mimi.ConsentEntry, to destination) error {
	if e.Operation == mimi.ConsentCancel {
		if known, err := dropRequest(ctx, tx, sent, e.ConsentScope); err != nil || !known {
			return err
		}
	} else if err := s.addSent(ctx, tx, e.ConsentScope); err != nil {
		return err
	}
	switch to {
	case here:
		return s.receiveRequest(ctx, tx, e)
	case nowhere:
		return nil
	}
	return s.enqueue(ctx, tx, e.TargetURI.Host(), e)
}

func (s *Service) addSent(ctx context.Context, tx *sqldb.Tx, scope mimi.ConsentScope) error {
	n, err := countRequests(ctx, tx, `sent = 1 AND requester = ?`, scope.RequesterURI.String())
	if err != nil {
		return err
	}
	if n >= maxSent {
		return problem.New(http.StatusTooManyRequests, "too-many", "%d requests for consent are open, cancel some", n)
	}
	return addRequest(ctx, tx, sent, scope, micros(s.db))
}

// answer records a grant or revoke of a user of ours, and tells the requester.
func (s *Service) answer(ctx context.Context, tx *sqldb.Tx, e *mimi.ConsentEntry, to destination) error {
	granted := e.Operation == mimi.ConsentGrant
	if err := setWord(ctx, tx, "consent_word", e.ConsentScope, granted, micros(s.db)); err != nil {
		return err
	}
	if err := boundWords(ctx, tx, "consent_word", "target", e.TargetURI); err != nil {
		return err
	}
	if _, err := dropRequest(ctx, tx, received, e.ConsentScope); err != nil {
		return err
	}
	if to == nowhere || !granted && !s.cfg.TellRevocations {
		return nil
	}
	if to == here {
		return s.receiveAnswer(ctx, tx, e)
	}
	return s.enqueue(ctx, tx, e.RequesterURI.Host(), e)
}

// receiveRequest takes a request or cancel that is about a user of ours. What
// goes beyond the bounds, or names no user, vanishes without a word.
func (s *Service) receiveRequest(ctx context.Context, tx *sqldb.Tx, e *mimi.ConsentEntry) error {
	if e.Operation == mimi.ConsentCancel {
		if known, err := dropRequest(ctx, tx, received, e.ConsentScope); err != nil || !known {
			return err
		}
		return s.enqueue(ctx, tx, e.TargetURI.String(), e)
	}
	words, err := readWords(ctx, tx, e.ConsentScope)
	if err != nil || len(words) > 0 && !words.Given(e.ConsentScope) {
		return err // revoked, for this room or for any: the target does not want to be asked again
	}
	if full, err := pendingFull(ctx, tx, e.ConsentScope); err != nil || full {
		return err
	}
	known, err := hasRequest(ctx, tx, received, e.ConsentScope)
	if err != nil || known {
		return err // asked already
	}
	if err := addRequest(ctx, tx, received, e.ConsentScope, micros(s.db)); err != nil {
		return err
	}
	return s.enqueue(ctx, tx, e.TargetURI.String(), e)
}

// receiveAnswer takes a grant or revoke for a user of ours, asked for or not.
func (s *Service) receiveAnswer(ctx context.Context, tx *sqldb.Tx, e *mimi.ConsentEntry) error {
	granted := e.Operation == mimi.ConsentGrant
	if err := setWord(ctx, tx, "consent_told", e.ConsentScope, granted, micros(s.db)); err != nil {
		return err
	}
	if err := boundWords(ctx, tx, "consent_told", "requester", e.RequesterURI); err != nil {
		return err
	}
	if _, err := dropRequest(ctx, tx, sent, e.ConsentScope); err != nil {
		return err
	}
	return s.enqueue(ctx, tx, e.RequesterURI.String(), e)
}

// wake tells Run of new work.
func (s *Service) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}
