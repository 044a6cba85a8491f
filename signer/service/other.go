package service

import (
	"context"
	"crypto/ecdh"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/journal"
)

// A MACRequest asks for HMAC-SHA256 with a frank-mac key.
type MACRequest struct {
	Key            string
	Data           []byte
	Checksum       *uint32
	IdempotencyKey string
}

// MAC computes a MAC.
func (s *Service) MAC(ctx context.Context, c *access.Caller, in *MACRequest) (mac []byte, name string, err error) {
	r := &run{s: s, c: c, key: in.Key, op: journal.OpMAC, idempotency: in.IdempotencyKey, checksum: in.Checksum}
	return r.alone(ctx, in.plain())
}

func (in *MACRequest) plain() *plain {
	return &plain{use: access.UseMAC, want: signer.UseMAC, input: in.Data, most: MaxMACInput,
		work: func(ctx context.Context, f *found) ([]byte, string, error) { return f.mac.Tag(ctx, in.Data) }}
}

// An AgreeRequest asks for an ECDH shared secret with an mls-init key.
type AgreeRequest struct {
	Key       string
	PublicKey []byte // uncompressed point, or 32 octets of X25519
	Checksum  *uint32
}

// Agree computes a shared secret.
func (s *Service) Agree(ctx context.Context, c *access.Caller, in *AgreeRequest) (secret []byte, name string, err error) {
	r := &run{s: s, c: c, key: in.Key, op: journal.OpAgree, checksum: in.Checksum}
	return r.alone(ctx, in.plain())
}

func (in *AgreeRequest) plain() *plain {
	return &plain{use: access.UseAgree, want: signer.UseAgree, input: in.PublicKey, most: maxPublicKey,
		work: func(ctx context.Context, f *found) ([]byte, string, error) {
			remote, err := f.agree.Curve().NewPublicKey(in.PublicKey)
			if err != nil {
				return nil, "", fmt.Errorf("%w: not a public key for %s", signer.ErrUsage, f.key.Algorithm)
			}
			return f.agree.Agree(ctx, remote)
		}}
}

const maxPublicKey = 256

var _ ecdh.KeyExchanger = (*signer.KeyExchanger)(nil)

// plain is a request that has no shape: its octets are input only.
type plain struct {
	use   access.Use
	want  signer.Use
	input []byte
	most  int // octets of input
	work  func(context.Context, *found) (result []byte, device string, err error)
}

func (p *plain) check(sum *uint32) error {
	if len(p.input) == 0 || len(p.input) > p.most {
		return fmt.Errorf("%w: an input of %d octets; it has 1 to %d", signer.ErrUsage, len(p.input), p.most)
	}
	if sum != nil && Checksum(p.input) != *sum {
		return ErrChecksum
	}
	return nil
}

// alone is the way of a plain request that is not in a batch.
func (r *run) alone(ctx context.Context, p *plain) (result []byte, name string, err error) {
	begin := r.s.c.Now()
	result, err = r.plain(ctx, p)
	r.done(ctx, begin, err)
	if err != nil {
		return nil, "", err
	}
	return result, r.name(), nil
}

func (r *run) plain(ctx context.Context, p *plain) ([]byte, error) {
	if err := p.check(r.checksum); err != nil {
		return nil, err
	}
	leave, err := r.admit(ctx, p.use, p.want, 0)
	if err != nil {
		return nil, err
	}
	defer leave()
	rule, err := r.decidePlain(ctx, len(p.input))
	if err != nil {
		r.refused(ctx, nil, &Input{parts: [][]byte{p.input}}, err)
		return nil, err
	}
	intent := r.intent(rule)
	intent.Input = p.input
	result, _, err := r.journaled(ctx, intent, func(ctx context.Context) ([]byte, string, error) { return p.work(ctx, r.found) })
	return result, err
}

func (r *run) decidePlain(ctx context.Context, size int) (rule string, err error) {
	err = r.s.stage(ctx, StagePolicy, func(context.Context) error {
		in := r.policyInput()
		in.Request.Size = int64(size)
		rule, err = r.s.Policy().Decide(in)
		return err
	})
	return rule, err
}

