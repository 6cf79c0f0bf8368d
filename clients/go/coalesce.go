package tokensidecar

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

const (
	coalesceWait  = 200 * time.Microsecond
	coalesceItems = 64
	// Of one batch, so that it and its answer keep below 1 MiB each.
	coalesceBytes = 384 << 10
	// Of one call in a batch: twice the longest token. A larger one goes alone, and spoils no batch.
	coalesceCallBytes = 32 << 10
)

// coalescer gathers Validate calls into batches. The rule: what comes while
// nothing is under way goes at once; what comes meanwhile waits for that to end,
// for 200 µs, or until there are 64.
type coalescer struct {
	one  func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error)
	many func(context.Context, []*pb.ValidateRequest) ([]*pb.ValidateResult, error)

	mutex    sync.Mutex
	waiting  []*validation
	bytes    int         // of the calls that wait
	timer    *time.Timer // of the first that waits
	underway int
}

// validation is one call that waits for its result.
type validation struct {
	message  *pb.ValidateRequest
	deadline time.Time
	done     chan struct{}
	answer   *pb.ValidateResponse
	err      error
}

// validate ends with the call's own context, whatever the batch does.
func (c *coalescer) validate(ctx context.Context, message *pb.ValidateRequest) (*pb.ValidateResponse, error) {
	size := proto.Size(message)
	if size > coalesceCallBytes {
		return c.one(ctx, message)
	}
	deadline, _ := ctx.Deadline() // Validate has set one
	call := &validation{message: message, deadline: deadline, done: make(chan struct{})}
	c.add(call, size)
	select {
	case <-call.done:
		return call.answer, call.err
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

func (c *coalescer) add(call *validation, size int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.bytes+size > coalesceBytes {
		c.flush()
	}
	c.waiting = append(c.waiting, call)
	c.bytes += size
	switch {
	case c.underway == 0 || len(c.waiting) == coalesceItems:
		c.flush()
	case len(c.waiting) == 1:
		c.timer = time.AfterFunc(coalesceWait, c.due)
	}
}

func (c *coalescer) due() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.flush()
}

// flush sends what waits. The mutex is held.
func (c *coalescer) flush() {
	if len(c.waiting) == 0 {
		return
	}
	if c.timer != nil {
		c.timer.Stop() // one that has fired already flushes what came since, a little early
		c.timer = nil
	}
	calls := c.waiting
	c.waiting, c.bytes = nil, 0
	c.underway++
	go c.run(calls)
}

func (c *coalescer) run(calls []*validation) {
	c.judge(calls)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.underway--
	if c.underway == 0 {
		c.flush()
	}
}

// judge gives every call its result. The batch lives as long as the most patient of its calls.
func (c *coalescer) judge(calls []*validation) {
	messages := make([]*pb.ValidateRequest, len(calls))
	var last time.Time
	for i, call := range calls {
		messages[i] = call.message
		if call.deadline.After(last) {
			last = call.deadline
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), last)
	defer cancel()
	ctx, requestID := withRequestID(ctx)
	if len(calls) == 1 {
		calls[0].answer, calls[0].err = c.one(ctx, messages[0])
		close(calls[0].done)
		return
	}
	results, err := c.many(ctx, messages)
	for i, call := range calls {
		switch {
		case err != nil:
			call.err = err
		case results[i].GetResponse() != nil:
			call.answer = results[i].GetResponse()
		default:
			call.err = fromItem(results[i].GetError(), requestID)
		}
		close(call.done)
	}
}

// ended is the error of a call whose own context is over while its batch is under way.
func ended(ctx context.Context) error {
	answer := status.FromContextError(ctx.Err())
	return &CallError{Code: answer.Code(), Message: answer.Message(), cause: answer.Err(), cancelled: true}
}
