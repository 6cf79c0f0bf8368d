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
	"sync/atomic"

	"google.golang.org/grpc"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// Client issues and validates tokens. It is safe for concurrent use, and
// reconnects by itself: make one and keep it.
type Client struct {
	connection *grpc.ClientConn
	tokens     pb.TokenServiceClient
	options    options
	batches    *coalescer  // nil: each Validate is a call of its own
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
	client := &Client{connection: connection, tokens: pb.NewTokenServiceClient(connection), options: o}
	if o.coalesce {
		client.batches = &coalescer{one: client.sendOne, many: client.sendBatch}
	}
	return client, nil
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error { return c.connection.Close() }

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

// Validate opens and checks a token. With a nil error it is good for one of the
// audiences, now. A token that is no good is a [RejectedError].
func (c *Client) Validate(ctx context.Context, request ValidateRequest) (*ValidatedToken, error) {
	deadline := c.options.validateTimeout
	if !c.validated.Load() {
		deadline = max(deadline, firstValidateTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	message, err := request.message()
	if err != nil {
		return nil, err
	}
	judge := c.sendOne
	if c.batches != nil {
		judge = c.batches.validate
	}
	answer, err := judge(ctx, message)
	if err != nil {
		if _, judged := err.(*RejectedError); judged {
			c.validated.Store(true)
		}
		return nil, err
	}
	c.validated.Store(true)
	return validatedToken(answer), nil
}

func (c *Client) sendOne(ctx context.Context, message *pb.ValidateRequest) (*pb.ValidateResponse, error) {
	return c.tokens.Validate(ctx, message)
}

// Refresh trades a refresh token for a new pair. It is repeated by itself like
// a Validate: within its grace (10 s) the sidecar answers a repeat with the same
// pair, as long as the new refresh token is unspent. A spent one that is
// presented later revokes its family: [ReasonRefreshReused].
func (c *Client) Refresh(ctx context.Context, request RefreshRequest) (*IssuedToken, error) {
	possession, err := request.Possession.message()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answer, err := c.tokens.Refresh(ctx, &pb.RefreshRequest{
		RefreshToken: request.RefreshToken,
		Audiences:    request.Audiences,
		Scopes:       request.Scopes,
		Possession:   possession,
	})
	if err != nil {
		return nil, err
	}
	if answer.GetTokens() == nil {
		return nil, broken("the answer has no tokens")
	}
	return issuedToken(answer.GetTokens()), nil
}

// Revoke ends a token, and of a refresh token its family: logout. It is no
// error that the token is unknown or ended already (RFC 7009). It is never
// repeated by itself; to repeat it does no harm.
func (c *Client) Revoke(ctx context.Context, request RevokeRequest) (*Revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answer, err := c.tokens.Revoke(ctx, &pb.RevokeRequest{Token: request.Token, Reason: request.Reason})
	if err != nil {
		return nil, err
	}
	return &Revocation{Revision: answer.GetRevocationRevision(), EffectiveTime: instant(answer.GetEffectiveTime())}, nil
}
