package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/admit"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/policy"
)

// A SignatureFormat is how an ECDSA signature is encoded.
type SignatureFormat int

// The formats.
const (
	FormatNatural SignatureFormat = iota // r || s for JWS and COSE, DER otherwise
	FormatDER
	FormatRaw
)

// A SignRequest asks for one signature.
type SignRequest struct {
	Key            string
	Version        int // that must be the active one; 0 for whichever is
	Input          Input
	Checksum       *uint32 // CRC32C of the input's octets, or nil
	IdempotencyKey string
	Format         SignatureFormat
}

// A Signed is a signature that was verified and journaled.
type Signed struct {
	Signature   []byte
	Name        string // keys/NAME/versions/N
	KID         string
	Checked     bool  // the request had a checksum
	Replayed    bool  // recorded for an earlier request with the idempotency key
	Reservation int64 // number in the journal; 0 if replayed
}

// Sign signs one request. For the errors see Explain.
func (s *Service) Sign(ctx context.Context, c *access.Caller, in *SignRequest) (*Signed, error) {
	begin := s.c.Now()
	r := &run{s: s, c: c, key: in.Key, op: journal.OpSign, idempotency: in.IdempotencyKey}
	out, err := r.sign(ctx, in)
	r.done(ctx, begin, err)
	return out, err
}

// A run is one request on its way.
type run struct {
	s           *Service
	c           *access.Caller
	key         string
	op          journal.Operation
	idempotency string
	checksum    *uint32
	internal    string // the rule of a request of the service's own, which no policy decides

	found *found
	gate  *admit.Gate // that it came in by; nil for the house
	since time.Time   // when it did
}

func (r *run) done(ctx context.Context, begin time.Time, err error) {
	hook := r.s.c.Hooks.Done
	if hook == nil {
		return
	}
	d := Done{Tenant: r.c.Tenant, Key: r.key, Operation: r.op, Took: r.s.c.Now().Sub(begin)}
	if r.found != nil {
		d.Algorithm = r.found.key.Algorithm
	}
	if err != nil {
		e := Explain(err)
		d.Reason, d.Rule = e.Reason, e.Metadata["rule"]
	}
	hook(ctx, d)
}

// stage runs f as a stage.
func (s *Service) stage(ctx context.Context, stage Stage, f func(context.Context) error) error {
	hook := s.c.Hooks.Stage
	if hook == nil {
		return f(ctx)
	}
	ctx, end := hook(ctx, stage)
	err := f(ctx)
	end(err)
	return err
}

func (r *run) sign(ctx context.Context, in *SignRequest) (*Signed, error) {
	if err := in.Input.check(in.Checksum); err != nil {
		return nil, err
	}
	r.checksum = in.Checksum
	out, err := r.signOnce(ctx, in)
	if r.rotated(in, err) {
		out, err = r.signOnce(ctx, in)
	}
	return out, err
}

// rotated reports whether the key was rotated by somebody else since we looked,
// and has it looked up again.
func (r *run) rotated(in *SignRequest, err error) bool {
	if !errors.Is(err, signer.ErrKeyState) || in.Version != 0 {
		return false
	}
	r.s.forget(keyID(r.c.Tenant, in.Key))
	return true
}

func (r *run) signOnce(ctx context.Context, in *SignRequest) (*Signed, error) {
	leave, err := r.admit(ctx, in.use(), signer.UseSign, in.Version)
	if err != nil {
		return nil, err
	}
	defer leave()
	req, rule, err := r.judge(ctx, in)
	if err != nil {
		r.refused(ctx, req, &in.Input, err)
		return nil, err
	}
	return r.signParsed(ctx, in, req, rule)
}

// use is what the caller needs a grant for.
func (in *SignRequest) use() access.Use {
	if in.Input.raw() {
		return access.UseRaw
	}
	return access.UseSign
}

// judge parses the input and has policy decide.
func (r *run) judge(ctx context.Context, in *SignRequest) (req *signer.Request, rule string, err error) {
	err = r.s.stage(ctx, StagePolicy, func(context.Context) (err error) {
		if req, err = in.Input.parse(); err == nil {
			rule, err = r.decide(req)
		}
		return err
	})
	return req, rule, err
}

