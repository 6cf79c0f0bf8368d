package tokensidecar

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

func TestAddressesAreReadInThreeForms(t *testing.T) {
	for text, want := range map[string]address{
		"unix:/run/x.sock":   {network: "unix", name: "/run/x.sock"},
		"unix:///run/x.sock": {network: "unix", name: "/run/x.sock"},
		"127.0.0.1:8790":     {network: "tcp", name: "127.0.0.1:8790"},
		"localhost:8790":     {network: "tcp", name: "localhost:8790"},
		"[::1]:8790":         {network: "tcp", name: "[::1]:8790"},
	} {
		if got, err := parseAddress(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"unix:", "unix:app.sock", "unix://host/x.sock", "localhost", ":8790", "127.0.0.1:", "http://127.0.0.1:8790"} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestDefaultsAreTriedInTheServersOrder(t *testing.T) {
	t.Setenv("TOKENSIDECAR_RUNTIME_DIR", "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	user := "/tmp/tokensidecar-" + strconv.Itoa(os.Getuid())
	for p, want := range map[plane][]string{
		appPlane: {
			"unix:/run/tokensidecar/app/app.sock", "unix:/run/user/7/tokensidecar/app/app.sock",
			"unix:" + user + "/app/app.sock", "127.0.0.1:8790",
		},
		adminPlane: {
			"unix:/run/tokensidecar/admin/admin.sock", "unix:/run/user/7/tokensidecar/admin/admin.sock",
			"unix:" + user + "/admin/admin.sock", "127.0.0.1:8791",
		},
	} {
		t.Setenv(p.variable, "")
		addresses, err := p.addresses("", runtimeDirectories())
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range addresses {
			if i >= len(want) || a.String() != want[i] {
				t.Errorf("%d: %s", i, a)
			}
		}
		if len(addresses) != len(want) {
			t.Errorf("%d addresses", len(addresses))
		}
	}
}

func TestEnvironmentNamesTheOnlyAddress(t *testing.T) {
	server := &fake{validate: func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		return &pb.ValidateResponse{Subject: "ada"}, nil
	}}
	t.Setenv("TOKENSIDECAR_ADDRESS", server.start(t))
	client, err := Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if token, err := client.Validate(t.Context(), ValidateRequest{}); err != nil || token.Subject != "ada" {
		t.Errorf("%v, %v", token, err)
	}

	t.Setenv("TOKENSIDECAR_ADMIN_ADDRESS", "nonsense")
	if _, err := ConnectAdmin(t.Context()); err == nil || !strings.Contains(err.Error(), "TOKENSIDECAR_ADMIN_ADDRESS") {
		t.Errorf("the error does not name the variable: %v", err)
	}
}

func TestFirstAddressThatAnswersIsTaken(t *testing.T) {
	directory := shortDirectory(t)
	socket := filepath.Join(directory, "second", "app/app.sock")
	(&fake{}).serve(t, listen(t, "unix", socket))
	t.Setenv("TOKENSIDECAR_ADDRESS", "")
	addresses, err := appPlane.addresses("", []string{filepath.Join(directory, "first"), filepath.Join(directory, "second")})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := firstReady(t.Context(), addresses, options{startTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
}

func TestErrorListsAllThatWereTried(t *testing.T) {
	directory := shortDirectory(t)
	file := filepath.Join(directory, "app.sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := listen(t, "tcp", "127.0.0.1:0")
	port := closed.Addr().String()
	_ = closed.Close()
	addresses := []address{
		{network: "unix", name: filepath.Join(directory, "none.sock"), found: true},
		{network: "unix", name: file, found: true},
		{network: "tcp", name: port},
	}
	_, err := firstReady(t.Context(), addresses, options{startTimeout: 100 * time.Millisecond})
	if !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	for _, part := range []string{
		"unix:" + directory + "/none.sock (no such file or directory)", "unix:" + file + " (not a socket)", port + " (connect: connection refused)",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
}

func TestConfiguredRuntimeDirectoryIsTheOnlyOne(t *testing.T) {
	t.Setenv("TOKENSIDECAR_RUNTIME_DIR", "/srv/sidecar")
	if directories := runtimeDirectories(); !slices.Equal(directories, []string{"/srv/sidecar"}) {
		t.Error(directories)
	}
}

func TestWhatAnotherUserMayHavePutThereIsNotTaken(t *testing.T) {
	runtime := shortDirectory(t)
	socket := filepath.Join(runtime, "app/app.sock")
	(&fake{}).serve(t, listen(t, "unix", socket))
	if err := requireOwnSocket(socket, os.Getuid()); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 { // who cannot give things away lets another user look
		if err := requireOwnSocket(socket, os.Getuid()+1); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("taken: %v", err)
		}
	} else {
		for _, entry := range []string{socket, filepath.Dir(socket), runtime} {
			for _, owner := range []int{4711, 0} {
				if err := os.Chown(entry, owner, -1); err != nil {
					t.Fatal(err)
				}
				if err := requireOwnSocket(socket, 4712); (err == nil) != (owner == 0) {
					t.Errorf("%s of user %d: %v", entry, owner, err)
				}
			}
		}
	}
	link := filepath.Join(runtime, "app/link.sock")
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	if err := requireOwnSocket(link, os.Getuid()); err == nil {
		t.Error("a link is taken")
	}
}

func TestSidecarThatIsStillStartingIsWaitedFor(t *testing.T) {
	socket := filepath.Join(shortDirectory(t), "app.sock")
	bound := make(chan struct{})
	timer := time.AfterFunc(200*time.Millisecond, func() {
		defer close(bound)
		(&fake{}).serve(t, listen(t, "unix", socket))
	})
	defer timer.Stop()
	client, err := Connect(t.Context(), WithAddress("unix:"+socket), WithStartTimeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	<-bound
	_ = client.Close()
}

func TestWaitEndsWithItsBoundAndWithTheContext(t *testing.T) {
	silent := listen(t, "tcp", "127.0.0.1:0") // takes connections into its backlog and says nothing
	defer silent.Close()

	start := time.Now()
	_, err := Connect(t.Context(), WithAddress(silent.Addr().String()), WithStartTimeout(150*time.Millisecond))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no answer in time") || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start = time.Now()
	if _, err = Connect(ctx, WithAddress(silent.Addr().String())); !errors.Is(err, context.Canceled) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestListenerThatDoesNotSpeakGRPCIsNoSidecar(t *testing.T) {
	listener := listen(t, "tcp", "127.0.0.1:0")
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = connection.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			_ = connection.Close()
		}
	}()
	_, err := Connect(t.Context(), WithAddress(listener.Addr().String()), WithStartTimeout(200*time.Millisecond))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "does not speak gRPC") {
		t.Error(err)
	}
}

func TestAuthorityIsLocalhostOverSocketAndTCP(t *testing.T) {
	var seen string
	server := &fake{validate: func(ctx context.Context, _ *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		seen = authority(ctx)
		return &pb.ValidateResponse{}, nil
	}}
	var listener net.Listener = listen(t, "tcp", "127.0.0.1:0")
	server.serve(t, listener)
	for _, address := range []string{server.start(t), listener.Addr().String()} {
		client, err := Connect(t.Context(), WithAddress(address))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Validate(t.Context(), ValidateRequest{}); err != nil || seen != "localhost" {
			t.Errorf("%s: %q, %v", address, seen, err)
		}
		_ = client.Close()
	}
}
