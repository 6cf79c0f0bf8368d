package tokensidecar

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// fake is a server of the contract whose answers the test gives. It stands in for
// a sidecar where a real one could not be made to answer like that.
type fake struct {
	pb.UnimplementedTokenServiceServer
	pb.UnimplementedAdminServiceServer

	issue         func(context.Context, *pb.IssueRequest) (*pb.IssueResponse, error)
	validate      func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error)
	batchIssue    func(context.Context, *pb.BatchIssueRequest) (*pb.BatchIssueResponse, error)
	batchValidate func(context.Context, *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error)
	rotate        func(context.Context, *pb.RotateRequest) (*pb.RotateResponse, error)
	listKeys      func(context.Context, *pb.ListKeysRequest) (*pb.ListKeysResponse, error)
	revokeKeys    func(context.Context, *pb.RevokeKeysRequest) (*pb.RevokeKeysResponse, error)
	refresh       func(context.Context, *pb.RefreshRequest) (*pb.RefreshResponse, error)
	revoke        func(context.Context, *pb.RevokeRequest) (*pb.RevokeResponse, error)
	revokeSubject func(context.Context, *pb.RevokeSubjectRequest) (*pb.RevokeSubjectResponse, error)
	revokeTokenID func(context.Context, *pb.RevokeTokenIdRequest) (*pb.RevokeTokenIdResponse, error)
}

func (f *fake) Refresh(ctx context.Context, r *pb.RefreshRequest) (*pb.RefreshResponse, error) {
	return f.refresh(ctx, r)
}

func (f *fake) Revoke(ctx context.Context, r *pb.RevokeRequest) (*pb.RevokeResponse, error) {
	return f.revoke(ctx, r)
}

func (f *fake) RevokeSubject(ctx context.Context, r *pb.RevokeSubjectRequest) (*pb.RevokeSubjectResponse, error) {
	return f.revokeSubject(ctx, r)
}

func (f *fake) RevokeTokenId(ctx context.Context, r *pb.RevokeTokenIdRequest) (*pb.RevokeTokenIdResponse, error) {
	return f.revokeTokenID(ctx, r)
}

func (f *fake) Issue(ctx context.Context, r *pb.IssueRequest) (*pb.IssueResponse, error) {
	return f.issue(ctx, r)
}

func (f *fake) Validate(ctx context.Context, r *pb.ValidateRequest) (*pb.ValidateResponse, error) {
	return f.validate(ctx, r)
}

func (f *fake) BatchIssue(ctx context.Context, r *pb.BatchIssueRequest) (*pb.BatchIssueResponse, error) {
	return f.batchIssue(ctx, r)
}

func (f *fake) BatchValidate(ctx context.Context, r *pb.BatchValidateRequest) (*pb.BatchValidateResponse, error) {
	return f.batchValidate(ctx, r)
}

func (f *fake) Rotate(ctx context.Context, r *pb.RotateRequest) (*pb.RotateResponse, error) {
	return f.rotate(ctx, r)
}

func (f *fake) ListKeys(ctx context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	return f.listKeys(ctx, r)
}

func (f *fake) RevokeKeys(ctx context.Context, r *pb.RevokeKeysRequest) (*pb.RevokeKeysResponse, error) {
	return f.revokeKeys(ctx, r)
}

// serve runs the fake on a listener until the test ends or the returned function is called.
func (f *fake) serve(t *testing.T, listener net.Listener) (stop func()) {
	t.Helper()
	server := grpc.NewServer()
	pb.RegisterTokenServiceServer(server, f)
	pb.RegisterAdminServiceServer(server, f)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("the fake ended: %v", err)
		}
	}()
	stop = func() {
		server.Stop()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// shortDirectory is one whose sockets' paths fit into 107 bytes.
func shortDirectory(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "ts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

func listen(t *testing.T, network, name string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); network == "unix" && err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen(network, name)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// start serves the fake on a socket and gives its address.
func (f *fake) start(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDirectory(t), "app.sock")
	f.serve(t, listen(t, "unix", path))
	return "unix:" + path
}

func (f *fake) client(t *testing.T, opts ...Option) *Client {
	t.Helper()
	client, err := Connect(t.Context(), append([]Option{WithAddress(f.start(t))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (f *fake) admin(t *testing.T, opts ...Option) *Admin {
	t.Helper()
	admin, err := ConnectAdmin(t.Context(), append([]Option{WithAddress(f.start(t))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	return admin
}

// failure is an error as the sidecar's code answers it.
func failure(code codes.Code, reason pb.ErrorReason, message string, details ...protoadapt.MessageV1) error {
	details = append(details, &errdetails.ErrorInfo{Domain: "tokensidecar", Reason: reason.String()})
	answer, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		return err
	}
	return answer.Err()
}

// authority is the :authority that a call came with.
func authority(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, ":authority")
	if len(values) != 1 {
		return ""
	}
	return values[0]
}
