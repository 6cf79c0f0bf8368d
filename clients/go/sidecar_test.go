package tokensidecar_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tokensidecar "tokensidecar.dev/go"
)

// These tests need a running sidecar on its embedded defaults, at addresses as
// WithAddress takes them. They rotate and revoke its keys.
const (
	socketVariable = "TOKENSIDECAR_TEST_SOCKET" // app plane
	tcpVariable    = "TOKENSIDECAR_TEST_TCP"    // app plane
	adminVariable  = "TOKENSIDECAR_TEST_ADMIN"
)

func named(t testing.TB, variable string) tokensidecar.Option {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		t.Skipf("needs a running sidecar, named by %s", variable)
	}
	return tokensidecar.WithAddress(address)
}

func connect(t *testing.T, variable string) *tokensidecar.Client {
	t.Helper()
	client, err := tokensidecar.Connect(t.Context(), named(t, variable))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func connectAdmin(t *testing.T, variable string) *tokensidecar.Admin {
	t.Helper()
	admin, err := tokensidecar.ConnectAdmin(t.Context(), named(t, variable))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	return admin
}

// overSocketAndTCP runs a test once over each transport.
func overSocketAndTCP(t *testing.T, test func(*testing.T, *tokensidecar.Client)) {
	t.Helper()
	for name, variable := range map[string]string{"socket": socketVariable, "TCP": tcpVariable} {
		t.Run(name, func(t *testing.T) { test(t, connect(t, variable)) })
	}
}

func issue(t *testing.T, client *tokensidecar.Client, request tokensidecar.IssueRequest) *tokensidecar.IssuedToken {
	t.Helper()
	issued, err := client.Issue(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func reasonOf(err error) tokensidecar.Reason {
	var rejected *tokensidecar.RejectedError
	if errors.As(err, &rejected) {
		return rejected.Reason
	}
	return ""
}

func TestSidecarIssuesATokenThatItValidates(t *testing.T) {
	overSocketAndTCP(t, func(t *testing.T, client *tokensidecar.Client) {
		issued := issue(t, client, tokensidecar.IssueRequest{
			Subject: "user-17", Audiences: []string{"orders", "billing"}, TTL: 90 * time.Second, Scopes: []string{"read", "write"},
			Claims: map[string]any{"big": int64(math.MaxInt64), "small": int64(math.MinInt64), "name": "Zoë 🦊 <&>"},
		})
		if strings.Count(issued.Token, ".") != 4 || issued.ExpireTime.Sub(issued.IssueTime) != 90*time.Second {
			t.Errorf("%v", issued)
		}
		if age := time.Since(issued.IssueTime); age < -time.Minute || age > time.Minute {
			t.Errorf("issued %s ago", age)
		}
		token, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{
			Token: issued.Token, Audiences: []string{"billing"}, RequiredScopes: []string{"write"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if token.Subject != "user-17" || token.Profile != "default" || token.Issuer == "" || token.ClientID == "" ||
			!slices.Equal(token.Audiences, []string{"orders", "billing"}) || !slices.Equal(token.Scopes, []string{"read", "write"}) ||
			token.TokenID != issued.TokenID || token.KeyID != issued.KeyID || token.RingRevision == 0 ||
			!token.IssueTime.Equal(issued.IssueTime) || !token.ExpireTime.Equal(issued.ExpireTime) {
			t.Errorf("%#v is not what was issued", token)
		}
		var claims struct {
			Subject string `json:"sub"`
			Big     int64  `json:"big"`
			Small   int64  `json:"small"`
			Name    string `json:"name"`
		}
		if err := token.DecodeClaims(&claims); err != nil || claims.Subject != "user-17" || claims.Big != math.MaxInt64 ||
			claims.Small != math.MinInt64 || claims.Name != "Zoë 🦊 <&>" {
			t.Errorf("%+v, %v", claims, err)
		}
	})
}

func TestSidecarCarriesRawClaimsByteForByte(t *testing.T) {
	overSocketAndTCP(t, func(t *testing.T, client *tokensidecar.Client) {
		member := `"amount":1.50,"u":18446744073709551615,"n":"\u0041\/"`
		issued := issue(t, client, tokensidecar.IssueRequest{
			Subject: "user-17", Audiences: []string{"orders"}, Claims: json.RawMessage("{" + member + "}"),
		})
		token, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: issued.Token, Audiences: []string{"orders"}})
		if err != nil || !strings.Contains(string(token.ClaimsJSON), member) {
			t.Errorf("%v: %s", err, token.ClaimsJSON)
		}
	})
}

func TestSidecarRejectsWhatIsNoGoodWithTheReason(t *testing.T) {
	overSocketAndTCP(t, func(t *testing.T, client *tokensidecar.Client) {
		good := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}}).Token
		parts := strings.Split(good, ".")
		parts[3] = strings.Map(func(r rune) rune { // every character of the ciphertext becomes another one
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, parts[3])
		for name, c := range map[string]struct {
			request tokensidecar.ValidateRequest
			reason  tokensidecar.Reason
		}{
			"tampered":     {tokensidecar.ValidateRequest{Token: strings.Join(parts, "."), Audiences: []string{"orders"}}, tokensidecar.ReasonTokenInvalid},
			"no token":     {tokensidecar.ValidateRequest{Token: "hello", Audiences: []string{"orders"}}, tokensidecar.ReasonTokenInvalid},
			"for others":   {tokensidecar.ValidateRequest{Token: good, Audiences: []string{"mail"}}, tokensidecar.ReasonTokenAudienceMismatch},
			"not in scope": {tokensidecar.ValidateRequest{Token: good, Audiences: []string{"orders"}, RequiredScopes: []string{"x"}}, tokensidecar.ReasonTokenScopeMissing},
		} {
			token, err := client.Validate(t.Context(), c.request)
			if token != nil || reasonOf(err) != c.reason {
				t.Errorf("%s: %v", name, err)
			}
			var rejected *tokensidecar.RejectedError
			if errors.As(err, &rejected) && rejected.RequestID == "" {
				t.Errorf("%s: without a request id", name)
			}
			if err != nil && strings.Contains(err.Error(), c.request.Token) {
				t.Errorf("%s: the error quotes the token", name)
			}
		}
	})
}

func TestSidecarTellsInvalidRequestsAndDeniedCallersApart(t *testing.T) {
	overSocketAndTCP(t, func(t *testing.T, client *tokensidecar.Client) {
		_, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: "x"})
		var call *tokensidecar.CallError
		if !errors.Is(err, tokensidecar.ErrInvalidRequest) || !errors.As(err, &call) || len(call.Fields) == 0 || call.Fields[0].Name != "audiences" {
			t.Errorf("without audiences: %v", err)
		}
		_, err = client.Issue(t.Context(), tokensidecar.IssueRequest{Subject: "a", Audiences: []string{"b"}, TTL: 1000 * time.Hour})
		if !errors.Is(err, tokensidecar.ErrInvalidRequest) {
			t.Errorf("a lifetime above the maximum: %v", err)
		}
		_, err = client.Issue(t.Context(), tokensidecar.IssueRequest{Subject: "a", Audiences: []string{"b"}, Claims: []int{1}})
		if !errors.Is(err, tokensidecar.ErrInvalidRequest) {
			t.Errorf("claims that are no object: %v", err)
		}
	})
	for name, variable := range map[string]string{"socket": socketVariable, "TCP": tcpVariable} {
		t.Run("rotate on the app plane over "+name, func(t *testing.T) {
			_, err := connectAdmin(t, variable).Rotate(t.Context(), tokensidecar.RotateRequest{})
			var call *tokensidecar.CallError
			if !errors.Is(err, tokensidecar.ErrDenied) || !errors.As(err, &call) || call.Reason != tokensidecar.ReasonCallerDenied {
				t.Error(err)
			}
		})
	}
}

