package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	tokensidecar "tokensidecar.dev/go"
)

func TestOrdersLetsAGoodTokenThroughAndCallsBillingWithItsOwn(t *testing.T) {
	address := os.Getenv("TOKENSIDECAR_TEST_SOCKET")
	if address == "" {
		t.Skip("needs a running sidecar, named by TOKENSIDECAR_TEST_SOCKET")
	}
	client, err := tokensidecar.Connect(t.Context(), tokensidecar.WithAddress(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	bills := httptest.NewServer(billing(client))
	defer bills.Close()
	handler := orders(client, bills.URL)
	ask := func(scopes ...string) *httptest.ResponseRecorder {
		issued, err := client.Issue(t.Context(), tokensidecar.IssueRequest{
			Subject: "ada", Audiences: []string{"orders"}, Scopes: scopes, Claims: claims{Tenant: "acme"},
		})
		if err != nil {
			t.Fatal(err)
		}
		request := httptest.NewRequest(http.MethodGet, "/orders", nil)
		request.Header.Set("Authorization", "Bearer "+issued.Token)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		return answer
	}
	if answer := ask("orders.read"); answer.Code != http.StatusOK || answer.Body.String() != "orders of ada at acme: a bill, for orders" {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	if answer := ask(); answer.Code != http.StatusForbidden {
		t.Errorf("without the scope: %d", answer.Code)
	}
}
