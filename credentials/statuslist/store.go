package statuslist

import (
	"context"
	"errors"
	"time"
)

// Errors of a Store.
var (
	ErrNoList     = errors.New("statuslist: no such list; create it first")
	ErrListFull   = errors.New("statuslist: every index of the list is in use; create another list")
	ErrNotInUse   = errors.New("statuslist: the index was never handed out")
	ErrFinal      = errors.New("statuslist: a revoked entry stays revoked")
	ErrTooWide    = errors.New("statuslist: the status does not fit the bits of an entry")
	ErrSuperseded = errors.New("statuslist: a newer state of the list is published already")
	ErrNoHistory  = errors.New("statuslist: no list that was valid at that time")
	ErrMismatch   = errors.New("statuslist: the list exists with other bits or another size")
)

// A Snapshot is the state of a list between two changes.
type Snapshot struct {
	Version int64 // counts the changes
	List    *List
}

// A Publication is a list as it was signed, in both formats.
type Publication struct {
	Version  int64
	IssuedAt time.Time
	Expires  time.Time
	JWT, CWT []byte
}

// A Store keeps the lists of an issuer durably. What a method has done when it
// returns nil survives a crash. Its methods may be called concurrently, also by
// several processes.
type Store interface {
	// Create makes a list of size entries, or does nothing if it exists alike.
	Create(ctx context.Context, uri string, bits, size int) error

	// Allocate hands out n indices that were never handed out before, each
	// drawn uniformly from those that are left.
	Allocate(ctx context.Context, uri string, n int) ([]int64, error)

	// SetStatus changes an index that was handed out. Invalid is final.
	SetStatus(ctx context.Context, uri string, index int64, s Status) error

	// Status returns what an index has.
	Status(ctx context.Context, uri string, index int64) (Status, error)

	// Load returns the list as it is now.
	Load(ctx context.Context, uri string) (*Snapshot, error)

	// Publish keeps a publication, unless one of a later version or a later time
	// of issue is there: then ErrSuperseded, or ErrClock if what was issued later
	// says less. If history is false, earlier ones
	// are forgotten.
	Publish(ctx context.Context, uri string, p *Publication, history bool) error

	// Published returns the newest publication, or with a time other than zero
	// the newest that was valid then, or ErrNoHistory.
	Published(ctx context.Context, uri string, at time.Time) (*Publication, error)

	// Lists returns the URIs of all lists.
	Lists(ctx context.Context) ([]string, error)
}
