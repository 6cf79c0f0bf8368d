package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// plane is one of the two sides of a sidecar: where it is looked for.
type plane struct {
	variable string // environment
	socket   string // below a runtime directory
	tcp      string
}

var (
	appPlane   = plane{variable: "TOKENSIDECAR_ADDRESS", socket: "app/app.sock", tcp: "127.0.0.1:8790"}
	adminPlane = plane{variable: "TOKENSIDECAR_ADMIN_ADDRESS", socket: "admin/admin.sock", tcp: "127.0.0.1:8791"}
)

// runtimeDirectories lists where a sidecar may have put its sockets, in the order in which it chooses.
func runtimeDirectories() []string {
	if configured := os.Getenv("TOKENSIDECAR_RUNTIME_DIR"); configured != "" {
		return []string{configured}
	}
	directories := []string{"/run/tokensidecar"}
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); xdg != "" {
		directories = append(directories, filepath.Join(xdg, "tokensidecar"))
	}
	return append(directories, "/tmp/tokensidecar-"+strconv.Itoa(os.Getuid()))
}

// addresses lists where to try: what the option or the environment names and nothing else, or else every default.
func (p plane) addresses(given string, directories []string) ([]address, error) {
	source := "WithAddress"
	if given == "" {
		given, source = os.Getenv(p.variable), p.variable
	}
	if given != "" {
		named, err := parseAddress(given)
		if err != nil {
			return nil, fmt.Errorf("tokensidecar: %s: %w", source, err)
		}
		return []address{named}, nil
	}
	var all []address
	for _, directory := range directories {
		all = append(all, address{network: "unix", name: filepath.Join(directory, p.socket), found: true})
	}
	return append(all, address{network: "tcp", name: p.tcp}), nil
}

// address is one place to dial.
type address struct {
	network string // "unix" or "tcp"
	name    string // path, or host:port
	found   bool   // nobody named it: then its owner must be root or this user
}

// parseAddress reads unix:/path, unix:///path or host:port.
func parseAddress(text string) (address, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if !strings.HasPrefix(path, "/") {
			return address{}, fmt.Errorf("%q: the path of a socket starts with /", text)
		}
		return address{network: "unix", name: path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || port == "" {
		return address{}, fmt.Errorf("%q is none of unix:/path, unix:///path, host:port", text)
	}
	return address{network: "tcp", name: text}, nil
}

// String is what parseAddress reads.
func (a address) String() string {
	if a.network == "unix" {
		return "unix:" + a.name
	}
	return a.name
}

// dial connects, at first and again after each loss.
func (a address) dial(ctx context.Context) (net.Conn, error) {
	if a.found {
		if err := requireOwnSocket(a.name, os.Getuid()); err != nil {
			return nil, err
		}
	}
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, a.network, a.name)
	var failure *net.OpError
	if errors.As(err, &failure) {
		err = failure.Err // without the address, which the caller knows
	}
	return connection, err
}

// requireOwnSocket refuses what anybody may have put at a place that nobody named, such as one in /tmp: the socket, its
// directory and the runtime directory must belong to root or the user.
func requireOwnSocket(path string, user int) error {
	socket, err := os.Lstat(path)
	if err != nil {
		return withoutPath(err)
	}
	if socket.Mode().Type() != fs.ModeSocket {
		return errors.New("not a socket")
	}
	entries := []fs.FileInfo{socket}
	for _, directory := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		entry, err := os.Stat(directory)
		if err != nil {
			return withoutPath(err)
		}
		entries = append(entries, entry)
	}
	for _, entry := range entries {
		if owner, known := owner(entry); !known || (owner != 0 && owner != user) {
			return errors.New("belongs to another user: name it if that is right")
		}
	}
	return nil
}

// withoutPath leaves out the path, which the caller knows.
func withoutPath(err error) error {
	var failure *fs.PathError
	if errors.As(err, &failure) {
		return failure.Err
	}
	return err
}
