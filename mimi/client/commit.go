package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// An intent is what a commit is to do. It is made anew for each epoch in which
// it is tried.
type intent struct {
	proposals []mls.Proposal
	leaf      *mls.LeafChange
}

// A Committed is a commit of this client that the hub accepted.
type Committed struct {
	Epoch    uint64 // that the commit began
	Accepted uint64 // timestamp in milliseconds
	Tries    int
}

// A RefusedError says that the hub did not accept a commit, proposal or
// message, for a reason that trying again does not change.
type RefusedError struct {
	Code        mimi.UpdateResponseCode
	Description string // of the hub; not to be trusted
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("client: the hub refuses it (code %d): %q", e.Code, e.Description)
}

// ErrUnknownOutcome is returned for a commit or message of which it is not
// known if the hub accepted it. Sync or Resume will find out.
var ErrUnknownOutcome = errors.New("client: it is not known if the hub accepted it")

// Bounds of trying a commit again that others overtook.
const (
	maxCommitTries = 400
	maxJitter      = time.Second
	maxBackOff     = 10 * time.Second
	minSlot        = 10 * time.Millisecond
	maxDoublings   = 6
)

// commit makes a commit and has the hub accept it. As long as others are
// faster, it takes theirs in and makes its own anew, after it has stood back for a
// random time.
// build may return nil: then there is nothing to do any more.
func (r *Room) commit(ctx context.Context, build func(context.Context) (*intent, error)) (*Committed, error) {
	for try := 1; try <= maxCommitTries; try++ {
		if err := r.keepUp(ctx); err != nil {
			return nil, err
		}
		begun := time.Now()
		done, epoch, err := r.tryCommit(ctx, build)
		if err != nil || done != nil {
			if done != nil {
				done.Tries = try
			}
			return done, err
		}
		if err := r.catchUp(ctx, epoch); err != nil {
			return nil, err
		}
		if err := r.standBack(ctx, backOff(try, time.Since(begun))); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("client: %s: others committed first, %d times", r.uri, maxCommitTries)
}

// maxAhead is how many epochs a room begins by its own commits before it asks
// for events. What is left of pastEpochs is for events that come late.
const maxAhead = pastEpochs / 2

// keepUp takes in the events that wait, if the room has begun so many epochs
// since it last did so that the next could make messages unreadable.
func (r *Room) keepUp(ctx context.Context) error {
	epoch, err := r.epoch(ctx)
	if err != nil {
		return err
	}
	if asked := r.asked.Load(); asked <= epoch && epoch < asked+maxAhead {
		return nil
	}
	if err := r.c.poll(ctx, 0); err != nil {
		return err
	}
	r.asked.Store(epoch)
	return nil
}

// backOff is how long to stand back at most after a try, which took so long and was
// overtaken: as many times that as there may be others who try, of whom each try
// that fails lets expect twice as many.
func backOff(try int, took time.Duration) time.Duration {
	return min(max(took, minSlot)<<min(try, maxDoublings), maxBackOff)
}

// standBack lets others commit for a random time, and takes in what they do: that has
// to be done before the next try anyway. When nobody has committed for a quarter of
// the longest time, it waits no more.
func (r *Room) standBack(ctx context.Context, most time.Duration) error {
	last, err := r.epoch(ctx)
	quiet := 0
	for end := time.Now().Add(rand.N(most)); err == nil && quiet < 2; {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if err := wait(ctx, min(max(most/8, minSlot), left)); err != nil {
			return err
		}
		var now uint64
		if now, err = r.news(ctx); now == last {
			quiet++
		} else {
			last, quiet = now, 0
		}
	}
	return err
}

// news takes in the events that wait, and returns the epoch after them.
func (r *Room) news(ctx context.Context) (uint64, error) {
	if err := r.c.poll(ctx, 0); err != nil {
		return 0, err
	}
	return r.epoch(ctx)
}

// jitter is the pause after a try.
func jitter(try int) time.Duration {
	return rand.N(min(10*time.Millisecond<<min(try, 10), maxJitter))
}

// tryCommit tries once. It returns neither a result nor an error if the commit
// was overtaken; the room is then in epoch at least.
func (r *Room) tryCommit(ctx context.Context, build func(context.Context) (*intent, error)) (*Committed, uint64, error) {
	if err := r.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return nil, 0, err
	}
	if r.status == RoomLeaving {
		return nil, 0, ErrLeaving
	}
	if r.group.Pending() != nil { // left by a crash, or by an answer that was lost
		if _, epoch, err := r.settle(ctx); err != nil || epoch > 0 {
			return nil, epoch, err
		}
	}
	if r.signed != nil {
		if err := r.reportRejected(ctx, "discarded"); err != nil {
			return nil, 0, err
		}
		if err := r.load(ctx); err != nil {
			return nil, 0, err
		}
	}
	ctx = acting(ctx)
	do, err := build(ctx)
	if err != nil {
		return nil, 0, err
	}
	if do == nil {
		return &Committed{Epoch: r.group.Epoch()}, 0, nil
	}
	if err := r.prepare(ctx, do); err != nil {
		return nil, 0, err
	}
	return r.settle(ctx)
}