// admit finds the key, takes from the budgets and waits for a turn.
func (r *run) admit(ctx context.Context, use access.Use, want signer.Use, version int) (leave func(), err error) {
	err = r.s.stage(ctx, StageAdmit, func(ctx context.Context) error {
		if err := r.take(ctx, use, want, version); err != nil {
			return err
		}
		if r.internal != "" { // the house does not wait
			leave = func() {}
			return nil
		}
		r.gate = r.s.gate(r.found.v.Device)
		leave, err = r.gate.Enter(ctx, r.c.Tenant, r.c.Name)
		r.since = time.Now()
		return err
	})
	return leave, err
}

// take finds the key and takes from the budgets.
func (r *run) take(ctx context.Context, use access.Use, want signer.Use, version int) (err error) {
	if len(r.idempotency) > MaxIdempotency {
		return fmt.Errorf("%w: an idempotency key has up to %d octets", signer.ErrUsage, MaxIdempotency)
	}
	if r.found, err = r.find(ctx, use, want); err != nil {
		return err
	}
	if version != 0 && version != r.found.v.Number {
		return fmt.Errorf("%w: version %d of key %s is not the active one, which is %d", signer.ErrKeyState, version, r.key, r.found.v.Number)
	}
	if r.internal != "" { // the house does not pay
		return nil
	}
	return r.s.budget.Take(r.s.c.Now(), r.c.Tenant, r.c.Name, r.key, 1)
}

func (r *run) find(ctx context.Context, use access.Use, want signer.Use) (*found, error) {
	if r.internal != "" {
		return r.s.open(ctx, keyID(r.c.Tenant, r.key))
	}
	return r.s.use(ctx, r.c, r.key, use, want)
}

// decide asks the purpose of the key and the policy.
func (r *run) decide(req *signer.Request) (rule string, err error) {
	if err := r.found.signer.Check(req); err != nil {
		return "", err
	}
	if r.internal != "" {
		return r.internal, nil
	}
	in := r.policyInput()
	if err := in.Describe(req); err != nil {
		return "", fmt.Errorf("%w: %w", signer.ErrUsage, err)
	}
	return r.s.Policy().Decide(in)
}

func (r *run) policyInput() *policy.Input {
	k := r.found.key
	return &policy.Input{
		Request: policy.Request{Operation: string(r.op)}, Now: r.s.c.Now().UTC(),
		Caller: policy.Caller{Tenant: r.c.Tenant, Name: r.c.Name, Role: string(r.c.Role)},
		Key: policy.Key{Name: r.key, Purpose: string(k.Purpose), Algorithm: string(k.Algorithm),
			Version: int64(r.found.v.Number), Device: r.found.v.Device, Labels: k.Labels},
	}
}

// intent is what the journal is told before the device works.
func (r *run) intent(rule string) journal.Intent {
	in := journal.Intent{
		Tenant: r.c.Tenant, Caller: r.c.Name, Key: r.found.key.ID, Version: r.found.v.Number, Purpose: r.found.key.Purpose,
		Operation: r.op, Rule: rule, PolicyVersion: r.s.Policy().Version(), IdempotencyKey: r.idempotency,
	}
	if r.checksum != nil {
		in.RequestChecksum = fmt.Sprintf("crc32c:%08x", *r.checksum)
	}
	return in
}

// refused writes what policy or purpose refused to the journal, as far as there
// is room: nothing was signed, so that it is no condition of anything.
func (r *run) refused(ctx context.Context, req *signer.Request, in *Input, why error) {
	if !r.s.refuse.AllowN(r.s.c.Now(), 1) {
		return
	}
	entry := r.intent("")
	entry.Operation, entry.Request, entry.IdempotencyKey = journal.OpRefuse, req, ""
	e := Explain(why)
	entry.Rule = e.Metadata["rule"]
	if req == nil && in != nil {
		for _, p := range in.parts {
			entry.Input = append(entry.Input, p...)
		}
	}
	entry.Summary = summary(req)
	// That it could not be written is the hook's to tell.
	_ = r.s.stage(context.WithoutCancel(ctx), StageRefuse, func(ctx context.Context) error {
		return r.s.c.Journal.Record(ctx, entry, string(e.Reason))
	})
}

