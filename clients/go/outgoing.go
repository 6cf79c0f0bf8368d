package tokensidecar

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
)

// Transport is an [http.RoundTripper] that adds a bearer token to each request
// to one origin, and to no other: an http.Client also follows redirects to
// elsewhere, with the same transport. Make one with [TokenSource.Transport].
type Transport struct {
	// Base sends the requests; nil: http.DefaultTransport.
	Base http.RoundTripper

	source *TokenSource
	grant  Grant
	origin string
}

// Transport adds tokens of the grant to requests to the origin, such as
// "https://billing:8443". A request that there is no token for is not sent. A
// token that is answered by 401 is not used again. It panics for an origin that
// is none, for that is seen at the first start.
func (s *TokenSource) Transport(grant Grant, origin string) *Transport {
	parsed, err := parseOrigin(origin)
	if err != nil {
		panic(err)
	}
	return &Transport{source: s, grant: grant, origin: originOf(parsed)}
}

// RoundTrip leaves the request as it is, and sends a copy of it.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if originOf(request.URL) != t.origin {
		return base.RoundTrip(request)
	}
	token, err := t.source.Token(request.Context(), t.grant)
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // as every RoundTripper must
		}
		return nil, fmt.Errorf("no token for %s: %w", t.origin, err)
	}
	sent := request.Clone(request.Context())
	sent.Header.Set("Authorization", bearer(token))
	response, err := base.RoundTrip(sent)
	if err == nil && response.StatusCode == http.StatusUnauthorized {
		t.source.Forget(t.grant, token.Token)
	}
	return response, err
}

// parseOrigin reads scheme://host or scheme://host:port (RFC 6454).
func parseOrigin(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme == "" || parsed.Host == "" || strings.TrimSuffix(text, "/") != parsed.Scheme+"://"+parsed.Host {
		return nil, fmt.Errorf("tokensidecar: %q is no origin: scheme://host or scheme://host:port", text)
	}
	return parsed, nil
}

func originOf(u *url.URL) string {
	origin := strings.ToLower(u.Scheme + "://" + u.Host)
	if standard, ok := map[string]string{"https": ":443", "http": ":80"}[strings.ToLower(u.Scheme)]; ok {
		origin = strings.TrimSuffix(origin, standard)
	}
	return origin
}

// Credentials add a bearer token to each call of a gRPC client:
// grpc.WithPerRPCCredentials, or grpc.PerRPCCredentials for one call. gRPC
// refuses them on a connection without TLS; without a token nothing is sent.
func (s *TokenSource) Credentials(grant Grant) credentials.PerRPCCredentials {
	return perRPC{source: s, grant: grant, secure: true}
}

// PlaintextCredentials are [TokenSource.Credentials] for a connection without
// TLS: within one machine, or where a proxy beside this program encrypts.
func (s *TokenSource) PlaintextCredentials(grant Grant) credentials.PerRPCCredentials {
	return perRPC{source: s, grant: grant}
}

type perRPC struct {
	source *TokenSource
	grant  Grant
	secure bool
}

func (c perRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.source.Token(ctx, c.grant)
	if err != nil {
		return nil, fmt.Errorf("no token: %w", err)
	}
	return map[string]string{"authorization": bearer(token)}, nil
}

func (c perRPC) RequireTransportSecurity() bool { return c.secure }