func TestSidecarAnswersBatchesItemByItem(t *testing.T) {
	overSocketAndTCP(t, func(t *testing.T, client *tokensidecar.Client) {
		issued, err := client.BatchIssue(t.Context(), []tokensidecar.IssueRequest{
			{Subject: "ada", Audiences: []string{"orders"}, Claims: map[string]any{"n": 1}},
			{Subject: "bob"},
			{Subject: "eve", Audiences: []string{"orders"}},
		})
		if err != nil || len(issued) != 3 || issued[0].Err != nil || issued[2].Err != nil {
			t.Fatalf("%v, %v", issued, err)
		}
		if !errors.Is(issued[1].Err, tokensidecar.ErrInvalidRequest) || issued[1].Token != nil {
			t.Errorf("without audiences: %v", issued[1].Err)
		}
		validated, err := client.BatchValidate(t.Context(), []tokensidecar.ValidateRequest{
			{Token: issued[0].Token.Token, Audiences: []string{"orders"}},
			{Token: "hello", Audiences: []string{"orders"}},
			{Token: issued[2].Token.Token, Audiences: []string{"mail"}},
			{Token: issued[2].Token.Token, Audiences: []string{"orders"}},
		})
		if err != nil || len(validated) != 4 || validated[0].Err != nil || validated[3].Err != nil {
			t.Fatalf("%v, %v", validated, err)
		}
		if validated[0].Token.Subject != "ada" || validated[3].Token.Subject != "eve" {
			t.Error("not in order")
		}
		if reasonOf(validated[1].Err) != tokensidecar.ReasonTokenInvalid || reasonOf(validated[2].Err) != tokensidecar.ReasonTokenAudienceMismatch {
			t.Errorf("%v, %v", validated[1].Err, validated[2].Err)
		}
	})
}

