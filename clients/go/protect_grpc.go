package tokensidecar

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// UnaryInterceptor lets only authorized calls through to a gRPC service; there
// [Caller] has who it is. Everything else it ends with UNAUTHENTICATED, for a
// scope that is missing PERMISSION_DENIED, UNAVAILABLE where nobody can judge
// now, INTERNAL where this program may not or got it wrong.
func (p *Protection[C]) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, serve grpc.UnaryHandler) (any, error) {
		ctx, err := p.authorized(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return serve(ctx, request)
	}
}

// StreamInterceptor is [Protection.UnaryInterceptor] for streams: each is judged
// once, as it begins.
func (p *Protection[C]) StreamInterceptor() grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, serve grpc.StreamHandler) error {
		ctx, err := p.authorized(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return serve(service, authorizedStream{stream, ctx})
	}
}

type authorizedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s authorizedStream) Context() context.Context { return s.ctx }

func (p *Protection[C]) authorized(ctx context.Context, method string) (context.Context, error) {
	caller, err := p.judge(ctx, presented{
		authorization: metadata.ValueFromIncomingContext(ctx, "authorization"),
		proofs:        metadata.ValueFromIncomingContext(ctx, "dpop"),
		method:        "POST",
		path:          method,
	})
	if err != nil {
		return nil, grpcAnswer(err)
	}
	return context.WithValue(ctx, callerKey{}, caller), nil
}

// grpcAnswer tells whoever calls no more than HTTP would.
func grpcAnswer(err error) error {
	var rejected *RejectedError
	switch {
	case errors.Is(err, errNoToken):
		return status.Error(codes.Unauthenticated, "a bearer token is required")
	case errors.Is(err, errMalformed):
		return status.Error(codes.Unauthenticated, "the authorization is malformed")
	case errors.Is(err, errNoGood), errors.Is(err, errUnbound):
		return status.Error(codes.Unauthenticated, "the token is no good")
	case errors.As(err, &rejected) && rejected.Reason == ReasonTokenScopeMissing:
		return status.Error(codes.PermissionDenied, string(rejected.Reason))
	case errors.As(err, &rejected) && rejected.Reason == "":
		return status.Error(codes.Unauthenticated, "the token is no good")
	case errors.As(err, &rejected):
		return status.Error(codes.Unauthenticated, string(rejected.Reason))
	case errors.Is(err, context.Canceled):
		return status.FromContextError(context.Canceled).Err()
	case errors.Is(err, ErrUnavailable):
		return status.Error(codes.Unavailable, "the token cannot be judged now")
	default:
		return status.Error(codes.Internal, "the token cannot be judged")
	}
}
