package hsm

import "context"

// A TraceFunc begins a call of a module: function is C_Sign, C_DeriveKey,
// C_GenerateKeyPair, C_FindObjects, C_DestroyObject or C_GetTokenInfo, whatever
// else the driver calls on the way. The context that it returns is the call's;
// the function is told how the call ended. It is called by many goroutines at
// once and must be quick.
type TraceFunc func(ctx context.Context, function string) (context.Context, func(error))

// A tracedToken tells a TraceFunc about each call, in this process also where
// the module is in workers.
type tracedToken struct {
	tokenBackend
	trace TraceFunc
}

// traced puts the configuration's trace around a token.
func (c Config) traced(b tokenBackend) tokenBackend {
	if c.Trace == nil {
		return b
	}
	return tracedToken{b, c.Trace}
}

// function is the name of what an operation comes down to.
func (op operation) function() string {
	if op == opDerive {
		return "C_DeriveKey"
	}
	return "C_Sign"
}

func (t tracedToken) operate(ctx context.Context, op operation, k *KeyInfo, in []byte) (out []byte, err error) {
	ctx, end := t.trace(ctx, op.function())
	out, err = t.tokenBackend.operate(ctx, op, k, in)
	end(err)
	return out, err
}

func (t tracedToken) generate(ctx context.Context, spec KeySpec) (k KeyInfo, err error) {
	ctx, end := t.trace(ctx, "C_GenerateKeyPair")
	k, err = t.tokenBackend.generate(ctx, spec)
	end(err)
	return k, err
}

func (t tracedToken) find(ctx context.Context, u URI) (found []KeyInfo, err error) {
	ctx, end := t.trace(ctx, "C_FindObjects")
	found, err = t.tokenBackend.find(ctx, u)
	end(err)
	return found, err
}

func (t tracedToken) destroy(ctx context.Context, k *KeyInfo) error {
	ctx, end := t.trace(ctx, "C_DestroyObject")
	err := t.tokenBackend.destroy(ctx, k)
	end(err)
	return err
}

func (t tracedToken) health(ctx context.Context) (h Health, err error) {
	ctx, end := t.trace(ctx, "C_GetTokenInfo")
	h, err = t.tokenBackend.health(ctx)
	end(err)
	return h, err
}