// prepare makes the pending commit, judges it as all others will, and stores
// it before anybody sees it.
func (r *Room) prepare(ctx context.Context, do *intent) error {
	ctx, signed := noting(ctx)
	err := r.step(ctx, func(ctx context.Context, u *unit) error {
		epoch := r.group.Epoch()
		p, err := r.group.Commit(ctx, mls.CommitOptions{
			Proposals: do.proposals, Leaf: do.leaf, WireFormat: r.wireFormat(), GroupInfo: &mls.GroupInfoOptions{ExternalPub: true},
		})
		r.noteSigned(ctx, u, signed, epoch)
		if err != nil {
			return err
		}
		r.setPending(ctx, u, true)
		_, err = r.judge(ctx, p.Staged)
		return err
	})
	if err != nil && r.signed != nil { // nobody has seen it
		return errors.Join(err, r.reportRejected(ctx, "not sent"))
	}
	return err
}

// wireFormat is that of the room's commits.
func (r *Room) wireFormat() mls.WireFormat {
	gc := r.group.Context()
	if room.SemiPrivate(gc.Extensions) {
		return mls.WireSemiPrivateMessage
	}
	return mls.WirePublicMessage
}

// judge has package policy judge a commit.
func (r *Room) judge(ctx context.Context, s *mls.StagedCommit) (*policy.Effect, error) {
	action, err := room.Action(ctx, s, r.c.verdicts.in(r.uri))
	if err != nil {
		return nil, err
	}
	if room.Extends(s) {
		gc := s.Context()
		if err := room.Check(gc.Extensions); err != nil {
			return nil, err
		}
	}
	return policy.Authorize(r.state, action)
}

// settle sends the pending commit and does what the answer says. It returns
// the epoch to be reached first if the commit was overtaken.
func (r *Room) settle(ctx context.Context) (*Committed, uint64, error) {
	p := r.group.Pending()
	body, err := bundle(p)
	if err != nil {
		return nil, 0, err
	}
	answer, err := ask(ctx, r.c.provider, http.MethodPost, clientapi.UpdatePath(r.uri), body, mimi.ParseUpdateRoomResponse)
	switch {
	case err != nil && unknown(err):
		return nil, 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case err != nil:
		return nil, 0, errors.Join(err, r.discard(ctx), r.reportRejected(ctx, "refused"))
	}
	switch answer.ResponseCode {
	case mimi.UpdateSuccess:
		epoch := p.Staged.Epoch()
		return &Committed{Epoch: epoch, Accepted: answer.AcceptedTimestamp}, 0, r.merge(ctx, p.Staged, answer.AcceptedTimestamp)
	case mimi.UpdateWrongEpoch:
		return nil, max(answer.CurrentEpoch, 1), r.discard(ctx)
	case mimi.UpdateNotAllowed:
		if answer.ErrorDescription == mimi.PendingProposals {
			return nil, max(r.group.Epoch(), 1), errors.Join(r.discard(ctx), r.reportRejected(ctx, mimi.PendingProposals))
		}
	}
	refused := &RefusedError{answer.ResponseCode, answer.ErrorDescription}
	return nil, 0, errors.Join(refused, r.discard(ctx), r.reportRejected(ctx, fmt.Sprintf("refused with code %d", answer.ResponseCode)))
}

// bundle is the update request for a pending commit. The hub keeps the tree
// and gives it to newcomers, so it does not travel.
func bundle(p *mls.PendingCommit) ([]byte, error) {
	b, err := handshake(p.Message, p.GroupInfo)
	if err != nil {
		return nil, err
	}
	if p.Welcome != nil {
		if b.Welcome, err = mls.ParseWelcome(p.Welcome); err != nil {
			return nil, err
		}
	}
	return b.Marshal(), nil
}

