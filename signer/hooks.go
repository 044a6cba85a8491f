package signer

import (
	"context"
	"time"
)

// Hooks are told what a Keyring does, for logs, metrics and traces. A nil hook
// tells nobody. They are called on the path of requests and must be quick.
type Hooks struct {
	// Call begins a call of a device. The context that it returns is the
	// call's; the function is told how the call ended.
	Call func(ctx context.Context, c DeviceCall) (context.Context, func(error))
	// Failover says that a request goes on to another device.
	Failover func(id KeyID, from, to string, err error)
	// Away and Back say that a device is left out, and taken in again.
	Away func(device string, err error)
	Back func(device string, after time.Duration)
	// SelfTest says how a self-test went.
	SelfTest func(r SelfTestResult)
}

// A DeviceCall is one call of a device on behalf of a key.
type DeviceCall struct {
	Key       KeyID
	Algorithm Algorithm
	Device    string
	Op        string // "sign", "mac" or "ecdh"
	SelfTest  bool
}

// SetHooks installs the hooks. It is called before the Keyring is used.
func (k *Keyring) SetHooks(h Hooks) { k.hooks = h }

func (h *Hooks) call(ctx context.Context, c DeviceCall) (context.Context, func(error)) {
	if h.Call == nil {
		return ctx, func(error) {}
	}
	return h.Call(ctx, c)
}

func (h *Hooks) failover(id KeyID, from, to string, err error) {
	if h.Failover != nil {
		h.Failover(id, from, to, err)
	}
}

func (h *Hooks) away(device string, err error) {
	if h.Away != nil {
		h.Away(device, err)
	}
}

func (h *Hooks) back(device string, after time.Duration) {
	if h.Back != nil {
		h.Back(device, after)
	}
}

func (h *Hooks) selfTest(r SelfTestResult) {
	if h.SelfTest != nil {
		h.SelfTest(r)
	}
}
