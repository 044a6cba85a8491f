package tpm

import (
	"bytes"
	"context"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// An object is a key that can be in the TPM: made anew by its template,
// loaded from its wrapped blob, or there for good under a persistent handle.
type object struct {
	public *tpm2.TPMTPublic
	name   tpm2.TPM2BName

	persistent tpm2.TPMHandle // 0 if the object is not persistent

	private []byte  // TPM2B_PRIVATE without its size, for a child
	parent  *object // the parent of a child

	hierarchy tpm2.TPMHandle // for a primary object
	template  *tpm2.TPMTPublic
}

func (o *object) isPersistent() bool { return o.persistent != 0 }
func (o *object) isPrimary() bool    { return o.template != nil }

// slots shares the transient slots of a TPM among any number of objects.
//
// A persistent object takes a slot too, for as long as a command uses it (Part
// 1, 37.3).
//
// An object that makes room for another is saved once with TPM2_ContextSave
// and comes back with TPM2_ContextLoad, which needs no parent and no
// authorization (Part 1, 30). The storage root key is treated like any other.
type slots struct {
	a        *attachment
	quota    *quota // of slots, so that callers never hold more than there are
	capacity int

	mu       sync.Mutex // guards the rest, and is held while the TPM loads and evicts
	loaded   map[*object]*slot
	reserved int                // slots promised to commands that make an object of their own
	clock    uint64             // counts uses, for the order of eviction
	contexts map[*object][]byte // a TPMS_CONTEXT each
}

// A slot is an object in the TPM.
type slot struct {
	object *object
	handle tpm2.TPMHandle
	pins   int    // commands that are using it
	used   uint64 // when it was last used
}

// A lease keeps objects loaded until it is released.
type lease struct {
	s        *slots
	objects  []*object
	handles  []tpm2.NamedHandle
	slots    []*slot
	reserved int
	units    int
}

func newSlots(a *attachment, capacity int) *slots {
	return &slots{
		a:        a,
		quota:    newQuota(capacity),
		capacity: capacity,
		loaded:   make(map[*object]*slot),
		contexts: make(map[*object][]byte),
	}
}

// lease loads the objects, keeps extra slots empty for what the command itself
// makes, and waits for its turn no longer than ctx.
func (s *slots) lease(ctx context.Context, extra int, objects ...*object) (*lease, error) {
	l := &lease{s: s, objects: objects, units: extra + s.need(objects)}
	if err := s.quota.acquire(ctx, l.units); err != nil {
		return nil, s.a.waitError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		if err := s.pin(l, o); err != nil {
			l.releaseLocked()
			return nil, err
		}
	}
	if err := s.reserve(l, extra); err != nil {
		l.releaseLocked()
		return nil, err
	}
	return l, nil
}

// need counts the slots that the objects will take, one more when a parent has
// to come in to load them.
func (s *slots) need(objects []*object) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, parents := 0, 0
	for _, o := range objects {
		n++
		if s.needsParent(o) {
			parents = 1
		}
	}
	return n + parents
}

func (s *slots) needsParent(o *object) bool {
	if o.parent == nil || s.loaded[o] != nil {
		return false
	}
	_, saved := s.contexts[o]
	return !saved
}

// pin makes sure that the object is in the TPM and stays there. The caller
// holds mu.
func (s *slots) pin(l *lease, o *object) error {
	if o.isPersistent() {
		l.handles = append(l.handles, tpm2.NamedHandle{Handle: o.persistent, Name: o.name})
		return s.reserve(l, 1)
	}
	sl, err := s.bring(o)
	if err != nil {
		return err
	}
	sl.pins++
	l.slots = append(l.slots, sl)
	l.handles = append(l.handles, tpm2.NamedHandle{Handle: sl.handle, Name: o.name})
	return nil
}

// bring returns the object's slot, loading it if need be.
func (s *slots) bring(o *object) (*slot, error) {
	s.clock++
	if sl := s.loaded[o]; sl != nil {
		sl.used = s.clock
		return sl, nil
	}
	handle, err := s.load(o)
	if err != nil {
		return nil, err
	}
	for _, other := range s.loaded {
		if other.handle == handle {
			return nil, s.a.malformed("", "handle %#x twice", uint32(handle))
		}
	}
	sl := &slot{object: o, handle: handle, used: s.clock}
	s.loaded[o] = sl
	return sl, nil
}

