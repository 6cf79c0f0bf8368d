// Orders lets good tokens through and calls billing with a token of its own.
// Neither holds a key: the sidecar does.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	tokensidecar "tokensidecar.dev/go"
)

// claims of the tokens that users come with. What is not of this form was meant for another service.
type claims struct {
	Tenant string `json:"tenant"`
}

// billing serves those who may read bills.
func billing(client *tokensidecar.Client) http.Handler {
	protect := tokensidecar.Protect[struct{}](client, []string{"billing"}, tokensidecar.RequireScopes("bills.read"))
	return protect.Func(func(w http.ResponseWriter, _ *http.Request, caller *tokensidecar.Authorized[struct{}]) {
		fmt.Fprintf(w, "a bill, for %s", caller.Token.Subject)
	})
}

// orders asks billing, at that origin, for a bill.
func orders(client *tokensidecar.Client, origin string) http.Handler {
	source := tokensidecar.NewTokenSource(client)
	grant := tokensidecar.Grant{Subject: "orders", Audiences: []string{"billing"}, Scopes: []string{"bills.read"}}
	web := &http.Client{Transport: source.Transport(grant, origin)}
	protect := tokensidecar.Protect[claims](client, []string{"orders"}, tokensidecar.RequireScopes("orders.read"))
	return protect.Func(func(w http.ResponseWriter, r *http.Request, caller *tokensidecar.Authorized[claims]) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, origin+"/bill", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer, err := web.Do(request)
		if err != nil {
			http.Error(w, "no bill now", http.StatusServiceUnavailable)
			return
		}
		defer answer.Body.Close()
		bill, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
		if err != nil || answer.StatusCode != http.StatusOK {
			http.Error(w, "no bill now", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "orders of %s at %s: %s", caller.Token.Subject, caller.Claims.Tenant, bill)
	})
}

func main() {
	client, err := tokensidecar.Connect(context.Background())
	if err != nil {
		log.Fatal(err) // no sidecar within 10 s: the error lists all that were tried
	}
	bills := httptest.NewServer(billing(client)) // in a service of its own, elsewhere
	defer bills.Close()
	log.Print("http://127.0.0.1:8080/orders")
	log.Print(http.ListenAndServe("127.0.0.1:8080", orders(client, bills.URL)))
}