func TestSidecarRotatesWithoutLosingAToken(t *testing.T) {
	client, admin := connect(t, socketVariable), connectAdmin(t, adminVariable)
	old := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}})
	before, err := admin.ListKeys(t.Context(), "default")
	if err != nil || len(before) == 0 {
		t.Fatalf("%v, %v", before, err)
	}
	request := tokensidecar.RotateRequest{ExpectedRingRevision: before[0].RingRevision, RequestID: "rotate-" + old.TokenID, Reason: "test"}
	rotation, err := admin.Rotate(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if rotation.RingRevision <= before[0].RingRevision || len(rotation.Keys) != len(before)+2 {
		t.Errorf("%d keys at revision %d, then %d at %d", len(before), before[0].RingRevision, len(rotation.Keys), rotation.RingRevision)
	}
	if again, err := admin.Rotate(t.Context(), request); err != nil || again.RingRevision != rotation.RingRevision {
		t.Errorf("the same request rotated again: %v, %v", again, err)
	}
	request.RequestID = ""
	if _, err := admin.Rotate(t.Context(), request); !errors.Is(err, tokensidecar.ErrRingChanged) {
		t.Errorf("at the revision of before: %v", err)
	}
	if wait := time.Until(rotation.ActivateTime); wait > 5*time.Second {
		t.Fatalf("one sidecar alone activates in %s", wait)
	} else if wait > 0 {
		time.Sleep(wait)
	}
	fresh := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}})
	if fresh.KeyID == old.KeyID {
		t.Error("the new token is under the old key")
	}
	for _, token := range []string{old.Token, fresh.Token} {
		if _, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: token, Audiences: []string{"orders"}}); err != nil {
			t.Error(err)
		}
	}
	states := map[string]tokensidecar.KeyState{}
	after, err := admin.ListKeys(t.Context(), "default")
	for _, key := range after {
		states[key.KeyID] = key.State
		if key.Profile != "default" || key.Algorithm == "" || key.CreateTime.IsZero() || key.ActivateTime.IsZero() ||
			key.RetireTime.IsZero() != (key.State == tokensidecar.StateActive) {
			t.Errorf("%+v", key)
		}
	}
	if err != nil || states[old.KeyID] != tokensidecar.StateRetiring || states[fresh.KeyID] != tokensidecar.StateActive {
		t.Errorf("%v, %v", states, err)
	}
}

func TestSidecarRejectsTokensOfARevokedKey(t *testing.T) {
	client, admin := connect(t, tcpVariable), connectAdmin(t, adminVariable)
	bad := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}})
	if _, err := admin.RevokeKeys(t.Context(), tokensidecar.RevokeKeysRequest{Profile: "default"}); !errors.Is(err, tokensidecar.ErrInvalidRequest) {
		t.Errorf("without key ids: %v", err)
	}
	revocation, err := admin.RevokeKeys(t.Context(), tokensidecar.RevokeKeysRequest{Profile: "default", KeyIDs: []string{bad.KeyID}, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, key := range revocation.Keys {
		if key.KeyID == bad.KeyID {
			found = key.State == tokensidecar.StateCompromised && !key.CompromiseTime.IsZero()
		}
	}
	if !found || revocation.RingRevision == 0 || revocation.EffectiveTime.IsZero() {
		t.Errorf("%+v", revocation)
	}
	_, err = client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: bad.Token, Audiences: []string{"orders"}})
	if reasonOf(err) != tokensidecar.ReasonTokenInvalid {
		t.Errorf("a token of a compromised key: %v", err)
	}
	fresh := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}})
	if _, err = client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: fresh.Token, Audiences: []string{"orders"}}); err != nil || fresh.KeyID == bad.KeyID {
		t.Errorf("its successor: %v", err)
	}
}