// A FrankRequest asks for the frank of a MIMI message.
type FrankRequest struct {
	MACKey, SignKey   string
	FrankingTag       []byte
	CipherSuite       uint16 // of the room's group
	SenderURI         string
	RoomURI           string
	AcceptedTimestamp uint64 // milliseconds since the Unix epoch
	IdempotencyKey    string
}

// A Frank is a MAC and a signature over the same context.
type Frank struct {
	ServerFrank        []byte // HMAC-SHA256
	IntegritySignature []byte // in the form of MLS: DER for ECDSA
	MACName, SignName  string
}

const (
	frankingTagSize = 32
	maxURI          = 2048
	frankLabel      = "FrankingIntegrityTBS"
)

// Frank makes a frank: the MAC of franking_tag || context, and the signature of
// server_frank || cipher suite || context (draft-ietf-mimi-protocol, franking). It
// is a batch of its own: the journal completes both in one step.
func (s *Service) Frank(ctx context.Context, c *access.Caller, in *FrankRequest) (*Frank, error) {
	out, err := s.BatchAll(ctx, c, []Item{{Frank: in}})
	if err != nil {
		return nil, err
	}
	return out[0].Frank, out[0].Err
}

func (in *FrankRequest) check() error {
	if len(in.FrankingTag) != frankingTagSize || len(in.SenderURI) > maxURI || len(in.RoomURI) > maxURI || in.SenderURI == "" || in.RoomURI == "" {
		return fmt.Errorf("%w: a franking tag has %d octets, and the URIs have 1 to %d", signer.ErrUsage, frankingTagSize, maxURI)
	}
	if len(in.IdempotencyKey) > MaxIdempotency-2 {
		return fmt.Errorf("%w: an idempotency key has up to %d octets here", signer.ErrUsage, MaxIdempotency-2)
	}
	return nil
}

// mac is the first of the two operations, and sign the second.
func (in *FrankRequest) mac() *MACRequest {
	b := new(tlsvec.Builder)
	b.Raw(in.FrankingTag)
	in.appendContext(b)
	return &MACRequest{Key: in.MACKey, Data: b.Bytes(), IdempotencyKey: in.part("m")}
}

func (in *FrankRequest) sign(mac []byte) *SignRequest {
	return &SignRequest{Key: in.SignKey, Input: MLS([]byte(frankLabel), in.tbs(mac)), Format: FormatDER, IdempotencyKey: in.part("s")}
}

func (in *FrankRequest) tbs(mac []byte) []byte {
	b := new(tlsvec.Builder)
	b.Raw(mac)
	b.Uint16(in.CipherSuite)
	in.appendContext(b)
	return b.Bytes()
}

func (in *FrankRequest) appendContext(b *tlsvec.Builder) {
	b.String(in.SenderURI)
	b.String(in.RoomURI)
	b.Uint64(in.AcceptedTimestamp)
}

// part is the idempotency key of one of the two operations.
func (in *FrankRequest) part(p string) string {
	if in.IdempotencyKey == "" {
		return ""
	}
	return p + ":" + in.IdempotencyKey
}

// ReportRejected lets a key sign another Commit for an epoch, because the
// delivery service refused the first.
func (s *Service) ReportRejected(ctx context.Context, c *access.Caller, key string, group []byte, epoch uint64, digest []byte, reason string) error {
	f, err := s.use(ctx, c, key, access.UseSign, signer.UseSign)
	if err != nil {
		return err
	}
	if err := s.budget.Take(s.c.Now(), c.Tenant, c.Name, key, 1); err != nil {
		return err
	}
	return s.c.Journal.ReportRejected(ctx, journal.Rejection{Tenant: c.Tenant, Caller: c.Name, Key: f.key.ID, Group: group,
		Epoch: epoch, Digest: digest, Reason: reason, PolicyVersion: s.Policy().Version()})
}
