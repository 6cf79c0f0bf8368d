// Package tokensidecar issues and validates encrypted JWTs through a Token
// Sidecar on the same machine.
//
//	client, err := tokensidecar.Connect(ctx)
//	token, err := client.Validate(ctx, tokensidecar.ValidateRequest{Token: text, Audiences: []string{"orders"}})
//
// [Connect] finds the sidecar by itself. A token that is no good is a
// [RejectedError] with the [Reason]; every other failure is a [CallError], to be
// told apart by [errors.Is] with [ErrUnavailable], [ErrDenied] and
// [ErrInvalidRequest]. Whatever the error: a token is good only where it is nil.
//
// What holds a token or claims prints itself without them.
package tokensidecar

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// Client issues and validates tokens. It is safe for concurrent use, and
// reconnects by itself: make one and keep it.
type Client struct {
	connection *grpc.ClientConn
	tokens     pb.TokenServiceClient
	options    options
	validated  atomic.Bool // a first Validate was answered
}

// Connect finds the sidecar, waits until it accepts calls and returns a client.
//
// Without [WithAddress] it goes to TOKENSIDECAR_ADDRESS if that is set; else to
// the first that answers of app/app.sock in /run/tokensidecar,
// $XDG_RUNTIME_DIR/tokensidecar and /tmp/tokensidecar-$UID (in
// TOKENSIDECAR_RUNTIME_DIR alone, if that is set; only where socket and
// directories belong to root or this user), and 127.0.0.1:8790.
//
// After 10 s ([WithStartTimeout]) without a sidecar it returns an error that is
// [ErrUnavailable] and lists every address it tried.
func Connect(ctx context.Context, opts ...Option) (*Client, error) {
	o := newOptions(opts)
	connection, err := connect(ctx, appPlane, o)
	if err != nil {
		return nil, err
	}
	return &Client{connection: connection, tokens: pb.NewTokenServiceClient(connection), options: o}, nil
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error { return c.connection.Close() }

// IssueRequest is what a token shall say.
type IssueRequest struct {
	// Profile is the kind of token; empty: "default".
	Profile string
	// Subject is `sub`. Required.
	Subject string
	// Audiences are `aud`: the services that shall accept the token. Required.
	Audiences []string
	// TTL is the lifetime; 0: the profile's. Above the profile's maximum the request is refused.
	TTL time.Duration
	// ClientID is `client_id`; empty: the caller's name, as the sidecar sees it.
	ClientID string
	// Scopes are `scope`, one word each.
	Scopes []string
	// Claims are further claims, a JSON object: anything that encoding/json
	// writes as one, or a json.RawMessage, carried over byte for byte.
	Claims any
}

// IssuedToken is a token, and what was granted.
type IssuedToken struct {
	// Token is the encrypted JWT. Whoever has it may use it.
	Token string
	// TokenID is `jti`.
	TokenID string
	// KeyID is `kid` of the outermost layer.
	KeyID string
	// IssueTime is `iat`.
	IssueTime time.Time
	// ExpireTime is `exp`.
	ExpireTime time.Time
	// Audiences are as granted.
	Audiences []string
	// Scopes are as granted.
	Scopes []string
}

// Issue makes a token. It is never repeated by itself.
func (c *Client) Issue(ctx context.Context, request IssueRequest) (*IssuedToken, error) {
	message, err := request.message()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answer, err := c.tokens.Issue(ctx, message)
	if err != nil {
		return nil, err
	}
	return issuedToken(answer), nil
}

// ValidateRequest is a token, and what is demanded of it.
type ValidateRequest struct {
	// Token is the encrypted JWT. Required.
	Token string
	// Audiences are the names of the service that asks: the token must be for one of them. Required.
	Audiences []string
	// Profiles are the kinds of token that are accepted; empty: "default" alone.
	Profiles []string
	// RequiredScopes must all be in the token.
	RequiredScopes []string
	// RequestID makes repeats of this call the same call, for one-time tokens; empty: a fresh one, kept over retries.
	RequestID string
	// MinRevocationRevision demands that the sidecar knows of revocations up to this revision.
	MinRevocationRevision uint64
}

// ValidatedToken is what a good token says.
type ValidatedToken struct {
	// Profile is the kind of token that it is.
	Profile string
	// Issuer is `iss`.
	Issuer string
	// Subject is `sub`.
	Subject string
	// Audiences are `aud`.
	Audiences []string
	// ClientID is `client_id`.
	ClientID string
	// Scopes are `scope`.
	Scopes []string
	// TokenID is `jti`.
	TokenID string
	// IssueTime is `iat`.
	IssueTime time.Time
	// ExpireTime is `exp`.
	ExpireTime time.Time
	// KeyID is `kid` of the outermost layer.
	KeyID string
	// ClaimsJSON has every claim: the very bytes that were signed or sealed.
	ClaimsJSON json.RawMessage
	// RingRevision is that of the keys that the answer rests on.
	RingRevision uint64
	// RevocationRevision is that of the revocations that the answer rests on.
	RevocationRevision uint64
}

// DecodeClaims reads all claims into a struct or a map. Integers are exact: an
// int64 takes 2^63-1, and in a map[string]any numbers are [json.Number]. Names
// that differ in case only are an error, for encoding/json confuses them.
func (t *ValidatedToken) DecodeClaims(into any) error { return decodeClaims(t.ClaimsJSON, into) }

// Validate opens and checks a token. With a nil error it is good for one of the
// audiences, now. A token that is no good is a [RejectedError].
func (c *Client) Validate(ctx context.Context, request ValidateRequest) (*ValidatedToken, error) {
	deadline := c.options.validateTimeout
	if !c.validated.Load() {
		deadline = max(deadline, firstValidateTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	answer, err := c.tokens.Validate(ctx, request.message())
	if err != nil {
		if _, judged := err.(*RejectedError); judged {
			c.validated.Store(true)
		}
		return nil, err
	}
	c.validated.Store(true)
	return validatedToken(answer), nil
}

// IssueResult is one item's end: a token, or why there is none.
type IssueResult struct {
	Token *IssuedToken
	Err   error
}

// BatchIssue is Issue for up to 1,000 requests at once, with a result for each,
// in order. The error is that of the call as a whole.
func (c *Client) BatchIssue(ctx context.Context, requests []IssueRequest) ([]IssueResult, error) {
	messages := make([]*pb.IssueRequest, len(requests))
	for i, request := range requests {
		message, err := request.message()
		if err != nil {
			return nil, fmt.Errorf("requests[%d]: %w", i, err)
		}
		messages[i] = message
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answer, err := c.tokens.BatchIssue(ctx, &pb.BatchIssueRequest{Requests: messages})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(requests) {
		return nil, broken("the batch has another number of results than of requests")
	}
	results := make([]IssueResult, len(requests))
	for i, result := range answer.GetResults() {
		if response := result.GetResponse(); response != nil {
			results[i].Token = issuedToken(response)
		} else {
			results[i].Err = fromItem(result.GetError())
		}
	}
	return results, nil
}

// ValidateResult is one item's end: the token is good only where Err is nil.
type ValidateResult struct {
	Token *ValidatedToken
	Err   error
}

// BatchValidate is Validate for up to 1,000 tokens at once, with a result for
// each, in order. The error is that of the call as a whole.
func (c *Client) BatchValidate(ctx context.Context, requests []ValidateRequest) ([]ValidateResult, error) {
	messages := make([]*pb.ValidateRequest, len(requests))
	for i, request := range requests {
		messages[i] = request.message()
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answer, err := c.tokens.BatchValidate(ctx, &pb.BatchValidateRequest{Requests: messages})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(requests) {
		return nil, broken("the batch has another number of results than of requests")
	}
	results := make([]ValidateResult, len(requests))
	for i, result := range answer.GetResults() {
		if response := result.GetResponse(); response != nil {
			results[i].Token = validatedToken(response)
		} else {
			results[i].Err = fromItem(result.GetError())
		}
	}
	return results, nil
}

func (r IssueRequest) message() (*pb.IssueRequest, error) {
	message := &pb.IssueRequest{
		Profile:   r.Profile,
		Subject:   r.Subject,
		Audiences: r.Audiences,
		ClientId:  r.ClientID,
		Scopes:    r.Scopes,
	}
	if r.TTL != 0 {
		message.Ttl = durationpb.New(r.TTL)
	}
	claims, err := encodeClaims(r.Claims)
	if err != nil {
		return nil, err
	}
	if claims != "" {
		message.ClaimsSource = &pb.IssueRequest_ClaimsJson{ClaimsJson: claims}
	}
	return message, nil
}

func (r ValidateRequest) message() *pb.ValidateRequest {
	return &pb.ValidateRequest{
		Token:                 r.Token,
		Audiences:             r.Audiences,
		Profiles:              r.Profiles,
		RequiredScopes:        r.RequiredScopes,
		RequestId:             orFresh(r.RequestID),
		MinRevocationRevision: r.MinRevocationRevision,
	}
}

func issuedToken(answer *pb.IssueResponse) *IssuedToken {
	return &IssuedToken{
		Token:      answer.GetToken(),
		TokenID:    answer.GetTokenId(),
		KeyID:      answer.GetKeyId(),
		IssueTime:  instant(answer.GetIssueTime()),
		ExpireTime: instant(answer.GetExpireTime()),
		Audiences:  answer.GetAudiences(),
		Scopes:     answer.GetScopes(),
	}
}

func validatedToken(answer *pb.ValidateResponse) *ValidatedToken {
	return &ValidatedToken{
		Profile:            answer.GetProfile(),
		Issuer:             answer.GetIssuer(),
		Subject:            answer.GetSubject(),
		Audiences:          answer.GetAudiences(),
		ClientID:           answer.GetClientId(),
		Scopes:             answer.GetScopes(),
		TokenID:            answer.GetTokenId(),
		IssueTime:          instant(answer.GetIssueTime()),
		ExpireTime:         instant(answer.GetExpireTime()),
		KeyID:              answer.GetKeyId(),
		ClaimsJSON:         json.RawMessage(answer.GetClaimsJson()),
		RingRevision:       answer.GetRingRevision(),
		RevocationRevision: answer.GetRevocationRevision(),
	}
}

// instant is the zero time where the contract has no value.
func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// orFresh gives a request id of 128 random bits where the caller has none.
func orFresh(requestID string) string {
	if requestID == "" {
		return rand.Text()
	}
	return requestID
}