func TestSidecarRevokesAToken(t *testing.T) {
	client := connect(t, socketVariable)
	token := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}}).Token
	revocation, err := client.Revoke(t.Context(), tokensidecar.RevokeRequest{Token: token, Reason: "logout"})
	if err != nil || revocation.Revision == 0 || revocation.EffectiveTime.IsZero() {
		t.Fatal(revocation, err)
	}
	_, err = client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: token, Audiences: []string{"orders"}})
	if reasonOf(err) != tokensidecar.ReasonTokenRevoked {
		t.Error(err)
	}
	if _, err := client.Revoke(t.Context(), tokensidecar.RevokeRequest{Token: token}); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestSidecarEndsTheTokensOfASubjectAndOneByItsID(t *testing.T) {
	client, admin := connect(t, socketVariable), connectAdmin(t, adminVariable)
	one := issue(t, client, tokensidecar.IssueRequest{Subject: "revoked-1", Audiences: []string{"orders"}})
	two := issue(t, client, tokensidecar.IssueRequest{Subject: "revoked-2", Audiences: []string{"orders"}})
	if _, err := admin.RevokeSubject(t.Context(), tokensidecar.RevokeSubjectRequest{Profile: "default", Subject: "revoked-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RevokeTokenID(t.Context(), tokensidecar.RevokeTokenIDRequest{Profile: "default", TokenID: two.TokenID}); err != nil {
		t.Fatal(err)
	}
	for _, issued := range []*tokensidecar.IssuedToken{one, two} {
		_, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: issued.Token, Audiences: []string{"orders"}})
		if reasonOf(err) != tokensidecar.ReasonTokenRevoked {
			t.Error(err)
		}
	}
}

func TestSidecarJudgesCallsThatGoTogether(t *testing.T) {
	client, err := tokensidecar.Connect(t.Context(), named(t, socketVariable), tokensidecar.WithCoalescing(), tokensidecar.WithValidateTimeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	good := issue(t, client, tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}}).Token
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			token := good
			if i%2 == 0 {
				token = "hello"
			}
			_, err := client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: token, Audiences: []string{"orders"}})
			if i%2 == 0 && reasonOf(err) != tokensidecar.ReasonTokenInvalid || i%2 == 1 && err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// A proof of RFC 9449 by a key of this test, over net/http, judged by the sidecar.
func TestSidecarChecksPossessionForAProtectedRoute(t *testing.T) {
	client := connect(t, socketVariable)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	jwk := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, encode(point[1:33]), encode(point[33:]))
	thumbprint := sha256.Sum256([]byte(jwk))
	token := issue(t, client, tokensidecar.IssueRequest{
		Subject: "user-17", Audiences: []string{"orders"}, Confirmation: tokensidecar.Confirmation{JWKThumbprint: encode(thumbprint[:])},
	}).Token
	proof := func(url string) string {
		hash := sha256.Sum256([]byte(token))
		text := encode([]byte(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+jwk+`}`)) + "." + encode(fmt.Appendf(nil,
			`{"jti":"%s","htm":"GET","htu":"%s","iat":%d,"ath":"%s"}`, rand.Text(), url, time.Now().Unix(), encode(hash[:])))
		digest := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return text + "." + encode(signature)
	}
	handler := tokensidecar.Protect[map[string]any](client, []string{"orders"}, tokensidecar.DPoP("https://api.example.com")).
		Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	once := proof("https://api.example.com/orders")
	for _, c := range []struct {
		scheme, proof string
		code          int
	}{
		{"DPoP", once, http.StatusNoContent},
		{"DPoP", once, http.StatusUnauthorized}, // a replay
		{"DPoP", proof("https://api.example.com/other"), http.StatusUnauthorized},
		{"Bearer", proof("https://api.example.com/orders"), http.StatusUnauthorized},
	} {
		request := httptest.NewRequest(http.MethodGet, "/orders?page=2", nil)
		request.Header.Set("Authorization", c.scheme+" "+token)
		request.Header.Set("DPoP", c.proof)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != c.code {
			t.Errorf("%s: %d, %q", c.scheme, answer.Code, answer.Header().Values("WWW-Authenticate"))
		}
	}
}
