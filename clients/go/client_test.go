package tokensidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

func TestReasonsAreThoseOfTheContract(t *testing.T) {
	reasons := []Reason{
		ReasonRequestInvalid, ReasonTokenInvalid, ReasonTokenNotYetValid, ReasonTokenExpired, ReasonTokenAudienceMismatch,
		ReasonTokenRevoked, ReasonTokenPossessionUnproven, ReasonTokenScopeMissing, ReasonTokenAlreadyConsumed,
		ReasonRefreshReused, ReasonCallerUnidentified, ReasonCallerDenied, ReasonRingChanged, ReasonStateStale,
		ReasonStoreUnavailable, ReasonKMSUnavailable, ReasonAuditUnavailable, ReasonSubjectRevoked, ReasonOverloaded,
		ReasonNotImplemented, ReasonInternal,
	}
	for i, reason := range reasons {
		if name := pb.ErrorReason_name[int32(i+1)]; name != string(reason) {
			t.Errorf("%d: %q, in the contract %q", i+1, reason, name)
		}
	}
	if len(pb.ErrorReason_name) != len(reasons)+1 {
		t.Errorf("the contract has %d reasons", len(pb.ErrorReason_name)-1)
	}
}

func TestUsesAndStatesAreThoseOfTheContract(t *testing.T) {
	for number, use := range map[pb.KeyUse]KeyUse{
		pb.KeyUse_KEY_USE_ENCRYPTION: UseEncryption, pb.KeyUse_KEY_USE_SIGNATURE: UseSignature, pb.KeyUse_KEY_USE_REFRESH: UseRefresh,
	} {
		if got := keys([]*pb.Key{{KeyUse: number}})[0].Use; got != use {
			t.Errorf("%s: %q", number, got)
		}
	}
	for number, state := range map[pb.KeyState]KeyState{
		pb.KeyState_KEY_STATE_PENDING: StatePending, pb.KeyState_KEY_STATE_ACTIVE: StateActive,
		pb.KeyState_KEY_STATE_RETIRING: StateRetiring, pb.KeyState_KEY_STATE_DESTROYED: StateDestroyed,
		pb.KeyState_KEY_STATE_COMPROMISED: StateCompromised,
	} {
		if got := keys([]*pb.Key{{State: number}})[0].State; got != state {
			t.Errorf("%s: %q", number, got)
		}
	}
}

