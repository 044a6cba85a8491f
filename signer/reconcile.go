package signer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Finding is a version that a crash or a failure left between two steps.
type Finding struct {
	Key     KeyID     `json:"key"`
	Version int       `json:"version"`
	Device  string    `json:"device"`
	State   State     `json:"state"` // pending, or verify-only with a destruction under way
	Since   time.Time `json:"since"`
	Result  string    `json:"result"` // what was done, or what stands in the way
	Err     error     `json:"-"`
}

// Unsettled lists the versions that are between two steps and have been for
// at least age. A younger one may be the work of a process that is still busy.
func (k *Keyring) Unsettled(ctx context.Context, now time.Time, age time.Duration) ([]Finding, error) {
	var found []Finding
	err := k.unsettled(ctx, now, age, func(key *Key, v *Version) {
		f := finding(key, v)
		f.Result = "the device may have an object of this version"
		if v.Destroying {
			f.Result = "the device may still have the object of this version"
		}
		found = append(found, f)
	})
	return found, err
}

func (k *Keyring) unsettled(ctx context.Context, now time.Time, age time.Duration, f func(*Key, *Version)) error {
	keys, err := k.store.Keys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		for i := range key.Versions {
			v := &key.Versions[i]
			if (v.State == StatePending || v.Destroying) && now.Sub(v.since()) >= age {
				f(key, v)
			}
		}
	}
	return nil
}

// since returns when the unfinished step began.
func (v *Version) since() time.Time {
	if v.Destroying {
		return v.RetiredAt
	}
	return v.CreatedAt
}

func finding(key *Key, v *Version) Finding {
	return Finding{Key: key.ID, Version: v.Number, Device: v.Device, State: v.State, Since: v.since()}
}

// Reconcile settles the versions that Unsettled lists: a pending version whose
// object the device has turns active, one without an object ends destroyed,
// and a destruction is finished. What cannot be settled, as the device is
// away, stays and is reported with its error.
func (k *Keyring) Reconcile(ctx context.Context, now time.Time, age time.Duration) ([]Finding, error) {
	var found []Finding
	err := k.unsettled(ctx, now, age, func(key *Key, v *Version) {
		f := finding(key, v)
		f.Result, f.Err = k.settle(ctx, key, v)
		if f.Err != nil {
			f.Result = f.Err.Error()
		}
		found = append(found, f)
	})
	return found, err
}

// settle does for one version what the process that died did not come to.
func (k *Keyring) settle(ctx context.Context, key *Key, v *Version) (string, error) {
	if v.Destroying {
		return "destroyed", k.finishDestroy(ctx, key, v)
	}
	dev, err := k.device(v.Device)
	if err != nil {
		return "", err
	}
	object, err := dev.Find(ctx, spec(key, v))
	if errors.Is(err, ErrNoObject) {
		return "abandoned: the device never made it", k.store.Abandon(ctx, key.ID, v.Number, "the device never made it")
	}
	if err != nil {
		return "", deviceError(v.Device, "find", err)
	}
	made, err := usable(object, key.Algorithm)
	if err != nil {
		return k.discard(ctx, dev, key, v, object, err)
	}
	return "adopted: the device had made it", k.store.Activate(ctx, key.ID, v.Number, made)
}

// discard destroys an object that is not what was asked for.
func (k *Keyring) discard(ctx context.Context, dev Device, key *Key, v *Version, o *Object, why error) (string, error) {
	if err := dev.Destroy(ctx, o.URI, key.Algorithm); err != nil && !errors.Is(err, ErrNoObject) {
		return "", deviceError(v.Device, "destroy", err)
	}
	result := fmt.Sprintf("destroyed: %v", why)
	return result, k.store.Abandon(ctx, key.ID, v.Number, result)
}
