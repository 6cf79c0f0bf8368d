// Command billing stands in for your service: it answers whoever shows a good
// token, and asks the sidecar in its pod whether one is good.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	tokensidecar "tokensidecar.dev/go"
)

func main() {
	address := ":8080"
	if given := os.Getenv("LISTEN"); given != "" {
		address = given
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	tokens, err := tokensidecar.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()

	routes := http.NewServeMux()
	routes.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	routes.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	routes.Handle("GET /bill", bill(tokens))
	server := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			log.Print(err)
		}
	}()
	log.Printf("serving on %s", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	log.Print("stopped")
}

// bill lets only good tokens through, whatever goes wrong.
func bill(tokens *tokensidecar.Client) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, err := tokens.Validate(r.Context(), tokensidecar.ValidateRequest{Token: text, Audiences: []string{"billing"}})
		var rejected *tokensidecar.RejectedError
		switch {
		case errors.As(err, &rejected):
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		case errors.Is(err, tokensidecar.ErrUnavailable): // nobody knows: not the token's fault
			http.Error(w, "try again", http.StatusServiceUnavailable)
		case errors.Is(err, tokensidecar.ErrInvalidRequest): // no token at all
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		case err != nil:
			log.Print(err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, "the bill of %s\n", token.Subject)
		}
	}
}
