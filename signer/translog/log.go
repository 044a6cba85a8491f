package translog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/privyseal/privyseal/signer/journal"
)

// Options are the choices of Open. Dir and Signer are required.
type Options struct {
	Dir    string      // of the tiles; made if need be
	Signer note.Signer // its name is the log's origin

	// Interval is how often a checkpoint is made while the log grows; 1 s if
	// zero, 100 ms at least.
	Interval time.Duration
	// Republish is how often a checkpoint is made although the log has not
	// grown, to show that it lives; an hour if zero.
	Republish time.Duration

	// Witnesses is a policy, as for Keys.WithWitnesses, of witnesses whose
	// cosignatures are asked for before a checkpoint is published; nil for
	// none. Without a quorum nothing is published unless WitnessesOptional.
	Witnesses         []byte
	WitnessesOptional bool
	Client            *http.Client // for the witnesses; http.DefaultClient if nil. It follows no redirect

	Log *slog.Logger // nil discards; what Tessera says goes to that of the first Open
}

// ErrBusy is returned when another process feeds the log.
var ErrBusy = errors.New("another process feeds this log")

// ErrDiverged is returned when the log's tree is not that of the journal.
var ErrDiverged = errors.New("the log is not of this journal")

// A Log is open for appending. One process feeds a log at a time.
type Log struct {
	journal *journal.Journal
	dir     string
	origin  string
	log     *slog.Logger

	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	cancel   context.CancelFunc
	lock     *os.File

	mu sync.Mutex // held while entries are being appended
}

// tesseraLog sets where Tessera writes, once for the process: what an earlier log
// of it still runs reads that without a lock.
var tesseraLog sync.Once

// Open opens the log in a directory and compares its end with the journal.
func Open(ctx context.Context, j *journal.Journal, opt Options) (*Log, error) {
	l := &Log{journal: j, dir: opt.Dir, origin: opt.Signer.Name(), log: opt.Log}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	tesseraLog.Do(func() { klog.SetSlogLogger(l.log) })
	if err := l.acquire(); err != nil {
		return nil, fmt.Errorf("transparency log %s: %w", opt.Dir, err)
	}
	if err := l.start(ctx, &opt); err != nil {
		l.lock.Close()
		return nil, fmt.Errorf("transparency log %s: %w", opt.Dir, err)
	}
	if err := l.compareEnd(ctx); err != nil {
		l.Close(ctx)
		return nil, fmt.Errorf("transparency log %s: %w", opt.Dir, err)
	}
	return l, nil
}

// acquire takes a lock that ends with the process.
func (l *Log) acquire() (err error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	l.lock, err = os.OpenFile(filepath.Join(l.dir, ".feeder.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		l.lock.Close()
		return ErrBusy
	}
	return nil
}

// Batches of the appender.
const (
	batchSize    = 1024
	batchAge     = 20 * time.Millisecond
	shutdownTime = 5 * time.Second
)

func (l *Log) start(ctx context.Context, opt *Options) error {
	driver, err := posix.New(ctx, posix.Config{Path: l.dir, HTTPClient: witnessClient(opt.Client)})
	if err != nil {
		return err
	}
	o := tessera.NewAppendOptions().
		WithCheckpointSigner(opt.Signer).
		WithBatching(batchSize, batchAge).
		WithCheckpointInterval(orElse(opt.Interval, time.Second)).
		WithCheckpointRepublishInterval(orElse(opt.Republish, time.Hour)).
		WithShutdownTimeout(shutdownTime)
	if opt.Witnesses != nil {
		group, err := tessera.NewWitnessGroupFromPolicy(opt.Witnesses)
		if err != nil {
			return fmt.Errorf("witness policy: %w", err)
		}
		o = o.WithWitnesses(group, &tessera.WitnessOptions{FailOpen: opt.WitnessesOptional})
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.appender, l.shutdown, l.reader, err = tessera.NewAppender(run, driver, o)
	if err != nil {
		cancel()
		return err
	}
	l.cancel = cancel
	return nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Close waits a little for a checkpoint of what was appended and ends.
func (l *Log) Close(ctx context.Context) error {
	err := l.shutdown(ctx)
	l.cancel()
	return errors.Join(err, l.lock.Close())
}

// compareEnd finds out early that the directory belongs to another journal, or
// that the journal was cut off behind it. Audit compares all of it.
func (l *Log) compareEnd(ctx context.Context) error {
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil || size == 0 {
		return err
	}
	h, err := l.journal.Head(ctx)
	if err != nil {
		return err
	}
	if size > h.Entries {
		return fmt.Errorf("%w: it has %d entries and the journal %d", ErrDiverged, size, h.Entries)
	}
	want, err := l.journal.Leaves(ctx, size-1, 1)
	if err != nil {
		return err
	}
	index := (size - 1) / layout.EntryBundleWidth
	got, err := readLeaves(ctx, l.reader, index, layout.PartialTileSize(0, index, size))
	if err != nil {
		return err
	}
	if len(got) == 0 || string(got[len(got)-1]) != string(want[0].Commitment[:]) {
		return fmt.Errorf("%w: entry %d is another one there", ErrDiverged, size-1)
	}
	return nil
}

// Size returns how many entries the tree has, published or not.
func (l *Log) Size(ctx context.Context) (uint64, error) { return l.reader.IntegratedSize(ctx) }

// Run appends what the journal gets, until ctx ends.
func (l *Log) Run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		n, err := l.Feed(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrDiverged), isTamper(err):
			return err
		case err != nil:
			l.log.WarnContext(ctx, "transparency log does not grow", "error", err)
		case n == batchSize:
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func isTamper(err error) bool {
	var t *journal.TamperError
	return errors.As(err, &t)
}

// Feed appends up to a batch of the entries that the tree does not have, and
// returns how many when they are in the tree, on the disk. Entries that are
// checkpoints of this log wait until there is another entry behind or before
// them: otherwise each checkpoint would be the reason for the next.
func (l *Log) Feed(ctx context.Context) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return 0, err
	}
	leaves, err := l.journal.Leaves(ctx, next, batchSize)
	if err != nil || !l.worth(leaves) {
		return 0, err
	}
	futures := make([]tessera.IndexFuture, len(leaves))
	for i := range leaves {
		futures[i] = l.appender.Add(ctx, tessera.NewEntry(leaves[i].Commitment[:]))
	}
	for i, f := range futures {
		at, err := f()
		if err != nil {
			return 0, err
		}
		if at.Index != next+uint64(i) {
			return 0, fmt.Errorf("%w: entry %d got index %d", ErrDiverged, next+uint64(i), at.Index)
		}
	}
	return len(leaves), nil
}

func (l *Log) worth(leaves []journal.Leaf) bool {
	for i := range leaves {
		if leaves[i].Checkpoint != l.origin {
			return true
		}
	}
	return len(leaves) == batchSize
}