func TestIssueSendsWhatWasAskedFor(t *testing.T) {
	var got *pb.IssueRequest
	expire := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	client := (&fake{issue: func(_ context.Context, r *pb.IssueRequest) (*pb.IssueResponse, error) {
		got = r
		return &pb.IssueResponse{Token: "a.b.c", TokenId: "t1", ExpireTime: timestamppb.New(expire)}, nil
	}}).client(t)
	issued, err := client.Issue(t.Context(), IssueRequest{
		Profile: "p", Subject: "ada", Audiences: []string{"orders"}, TTL: 90 * time.Second, ClientID: "web", Scopes: []string{"read"},
		Claims: map[string]any{"big": int64(math.MaxInt64), "text": "<ä&"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetProfile() != "p" || got.GetSubject() != "ada" || !slices.Equal(got.GetAudiences(), []string{"orders"}) ||
		got.GetTtl().AsDuration() != 90*time.Second || got.GetClientId() != "web" || !slices.Equal(got.GetScopes(), []string{"read"}) ||
		got.GetClaimsJson() != `{"big":9223372036854775807,"text":"<ä&"}` {
		t.Errorf("sent %v", got)
	}
	if issued.Token != "a.b.c" || issued.TokenID != "t1" || !issued.ExpireTime.Equal(expire) || !issued.IssueTime.IsZero() {
		t.Errorf("got token id %q, until %s, from %s", issued.TokenID, issued.ExpireTime, issued.IssueTime)
	}
}

func TestRawClaimsAreSentByteForByte(t *testing.T) {
	var got *pb.IssueRequest
	client := (&fake{issue: func(_ context.Context, r *pb.IssueRequest) (*pb.IssueResponse, error) {
		got = r
		return &pb.IssueResponse{}, nil
	}}).client(t)
	raw := json.RawMessage("{ \"b\" : 1.0,\n\"a\":\"\\u0041<\" }")
	if _, err := client.Issue(t.Context(), IssueRequest{Claims: raw}); err != nil || got.GetClaimsJson() != string(raw) {
		t.Errorf("%q, %v", got.GetClaimsJson(), err)
	}
}

func TestNoClaimsAndNoLifetimeStayUnset(t *testing.T) {
	var got *pb.IssueRequest
	client := (&fake{issue: func(_ context.Context, r *pb.IssueRequest) (*pb.IssueResponse, error) {
		got = r
		return &pb.IssueResponse{}, nil
	}}).client(t)
	for _, none := range []any{nil, map[string]any(nil), (*struct{})(nil), json.RawMessage(nil)} {
		if _, err := client.Issue(t.Context(), IssueRequest{Claims: none}); err != nil || got.GetClaimsSource() != nil || got.GetTtl() != nil {
			t.Errorf("%#v: %v, %v", none, got, err)
		}
	}
}

func TestClaimsThatAreNoJSONAreAnInvalidRequest(t *testing.T) {
	client := (&fake{}).client(t)
	_, err := client.Issue(t.Context(), IssueRequest{Claims: map[string]any{"f": math.NaN()}})
	var call *CallError
	if !errors.Is(err, ErrInvalidRequest) || !errors.As(err, &call) || len(call.Fields) != 1 || call.Fields[0].Name != "claims_json" {
		t.Error(err)
	}
	_, err = client.BatchIssue(t.Context(), []IssueRequest{{}, {Claims: func() {}}})
	if !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), "requests[1]") {
		t.Error(err)
	}
}

func TestClaimsDecodeExactly(t *testing.T) {
	token := ValidatedToken{ClaimsJSON: json.RawMessage(`{"sub":"ada","n":9223372036854775807,"u":18446744073709551615,"name":"Zoë 🦊"}`)}
	var claims struct {
		N    int64  `json:"n"`
		U    uint64 `json:"u"`
		Name string `json:"name"`
	}
	if err := token.DecodeClaims(&claims); err != nil || claims.N != math.MaxInt64 || claims.U != math.MaxUint64 || claims.Name != "Zoë 🦊" {
		t.Errorf("%+v, %v", claims, err)
	}
	var open map[string]any
	if err := token.DecodeClaims(&open); err != nil || open["n"] != json.Number("9223372036854775807") {
		t.Errorf("%v, %v", open, err)
	}
}

func TestNamesThatDifferInCaseOnlyAreRefused(t *testing.T) {
	var claims struct {
		Role string `json:"role"`
	}
	for _, text := range []string{
		`{"role":"guest","ROLE":"admin"}`, `{"ROLE":"admin","role":"guest"}`, `{"a":[{"ok":1,"o\u212a":2}]}`, `{"s":1,"\u017f":2}`,
	} {
		token := ValidatedToken{ClaimsJSON: json.RawMessage(text)}
		if err := token.DecodeClaims(&claims); err == nil || !strings.Contains(err.Error(), "differ in case only") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{``, `{`, `{"a":}`, `[1`, `{"role":1}`} {
		token := ValidatedToken{ClaimsJSON: json.RawMessage(text)}
		if err := token.DecodeClaims(&claims); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	token := ValidatedToken{ClaimsJSON: json.RawMessage(`{"a":{"role":1},"b":[{"role":2},{"role":3}],"role":"x"}`)}
	if err := token.DecodeClaims(&claims); err != nil || claims.Role != "x" {
		t.Errorf("%q, %v", claims.Role, err)
	}
}

func TestRejectedTokenIsOneTypeWithTheReason(t *testing.T) {
	client := (&fake{validate: func(ctx context.Context, _ *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "r1")); err != nil {
			return nil, err
		}
		return nil, failure(codes.Unauthenticated, pb.ErrorReason_TOKEN_EXPIRED, "the token has expired")
	}}).client(t)
	token, err := client.Validate(t.Context(), ValidateRequest{})
	var rejected *RejectedError
	if token != nil || !errors.As(err, &rejected) || rejected.Reason != ReasonTokenExpired || rejected.Message != "the token has expired" ||
		rejected.RequestID != "r1" || !strings.Contains(err.Error(), "[request id r1]") {
		t.Errorf("%v, %v", token, err)
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("code %s", status.Code(err))
	}
	for _, kind := range []error{ErrDenied, ErrInvalidRequest, ErrUnavailable, ErrRingChanged} {
		if errors.Is(err, kind) {
			t.Errorf("a rejected token is %v", kind)
		}
	}
}

func TestUnauthenticatedWithoutDetailsIsARejectedToken(t *testing.T) {
	client := (&fake{validate: func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "no")
	}}).client(t)
	_, err := client.Validate(t.Context(), ValidateRequest{})
	var rejected *RejectedError
	if !errors.As(err, &rejected) || rejected.Reason != "" {
		t.Error(err)
	}
}