func (s *slots) load(o *object) (tpm2.TPMHandle, error) {
	if saved, ok := s.contexts[o]; ok {
		return s.loadContext(saved)
	}
	if o.isPrimary() {
		if err := s.makeRoom(); err != nil {
			return 0, err
		}
		return s.a.createPrimary(o)
	}
	return s.loadChild(o)
}

// loadContext brings a saved object back (Part 3, 28.3). The answer is its
// handle and nothing else.
func (s *slots) loadContext(saved []byte) (tpm2.TPMHandle, error) {
	if err := s.makeRoom(); err != nil {
		return 0, err
	}
	body, err := s.a.request(tpm2.TPMCCContextLoad, saved)
	if err != nil {
		return 0, contextError(err)
	}
	var handle uint32
	if !body.ReadUint32(&handle) || !body.Empty() {
		return 0, s.a.malformed("TPM2_ContextLoad", "an answer that is no handle")
	}
	return s.a.transient("TPM2_ContextLoad", tpm2.TPMHandle(handle))
}

func (s *slots) loadChild(o *object) (tpm2.TPMHandle, error) {
	parent := tpm2.AuthHandle{Handle: o.parent.persistent, Name: o.parent.name, Auth: tpm2.PasswordAuth(nil)}
	if o.parent.isPersistent() {
		if err := s.makeRoom(); err != nil {
			return 0, err
		}
		s.reserved++
		defer func() { s.reserved-- }()
	} else {
		sl, err := s.bring(o.parent)
		if err != nil {
			return 0, err
		}
		sl.pins++
		defer func() { sl.pins-- }()
		parent.Handle = sl.handle
	}
	if err := s.makeRoom(); err != nil {
		return 0, err
	}
	rsp, err := run(s.a, tpm2.Load{
		ParentHandle: parent,
		InPrivate:    tpm2.TPM2BPrivate{Buffer: o.private},
		InPublic:     tpm2.New2B(*o.public),
	})
	if err != nil {
		return 0, loadError(err)
	}
	if !bytes.Equal(rsp.Name.Buffer, o.name.Buffer) {
		return 0, s.a.malformed("TPM2_Load", "another name than that of the key")
	}
	return s.a.transient("TPM2_Load", rsp.ObjectHandle)
}

// reserve keeps n slots empty for the lease. The caller holds mu.
func (s *slots) reserve(l *lease, n int) error {
	for range n {
		if err := s.makeRoom(); err != nil {
			return err
		}
		s.reserved++
		l.reserved++
	}
	return nil
}

// makeRoom evicts the object that was used longest ago, if all slots are
// taken. The quota guarantees that one of them is not pinned.
func (s *slots) makeRoom() error {
	for len(s.loaded)+s.reserved >= s.capacity {
		victim := s.oldest()
		if victim == nil {
			return s.a.malformed("", "all %d slots are in use", s.capacity)
		}
		if err := s.evict(victim); err != nil {
			return err
		}
	}
	return nil
}

func (s *slots) oldest() *slot {
	var oldest *slot
	for _, sl := range s.loaded {
		if sl.pins == 0 && (oldest == nil || sl.used < oldest.used) {
			oldest = sl
		}
	}
	return oldest
}

func (s *slots) evict(sl *slot) error {
	if _, saved := s.contexts[sl.object]; !saved {
		rsp, err := run(s.a, tpm2.ContextSave{SaveHandle: sl.handle})
		if err != nil {
			return err
		}
		s.contexts[sl.object] = tpm2.Marshal(rsp.Context)
	}
	if err := s.a.flush(sl.handle); err != nil {
		return err
	}
	delete(s.loaded, sl.object)
	return nil
}

// forget drops an object that will not be used again and frees its slot. While
// another caller is still using it, it stays until it is evicted.
func (s *slots) forget(o *object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.contexts, o)
	sl := s.loaded[o]
	if sl == nil || sl.pins > 0 {
		return nil
	}
	delete(s.loaded, o)
	return s.a.flush(sl.handle)
}

// handle returns the i-th object's handle with its name.
func (l *lease) handle(i int) tpm2.NamedHandle { return l.handles[i] }

// authHandle returns the i-th object's handle, authorized by a session.
func (l *lease) authHandle(i int, s tpm2.Session) tpm2.AuthHandle {
	h := l.handles[i]
	return tpm2.AuthHandle{Handle: h.Handle, Name: h.Name, Auth: s}
}

func (l *lease) release() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.releaseLocked()
}

func (l *lease) releaseLocked() {
	for _, sl := range l.slots {
		sl.pins--
	}
	l.s.reserved -= l.reserved
	l.s.quota.release(l.units)
}
