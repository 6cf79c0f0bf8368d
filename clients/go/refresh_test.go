package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

func TestRefreshTradesATokenForANewPairAlsoAfterALostReply(t *testing.T) {
	var calls atomic.Int32
	var got *pb.RefreshRequest
	until := time.Unix(1_900_000_000, 0).UTC()
	client := (&fake{refresh: func(_ context.Context, r *pb.RefreshRequest) (*pb.RefreshResponse, error) {
		if got = r; calls.Add(1) == 1 {
			return nil, status.Error(codes.Unavailable, "the reply is lost")
		}
		return &pb.RefreshResponse{Tokens: &pb.IssueResponse{
			Token: "access", RefreshToken: "next", RefreshExpireTime: timestamppb.New(until),
		}}, nil
	}}).client(t)
	pair, err := client.Refresh(t.Context(), RefreshRequest{
		RefreshToken: "spent", Audiences: []string{"orders"}, Scopes: []string{"read"},
		Possession: Possession{DPoP: &DPoPProof{Proof: "p", Method: "POST", URL: "https://a/b", Nonce: "n"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if pair.Token != "access" || pair.RefreshToken != "next" || !pair.RefreshExpireTime.Equal(until) || calls.Load() != 2 {
		t.Errorf("%v after %d calls", pair, calls.Load())
	}
	if dpop := got.GetPossession().GetDpop(); got.GetRefreshToken() != "spent" || !slices.Equal(got.GetAudiences(), []string{"orders"}) ||
		!slices.Equal(got.GetScopes(), []string{"read"}) || dpop.GetProof() != "p" || dpop.GetNonce() != "n" {
		t.Errorf("sent %v", got)
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", pair, pair, pair, pair); strings.Contains(shown, "next") || strings.Contains(shown, "access") {
		t.Error(shown)
	}
}

func TestASpentRefreshTokenIsARejectedToken(t *testing.T) {
	client := (&fake{refresh: func(context.Context, *pb.RefreshRequest) (*pb.RefreshResponse, error) {
		return nil, failure(codes.Unauthenticated, pb.ErrorReason_REFRESH_REUSED, "reused")
	}}).client(t)
	_, err := client.Refresh(t.Context(), RefreshRequest{RefreshToken: "x"})
	var rejected *RejectedError
	if !errors.As(err, &rejected) || rejected.Reason != ReasonRefreshReused {
		t.Error(err)
	}
}

func TestAGrantIsBoundAndComesWithARefreshTokenWhereItIsAskedFor(t *testing.T) {
	var got *pb.IssueRequest
	client := (&fake{issue: func(_ context.Context, r *pb.IssueRequest) (*pb.IssueResponse, error) {
		got = r
		return &pb.IssueResponse{RefreshToken: "r"}, nil
	}}).client(t)
	issued, err := client.Issue(t.Context(), IssueRequest{WithRefreshToken: true, Confirmation: Confirmation{JWKThumbprint: "jkt"}})
	if err != nil || issued.RefreshToken != "r" || !got.GetWithRefreshToken() || got.GetConfirmation().GetJwkThumbprintSha256() != "jkt" {
		t.Errorf("%v, %v, sent %v", issued, err, got)
	}
	if _, err := client.Issue(t.Context(), IssueRequest{Confirmation: Confirmation{CertificateThumbprint: "x5t"}}); err != nil ||
		got.GetConfirmation().GetCertificateThumbprintSha256() != "x5t" {
		t.Errorf("%v, sent %v", err, got)
	}
	_, err = client.Issue(t.Context(), IssueRequest{Confirmation: Confirmation{JWKThumbprint: "a", CertificateThumbprint: "b"}})
	if !errors.Is(err, ErrInvalidRequest) {
		t.Error(err)
	}
}

func TestRevocationsNameWhatTheyEndAndAreNotRepeated(t *testing.T) {
	var calls atomic.Int32
	holds := time.Unix(1_900_000_000, 0).UTC()
	f := &fake{
		revoke: func(_ context.Context, r *pb.RevokeRequest) (*pb.RevokeResponse, error) {
			if calls.Add(1); r.GetToken() == "down" {
				return nil, status.Error(codes.Unavailable, "down")
			}
			return &pb.RevokeResponse{RevocationRevision: 7, EffectiveTime: timestamppb.New(holds)}, nil
		},
		revokeSubject: func(_ context.Context, r *pb.RevokeSubjectRequest) (*pb.RevokeSubjectResponse, error) {
			if r.GetProfile() != "p" || r.GetSubject() != "ada" || r.GetIssuedBefore() != nil {
				t.Error(r)
			}
			return &pb.RevokeSubjectResponse{RevocationRevision: 8, EffectiveTime: timestamppb.New(holds)}, nil
		},
		revokeTokenID: func(_ context.Context, r *pb.RevokeTokenIdRequest) (*pb.RevokeTokenIdResponse, error) {
			if r.GetTokenId() != "t1" || !r.GetExpireTime().AsTime().Equal(holds) {
				t.Error(r)
			}
			return &pb.RevokeTokenIdResponse{RevocationRevision: 9, EffectiveTime: timestamppb.New(holds)}, nil
		},
	}
	client, admin := f.client(t), f.admin(t)
	if revocation, err := client.Revoke(t.Context(), RevokeRequest{Token: "x", Reason: "logout"}); err != nil ||
		revocation.Revision != 7 || !revocation.EffectiveTime.Equal(holds) {
		t.Error(revocation, err)
	}
	if _, err := client.Revoke(t.Context(), RevokeRequest{Token: "down"}); !errors.Is(err, ErrUnavailable) || calls.Load() != 2 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	if revocation, err := admin.RevokeSubject(t.Context(), RevokeSubjectRequest{Profile: "p", Subject: "ada"}); err != nil || revocation.Revision != 8 {
		t.Error(revocation, err)
	}
	if revocation, err := admin.RevokeTokenID(t.Context(), RevokeTokenIDRequest{Profile: "p", TokenID: "t1", ExpireTime: holds}); err != nil ||
		revocation.Revision != 9 {
		t.Error(revocation, err)
	}
}

func TestEveryCallNamesItselfInTheSidecarsLogAndItsErrorDoesToo(t *testing.T) {
	var sent []string
	client := (&fake{
		validate: func(ctx context.Context, _ *pb.ValidateRequest) (*pb.ValidateResponse, error) {
			sent = append(sent, metadata.ValueFromIncomingContext(ctx, "x-request-id")...)
			return nil, status.Error(codes.Unavailable, "without a trailer")
		},
		batchIssue: func(ctx context.Context, _ *pb.BatchIssueRequest) (*pb.BatchIssueResponse, error) {
			sent = append(sent, metadata.ValueFromIncomingContext(ctx, "x-request-id")...)
			return &pb.BatchIssueResponse{Results: []*pb.IssueResult{
				{Result: &pb.IssueResult_Error{Error: &pb.ItemError{Code: int32(codes.InvalidArgument)}}},
			}}, nil
		},
	}).client(t, WithValidateTimeout(5*time.Second))
	_, err := client.Validate(t.Context(), ValidateRequest{Token: "x"})
	var call *CallError
	if !errors.As(err, &call) || call.RequestID == "" || len(sent) != 3 || sent[0] != call.RequestID || sent[2] != call.RequestID {
		t.Errorf("%v, sent %q", err, sent)
	}
	sent = nil
	named := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "mine")
	results, err := client.BatchIssue(named, []IssueRequest{{}})
	if err != nil || !errors.As(results[0].Err, &call) || call.RequestID != "mine" || !slices.Equal(sent, []string{"mine"}) {
		t.Errorf("%v, %v, sent %q", results, err, sent)
	}
}