func TestOtherFailuresAreToldApart(t *testing.T) {
	every := []error{ErrDenied, ErrInvalidRequest, ErrUnavailable, ErrRingChanged, context.Canceled, context.DeadlineExceeded}
	for _, c := range []struct {
		code   codes.Code
		reason pb.ErrorReason
		kinds  []error
	}{
		{codes.InvalidArgument, pb.ErrorReason_REQUEST_INVALID, []error{ErrInvalidRequest}},
		{codes.PermissionDenied, pb.ErrorReason_CALLER_DENIED, []error{ErrDenied}},
		{codes.PermissionDenied, pb.ErrorReason_CALLER_UNIDENTIFIED, []error{ErrDenied}},
		{codes.Aborted, pb.ErrorReason_RING_CHANGED, []error{ErrRingChanged}},
		{codes.Unavailable, pb.ErrorReason_STATE_STALE, []error{ErrUnavailable}},
		{codes.Unavailable, pb.ErrorReason_SUBJECT_REVOKED, []error{ErrUnavailable}},
		{codes.ResourceExhausted, pb.ErrorReason_OVERLOADED, []error{ErrUnavailable}},
		{codes.DeadlineExceeded, pb.ErrorReason_ERROR_REASON_UNSPECIFIED, []error{ErrUnavailable, context.DeadlineExceeded}},
		{codes.Canceled, pb.ErrorReason_ERROR_REASON_UNSPECIFIED, []error{ErrUnavailable}}, // by the server
		{codes.Unimplemented, pb.ErrorReason_NOT_IMPLEMENTED, nil},
		{codes.Internal, pb.ErrorReason_INTERNAL, nil},
	} {
		client := (&fake{issue: func(context.Context, *pb.IssueRequest) (*pb.IssueResponse, error) {
			return nil, failure(c.code, c.reason, "words")
		}}).client(t)
		_, err := client.Issue(t.Context(), IssueRequest{})
		var call *CallError
		if !errors.As(err, &call) || call.Code != c.code || call.Reason != Reason(c.reason.String()) || call.Message != "words" {
			t.Errorf("%s: %v", c.reason, err)
		}
		if status.Code(err) != c.code {
			t.Errorf("%s: code %s", c.reason, status.Code(err))
		}
		for _, kind := range every {
			if errors.Is(err, kind) != slices.Contains(c.kinds, kind) {
				t.Errorf("%s is %v: %t", c.reason, kind, errors.Is(err, kind))
			}
		}
	}
}

