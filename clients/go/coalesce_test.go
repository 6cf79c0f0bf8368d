package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// batching is a fake that echoes tokens as subjects, rejects "bad…", and counts.
type batching struct {
	fake
	single, batches, items, largest atomic.Int32
	pause                           time.Duration
}

func newBatching() *batching {
	b := &batching{}
	one := func(r *pb.ValidateRequest) (*pb.ValidateResponse, *pb.ItemError) {
		if strings.HasPrefix(r.GetToken(), "bad") {
			return nil, &pb.ItemError{Code: int32(codes.Unauthenticated), Reason: pb.ErrorReason_TOKEN_INVALID, Message: "no good"}
		}
		return &pb.ValidateResponse{Subject: r.GetToken(), ClaimsJson: "{}"}, nil
	}
	b.validate = func(_ context.Context, r *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		b.single.Add(1)
		time.Sleep(b.pause)
		answer, bad := one(r)
		if bad != nil {
			return nil, failure(codes.Unauthenticated, bad.GetReason(), bad.GetMessage())
		}
		return answer, nil
	}
	b.batchValidate = func(_ context.Context, r *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
		b.batches.Add(1)
		b.items.Add(int32(len(r.GetRequests())))
		b.largest.Store(max(b.largest.Load(), int32(len(r.GetRequests()))))
		time.Sleep(b.pause)
		answer := &pb.BatchValidateResponse{}
		for _, each := range r.GetRequests() {
			result := &pb.ValidateResult{}
			if response, bad := one(each); bad != nil {
				result.Result = &pb.ValidateResult_Error{Error: bad}
			} else {
				result.Result = &pb.ValidateResult_Response{Response: response}
			}
			answer.Results = append(answer.Results, result)
		}
		return answer, nil
	}
	return b
}

// many validates at the same time, each in a goroutine of its own.
func many(count int, validate func(int)) {
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() { validate(i) })
	}
	group.Wait()
}

func TestCallsAtTheSameTimeGoTogetherAndEachGetsItsOwnResult(t *testing.T) {
	server := newBatching()
	server.pause = 5 * time.Millisecond
	client := server.client(t, WithCoalescing(), WithValidateTimeout(10*time.Second))
	many(200, func(i int) {
		name := fmt.Sprintf("token-%d", i)
		if i%3 == 0 {
			name = fmt.Sprintf("bad-%d", i)
		}
		token, err := client.Validate(t.Context(), ValidateRequest{Token: name, Audiences: []string{"orders"}})
		var rejected *RejectedError
		if bad := i%3 == 0; bad && (!errors.As(err, &rejected) || rejected.Reason != ReasonTokenInvalid || rejected.RequestID == "") {
			t.Errorf("%s: %v, %v", name, token, err)
		} else if !bad && (err != nil || token.Subject != name) {
			t.Errorf("%s: %v, %v", name, token, err)
		}
	})
	if sum := server.single.Load() + server.items.Load(); sum != 200 || server.batches.Load() > 20 || server.largest.Load() > coalesceItems {
		t.Errorf("%d alone, %d batches of at most %d with %d", server.single.Load(), server.batches.Load(), server.largest.Load(), server.items.Load())
	}
}

func TestACallThatIsAloneGoesAloneAndAtOnce(t *testing.T) {
	server := newBatching()
	client := server.client(t, WithCoalescing())
	for range 3 {
		if _, err := client.Validate(t.Context(), ValidateRequest{Token: "x"}); err != nil {
			t.Error(err)
		}
	}
	if server.single.Load() != 3 || server.batches.Load() != 0 {
		t.Errorf("%d alone, %d batches", server.single.Load(), server.batches.Load())
	}
}

func TestACallInABatchEndsWithItsOwnContext(t *testing.T) {
	server := newBatching()
	server.pause = 300 * time.Millisecond
	client := server.client(t, WithCoalescing(), WithValidateTimeout(5*time.Second))
	many(10, func(i int) {
		ctx := t.Context()
		if i%2 == 0 {
			short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
			defer cancel()
			ctx = short
		}
		started := time.Now()
		_, err := client.Validate(ctx, ValidateRequest{Token: "x"})
		if i%2 == 0 && (!errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) || time.Since(started) > 250*time.Millisecond) {
			t.Errorf("after %s: %v", time.Since(started), err)
		}
		if i%2 == 1 && err != nil {
			t.Errorf("with time enough: %v", err)
		}
	})
}

func TestWhatIsTooLargeForABatchGoesAlone(t *testing.T) {
	server := newBatching()
	server.pause = 2 * time.Millisecond
	client := server.client(t, WithCoalescing(), WithValidateTimeout(10*time.Second))
	large, huge := strings.Repeat("a", 16<<10), strings.Repeat("b", coalesceCallBytes+1)
	many(60, func(i int) {
		token := large
		if i == 30 {
			token = huge
		}
		if _, err := client.Validate(t.Context(), ValidateRequest{Token: token}); err != nil {
			t.Error(err)
		}
	})
	if server.single.Load() < 1 || server.largest.Load() > coalesceBytes/(16<<10) {
		t.Errorf("%d alone, batches of %d", server.single.Load(), server.largest.Load())
	}
}

func TestABatchThatFailsFailsEachOfItsCalls(t *testing.T) {
	server := newBatching()
	server.pause = 5 * time.Millisecond
	server.batchValidate = func(context.Context, *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
		return nil, failure(codes.ResourceExhausted, pb.ErrorReason_OVERLOADED, "too much")
	}
	client := server.client(t, WithCoalescing(), WithValidateTimeout(10*time.Second))
	var failed atomic.Int32
	many(20, func(int) {
		token, err := client.Validate(t.Context(), ValidateRequest{Token: "x"})
		if err != nil {
			failed.Add(1)
			if token != nil || !errors.Is(err, ErrUnavailable) {
				t.Error(token, err)
			}
		}
	})
	if failed.Load() < 15 {
		t.Error(failed.Load())
	}
}