// handshake bundles a commit, or an external commit, with the GroupInfo after
// it, which goes without its tree.
func handshake(message, groupInfo []byte) (*mimi.HandshakeBundle, error) {
	commit, err := mimi.ParseMLSMessage(message)
	if err != nil {
		return nil, err
	}
	info, err := mls.ParseGroupInfo(groupInfo)
	if err != nil {
		return nil, err
	}
	partial, err := info.Partial()
	if err != nil {
		return nil, err
	}
	return &mimi.HandshakeBundle{ProposalOrCommit: commit, GroupInfo: mimi.GroupInfoOption{Partial: partial}}, nil
}

func (r *Room) discard(ctx context.Context) error {
	return r.step(ctx, func(ctx context.Context, u *unit) error {
		r.setPending(ctx, u, false)
		return r.group.DiscardPending(ctx)
	})
}

// setPending is the step that stores if there is a pending commit.
func (r *Room) setPending(ctx context.Context, u *unit, pending bool) {
	uri, n := r.uri.String(), 0
	if pending {
		n = 1
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE room SET pending = ? WHERE uri = ?`, n, uri)
		return err
	})
}

// merge enters the epoch of a commit, this client's or another's.
func (r *Room) merge(ctx context.Context, s *mls.StagedCommit, accepted uint64) error {
	return r.step(ctx, func(ctx context.Context, u *unit) error { return r.mergeInto(ctx, u, s, accepted) })
}

func (r *Room) mergeInto(ctx context.Context, u *unit, s *mls.StagedCommit, accepted uint64) error {
	effect, err := r.judge(ctx, s)
	if err != nil {
		return err
	}
	r.keepPast(ctx, u, s)
	if r.group.Pending() != nil {
		r.setPending(ctx, u, false)
	}
	if err := r.group.Merge(ctx, s); err != nil {
		return err
	}
	r.advance(ctx, u, accepted)
	if r.signed != nil { // it took effect, or another did in its epoch
		r.signed = nil
		r.storeSigned(ctx, u)
	}
	if s.SelfRemoved() {
		r.setStatus(ctx, u, RoomLeft, fmt.Sprintf("removed in epoch %d", s.Epoch()))
		r.drop()
		return nil
	}
	if err := r.state.Apply(effect); err != nil {
		return err
	}
	return r.pinNew(ctx, u, s)
}

// pinNew remembers the keys of those who came in.
func (r *Room) pinNew(ctx context.Context, u *unit, s *mls.StagedCommit) error {
	leaves := []*mls.LeafNode{s.Committer().New}
	for _, m := range s.Added() {
		leaves = append(leaves, m.Node)
	}
	return r.c.pin(ctx, u, r.uri, leaves...)
}

// advance is the step that stores how far the room has come.
func (r *Room) advance(ctx context.Context, u *unit, accepted uint64) {
	if accepted <= r.newest {
		return
	}
	r.newest = accepted
	uri := r.uri.String()
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE room SET newest = max(newest, ?) WHERE uri = ?`, int64(accepted), uri)
		return err
	})
}

// How long a room waits for the events that lead to an epoch which the hub
// says is there.
const catchUpTime = 30 * time.Second

// catchUp takes in events until the room is in an epoch.
func (r *Room) catchUp(ctx context.Context, epoch uint64) error {
	deadline := r.c.now().Add(catchUpTime)
	for {
		if err := r.c.poll(ctx, 0); err != nil {
			return err
		}
		at, err := r.epoch(ctx)
		if err != nil || at >= epoch {
			return err
		}
		if r.c.now().After(deadline) {
			return fmt.Errorf("client: %s: the hub is in epoch %d, and the events stop at %d", r.uri, epoch, at)
		}
		if err := r.c.poll(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (r *Room) epoch(ctx context.Context) (uint64, error) {
	if err := r.lock(ctx); err != nil {
		return 0, err
	}
	defer r.mu.Unlock()
	if err := r.load(ctx); err != nil {
		return 0, err
	}
	return r.group.Epoch(), nil
}

// isPending reports whether a message is the pending commit of this client.
func (r *Room) isPending(raw []byte) bool {
	p := r.group.Pending()
	return p != nil && bytes.Equal(p.Message, raw)
}
