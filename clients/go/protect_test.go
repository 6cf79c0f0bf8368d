package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

type tenantClaims struct {
	Tenant string `json:"tenant"`
}

// judging is a fake whose tokens are named after what becomes of them.
func judging(seen *[]*pb.ValidateRequest) *fake {
	reject := map[string]pb.ErrorReason{
		"expired": pb.ErrorReason_TOKEN_EXPIRED, "scopeless": pb.ErrorReason_TOKEN_SCOPE_MISSING,
		"unproven": pb.ErrorReason_TOKEN_POSSESSION_UNPROVEN,
	}
	return &fake{validate: func(_ context.Context, r *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		if seen != nil {
			*seen = append(*seen, r)
		}
		answer := &pb.ValidateResponse{Subject: "ada", Scopes: []string{"read"}, ClaimsJson: `{"tenant":"acme"}`}
		if reason, bad := reject[r.GetToken()]; bad {
			return nil, failure(codes.Unauthenticated, reason, "no good")
		}
		switch r.GetToken() {
		case "good":
		case "bound":
			answer.Confirmation = &pb.Confirmation{Method: &pb.Confirmation_JwkThumbprintSha256{JwkThumbprintSha256: "thumb"}}
		case "elsewhere":
			answer.ClaimsJson = `{"tenant":7}`
		case "stale":
			return nil, failure(codes.Unavailable, pb.ErrorReason_STATE_STALE, "stale",
				&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)})
		case "denied":
			return nil, failure(codes.PermissionDenied, pb.ErrorReason_CALLER_DENIED, "denied")
		default:
			return nil, failure(codes.Unauthenticated, pb.ErrorReason_TOKEN_INVALID, "no good")
		}
		return answer, nil
	}}
}

func greet(w http.ResponseWriter, _ *http.Request, caller *Authorized[tenantClaims]) {
	fmt.Fprintf(w, "%s of %s", caller.Token.Subject, caller.Claims.Tenant)
}

func ask(handler http.Handler, headers ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodGet, "/orders/1%2F2?page=3", nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	return answer
}

func TestProtectedRouteAnswersAsRFC6750Says(t *testing.T) {
	var told []error
	client := judging(nil).client(t)
	protect := Protect[tenantClaims](client, []string{"orders"}, RequireScopes("read", "write"),
		Observe(func(_ context.Context, err error) { told = append(told, err) }))
	handler := protect.Func(greet)
	for _, c := range []struct {
		authorization []string
		code          int
		challenge     string
	}{
		{[]string{"Bearer good"}, 200, ""},
		{[]string{"bearer  good"}, 200, ""},
		{nil, 401, `Bearer realm="tokensidecar"`},
		{[]string{"Basic YTpi"}, 401, `Bearer realm="tokensidecar"`},
		{[]string{"DPoP good"}, 401, `Bearer realm="tokensidecar"`},
		{[]string{"Bearer"}, 400, `Bearer realm="tokensidecar", error="invalid_request"`},
		{[]string{"Bearer a b"}, 400, `Bearer realm="tokensidecar", error="invalid_request"`},
		{[]string{`Bearer "good"`}, 400, `Bearer realm="tokensidecar", error="invalid_request"`},
		{[]string{"Bearer good", "Bearer good"}, 400, `Bearer realm="tokensidecar", error="invalid_request"`},
		{[]string{"Bearer " + strings.Repeat("a", longestToken+1)}, 401, `Bearer realm="tokensidecar", error="invalid_token"`},
		{[]string{"Bearer expired"}, 401, `Bearer realm="tokensidecar", error="invalid_token", error_description="TOKEN_EXPIRED"`},
		{[]string{"Bearer elsewhere"}, 401, `Bearer realm="tokensidecar", error="invalid_token"`},
		{[]string{"Bearer scopeless"}, 403, `Bearer realm="tokensidecar", error="insufficient_scope", scope="read write"`},
		{[]string{"Bearer stale"}, 503, ""},
		{[]string{"Bearer denied"}, 500, ""},
	} {
		before := len(told)
		var headers []string
		for _, value := range c.authorization {
			headers = append(headers, "Authorization", value)
		}
		answer := ask(handler, headers...)
		if answer.Code != c.code || answer.Header().Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%.40q: %d, %q", c.authorization, answer.Code, answer.Header().Get("WWW-Authenticate"))
		}
		if served := strings.Contains(answer.Body.String(), "ada of acme"); served != (c.code == 200) || (len(told) > before) == served {
			t.Errorf("%.40q: %q, told %v", c.authorization, answer.Body, told[before:])
		}
		if c.code == 503 && answer.Header().Get("Retry-After") != "2" {
			t.Errorf("retry after %q", answer.Header().Get("Retry-After"))
		}
	}
}

