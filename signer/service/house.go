package service

import (
	"context"
	"crypto"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	"github.com/privyseal/privyseal/signer/journal"
)

// A HouseSigner signs with a key of the house for the appliance itself, such as
// the certificates of callers and the handshakes of its server. It is journaled
// and guarded like every other; policy and budgets are for callers.
type HouseSigner struct {
	s    *Service
	ctx  context.Context
	key  string
	as   string
	open *found
}

var _ crypto.MessageSigner = (*HouseSigner)(nil)

// HouseSigner returns a signer with a key whose id has no tenant. as names in
// the journal what of the appliance signs, such as "caller-ca".
func (s *Service) HouseSigner(ctx context.Context, id signer.KeyID, purpose signer.Purpose, as string) (*HouseSigner, error) {
	f, err := s.open(ctx, id)
	if err != nil {
		return nil, err
	}
	if f.key.Purpose != purpose || f.signer == nil {
		return nil, fmt.Errorf("%w: key %s has purpose %s, not %s", signer.ErrUsage, id, f.key.Purpose, purpose)
	}
	return &HouseSigner{s: s, ctx: context.WithoutCancel(ctx), key: string(id), as: as, open: f}, nil
}

// Public returns the public key of the version that was active at the look-up.
func (h *HouseSigner) Public() crypto.PublicKey { return h.open.signer.Public() }

// Sign is refused: what is signed is looked into, so that it must be whole.
func (h *HouseSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("%w: key %s signs whole messages; use crypto.SignMessage", signer.ErrUsage, h.key)
}

// SignMessage signs a whole message.
func (h *HouseSigner) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.SignMessageContext(h.ctx, message, opts)
}

// SignMessageContext signs a whole message.
func (h *HouseSigner) SignMessageContext(ctx context.Context, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	r := &run{s: h.s, c: &access.Caller{Name: h.as}, key: h.key, op: journal.OpSign, internal: "house"}
	out, err := r.sign(ctx, &SignRequest{Key: h.key, Version: h.open.v.Number, Input: Octets(message), Format: FormatDER})
	if err != nil {
		return nil, err
	}
	return out.Signature, nil
}
