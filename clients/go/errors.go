package tokensidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// What to do about a failed call that is not a rejected token. Compare with
// [errors.Is]; [CallError] has the particulars.
var (
	// ErrInvalidRequest: the request is no good. Never retry.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrDenied: this program may not do this here. Never retry.
	ErrDenied = errors.New("denied")
	// ErrRingChanged: another change of the keys won. Look again, then decide.
	ErrRingChanged = errors.New("ring changed")
	// ErrUnavailable: no answer now, because the sidecar is down, stale,
	// overloaded or too slow. It says nothing about the token: do not let the
	// request through, and do not call the token forged.
	ErrUnavailable = errors.New("unavailable")
)

// Reason says why a call did not end well: the names of ErrorReason in the
// contract, where each is explained. A newer sidecar may send others.
type Reason string

// The reasons of the contract.
const (
	ReasonRequestInvalid          Reason = "REQUEST_INVALID"
	ReasonTokenInvalid            Reason = "TOKEN_INVALID"
	ReasonTokenNotYetValid        Reason = "TOKEN_NOT_YET_VALID"
	ReasonTokenExpired            Reason = "TOKEN_EXPIRED"
	ReasonTokenAudienceMismatch   Reason = "TOKEN_AUDIENCE_MISMATCH"
	ReasonTokenRevoked            Reason = "TOKEN_REVOKED"
	ReasonTokenPossessionUnproven Reason = "TOKEN_POSSESSION_UNPROVEN"
	ReasonTokenScopeMissing       Reason = "TOKEN_SCOPE_MISSING"
	ReasonTokenAlreadyConsumed    Reason = "TOKEN_ALREADY_CONSUMED"
	ReasonRefreshReused           Reason = "REFRESH_REUSED"
	ReasonCallerUnidentified      Reason = "CALLER_UNIDENTIFIED"
	ReasonCallerDenied            Reason = "CALLER_DENIED"
	ReasonRingChanged             Reason = "RING_CHANGED"
	ReasonStateStale              Reason = "STATE_STALE"
	ReasonStoreUnavailable        Reason = "STORE_UNAVAILABLE"
	ReasonKMSUnavailable          Reason = "KMS_UNAVAILABLE"
	ReasonAuditUnavailable        Reason = "AUDIT_UNAVAILABLE"
	ReasonSubjectRevoked          Reason = "SUBJECT_REVOKED"
	ReasonOverloaded              Reason = "OVERLOADED"
	ReasonNotImplemented          Reason = "NOT_IMPLEMENTED"
	ReasonInternal                Reason = "INTERNAL"
)

// RejectedError says that the sidecar judged the token, and that it is no good.
// Never retry; answer 401. Find it with [errors.As].
type RejectedError struct {
	// Reason is why; empty if the answer did not say.
	Reason Reason
	// Message is for people. It never quotes the token.
	Message string
	// RequestID finds the call in the sidecar's log.
	RequestID string

	cause error
}

// Error names the reason, and nothing of the token.
func (e *RejectedError) Error() string {
	return text("token rejected", e.Reason, e.Message, e.RequestID)
}

// Unwrap gives the gRPC status, for status.Code and status.FromError.
func (e *RejectedError) Unwrap() error { return e.cause }

// CallError is every other failure of a call. [errors.Is] compares it with
// ErrInvalidRequest, ErrDenied, ErrRingChanged and ErrUnavailable, and with
// [context.Canceled] and [context.DeadlineExceeded].
type CallError struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is why; empty where gRPC and not the sidecar's code answered.
	Reason Reason
	// Message is for people.
	Message string
	// Fields are those at fault in an invalid request, by their names in the contract.
	Fields []Field
	// RetryAfter is how long to wait before the next try; 0: the sidecar did not say.
	RetryAfter time.Duration
	// RequestID finds the call in the sidecar's log, if it got there; empty for
	// a request that this client refused.
	RequestID string

	cause     error
	cancelled bool // by the caller's context, not by the sidecar as it ended
}

// Field is one field of a request that is no good.
type Field struct {
	// Name is the path in the contract, such as "audiences".
	Name string
	// Problem is what is wrong with it.
	Problem string
}