func TestProtectedRouteIsClosedWhileTheSidecarIsDown(t *testing.T) {
	server := judging(nil)
	path := shortDirectory(t) + "/app.sock"
	stop := server.serve(t, listen(t, "unix", path))
	client, err := Connect(t.Context(), WithAddress("unix:"+path))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stop()
	if answer := ask(Protect[tenantClaims](client, []string{"orders"}).Func(greet), "Authorization", "Bearer good"); answer.Code != 503 ||
		strings.Contains(answer.Body.String(), "ada") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

func TestProtectionWithoutAudiencesOrWithABadRulePanics(t *testing.T) {
	for name, make := range map[string]func(){
		"no audiences":     func() { Protect[tenantClaims](nil, nil) },
		"no origin":        func() { Protect[tenantClaims](nil, []string{"orders"}, DPoP("api.example.com")) },
		"origin with path": func() { Protect[tenantClaims](nil, []string{"orders"}, DPoP("https://api.example.com/v1")) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			make()
		}()
	}
}

func TestDPoPProofGoesToTheSidecarWithMethodAndUrlOfThisService(t *testing.T) {
	var seen []*pb.ValidateRequest
	client := judging(&seen).client(t)
	mux := http.NewServeMux() // a router that cuts off part of the path
	protected := Protect[tenantClaims](client, []string{"orders"}, DPoP("https://api.example.com/")).Func(greet)
	mux.Handle("/orders/", http.StripPrefix("/orders", protected))
	if answer := ask(mux, "Authorization", "DPoP bound", "DPoP", "proof"); answer.Code != 200 {
		t.Fatalf("%d %s", answer.Code, answer.Header())
	}
	if got := seen[0].GetPossession().GetDpop(); got.GetProof() != "proof" || got.GetMethod() != "GET" ||
		got.GetUrl() != "https://api.example.com/orders/1%2F2" {
		t.Errorf("%v", got)
	}
	for _, c := range []struct {
		headers []string
		code    int
	}{
		{[]string{"Authorization", "DPoP good", "DPoP", "proof"}, 401}, // bound to no key
		{[]string{"Authorization", "DPoP bound"}, 400},
		{[]string{"Authorization", "DPoP bound", "DPoP", "one", "DPoP", "two"}, 400},
		{[]string{"Authorization", "Bearer unproven", "DPoP", "proof"}, 401}, // a bound token may not come as a bearer token
		{[]string{"Authorization", "Bearer good"}, 200},
	} {
		seen = nil
		answer := ask(mux, c.headers...)
		if answer.Code != c.code {
			t.Errorf("%v: %d", c.headers, answer.Code)
		}
		challenges := answer.Header().Values("WWW-Authenticate")
		if c.code != 200 && (len(challenges) != 2 || !strings.HasPrefix(challenges[1], "DPoP ")) {
			t.Errorf("%v: %q", c.headers, challenges)
		}
		if len(seen) == 1 && c.headers[1][:6] == "Bearer" && seen[0].GetPossession() != nil {
			t.Errorf("%v: a proof went along", c.headers)
		}
	}
}

func TestCallerIsNobodyOnARouteThatIsNotProtectedAndForOtherClaims(t *testing.T) {
	if _, ok := Caller[tenantClaims](t.Context()); ok {
		t.Error("somebody")
	}
	client := judging(nil).client(t)
	ask(Protect[tenantClaims](client, []string{"orders"}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, ok := Caller[map[string]any](r.Context()); ok {
			t.Error("claims of another type")
		}
		caller, ok := Caller[tenantClaims](r.Context())
		if !ok || strings.Contains(fmt.Sprintf("%v %+v", caller, *caller), "acme") {
			t.Errorf("%v shows a claim", caller)
		}
	})), "Authorization", "Bearer good")
}

