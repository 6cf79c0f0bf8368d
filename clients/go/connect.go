package tokensidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	defaultStartTimeout    = 10 * time.Second
	defaultValidateTimeout = 250 * time.Millisecond
	firstValidateTimeout   = 2 * time.Second
	defaultTimeout         = time.Second

	attemptTimeout = time.Second // for one address in one round: a silent one must not keep the others waiting
)

// What may be repeated on UNAVAILABLE, and on the CANCELLED of a server that ends, within the call's deadline: reads, what
// carries a request id, and Refresh, whose grace is longer than its deadline.
const retries = `{"methodConfig": [{
	"name": [
		{"service": "tokensidecar.v1.TokenService", "method": "Validate"},
		{"service": "tokensidecar.v1.TokenService", "method": "BatchValidate"},
		{"service": "tokensidecar.v1.TokenService", "method": "Refresh"},
		{"service": "tokensidecar.v1.TokenService", "method": "Rotate"},
		{"service": "tokensidecar.v1.AdminService", "method": "ListKeys"}
	],
	"retryPolicy": {
		"maxAttempts": 3, "initialBackoff": "0.02s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
	}
}]}`

// Option changes how [Connect] and [ConnectAdmin] connect and how their clients call.
type Option func(*options)

type options struct {
	address         string
	startTimeout    time.Duration
	validateTimeout time.Duration
	timeout         time.Duration
	tls             *tls.Config
	coalesce        bool
}

// WithAddress names the sidecar: unix:/path, unix:///path or host:port.
// Nothing else is tried then. TCP carries tokens in the clear: stay on loopback.
func WithAddress(address string) Option { return func(o *options) { o.address = address } }

// WithStartTimeout says how long to wait for a sidecar that is still starting;
// 10 s by default. The context of the call to Connect may end it sooner.
func WithStartTimeout(wait time.Duration) Option { return func(o *options) { o.startTimeout = wait } }

// WithValidateTimeout is the deadline of each Validate; 250 ms by default. Until
// a first one has been answered it is at least 2 s. A context may set a sooner one.
func WithValidateTimeout(deadline time.Duration) Option {
	return func(o *options) { o.validateTimeout = deadline }
}

// WithTimeout is the deadline of each other call; 1 s by default. A context may set a sooner one.
func WithTimeout(deadline time.Duration) Option { return func(o *options) { o.timeout = deadline } }

// WithTLS calls over TLS, and with the certificates of the configuration over
// mutual TLS: for a sidecar that is named by [WithAddress] or the environment as
// host:port. A socket is refused then, and none is looked for. Without a
// ServerName the sidecar's certificate must be for localhost; what its SPIFFE
// id must be is a matter of VerifyConnection.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config.Clone() } }

// WithCoalescing sends Validate calls that are made at the same time as one
// batch: those that come within 200 µs, or 64, while another one is under way.
// Each has its own result and deadline; one that is alone goes at once. It saves
// work, on both sides, where dozens of goroutines validate.
func WithCoalescing() Option { return func(o *options) { o.coalesce = true } }

func newOptions(opts []Option) options {
	o := options{startTimeout: defaultStartTimeout, validateTimeout: defaultValidateTimeout, timeout: defaultTimeout}
	for _, set := range opts {
		set(&o)
	}
	return o
}

// connect finds a sidecar's plane as the options and the environment say.
func connect(ctx context.Context, p plane, o options) (*grpc.ClientConn, error) {
	directories := runtimeDirectories()
	if o.tls != nil {
		directories = nil
	}
	addresses, err := p.addresses(o.address, directories)
	if err != nil {
		return nil, err
	}
	if o.tls != nil && addresses[0].network == "unix" {
		return nil, fmt.Errorf("tokensidecar: %s is a socket, and WithTLS is for host:port: leave one of them out", addresses[0])
	}
	return firstReady(ctx, addresses, o)
}

// firstReady tries the addresses in turn, round after round, until one answers or the time is over.
func firstReady(caller context.Context, addresses []address, o options) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(caller, o.startTimeout)
	defer cancel()
	failures := make([]error, len(addresses))
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		for i, a := range addresses {
			connection, err := a.open(ctx, o.tls)
			if err == nil {
				return connection, nil
			}
			if failures[i] == nil || ctx.Err() == nil { // the end of the time says less than what came before
				failures[i] = err
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, &connectError{addresses: addresses, failures: failures, ended: caller.Err()}
		}
	}
}

// connectError lists every address that was tried.
type connectError struct {
	addresses []address
	failures  []error
	ended     error // of the caller's context
}

func (e *connectError) Error() string {
	tried := make([]string, len(e.addresses))
	for i, a := range e.addresses {
		tried[i] = fmt.Sprintf("%s (%v)", a, e.failures[i])
	}
	return "tokensidecar: no sidecar answers; tried " + strings.Join(tried, ", ")
}

// Is tells apart: the sidecar did not answer in time, or the caller's context ended.
func (e *connectError) Is(kind error) bool { return kind == ErrUnavailable || kind == e.ended }

// open makes a connection that is ready for calls.
func (a address) open(ctx context.Context, secure *tls.Config) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var last lastError
	transport, authority := insecure.NewCredentials(), "localhost"
	if secure != nil {
		if secure.ServerName != "" {
			authority = secure.ServerName // gRPC wants the two to agree
		}
		transport = noted{credentials.NewTLS(secure), &last}
	}
	connection, err := grpc.NewClient(
		"passthrough:///sidecar", // the dialer below knows where to go, without DNS and without a proxy
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			raw, err := a.dial(ctx)
			last.set(err)
			return raw, err
		}),
		grpc.WithTransportCredentials(transport),
		grpc.WithAuthority(authority),
		grpc.WithUnaryInterceptor(convertErrors),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A restarted sidecar is found again soon: it is on this machine.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	)
	if err != nil {
		return nil, err
	}
	connection.Connect()
	for {
		state := connection.GetState()
		if state == connectivity.Ready {
			return connection, nil
		}
		if state == connectivity.TransientFailure || !connection.WaitForStateChange(ctx, state) {
			break
		}
	}
	_ = connection.Close() // it holds nothing yet that could be lost
	if err := last.get(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errors.New("no answer in time")
	}
	return nil, errors.New("what listens there does not speak gRPC")
}

// noted tells why a handshake failed, which gRPC keeps to itself.
type noted struct {
	credentials.TransportCredentials
	last *lastError
}

func (n noted) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		n.last.set(err)
	}
	return secured, info, err
}

func (n noted) Clone() credentials.TransportCredentials {
	return noted{n.TransportCredentials.Clone(), n.last}
}

// lastError passes the dialer's error on, which gRPC keeps to itself.
type lastError struct {
	mutex sync.Mutex
	err   error
}

func (e *lastError) set(err error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.err = err
}

func (e *lastError) get() error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.err
}
