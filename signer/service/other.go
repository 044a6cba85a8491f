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
	begin := s.c.Now()
	r := &run{s: s, c: c, key: in.Key, op: journal.OpMAC, idempotency: in.IdempotencyKey, checksum: in.Checksum}
	mac, err = r.plain(ctx, access.UseMAC, signer.UseMAC, in.Data, MaxMACInput, func(ctx context.Context) ([]byte, string, error) {
		return r.found.mac.Tag(ctx, in.Data)
	})
	r.done(ctx, begin, err)
	if err != nil {
		return nil, "", err
	}
	return mac, r.name(), nil
}

// An AgreeRequest asks for an ECDH shared secret with an mls-init key.
type AgreeRequest struct {
	Key       string
	PublicKey []byte // uncompressed point, or 32 octets of X25519
	Checksum  *uint32
}

// Agree computes a shared secret.
func (s *Service) Agree(ctx context.Context, c *access.Caller, in *AgreeRequest) (secret []byte, name string, err error) {
	begin := s.c.Now()
	r := &run{s: s, c: c, key: in.Key, op: journal.OpAgree, checksum: in.Checksum}
	secret, err = r.plain(ctx, access.UseAgree, signer.UseAgree, in.PublicKey, maxPublicKey, func(ctx context.Context) ([]byte, string, error) {
		remote, err := r.found.agree.Curve().NewPublicKey(in.PublicKey)
		if err != nil {
			return nil, "", fmt.Errorf("%w: not a public key for %s", signer.ErrUsage, r.found.key.Algorithm)
		}
		return r.found.agree.Agree(ctx, remote)
	})
	r.done(ctx, begin, err)
	if err != nil {
		return nil, "", err
	}
	return secret, r.name(), nil
}

const maxPublicKey = 256

var _ ecdh.KeyExchanger = (*signer.KeyExchanger)(nil)

// plain is the way of a request that has no shape: its octets are input only.
func (r *run) plain(ctx context.Context, use access.Use, want signer.Use, input []byte, most int, work work) ([]byte, error) {
	if len(input) == 0 || len(input) > most {
		return nil, fmt.Errorf("%w: an input of %d octets; it has 1 to %d", signer.ErrUsage, len(input), most)
	}
	if r.checksum != nil && Checksum(input) != *r.checksum {
		return nil, ErrChecksum
	}
	leave, err := r.admit(ctx, use, want, 0)
	if err != nil {
		return nil, err
	}
	defer leave()
	rule, err := r.decidePlain(ctx, len(input))
	if err != nil {
		r.refused(ctx, nil, &Input{parts: [][]byte{input}}, err)
		return nil, err
	}
	intent := r.intent(rule)
	intent.Input = input
	result, _, err := r.journaled(ctx, intent, work)
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
// server_frank || cipher suite || context (draft-ietf-mimi-protocol, franking).
func (s *Service) Frank(ctx context.Context, c *access.Caller, in *FrankRequest) (*Frank, error) {
	if len(in.FrankingTag) != frankingTagSize || len(in.SenderURI) > maxURI || len(in.RoomURI) > maxURI || in.SenderURI == "" || in.RoomURI == "" {
		return nil, fmt.Errorf("%w: a franking tag has %d octets, and the URIs have 1 to %d", signer.ErrUsage, frankingTagSize, maxURI)
	}
	if len(in.IdempotencyKey) > MaxIdempotency-2 {
		return nil, fmt.Errorf("%w: an idempotency key has up to %d octets here", signer.ErrUsage, MaxIdempotency-2)
	}
	b := new(tlsvec.Builder)
	b.Raw(in.FrankingTag)
	in.appendContext(b)
	mac, macName, err := s.MAC(ctx, c, &MACRequest{Key: in.MACKey, Data: b.Bytes(), IdempotencyKey: in.part("m")})
	if err != nil {
		return nil, err
	}
	signed, err := s.Sign(ctx, c, &SignRequest{Key: in.SignKey, Input: MLS([]byte(frankLabel), in.tbs(mac)), Format: FormatDER, IdempotencyKey: in.part("s")})
	if err != nil {
		return nil, err
	}
	return &Frank{ServerFrank: mac, IntegritySignature: signed.Signature, MACName: macName, SignName: signed.Name}, nil
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