func (r *run) signParsed(ctx context.Context, in *SignRequest, req *signer.Request, rule string) (*Signed, error) {
	sig, reservation, err := r.journaled(ctx, r.signIntent(req, rule), func(ctx context.Context) ([]byte, string, error) {
		sig, err := r.found.signer.Issue(ctx, req)
		if err != nil {
			return nil, "", err
		}
		return sig.Octets, sig.Device, nil
	})
	if err != nil {
		return nil, err
	}
	return r.signed(in, sig, reservation)
}

func (r *run) signIntent(req *signer.Request, rule string) journal.Intent {
	intent := r.intent(rule)
	intent.Request, intent.Summary = req, summary(req)
	return intent
}

// signed is the answer with a signature in DER; reservation is 0 for a replay.
func (r *run) signed(in *SignRequest, sig []byte, reservation int64) (*Signed, error) {
	out := &Signed{Signature: sig, Name: r.name(), KID: r.found.v.KID, Checked: in.Checksum != nil,
		Replayed: reservation == 0, Reservation: reservation}
	format := in.Format
	if format == FormatNatural {
		format = in.Input.natural()
	}
	var err error
	if format == FormatRaw {
		out.Signature, err = r.found.key.Algorithm.Scheme().RawSignature(sig)
	}
	return out, err
}

func (r *run) name() string { return fmt.Sprintf("keys/%s/versions/%d", r.key, r.found.v.Number) }

// work has a device do what was asked, and says which one did.
type work func(context.Context) (result []byte, device string, err error)

// journaled reserves, has the device work, completes, and returns what may be
// released, with the number of the reservation; 0 for a replay.
func (r *run) journaled(ctx context.Context, intent journal.Intent, work work) ([]byte, int64, error) {
	var res *journal.Reservation
	err := r.s.stage(ctx, StageReserve, func(ctx context.Context) (err error) {
		res, err = r.s.c.Journal.Reserve(ctx, intent)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if o := res.Replay(); o != nil {
		return o.Signature, 0, nil
	}
	var result []byte
	var device string
	workErr := r.s.stage(ctx, StageDevice, func(ctx context.Context) (err error) {
		result, device, err = work(ctx)
		return err
	})
	outcome := r.outcome(intent.Operation, result, device, workErr)
	err = r.s.complete(ctx, func(ctx context.Context) error { return res.Complete(ctx, outcome) })
	if again, ok := errors.AsType[*journal.RepeatedError](err); ok && workErr == nil {
		return again.Outcome.Signature, 0, nil
	}
	if err := errors.Join(workErr, err); err != nil {
		return nil, 0, err
	}
	if r.gate != nil {
		r.gate.Served(time.Since(r.since))
	}
	return result, res.Number(), nil
}

// completeTime bounds the journal's second step, which happens even where the
// caller has gone: the signature exists.
const completeTime = 10 * time.Second

// complete runs the journal's second step.
func (s *Service) complete(ctx context.Context, f func(context.Context) error) error {
	return s.stage(ctx, StageComplete, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), completeTime)
		defer cancel()
		return f(ctx)
	})
}

// outcome says what became of a reservation. Only where it is certain that no
// device worked is it NotSigned.
func (r *run) outcome(op journal.Operation, result []byte, device string, err error) journal.Outcome {
	o := journal.Outcome{Result: journal.Signed, Device: r.worked(device, err)}
	switch {
	case err == nil:
		if op != journal.OpAgree { // whose result is secret
			o.Signature = result
		}
		return o
	case errors.Is(err, signer.ErrKeyState), errors.Is(err, signer.ErrNoKey), errors.Is(err, signer.ErrUsage):
		o.Result = journal.NotSigned
	default:
		o.Result = journal.Unknown
	}
	o.ErrorClass = string(Explain(err).Reason)
	return o
}

// worked returns the device that did the work, or that failed last. A version
// may be in several, and its own is the one meant where none was asked.
func (r *run) worked(device string, err error) string {
	if device != "" {
		return device
	}
	if d, ok := errors.AsType[*signer.DeviceError](err); ok {
		return d.Device
	}
	return r.found.v.Device
}

// summary is what the journal keeps of the parsed fields.
func summary(req *signer.Request) json.RawMessage {
	if req == nil {
		return nil
	}
	v := summarise(req)
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil || len(b) > journal.MaxSummary {
		return nil // the entry still has shape, type, digest and claims
	}
	return b
}
