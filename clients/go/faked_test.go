package tokensidecar_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	tokensidecar "tokensidecar.dev/go"
	fakepb "tokensidecar.dev/go/tokensidecarfakev1"
	pb "tokensidecar.dev/go/tokensidecarv1"
)

// These tests run `tokensidecar fake`, by the path that this variable has.
const fakeVariable = "TOKENSIDECAR_TEST_FAKE"

// startFake gives a client of a fake sidecar that ends with the test, and the fake's own service.
func startFake(t *testing.T, arguments ...string) (*tokensidecar.Client, fakepb.FakeServiceClient) {
	t.Helper()
	command := os.Getenv(fakeVariable)
	if command == "" {
		t.Skipf("needs the command tokensidecar, named by %s", fakeVariable)
	}
	process := exec.Command(command, append([]string{"fake", "--free-ports", "--until-eof"}, arguments...)...)
	process.Stderr = os.Stderr
	alive, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		if err := process.Wait(); err != nil {
			t.Errorf("the fake ended: %v", err)
		}
	})
	var where struct{ App, Admin, Control string }
	if err := json.NewDecoder(output).Decode(&where); err != nil {
		t.Fatal(err)
	}
	client, err := tokensidecar.Connect(t.Context(), tokensidecar.WithAddress(where.App),
		tokensidecar.WithValidateTimeout(5*time.Second), tokensidecar.WithTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	control, err := grpc.NewClient(where.Control, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	return client, fakepb.NewFakeServiceClient(control)
}

func TestATokenExpiresWhenItsTimeIsOver(t *testing.T) {
	client, fake := startFake(t)
	issued := issue(t, client, tokensidecar.IssueRequest{Subject: "ada", Audiences: []string{"orders"}, TTL: time.Minute})
	request := tokensidecar.ValidateRequest{Token: issued.Token, Audiences: []string{"orders"}}
	if _, err := client.Validate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if _, err := fake.MoveClock(t.Context(), &fakepb.MoveClockRequest{Advance: durationpb.New(2 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Validate(t.Context(), request); reasonOf(err) != tokensidecar.ReasonTokenExpired {
		t.Error(err)
	}
}

func TestAFailureThatIsPlannedIsMetAndIsOver(t *testing.T) {
	client, fake := startFake(t)
	failure := &fakepb.Failure{Method: "Validate", Reason: pb.ErrorReason_STATE_STALE, Count: 3} // as often as the client tries
	if _, err := fake.SetFailures(t.Context(), &fakepb.SetFailuresRequest{Failures: []*fakepb.Failure{failure}}); err != nil {
		t.Fatal(err)
	}
	issued := issue(t, client, tokensidecar.IssueRequest{Subject: "ada", Audiences: []string{"orders"}})
	request := tokensidecar.ValidateRequest{Token: issued.Token, Audiences: []string{"orders"}}
	var call *tokensidecar.CallError
	if _, err := client.Validate(t.Context(), request); !errors.Is(err, tokensidecar.ErrUnavailable) || !errors.As(err, &call) ||
		call.Reason != tokensidecar.ReasonStateStale {
		t.Error(err)
	}
	if _, err := client.Validate(t.Context(), request); err != nil {
		t.Error(err)
	}
}

func TestARefreshWhoseReplyIsLostCostsNothingAndASpentTokenEndsItsFamily(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.toml")
	text := "[profiles.default]\nissuer = \"https://a.example\"\naudiences = [\"orders\"]\nrefresh_ttl = \"7d\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client, fake := startFake(t, "--config", config)
	first := issue(t, client, tokensidecar.IssueRequest{Subject: "ada", Audiences: []string{"orders"}, WithRefreshToken: true})
	lost := &fakepb.Failure{Method: "Refresh", Reason: pb.ErrorReason_STORE_UNAVAILABLE, Count: 1, AfterEffect: true}
	if _, err := fake.SetFailures(t.Context(), &fakepb.SetFailuresRequest{Failures: []*fakepb.Failure{lost}}); err != nil {
		t.Fatal(err)
	}
	second, err := client.Refresh(t.Context(), tokensidecar.RefreshRequest{RefreshToken: first.RefreshToken})
	if err != nil || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
		t.Fatal(second, err)
	}
	third, err := client.Refresh(t.Context(), tokensidecar.RefreshRequest{RefreshToken: second.RefreshToken})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Refresh(t.Context(), tokensidecar.RefreshRequest{RefreshToken: first.RefreshToken}); reasonOf(err) != tokensidecar.ReasonRefreshReused {
		t.Errorf("spent: %v", err)
	}
	_, err = client.Validate(t.Context(), tokensidecar.ValidateRequest{Token: third.Token, Audiences: []string{"orders"}})
	if reasonOf(err) != tokensidecar.ReasonTokenRevoked {
		t.Errorf("of the family: %v", err)
	}
}