func TestInvalidRequestNamesItsFieldsAndOverloadSaysWhen(t *testing.T) {
	answers := []error{
		failure(codes.InvalidArgument, pb.ErrorReason_REQUEST_INVALID, "no", &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "audiences", Description: "is required"}},
		}),
		failure(codes.ResourceExhausted, pb.ErrorReason_OVERLOADED, "no", &errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)}),
	}
	client := (&fake{issue: func(context.Context, *pb.IssueRequest) (*pb.IssueResponse, error) {
		answer := answers[0]
		answers = answers[1:]
		return nil, answer
	}}).client(t)
	var call *CallError
	if _, err := client.Issue(t.Context(), IssueRequest{}); !errors.As(err, &call) || !slices.Equal(call.Fields, []Field{{"audiences", "is required"}}) {
		t.Error(err)
	}
	if _, err := client.Issue(t.Context(), IssueRequest{}); !errors.As(err, &call) || call.RetryAfter != 2*time.Second {
		t.Error(err)
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	left := map[string]time.Duration{}
	note := func(ctx context.Context, name string) {
		if deadline, ok := ctx.Deadline(); ok {
			left[name] = time.Until(deadline)
		}
	}
	server := &fake{
		issue: func(ctx context.Context, _ *pb.IssueRequest) (*pb.IssueResponse, error) {
			note(ctx, "issue")
			return &pb.IssueResponse{}, nil
		},
		validate: func(ctx context.Context, r *pb.ValidateRequest) (*pb.ValidateResponse, error) {
			note(ctx, r.GetToken())
			if r.GetToken() == "bad" {
				return nil, failure(codes.Unauthenticated, pb.ErrorReason_TOKEN_INVALID, "no")
			}
			return &pb.ValidateResponse{}, nil
		},
		batchIssue: func(ctx context.Context, _ *pb.BatchIssueRequest) (*pb.BatchIssueResponse, error) {
			note(ctx, "batchIssue")
			return &pb.BatchIssueResponse{}, nil
		},
		batchValidate: func(ctx context.Context, _ *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
			note(ctx, "batchValidate")
			return &pb.BatchValidateResponse{}, nil
		},
		rotate: func(ctx context.Context, _ *pb.RotateRequest) (*pb.RotateResponse, error) {
			note(ctx, "rotate")
			return &pb.RotateResponse{}, nil
		},
		listKeys: func(ctx context.Context, _ *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
			note(ctx, "listKeys")
			return &pb.ListKeysResponse{}, nil
		},
		revokeKeys: func(ctx context.Context, _ *pb.RevokeKeysRequest) (*pb.RevokeKeysResponse, error) {
			note(ctx, "revokeKeys")
			return &pb.RevokeKeysResponse{}, nil
		},
	}
	client, admin := server.client(t), server.admin(t)
	call := func(err error) {
		t.Helper()
		var rejected *RejectedError
		if err != nil && !errors.As(err, &rejected) {
			t.Fatal(err)
		}
	}
	do := func(_ any, err error) { t.Helper(); call(err) }
	ctx := t.Context()
	do(client.Validate(ctx, ValidateRequest{Token: "bad"})) // an answer all the same
	do(client.Validate(ctx, ValidateRequest{Token: "second"}))
	do(client.Issue(ctx, IssueRequest{}))
	do(client.BatchIssue(ctx, nil))
	do(client.BatchValidate(ctx, nil))
	do(admin.Rotate(ctx, RotateRequest{}))
	do(admin.ListKeys(ctx, ""))
	do(admin.RevokeKeys(ctx, RevokeKeysRequest{}))
	for name, most := range map[string]time.Duration{
		"bad": firstValidateTimeout, "second": defaultValidateTimeout, "issue": defaultTimeout, "batchIssue": defaultTimeout,
		"batchValidate": defaultTimeout, "rotate": defaultTimeout, "listKeys": defaultTimeout, "revokeKeys": defaultTimeout,
	} {
		if left[name] <= 0 || left[name] > most {
			t.Errorf("%s has %s, of %s", name, left[name], most)
		}
	}
	if left["bad"] <= defaultValidateTimeout {
		t.Errorf("the first Validate has %s", left["bad"])
	}

	long := server.client(t, WithValidateTimeout(time.Hour), WithTimeout(2*time.Hour))
	do(long.Validate(ctx, ValidateRequest{Token: "long"}))
	do(long.Issue(ctx, IssueRequest{}))
	if left["long"] < 59*time.Minute || left["long"] > time.Hour || left["issue"] < 119*time.Minute {
		t.Errorf("set deadlines: %s, %s", left["long"], left["issue"])
	}
	sooner, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	do(long.Validate(sooner, ValidateRequest{Token: "sooner"}))
	if left["sooner"] > 10*time.Minute {
		t.Errorf("the context's deadline: %s", left["sooner"])
	}
}

