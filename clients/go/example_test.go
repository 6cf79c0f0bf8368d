package tokensidecar_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	tokensidecar "tokensidecar.dev/go"
)

func ExampleConnect() {
	ctx, text := context.Background(), "the token of a request"

	client, err := tokensidecar.Connect(ctx)
	if err != nil {
		log.Fatal(err) // no sidecar within 10 s: the error lists all that were tried
	}
	token, err := client.Validate(ctx, tokensidecar.ValidateRequest{Token: text, Audiences: []string{"orders"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Subject)
}

func ExampleClient_Issue() {
	ctx := context.Background()
	client, err := tokensidecar.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	issued, err := client.Issue(ctx, tokensidecar.IssueRequest{
		Subject:   "user-17",
		Audiences: []string{"orders"},
		TTL:       5 * time.Minute,
		Claims:    map[string]any{"tenant": "acme", "account": int64(9223372036854775807)},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(issued.ExpireTime)
}

// A handler that lets only good tokens through, whatever goes wrong.
func ExampleClient_Validate() {
	client, err := tokensidecar.Connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := client.Validate(r.Context(), tokensidecar.ValidateRequest{Token: bearer, Audiences: []string{"orders"}})
		var rejected *tokensidecar.RejectedError
		switch {
		case errors.As(err, &rejected): // the token is no good
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		case errors.Is(err, tokensidecar.ErrUnavailable): // nobody knows: not the token's fault
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		case err != nil: // invalid request, denied, …: a mistake of ours
			log.Print(err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		var claims struct {
			Tenant string `json:"tenant"`
		}
		if err := token.DecodeClaims(&claims); err != nil {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "orders of %s at %s", token.Subject, claims.Tenant)
	})
}

type Claims struct {
	Tenant string `json:"tenant"`
}

func ExampleProtect() {
	client, err := tokensidecar.Connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	protect := tokensidecar.Protect[Claims](client, []string{"orders"}, tokensidecar.RequireScopes("read"))
	http.Handle("/orders", protect.Func(func(w http.ResponseWriter, r *http.Request, caller *tokensidecar.Authorized[Claims]) {
		fmt.Fprintf(w, "orders of %s at %s", caller.Token.Subject, caller.Claims.Tenant)
	}))
	server := grpc.NewServer(grpc.UnaryInterceptor(protect.UnaryInterceptor()), grpc.StreamInterceptor(protect.StreamInterceptor()))
	defer server.Stop()
}

func ExampleTokenSource() {
	client, err := tokensidecar.Connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	source := tokensidecar.NewTokenSource(client)
	grant := tokensidecar.Grant{Subject: "orders", Audiences: []string{"billing"}, Scopes: []string{"read"}}
	billing := &http.Client{Transport: source.Transport(grant, "https://billing:8443")}
	connection, err := grpc.NewClient("billing:8444", grpc.WithTransportCredentials(credentials.NewTLS(nil)),
		grpc.WithPerRPCCredentials(source.Credentials(grant)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	defer billing.CloseIdleConnections()
}

func ExampleAdmin_Rotate() {
	ctx := context.Background()
	admin, err := tokensidecar.ConnectAdmin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer admin.Close()

	rotation, err := admin.Rotate(ctx, tokensidecar.RotateRequest{Profile: "default", Reason: "quarterly"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rotation.ActivateTime)
}

func TestReadmeShowsCodeThatCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	compiled := map[string]bool{}
	for line := range strings.Lines(string(examples)) {
		compiled[strings.TrimSpace(line)] = true
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Error("no code in README.md")
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		for line := range strings.Lines(code) {
			if !compiled[strings.TrimSpace(line)] {
				t.Errorf("not in example_test.go: %s", line)
			}
		}
	}
}
