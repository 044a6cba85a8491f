package rpc

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer"
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
	in, err := signRequest(r.Msg)
	if err != nil {
		return nil, s.h.fail(ctx, err)
	}
	out, err := s.h.c.Service.Sign(ctx, caller(ctx), in)
	if err != nil {
		return nil, s.h.fail(ctx, err)
	}
	return connect.NewResponse(signed(out)), nil
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

func (s signing) BatchSign(ctx context.Context, r *connect.Request[signerv1.BatchSignRequest]) (*connect.Response[signerv1.BatchSignResponse], error) {
	if n := len(r.Msg.GetRequests()); n > service.MaxBatch {
		return nil, s.h.fail(ctx, fmt.Errorf("%w: a batch of %d requests; it has 1 to %d", signer.ErrUsage, n, service.MaxBatch))
	}
	var in []*service.SignRequest
	for _, m := range r.Msg.GetRequests() {
		one, err := signRequest(m)
		if err != nil {
			one = &service.SignRequest{Key: m.GetKey()} // fails alone, as a request without input
		}
		in = append(in, one)
	}
	results, err := s.h.c.Service.Batch(ctx, caller(ctx), in)
	if err != nil {
		return nil, s.h.fail(ctx, err)
	}
	out := &signerv1.BatchSignResponse{}
	for _, r := range results {
		out.Results = append(out.Results, s.result(ctx, r))
	}
	return connect.NewResponse(out), nil
}

func (s signing) result(ctx context.Context, r service.Result) *signerv1.BatchSignResult {
	if r.Err == nil {
		return &signerv1.BatchSignResult{Result: &signerv1.BatchSignResult_Signed{Signed: signed(r.Signed)}}
	}
	e := service.Explain(r.Err)
	s.h.log(ctx, e, r.Err)
	return &signerv1.BatchSignResult{Result: &signerv1.BatchSignResult_Failure{Failure: &signerv1.Failure{
		Code: codes[e.Reason].String(), Reason: string(e.Reason), Action: string(e.Action), Message: e.Message,
		RetryAfterMs: e.RetryAfter.Milliseconds(), Metadata: e.Metadata,
	}}}
}

func (s signing) Frank(ctx context.Context, r *connect.Request[signerv1.FrankRequest]) (*connect.Response[signerv1.FrankResponse], error) {
	m := r.Msg
	if m.GetCipherSuite() > 0xffff {
		return nil, s.h.fail(ctx, fmt.Errorf("%w: cipher suite %d", signer.ErrUsage, m.GetCipherSuite()))
	}
	f, err := s.h.c.Service.Frank(ctx, caller(ctx), &service.FrankRequest{
		MACKey: m.GetMacKey(), SignKey: m.GetSignKey(), FrankingTag: m.GetFrankingTag(), CipherSuite: uint16(m.GetCipherSuite()),
		SenderURI: m.GetSenderUri(), RoomURI: m.GetRoomUri(), AcceptedTimestamp: m.GetAcceptedTimestamp(), IdempotencyKey: m.GetIdempotencyKey(),
	})
	if err != nil {
		return nil, s.h.fail(ctx, err)
	}
	return connect.NewResponse(&signerv1.FrankResponse{ServerFrank: f.ServerFrank, IntegritySignature: f.IntegritySignature,
		ServerFrankCrc32C: service.Checksum(f.ServerFrank), IntegritySignatureCrc32C: service.Checksum(f.IntegritySignature),
		MacName: f.MACName, SignName: f.SignName}), nil
}

func (s signing) Mac(ctx context.Context, r *connect.Request[signerv1.MacRequest]) (*connect.Response[signerv1.MacResponse], error) {
	mac, name, err := s.h.c.Service.MAC(ctx, caller(ctx), &service.MACRequest{Key: r.Msg.GetKey(), Data: r.Msg.GetData(),
		Checksum: r.Msg.DataCrc32C, IdempotencyKey: r.Msg.GetIdempotencyKey()})
	return answer(ctx, s.h, &signerv1.MacResponse{Mac: mac, MacCrc32C: service.Checksum(mac), Name: name}, err)
}

func (s signing) Agree(ctx context.Context, r *connect.Request[signerv1.AgreeRequest]) (*connect.Response[signerv1.AgreeResponse], error) {
	secret, name, err := s.h.c.Service.Agree(ctx, caller(ctx), &service.AgreeRequest{Key: r.Msg.GetKey(),
		PublicKey: r.Msg.GetPublicKey(), Checksum: r.Msg.PublicKeyCrc32C})
	return answer(ctx, s.h, &signerv1.AgreeResponse{SharedSecret: secret, SharedSecretCrc32C: service.Checksum(secret), Name: name}, err)
}

func (s signing) ReportRejected(ctx context.Context, r *connect.Request[signerv1.ReportRejectedRequest]) (*connect.Response[signerv1.ReportRejectedResponse], error) {
	m := r.Msg
	err := s.h.c.Service.ReportRejected(ctx, caller(ctx), m.GetKey(), m.GetGroup(), m.GetEpoch(), m.GetDigest(), m.GetReason())
	return answer(ctx, s.h, &signerv1.ReportRejectedResponse{}, err)
}
