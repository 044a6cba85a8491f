package hsm

import (
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// An index holds the handles of one login: searching on the token is a linear
// scan in most modules, so it happens at login and not at each signature.
type index struct {
	mu     sync.RWMutex // guards the maps
	keys   map[objectName][]pkcs11.ObjectHandle
	byID   map[string][]objectName
	public map[string][]pkcs11.ObjectHandle
	info   map[pkcs11.ObjectHandle]KeyInfo
	handle map[Fingerprint]pkcs11.ObjectHandle
	gone   map[Fingerprint]time.Time
}

// gonePause is how long a key that was looked for in vain is not looked for.
const gonePause = time.Second

func newIndex(size int) *index {
	return &index{
		keys:   make(map[objectName][]pkcs11.ObjectHandle, size/2),
		byID:   make(map[string][]objectName, size/2),
		public: make(map[string][]pkcs11.ObjectHandle, size/2),
		info:   make(map[pkcs11.ObjectHandle]KeyInfo),
		handle: make(map[Fingerprint]pkcs11.ObjectHandle),
		gone:   make(map[Fingerprint]time.Time),
	}
}

func (x *index) add(n objectName, h pkcs11.ObjectHandle) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if slices.Contains(x.keys[n], h) {
		return
	}
	if len(x.keys[n]) == 0 {
		x.byID[n.id] = append(x.byID[n.id], n)
	}
	x.keys[n] = append(x.keys[n], h)
}

func (x *index) addPublic(id string, h pkcs11.ObjectHandle) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Contains(x.public[id], h) {
		x.public[id] = append(x.public[id], h)
	}
}

func (x *index) publics(id string) []pkcs11.ObjectHandle {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Clone(x.public[id])
}

// A located object is a handle with its name.
type located struct {
	name   objectName
	handle pkcs11.ObjectHandle
}

// match lists the keys that fit the URI, in no order.
func (x *index) match(u URI) []located {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []located
	if len(u.ID) > 0 {
		for _, n := range x.byID[string(u.ID)] {
			found = x.appendMatch(found, u, n)
		}
		return found
	}
	for n := range x.keys {
		found = x.appendMatch(found, u, n)
	}
	return found
}

func (x *index) appendMatch(found []located, u URI, n objectName) []located {
	if !u.MatchesKey(KeyInfo{Class: n.class, ID: []byte(n.id), Label: n.label}) {
		return found
	}
	for _, h := range x.keys[n] {
		found = append(found, located{n, h})
	}
	return found
}

// empty reports whether the token showed no key.
func (x *index) empty() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.keys) == 0
}

// some gives one of the keys, with its CKA_CLASS.
func (x *index) some() (h pkcs11.ObjectHandle, class uint, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for n, handles := range x.keys {
		class = pkcs11.CKO_PRIVATE_KEY
		if n.class == ClassSecret {
			class = pkcs11.CKO_SECRET_KEY
		}
		return handles[0], class, true
	}
	return 0, 0, false
}

// known is the set of all handles.
func (x *index) known() map[pkcs11.ObjectHandle]bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known := make(map[pkcs11.ObjectHandle]bool, len(x.keys)+len(x.public))
	for _, handles := range x.keys {
		for _, h := range handles {
			known[h] = true
		}
	}
	for _, handles := range x.public {
		for _, h := range handles {
			known[h] = true
		}
	}
	return known
}

// size counts the private and secret keys.
func (x *index) size() (n int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, handles := range x.keys {
		n += len(handles)
	}
	return n
}

func (x *index) described(h pkcs11.ObjectHandle) (KeyInfo, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	info, ok := x.info[h]
	return info, ok
}

func (x *index) setDescribed(h pkcs11.ObjectHandle, info KeyInfo) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.info[h] = info
	x.handle[info.Fingerprint] = h
	delete(x.gone, info.Fingerprint)
}

func (x *index) lookup(f Fingerprint) (pkcs11.ObjectHandle, bool) {
	x.mu.RLock()
	h, ok := x.handle[f]
	x.mu.RUnlock()
	return h, ok
}

// forget drops a handle that the module does not know any more, with the
// public handles of the same id.
func (x *index) forget(k *KeyInfo) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := objectName{k.Class, string(k.ID), k.Label}
	for _, h := range x.keys[n] {
		delete(x.info, h)
	}
	x.dropName(n)
	delete(x.public, n.id)
	delete(x.handle, k.Fingerprint)
}

// forgetHandle drops a handle, private or public, that may name another object
// from now on.
func (x *index) forgetHandle(h pkcs11.ObjectHandle) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if info, ok := x.info[h]; ok {
		delete(x.info, h)
		delete(x.handle, info.Fingerprint)
	}
	for n, handles := range x.keys {
		if i := slices.Index(handles, h); i >= 0 {
			if x.keys[n] = slices.Delete(slices.Clone(handles), i, i+1); len(x.keys[n]) == 0 {
				x.dropName(n)
			}
		}
	}
	for id, handles := range x.public {
		if i := slices.Index(handles, h); i >= 0 {
			if x.public[id] = slices.Delete(slices.Clone(handles), i, i+1); len(x.public[id]) == 0 {
				delete(x.public, id)
			}
		}
	}
}

// reuse forgets what was described under a handle that the module has given to
// a new object.
func (x *index) reuse(h pkcs11.ObjectHandle) {
	if _, ok := x.described(h); ok {
		x.forgetHandle(h)
	}
}

// dropName forgets a name. The caller holds mu.
func (x *index) dropName(n objectName) {
	delete(x.keys, n)
	x.byID[n.id] = slices.DeleteFunc(x.byID[n.id], func(other objectName) bool { return other == n })
	if len(x.byID[n.id]) == 0 {
		delete(x.byID, n.id)
	}
}

// setGone remembers that the key was looked for in vain just now.
func (x *index) setGone(f Fingerprint) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone[f] = time.Now()
}

func (x *index) isGone(f Fingerprint) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	at, ok := x.gone[f]
	return ok && time.Since(at) < gonePause
}

// replace takes over what a new search of the whole token found, and keeps what
// is known about the objects that are still there.
func (x *index) replace(now *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys, x.byID, x.public = now.keys, now.byID, now.public
	there := make(map[pkcs11.ObjectHandle]bool, len(x.info))
	for _, handles := range x.keys {
		for _, h := range handles {
			there[h] = true
		}
	}
	for h, info := range x.info {
		if !there[h] {
			delete(x.info, h)
			delete(x.handle, info.Fingerprint)
		}
	}
}
