package tokensidecar_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tokensidecar "tokensidecar.dev/go"
)

// BenchmarkValidate compares calls of their own with coalesced ones, by the
// number of goroutines that validate at once.
func BenchmarkValidate(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64, 256} {
		for name, more := range map[string][]tokensidecar.Option{"unary": nil, "coalesced": {tokensidecar.WithCoalescing()}} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) { validateAtOnce(b, callers, more) })
		}
	}
}

func validateAtOnce(b *testing.B, callers int, more []tokensidecar.Option) {
	b.Helper()
	options := append(more, named(b, socketVariable), tokensidecar.WithValidateTimeout(time.Minute))
	client, err := tokensidecar.Connect(b.Context(), options...)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	issued, err := client.Issue(b.Context(), tokensidecar.IssueRequest{Subject: "user-17", Audiences: []string{"orders"}})
	if err != nil {
		b.Fatal(err)
	}
	request := tokensidecar.ValidateRequest{Token: issued.Token, Audiences: []string{"orders"}}
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ResetTimer()
	for range callers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.Validate(b.Context(), request); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
