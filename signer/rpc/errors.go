package rpc

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/privyseal/privyseal/signer/service"
)

// Domain is that of google.rpc.ErrorInfo.
const Domain = "privyseal"

// ActionKey is the member of ErrorInfo's metadata that says what to do.
const ActionKey = "action"

// codes are Connect's code for each reason.
var codes = map[service.Reason]connect.Code{
	service.BadRequest:      connect.CodeInvalidArgument,
	service.BadChecksum:     connect.CodeInvalidArgument,
	service.Unauthenticated: connect.CodeUnauthenticated,
	service.RoleRequired:    connect.CodePermissionDenied,
	service.NotFound:        connect.CodeNotFound,
	service.AlreadyExists:   connect.CodeAlreadyExists,
	service.PurposeDenied:   connect.CodePermissionDenied,
	service.PolicyDenied:    connect.CodePermissionDenied,
	service.GuardDenied:     connect.CodeFailedPrecondition,
	service.KeyState:        connect.CodeFailedPrecondition,
	service.KeyReused:       connect.CodeInvalidArgument,
	service.InFlight:        connect.CodeAborted,
	service.Overloaded:      connect.CodeResourceExhausted,
	service.DeviceRetry:     connect.CodeUnavailable,
	service.DeviceOperator:  connect.CodeFailedPrecondition,
	service.DeviceSuspect:   connect.CodeFailedPrecondition,
	service.JournalDown:     connect.CodeUnavailable,
	service.StoreDown:       connect.CodeUnavailable,
	service.Cancelled:       connect.CodeCanceled,
	service.DeadlinePassed:  connect.CodeDeadlineExceeded,
	service.Internal:        connect.CodeInternal,
}

// fail turns an error into Connect's, with what to do, and logs those that are
// ours to look at.
func (h *handler) fail(ctx context.Context, err error) error {
	if own, ok := errors.AsType[*connect.Error](err); ok {
		return own
	}
	e := service.Explain(err)
	h.log(ctx, e, err)
	out := connect.NewError(codes[e.Reason], errors.New(e.Message))
	metadata := map[string]string{ActionKey: string(e.Action)}
	for k, v := range e.Metadata {
		metadata[k] = v
	}
	add(out, &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: Domain, Metadata: metadata})
	if e.Action == service.Retry {
		add(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
		if e.RetryAfter > 0 {
			out.Meta().Set("Retry-After", seconds(e.RetryAfter))
		}
	}
	return out
}

// seconds rounds up, as Retry-After has whole ones.
func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

func add(to *connect.Error, m proto.Message) {
	if d, err := connect.NewErrorDetail(m); err == nil {
		to.AddDetail(d)
	}
}

func (h *handler) log(ctx context.Context, e *service.Explanation, err error) {
	switch e.Reason {
	case service.Internal, service.StoreDown, service.JournalDown:
		h.c.Log.ErrorContext(ctx, "a request failed", "reason", e.Reason, "error", err)
	case service.DeviceOperator, service.DeviceSuspect:
		h.c.Log.ErrorContext(ctx, "a device failed", "reason", e.Reason, "error", err)
	case service.DeviceRetry:
		h.c.Log.WarnContext(ctx, "a device was away", "error", err)
	default:
		h.c.Log.DebugContext(ctx, "a request was refused", "reason", e.Reason, "error", err)
	}
}