func TestPassedDeadlineIsUnavailableAndACancelledCallIsNot(t *testing.T) {
	client := (&fake{issue: func(ctx context.Context, _ *pb.IssueRequest) (*pb.IssueResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}).client(t, WithTimeout(50*time.Millisecond))
	if _, err := client.Issue(t.Context(), IssueRequest{}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Issue(ctx, IssueRequest{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestRequestIDIsFreshPerCallAndKeptOverRetries(t *testing.T) {
	var ids []string
	server := &fake{}
	server.validate = func(_ context.Context, r *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		ids = append(ids, r.GetRequestId())
		if len(ids)%2 == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_STORE_UNAVAILABLE, "not now")
		}
		return &pb.ValidateResponse{}, nil
	}
	server.rotate = func(_ context.Context, r *pb.RotateRequest) (*pb.RotateResponse, error) {
		ids = append(ids, r.GetRequestId())
		if len(ids)%2 == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_STORE_UNAVAILABLE, "not now")
		}
		return &pb.RotateResponse{}, nil
	}
	client, admin := server.client(t), server.admin(t)
	for range 2 {
		if _, err := client.Validate(t.Context(), ValidateRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Rotate(t.Context(), RotateRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 8 {
		t.Fatalf("%d calls", len(ids))
	}
	distinct := map[string]bool{}
	for i := 0; i < len(ids); i += 2 {
		if ids[i] != ids[i+1] || len(ids[i]) < 20 || len(ids[i]) > 128 {
			t.Errorf("%q, repeated as %q", ids[i], ids[i+1])
		}
		distinct[ids[i]] = true
	}
	if len(distinct) != 4 {
		t.Errorf("%d distinct ids for 4 calls", len(distinct))
	}
	if _, err := client.Validate(t.Context(), ValidateRequest{RequestID: "mine"}); err != nil || ids[8] != "mine" {
		t.Errorf("%q, %v", ids[8], err)
	}
}

func TestIssueIsNotRepeated(t *testing.T) {
	calls := 0
	client := (&fake{issue: func(context.Context, *pb.IssueRequest) (*pb.IssueResponse, error) {
		calls++
		return nil, failure(codes.Unavailable, pb.ErrorReason_SUBJECT_REVOKED, "not just now")
	}}).client(t)
	if _, err := client.Issue(t.Context(), IssueRequest{}); !errors.Is(err, ErrUnavailable) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestBatchHasAResultPerItem(t *testing.T) {
	server := &fake{
		batchValidate: func(_ context.Context, r *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
			answer := &pb.BatchValidateResponse{}
			for _, request := range r.GetRequests() {
				if request.GetToken() == "good" {
					answer.Results = append(answer.Results, &pb.ValidateResult{
						Result: &pb.ValidateResult_Response{Response: &pb.ValidateResponse{Subject: request.GetRequestId()}},
					})
					continue
				}
				answer.Results = append(answer.Results, &pb.ValidateResult{Result: &pb.ValidateResult_Error{
					Error: &pb.ItemError{Code: int32(codes.Unauthenticated), Reason: pb.ErrorReason_TOKEN_REVOKED, Message: "revoked"},
				}})
			}
			return answer, nil
		},
		batchIssue: func(_ context.Context, r *pb.BatchIssueRequest) (*pb.BatchIssueResponse, error) {
			return &pb.BatchIssueResponse{Results: []*pb.IssueResult{
				{Result: &pb.IssueResult_Response{Response: &pb.IssueResponse{Token: r.GetRequests()[0].GetSubject()}}},
				{Result: &pb.IssueResult_Error{Error: &pb.ItemError{
					Code: int32(codes.InvalidArgument), Reason: pb.ErrorReason_REQUEST_INVALID, Message: "audiences: is required", Field: "audiences",
				}}},
			}}, nil
		},
	}
	client := server.client(t)
	validated, err := client.BatchValidate(t.Context(), []ValidateRequest{{Token: "good"}, {Token: "bad"}, {Token: "good"}})
	if err != nil || len(validated) != 3 {
		t.Fatal(err)
	}
	var rejected *RejectedError
	if validated[1].Token != nil || !errors.As(validated[1].Err, &rejected) || rejected.Reason != ReasonTokenRevoked {
		t.Errorf("%v", validated[1].Err)
	}
	if validated[0].Err != nil || validated[2].Err != nil || validated[0].Token.Subject == "" ||
		validated[0].Token.Subject == validated[2].Token.Subject {
		t.Error("the items' neighbours failed, or share a request id")
	}
	issued, err := client.BatchIssue(t.Context(), []IssueRequest{{Subject: "ada"}, {}})
	if err != nil || len(issued) != 2 || issued[0].Err != nil || issued[0].Token.Token != "ada" {
		t.Fatal(err)
	}
	var call *CallError
	if issued[1].Token != nil || !errors.Is(issued[1].Err, ErrInvalidRequest) || !errors.As(issued[1].Err, &call) ||
		!slices.Equal(call.Fields, []Field{{"audiences", "is required"}}) {
		t.Errorf("%v", issued[1].Err)
	}
}

func TestBatchAnswerThatBreaksTheContractIsNoSuccess(t *testing.T) {
	var answer *pb.BatchValidateResponse
	client := (&fake{batchValidate: func(context.Context, *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
		return answer, nil
	}}).client(t)
	answer = &pb.BatchValidateResponse{}
	if results, err := client.BatchValidate(t.Context(), []ValidateRequest{{}}); err == nil || results != nil {
		t.Errorf("a result is missing: %v", results)
	}
	for _, result := range []*pb.ValidateResult{{}, {Result: &pb.ValidateResult_Error{Error: &pb.ItemError{}}}} {
		answer = &pb.BatchValidateResponse{Results: []*pb.ValidateResult{result}}
		results, err := client.BatchValidate(t.Context(), []ValidateRequest{{}})
		if err != nil || results[0].Token != nil || results[0].Err == nil {
			t.Errorf("%v: %v", result, err)
		}
	}
}

func TestAdminListsAllPagesAndRevokesByName(t *testing.T) {
	retire := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var revoked *pb.RevokeKeysRequest
	server := &fake{
		listKeys: func(_ context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
			switch {
			case r.GetProfile() == "endless":
				return &pb.ListKeysResponse{NextPageToken: "again"}, nil
			case r.GetPageToken() == "":
				return &pb.ListKeysResponse{Keys: []*pb.Key{{KeyId: "k1", RetireTime: timestamppb.New(retire)}}, NextPageToken: "2"}, nil
			default:
				return &pb.ListKeysResponse{Keys: []*pb.Key{{KeyId: "k2"}}}, nil
			}
		},
		revokeKeys: func(_ context.Context, r *pb.RevokeKeysRequest) (*pb.RevokeKeysResponse, error) {
			revoked = r
			return &pb.RevokeKeysResponse{RingRevision: 7, EffectiveTime: timestamppb.New(retire)}, nil
		},
	}
	admin := server.admin(t)
	all, err := admin.ListKeys(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].KeyID != "k1" || !all[0].RetireTime.Equal(retire) || all[1].KeyID != "k2" || !all[1].RetireTime.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := admin.ListKeys(t.Context(), "endless"); err == nil {
		t.Error("the same page for ever")
	}
	revocation, err := admin.RevokeKeys(t.Context(), RevokeKeysRequest{Profile: "default", KeyIDs: []string{"k1"}, Reason: "lost"})
	if err != nil || revocation.RingRevision != 7 || !revocation.EffectiveTime.Equal(retire) {
		t.Errorf("%+v, %v", revocation, err)
	}
	if revoked.GetProfile() != "default" || !slices.Equal(revoked.GetKeyIds(), []string{"k1"}) || revoked.GetReason() != "lost" {
		t.Errorf("sent %v", revoked)
	}
	if _, err := admin.Rotate(t.Context(), RotateRequest{Use: "unspecified"}); !errors.Is(err, ErrInvalidRequest) {
		t.Error(err)
	}
}

func TestClientReconnectsToARestartedSidecar(t *testing.T) {
	server := &fake{validate: func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		return &pb.ValidateResponse{}, nil
	}}
	socket := filepath.Join(shortDirectory(t), "app.sock")
	stop := server.serve(t, listen(t, "unix", socket))
	client, err := Connect(t.Context(), WithAddress("unix:"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stop()
	start := time.Now()
	if _, err := client.Validate(t.Context(), ValidateRequest{}); !errors.Is(err, ErrUnavailable) || time.Since(start) > time.Second {
		t.Errorf("while it is down: %v after %s", err, time.Since(start))
	}
	server.serve(t, listen(t, "unix", socket))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := client.Validate(t.Context(), ValidateRequest{})
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestTokensAndClaimsAreNotPrinted(t *testing.T) {
	for _, value := range []any{
		IssueRequest{Subject: "canary", Claims: map[string]any{"secret": "canary"}},
		&IssuedToken{Token: "canary"},
		ValidateRequest{Token: "canary"},
		&ValidatedToken{Subject: "canary", ClaimsJSON: json.RawMessage(`"canary"`)},
		[]ValidateResult{{Token: &ValidatedToken{Subject: "canary"}}},
		IssueResult{Token: &IssuedToken{Token: "canary"}},
	} {
		var text bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&text, verb, value)
		}
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "value", value)
		slog.New(slog.NewJSONHandler(&text, nil)).Info("m", "value", value)
		if strings.Contains(text.String(), "canary") || strings.Contains(text.String(), "63616e617279") {
			t.Errorf("%s", text.String())
		}
	}
}