// healthWatcher is a service of gRPC's own that tells who calls.
type healthWatcher struct {
	*health.Server
	callers *[]string
}

func (h healthWatcher) note(ctx context.Context) {
	if caller, ok := Caller[tenantClaims](ctx); ok {
		*h.callers = append(*h.callers, caller.Token.Subject+" of "+caller.Claims.Tenant)
	}
}

func (h healthWatcher) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.note(ctx)
	return h.Server.Check(ctx, r)
}

func (h healthWatcher) Watch(r *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	h.note(stream.Context())
	return stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
}

func TestInterceptorsLetOnlyAuthorizedCallsThrough(t *testing.T) {
	var callers []string
	var seen []*pb.ValidateRequest
	client := judging(&seen).client(t)
	protect := Protect[tenantClaims](client, []string{"orders"}, DPoP("https://api.example.com"))
	server := grpc.NewServer(grpc.UnaryInterceptor(protect.UnaryInterceptor()), grpc.StreamInterceptor(protect.StreamInterceptor()))
	healthpb.RegisterHealthServer(server, healthWatcher{health.NewServer(), &callers})
	listener := listen(t, "tcp", "127.0.0.1:0")
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	stub := healthpb.NewHealthClient(connection)
	for _, c := range []struct {
		pairs []string
		code  codes.Code
	}{
		{[]string{"authorization", "Bearer good"}, codes.OK},
		{[]string{"authorization", "DPoP bound", "dpop", "proof"}, codes.OK},
		{nil, codes.Unauthenticated},
		{[]string{"authorization", "Bearer good", "authorization", "Bearer good"}, codes.Unauthenticated},
		{[]string{"authorization", "Bearer expired"}, codes.Unauthenticated},
		{[]string{"authorization", "Bearer elsewhere"}, codes.Unauthenticated},
		{[]string{"authorization", "Bearer scopeless"}, codes.PermissionDenied},
		{[]string{"authorization", "Bearer stale"}, codes.Unavailable},
		{[]string{"authorization", "Bearer denied"}, codes.Internal},
	} {
		callers = nil
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs(c.pairs...))
		_, unary := stub.Check(ctx, &healthpb.HealthCheckRequest{})
		watch, err := stub.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if status.Code(unary) != c.code || status.Code(err) != c.code {
			t.Errorf("%q: unary %v, stream %v", c.pairs, unary, err)
		}
		if c.code == codes.OK && !slices.Equal(callers, []string{"ada of acme", "ada of acme"}) || c.code != codes.OK && callers != nil {
			t.Errorf("%q: %q", c.pairs, callers)
		}
	}
	bound := slices.IndexFunc(seen, func(r *pb.ValidateRequest) bool { return r.GetToken() == "bound" })
	if got := seen[bound].GetPossession().GetDpop(); got.GetMethod() != "POST" || got.GetUrl() != "https://api.example.com/grpc.health.v1.Health/Check" {
		t.Errorf("%v", got)
	}
}

func TestACallerWhoGoesAwayIsNoFaultOfOurs(t *testing.T) {
	client := (&fake{validate: func(ctx context.Context, _ *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}).client(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := Protect[tenantClaims](client, []string{"orders"}).judge(ctx, presented{authorization: []string{"Bearer x"}})
	if !errors.Is(err, context.Canceled) || status.Code(grpcAnswer(err)) != codes.Canceled {
		t.Error(err)
	}
}
