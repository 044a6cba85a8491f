package rpc

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/service"
)

type keys struct{ h *handler }

// key is the answer of every call that returns one key.
func (k keys) key(ctx context.Context, key *signer.Key, err error) (*connect.Response[signerv1.Key], error) {
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	return connect.NewResponse(viewKey(caller(ctx), key)), nil
}

func viewKey(c *access.Caller, key *signer.Key) *signerv1.Key {
	out := &signerv1.Key{Name: service.Name(c, key), Purpose: string(key.Purpose), Algorithm: string(key.Algorithm),
		Labels: key.Labels, CreateTime: timestamp(key.CreatedAt)}
	for _, v := range key.Versions {
		if v.State == signer.StateActive {
			out.ActiveVersion = int32(v.Number)
		}
		out.Versions = append(out.Versions, &signerv1.KeyVersion{Number: int32(v.Number), State: string(v.State), Device: v.Device,
			Kid: v.KID, Evidence: v.Evidence.Kind(), CreateTime: timestamp(v.CreatedAt)})
	}
	return out
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (k keys) CreateKey(ctx context.Context, r *connect.Request[signerv1.CreateKeyRequest]) (*connect.Response[signerv1.Key], error) {
	m := r.Msg
	n := signer.NewKey{ID: signer.KeyID(m.GetName()), Device: m.GetDevice(), Labels: m.GetLabels()}
	var err error
	if n.Purpose, err = signer.ParsePurpose(m.GetPurpose()); err == nil && m.GetAlgorithm() != "" {
		n.Algorithm, err = signer.ParseAlgorithm(m.GetAlgorithm())
	}
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	key, err := k.h.c.Service.CreateKey(ctx, caller(ctx), n)
	return k.key(ctx, key, err)
}

func (k keys) ListKeys(ctx context.Context, r *connect.Request[signerv1.ListKeysRequest]) (*connect.Response[signerv1.ListKeysResponse], error) {
	page, more, err := k.h.c.Service.Keys(ctx, caller(ctx), r.Msg.GetPageToken(), int(r.Msg.GetPageSize()))
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	out := &signerv1.ListKeysResponse{}
	for _, key := range page {
		out.Keys = append(out.Keys, viewKey(caller(ctx), key))
	}
	if more {
		out.NextPageToken = out.Keys[len(out.Keys)-1].Name
	}
	return connect.NewResponse(out), nil
}

func (k keys) GetKey(ctx context.Context, r *connect.Request[signerv1.GetKeyRequest]) (*connect.Response[signerv1.Key], error) {
	key, err := k.h.c.Service.Key(ctx, caller(ctx), r.Msg.GetName())
	return k.key(ctx, key, err)
}

func (k keys) RotateKey(ctx context.Context, r *connect.Request[signerv1.RotateKeyRequest]) (*connect.Response[signerv1.Key], error) {
	key, err := k.h.c.Service.RotateKey(ctx, caller(ctx), r.Msg.GetName(), r.Msg.GetDevice())
	return k.key(ctx, key, err)
}

func (k keys) DisableKey(ctx context.Context, r *connect.Request[signerv1.DisableKeyRequest]) (*connect.Response[signerv1.Key], error) {
	key, err := k.h.c.Service.DisableKey(ctx, caller(ctx), r.Msg.GetName(), r.Msg.GetReason())
	return k.key(ctx, key, err)
}

func (k keys) DestroyKeyVersion(ctx context.Context, r *connect.Request[signerv1.DestroyKeyVersionRequest]) (*connect.Response[signerv1.Key], error) {
	key, err := k.h.c.Service.DestroyKeyVersion(ctx, caller(ctx), r.Msg.GetName(), int(r.Msg.GetVersion()))
	return k.key(ctx, key, err)
}

func (k keys) AttestKeyVersion(ctx context.Context, r *connect.Request[signerv1.AttestKeyVersionRequest]) (*connect.Response[signerv1.AttestKeyVersionResponse], error) {
	e, err := k.h.c.Service.AttestKeyVersion(ctx, caller(ctx), r.Msg.GetName(), int(r.Msg.GetVersion()), r.Msg.GetNonce())
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	b, err := json.Marshal(e)
	return answer(ctx, k.h, &signerv1.AttestKeyVersionResponse{Kind: e.Kind(), Evidence: string(b), Weaknesses: e.Weaknesses()}, err)
}

func (k keys) GetPublicKey(ctx context.Context, r *connect.Request[signerv1.GetPublicKeyRequest]) (*connect.Response[signerv1.PublicKey], error) {
	key, v, err := k.h.c.Service.KeyVersion(ctx, caller(ctx), r.Msg.GetName(), int(r.Msg.GetVersion()))
	if err == nil && len(v.Public) == 0 {
		err = fmt.Errorf("%w: key %s has no public key", signer.ErrUsage, r.Msg.GetName())
	}
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	out, err := publicKey(key, v)
	if err != nil {
		return nil, k.h.fail(ctx, err)
	}
	out.Name = fmt.Sprintf("keys/%s/versions/%d", r.Msg.GetName(), v.Number)
	return connect.NewResponse(out), nil
}

func publicKey(key *signer.Key, v *signer.Version) (*signerv1.PublicKey, error) {
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	jwk, err := signer.JWK(pub)
	if err != nil {
		return nil, err
	}
	out := &signerv1.PublicKey{Algorithm: string(key.Algorithm), Kid: v.KID, Jwk: string(jose.AppendJSON(nil, jwk)),
		Pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.Public}))}
	if x, ok := pub.(*ecdh.PublicKey); ok {
		out.CoseKey, err = credentials.FormatCOSEAgreementKey(x)
		return out, err
	}
	out.CoseKey, err = credentials.FormatCOSEKey(pub)
	return out, err
}
