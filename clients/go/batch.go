package tokensidecar

import (
	"context"
	"fmt"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

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
	ctx, requestID := withRequestID(ctx)
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
			results[i].Err = fromItem(result.GetError(), requestID)
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
		message, err := request.message()
		if err != nil {
			return nil, fmt.Errorf("requests[%d]: %w", i, err)
		}
		messages[i] = message
	}
	ctx, requestID := withRequestID(ctx)
	ctx, cancel := context.WithTimeout(ctx, c.options.timeout)
	defer cancel()
	answers, err := c.sendBatch(ctx, messages)
	if err != nil {
		return nil, err
	}
	results := make([]ValidateResult, len(requests))
	for i, result := range answers {
		if response := result.GetResponse(); response != nil {
			results[i].Token = validatedToken(response)
		} else {
			results[i].Err = fromItem(result.GetError(), requestID)
		}
	}
	return results, nil
}

// sendBatch gives as many results as there are messages.
func (c *Client) sendBatch(ctx context.Context, messages []*pb.ValidateRequest) ([]*pb.ValidateResult, error) {
	answer, err := c.tokens.BatchValidate(ctx, &pb.BatchValidateRequest{Requests: messages})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != len(messages) {
		return nil, broken("the batch has another number of results than of requests")
	}
	return answer.GetResults(), nil
}
