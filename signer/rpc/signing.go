package rpc

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/access"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/service"
)

type signing struct{ h *handler }

// answer wraps a result or turns the error.
func answer[T any](ctx context.Context, h *handler, m *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, h.fail(ctx, err)
	}
	return connect.NewResponse(m), nil
}

func (s signing) Sign(ctx context.Context, r *connect.Request[signerv1.SignRequest]) (*connect.Response[signerv1.SignResponse], error) {
	m, err := s.sign(ctx, caller(ctx), r.Msg)
	return answer(ctx, s.h, m, err)
}

func (s signing) sign(ctx context.Context, c *access.Caller, m *signerv1.SignRequest) (*signerv1.SignResponse, error) {
	in, err := signRequest(m)
	if err != nil {
		return nil, err
	}
	out, err := s.h.c.Service.Sign(ctx, c, in)
	if err != nil {
		return nil, err
	}
	return signed(out), nil
}

func signRequest(m *signerv1.SignRequest) (*service.SignRequest, error) {
	r := &service.SignRequest{Key: m.GetKey(), Version: int(m.GetVersion()), Checksum: m.InputCrc32C,
		IdempotencyKey: m.GetIdempotencyKey(), Format: service.SignatureFormat(m.GetFormat())}
	if r.Version < 0 || r.Format < 0 || r.Format > service.FormatRaw {
		return nil, fmt.Errorf("%w: there is no such version or format", signer.ErrUsage)
	}
	switch in := m.GetInput().(type) {
	case *signerv1.SignRequest_Mls:
		r.Input = service.MLS(in.Mls.GetLabel(), in.Mls.GetContent())
	case *signerv1.SignRequest_Jws:
		r.Input = service.JWS(in.Jws.GetHeader(), in.Jws.GetPayload())
	case *signerv1.SignRequest_Cose:
		r.Input = service.COSE(in.Cose.GetProtectedHeader(), in.Cose.GetExternalAad(), in.Cose.GetPayload())
	case *signerv1.SignRequest_Octets:
		r.Input = service.Octets(in.Octets)
	case *signerv1.SignRequest_Digest:
		r.Input = service.Digest(in.Digest.GetHash(), in.Digest.GetDigest())
	}
	return r, nil
}

func signed(s *service.Signed) *signerv1.SignResponse {
	return &signerv1.SignResponse{Signature: s.Signature, SignatureCrc32C: service.Checksum(s.Signature), VerifiedInputCrc32C: s.Checked,
		Name: s.Name, Kid: s.KID, Replayed: s.Replayed, Reservation: s.Reservation}
}

func (s signing) Frank(ctx context.Context, r *connect.Request[signerv1.FrankRequest]) (*connect.Response[signerv1.FrankResponse], error) {
	m, err := s.frank(ctx, caller(ctx), r.Msg)
	return answer(ctx, s.h, m, err)
}

func (s signing) frank(ctx context.Context, c *access.Caller, m *signerv1.FrankRequest) (*signerv1.FrankResponse, error) {
	in, err := frankRequest(m)
	if err != nil {
		return nil, err
	}
	f, err := s.h.c.Service.Frank(ctx, c, in)
	if err != nil {
		return nil, err
	}
	return franked(f), nil
}

func frankRequest(m *signerv1.FrankRequest) (*service.FrankRequest, error) {
	if m.GetCipherSuite() > 0xffff {
		return nil, fmt.Errorf("%w: cipher suite %d", signer.ErrUsage, m.GetCipherSuite())
	}
	return &service.FrankRequest{
		MACKey: m.GetMacKey(), SignKey: m.GetSignKey(), FrankingTag: m.GetFrankingTag(), CipherSuite: uint16(m.GetCipherSuite()),
		SenderURI: m.GetSenderUri(), RoomURI: m.GetRoomUri(), AcceptedTimestamp: m.GetAcceptedTimestamp(), IdempotencyKey: m.GetIdempotencyKey(),
	}, nil
}

func franked(f *service.Frank) *signerv1.FrankResponse {
	return &signerv1.FrankResponse{ServerFrank: f.ServerFrank, IntegritySignature: f.IntegritySignature,
		ServerFrankCrc32C: service.Checksum(f.ServerFrank), IntegritySignatureCrc32C: service.Checksum(f.IntegritySignature),
		MacName: f.MACName, SignName: f.SignName}
}

func (s signing) Mac(ctx context.Context, r *connect.Request[signerv1.MacRequest]) (*connect.Response[signerv1.MacResponse], error) {
	m, err := s.mac(ctx, caller(ctx), r.Msg)
	return answer(ctx, s.h, m, err)
}

func (s signing) mac(ctx context.Context, c *access.Caller, m *signerv1.MacRequest) (*signerv1.MacResponse, error) {
	mac, name, err := s.h.c.Service.MAC(ctx, c, macRequest(m))
	if err != nil {
		return nil, err
	}
	return computed(&service.Made{Octets: mac, Name: name}), nil
}

func macRequest(m *signerv1.MacRequest) *service.MACRequest {
	return &service.MACRequest{Key: m.GetKey(), Data: m.GetData(), Checksum: m.DataCrc32C, IdempotencyKey: m.GetIdempotencyKey()}
}

func computed(m *service.Made) *signerv1.MacResponse {
	return &signerv1.MacResponse{Mac: m.Octets, MacCrc32C: service.Checksum(m.Octets), Name: m.Name}
}

func (s signing) Agree(ctx context.Context, r *connect.Request[signerv1.AgreeRequest]) (*connect.Response[signerv1.AgreeResponse], error) {
	m, err := s.agree(ctx, caller(ctx), r.Msg)
	return answer(ctx, s.h, m, err)
}

func (s signing) agree(ctx context.Context, c *access.Caller, m *signerv1.AgreeRequest) (*signerv1.AgreeResponse, error) {
	secret, name, err := s.h.c.Service.Agree(ctx, c, agreeRequest(m))
	if err != nil {
		return nil, err
	}
	return agreed(&service.Made{Octets: secret, Name: name}), nil
}

func agreeRequest(m *signerv1.AgreeRequest) *service.AgreeRequest {
	return &service.AgreeRequest{Key: m.GetKey(), PublicKey: m.GetPublicKey(), Checksum: m.PublicKeyCrc32C}
}

func agreed(m *service.Made) *signerv1.AgreeResponse {
	return &signerv1.AgreeResponse{SharedSecret: m.Octets, SharedSecretCrc32C: service.Checksum(m.Octets), Name: m.Name}
}

func (s signing) ReportRejected(ctx context.Context, r *connect.Request[signerv1.ReportRejectedRequest]) (*connect.Response[signerv1.ReportRejectedResponse], error) {
	m := r.Msg
	err := s.h.c.Service.ReportRejected(ctx, caller(ctx), m.GetKey(), m.GetGroup(), m.GetEpoch(), m.GetDigest(), m.GetReason())
	return answer(ctx, s.h, &signerv1.ReportRejectedResponse{}, err)
}
