package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// issuer counts and answers for a source whose clock the test moves.
type issuer struct {
	mutex  sync.Mutex
	now    time.Time
	issued int
	err    error
	gate   chan struct{} // nil: no waiting
}

func (i *issuer) source() *TokenSource {
	i.now = time.Unix(1_800_000_000, 0)
	return &TokenSource{issue: i.issue, now: i.time, slots: map[string]*slot{}}
}

func (i *issuer) time() time.Time {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return i.now
}

func (i *issuer) pass(d time.Duration) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.now = i.now.Add(d)
}

func (i *issuer) issue(context.Context, IssueRequest) (*IssuedToken, error) {
	if i.gate != nil {
		<-i.gate
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.issued++
	if i.err != nil {
		return nil, i.err
	}
	// The sidecar's clock may be any: only the difference counts.
	return &IssuedToken{Token: fmt.Sprintf("token-%d", i.issued), IssueTime: time.Unix(1000, 0), ExpireTime: time.Unix(1100, 0)}, nil
}

var billing = Grant{Subject: "orders", Audiences: []string{"billing"}, Scopes: []string{"read"}}

func taken(t *testing.T, source *TokenSource, grant Grant) string {
	t.Helper()
	token, err := source.Token(t.Context(), grant)
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

func TestTokenIsKeptForFourFifthsOfItsLife(t *testing.T) {
	var i issuer
	source := i.source()
	first := taken(t, source, billing)
	i.pass(79 * time.Second)
	if again := taken(t, source, billing); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	i.pass(2 * time.Second)
	if again := taken(t, source, billing); again == first {
		t.Error("not renewed after 81 of 100 s")
	}
}

func TestOnlyEqualGrantsShareAToken(t *testing.T) {
	var i issuer
	source := i.source()
	seen := map[string]Grant{}
	for _, grant := range []Grant{
		billing,
		{Subject: "orders", Audiences: []string{"billing"}},
		{Subject: "orders", Audiences: []string{"billing", "read"}},
		{Subject: "orders", Audiences: []string{`billing" "read`}},
		{Profile: "orders", Subject: "orders", Audiences: []string{"billing"}, Scopes: []string{"read"}},
		{Subject: "others", Audiences: []string{"billing"}, Scopes: []string{"read"}},
	} {
		token := taken(t, source, grant)
		if other, shared := seen[token]; shared {
			t.Errorf("%v shares the token of %v", grant, other)
		}
		seen[token] = grant
	}
}

func TestWhoeverWantsTheSameAtTheSameTimeSharesOneCallAndItsFailure(t *testing.T) {
	i := issuer{gate: make(chan struct{})}
	source := i.source()
	for round, err := range []error{nil, &CallError{Code: codes.PermissionDenied}} {
		i.err = err
		source.slots = map[string]*slot{}
		before := i.issued
		var group sync.WaitGroup
		var failed atomic.Int32
		for range 50 {
			group.Go(func() {
				if _, err := source.Token(t.Context(), billing); err != nil {
					failed.Add(1)
				}
			})
		}
		gaveUp, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := source.Token(gaveUp, billing); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whose time was over: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // all of them wait
		close(i.gate)
		group.Wait()
		i.gate = make(chan struct{})
		if i.issued-before != 1 || (failed.Load() == 50) != (round == 1) {
			t.Errorf("%d calls, %d failed", i.issued-before, failed.Load())
		}
	}
}

func TestTokenServesOnWhileTheSidecarIsAwayAndNoLonger(t *testing.T) {
	var i issuer
	source := i.source()
	first := taken(t, source, billing)
	i.err = &CallError{Code: codes.Unavailable}
	i.pass(90 * time.Second)
	if again := taken(t, source, billing); again != first {
		t.Error(again)
	}
	before := i.issued
	if taken(t, source, billing); i.issued != before {
		t.Error("tried again at once")
	}
	i.pass(2 * time.Second)
	if taken(t, source, billing); i.issued != before+1 {
		t.Error("not tried again")
	}
	i.pass(8 * time.Second) // expired
	if _, err := source.Token(t.Context(), billing); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	i.pass(-6 * time.Second)
	i.err = &CallError{Code: codes.PermissionDenied}
	if _, err := source.Token(t.Context(), billing); !errors.Is(err, ErrDenied) {
		t.Errorf("a refusal is no failure to reach: %v", err)
	}
}

func TestATokenThatWasTurnedDownIsForgottenAndAYoungerOneIsNot(t *testing.T) {
	var i issuer
	source := i.source()
	first := taken(t, source, billing)
	source.Forget(billing, first)
	second := taken(t, source, billing)
	source.Forget(billing, first)
	if third := taken(t, source, billing); second == first || third != second {
		t.Error(first, second, third)
	}
}

func TestGrantsThatAreRememberedAreBounded(t *testing.T) {
	var i issuer
	source := i.source()
	for n := range mostGrants + 10 {
		taken(t, source, Grant{Subject: fmt.Sprint(n), Audiences: []string{"billing"}})
	}
	if len(source.slots) != mostGrants {
		t.Error(len(source.slots))
	}
}

func TestTransportAddsATokenForItsOriginAlone(t *testing.T) {
	var i issuer
	source := i.source()
	var got []string
	code := http.StatusOK
	serve := func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		w.WriteHeader(code)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(serve))
	defer elsewhere.Close()
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve := http.HandlerFunc(serve)
		if r.URL.Path == "/away" {
			serve = http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP
		}
		serve(w, r)
	}))
	defer here.Close()
	client := &http.Client{Transport: source.Transport(billing, here.URL)}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, here.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/away"} {
		request.URL.Path = path
		if _, err := client.Do(request); err != nil {
			t.Fatal(err)
		}
	}
	if request.Header.Get("Authorization") != "" || strings.Join(got, ",") != "Bearer token-1," {
		t.Errorf("%q, and the request itself has %q", got, request.Header)
	}
	code = http.StatusUnauthorized
	request.URL.Path = "/"
	for range 2 { // the first is turned down, and the next request has another token
		if _, err := client.Do(request); err != nil {
			t.Fatal(err)
		}
	}
	if last := got[len(got)-1]; last != "Bearer token-2" {
		t.Error(last)
	}
	i.err = &CallError{Code: codes.Unavailable}
	source.slots = map[string]*slot{}
	sent := len(got)
	body := &closing{Reader: strings.NewReader("x")}
	if _, err := client.Post(here.URL, "text/plain", body); !errors.Is(err, ErrUnavailable) || len(got) != sent || !body.closed {
		t.Errorf("without a token: %v", err)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestOriginsAreComparedAsRFC6454Says(t *testing.T) {
	source := (&issuer{}).source()
	for given, want := range map[string]string{
		"https://Billing:443": "https://billing", "http://billing:80/": "http://billing", "https://billing:8443": "https://billing:8443",
	} {
		if got := source.Transport(billing, given).origin; got != want {
			t.Errorf("%s: %s", given, got)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("billing:8443 is no origin")
		}
	}()
	source.Transport(billing, "billing:8443")
}

func TestCredentialsAddATokenToEachCallAndOnlyOverTLSUnlessAskedOtherwise(t *testing.T) {
	var i issuer
	source := i.source()
	if _, err := grpc.NewClient("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(source.Credentials(billing))); err == nil {
		t.Error("credentials without TLS")
	}
	var got []string
	server := grpc.NewServer(grpc.UnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, serve grpc.UnaryHandler) (any, error) {
			got = append(got, metadata.ValueFromIncomingContext(ctx, "authorization")...)
			return serve(ctx, request)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener := listen(t, "tcp", "127.0.0.1:0")
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(source.PlaintextCredentials(billing)))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := healthpb.NewHealthClient(connection).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil ||
		strings.Join(got, ",") != "Bearer token-1" {
		t.Errorf("%q, %v", got, err)
	}
	i.err = &CallError{Code: codes.Unavailable, cause: status.Error(codes.Unavailable, "down")}
	source.slots = map[string]*slot{}
	_, err = healthpb.NewHealthClient(connection).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || len(got) != 1 {
		t.Errorf("without a token: %v", err)
	}
}