// Error gives the status code, the reason, the message and the request id.
func (e *CallError) Error() string {
	return text(e.Code.String(), e.Reason, e.Message, e.RequestID)
}

func text(what string, reason Reason, message, requestID string) string {
	if reason != "" {
		what += " (" + string(reason) + ")"
	}
	if requestID != "" {
		message += " [request id " + requestID + "]"
	}
	return "tokensidecar: " + what + ": " + message
}

// Unwrap gives the gRPC status, for status.Code and status.FromError.
func (e *CallError) Unwrap() error { return e.cause }

// Is says which kind of failure it is.
func (e *CallError) Is(kind error) bool {
	switch e.Code {
	case codes.InvalidArgument:
		return kind == ErrInvalidRequest
	case codes.PermissionDenied:
		return kind == ErrDenied
	case codes.Aborted:
		return kind == ErrRingChanged
	case codes.Unavailable:
		return kind == ErrUnavailable
	case codes.DeadlineExceeded:
		return kind == ErrUnavailable || kind == context.DeadlineExceeded
	case codes.ResourceExhausted: // without the reason: a message too large, which no later try makes smaller
		return kind == ErrUnavailable && e.Reason == ReasonOverloaded
	case codes.Canceled:
		return kind == context.Canceled && e.cancelled || kind == ErrUnavailable && !e.cancelled
	default:
		return false
	}
}

// refused is an error of the client itself, before anything was sent.
func refused(field, problem string) error {
	message := field + ": " + problem
	return &CallError{
		Code:    codes.InvalidArgument,
		Reason:  ReasonRequestInvalid,
		Message: message,
		Fields:  []Field{{Name: field, Problem: problem}},
		cause:   status.Error(codes.InvalidArgument, message),
	}
}

// broken is an answer that keeps to gRPC and not to the contract.
func broken(problem string) error {
	return &CallError{Code: codes.Internal, Message: problem, cause: status.Error(codes.Internal, problem)}
}

const requestIDKey = "x-request-id"

// convertErrors makes every stub return the errors of this package.
func convertErrors(
	ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	var trailer metadata.MD
	ctx, requestID := withRequestID(ctx)
	err := call(ctx, method, request, reply, connection, append(opts, grpc.Trailer(&trailer))...)
	if err == nil {
		return nil
	}
	answer := status.Convert(err)
	failure := &CallError{Code: answer.Code(), Message: answer.Message(), RequestID: requestID, cause: err, cancelled: ctx.Err() != nil}
	if values := trailer.Get(requestIDKey); len(values) == 1 {
		failure.RequestID = values[0]
	}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "tokensidecar" {
				failure.Reason = Reason(detail.GetReason())
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				failure.Fields = append(failure.Fields, Field{Name: violation.GetField(), Problem: violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return failure.orRejected()
}

// withRequestID names the call in the sidecar's log, also where no answer comes back that would.
func withRequestID(ctx context.Context) (context.Context, string) {
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	if values := outgoing.Get(requestIDKey); len(values) == 1 {
		return ctx, values[0]
	}
	requestID := rand.Text()
	return metadata.AppendToOutgoingContext(ctx, requestIDKey, requestID), requestID
}

// fromItem turns the error of one item of a batch into what a call of its own would have returned.
func fromItem(item *pb.ItemError, requestID string) error {
	code := codes.Code(item.GetCode())
	if code == codes.OK {
		return broken("an item of the batch failed with the code OK")
	}
	failure := &CallError{
		Code: code, Message: item.GetMessage(), RequestID: requestID, cause: status.Error(code, item.GetMessage()),
	}
	if item.GetReason() != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
		failure.Reason = Reason(item.GetReason().String())
	}
	if item.GetField() != "" {
		failure.Fields = []Field{{Name: item.GetField(), Problem: strings.TrimPrefix(item.GetMessage(), item.GetField()+": ")}}
	}
	return failure.orRejected()
}

// orRejected: the contract reserves UNAUTHENTICATED for the token in the request.
func (e *CallError) orRejected() error {
	if e.Code == codes.Unauthenticated {
		return &RejectedError{Reason: e.Reason, Message: e.Message, RequestID: e.RequestID, cause: e.cause}
	}
	return e
}
