package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Protection lets only good tokens through to a service and hands it their
// claims as C; whatever else happens, the service is not called. Make one with
// [Protect]; [Protection.Handler] and [Protection.Func] put it before net/http,
// [Protection.UnaryInterceptor] and [Protection.StreamInterceptor] before gRPC.
type Protection[C any] struct {
	client *Client
	rules  rules
}

// Authorized is who may use the service: what its token says, and its claims.
type Authorized[C any] struct {
	Token  *ValidatedToken
	Claims C
}

// Format leaves out the claims.
func (a Authorized[C]) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "Authorized(%v)", a.Token) }

// MarshalText leaves out the claims.
func (a Authorized[C]) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", a), nil }

// Caller is who makes the request that is served here, from the context that
// [Protection] made. It is false where the service is not protected, or its
// claims are of another type: serve nothing then.
func Caller[C any](ctx context.Context) (*Authorized[C], bool) {
	caller, ok := ctx.Value(callerKey{}).(*Authorized[C])
	return caller, ok
}

type callerKey struct{}

// Rule changes what [Protect] demands.
type Rule func(*rules)

type rules struct {
	audiences []string
	profiles  []string
	scopes    []string
	origin    string // of DPoP; empty: bearer tokens alone
	observe   func(context.Context, error)
	problem   error
}

// Profiles are the kinds of token that are accepted, instead of "default".
func Profiles(profiles ...string) Rule { return func(r *rules) { r.profiles = profiles } }

// RequireScopes demands that all of these are in the token.
func RequireScopes(scopes ...string) Rule { return func(r *rules) { r.scopes = scopes } }

// DPoP accepts tokens that are bound to a key of their presenter too, with a
// proof for each request (RFC 9449). origin is where clients reach this service,
// such as "https://api.example.com": the proof must be for that. It is not taken
// from the request, for a proof made for somebody else would then pass with a
// forged Host. A bound token without its proof is turned down in any case.
func DPoP(origin string) Rule {
	return func(r *rules) {
		if _, err := parseOrigin(origin); err != nil {
			r.problem = err
		}
		r.origin = strings.TrimSuffix(origin, "/")
	}
}

// Observe is told of each request that is turned down, to log it: a
// [RejectedError], a [CallError], or what was wrong with the request.
func Observe(tell func(context.Context, error)) Rule { return func(r *rules) { r.observe = tell } }

// Protect demands a token that is for one of the audiences: the names of this
// service. It panics without any, and where a rule is no good, for that is seen
// at the first start.
func Protect[C any](client *Client, audiences []string, demands ...Rule) *Protection[C] {
	r := rules{audiences: audiences, observe: func(context.Context, error) {}}
	for _, demand := range demands {
		demand(&r)
	}
	if len(audiences) == 0 {
		r.problem = errors.New("tokensidecar: Protect: name the audiences that a token must be for")
	}
	if r.problem != nil {
		panic(r.problem)
	}
	return &Protection[C]{client: client, rules: r}
}

// Why a request is turned down before its token is judged, or although it is good.
var (
	errNoToken   = errors.New("tokensidecar: no bearer token")
	errMalformed = errors.New("tokensidecar: the authorization is malformed")
	errNoGood    = errors.New("tokensidecar: the token is longer than any, or its claims are not those of this service")
	errUnbound   = errors.New("tokensidecar: the scheme is DPoP, and the token is bound to no DPoP key")
)

// presented is what came with a request.
type presented struct {
	authorization []string // the values of the header of that name
	proofs        []string // and of the header DPoP
	method        string   // htm of RFC 9449
	path          string   // and the path of its htu, as it was sent
}

// judge lets a request through, or says why not; ctx is told of neither.
func (p *Protection[C]) judge(ctx context.Context, came presented) (*Authorized[C], error) {
	caller, err := p.judged(ctx, came)
	if err != nil {
		p.rules.observe(ctx, err)
	}
	return caller, err
}

func (p *Protection[C]) judged(ctx context.Context, came presented) (*Authorized[C], error) {
	token, bound, err := came.token(p.rules.origin != "")
	if err != nil {
		return nil, err
	}
	request := ValidateRequest{
		Token: token, Audiences: p.rules.audiences, Profiles: p.rules.profiles, RequiredScopes: p.rules.scopes,
	}
	if bound {
		if len(came.proofs) != 1 || len(came.proofs[0]) > longestToken {
			return nil, errMalformed
		}
		request.Possession.DPoP = &DPoPProof{Proof: came.proofs[0], Method: came.method, URL: p.rules.origin + came.path}
	}
	validated, err := p.client.Validate(ctx, request)
	if err != nil {
		return nil, err
	}
	if bound && validated.Confirmation.JWKThumbprint == "" { // RFC 9449, section 7.1
		return nil, errUnbound
	}
	caller := &Authorized[C]{Token: validated}
	if err := validated.DecodeClaims(&caller.Claims); err != nil {
		return nil, errNoGood // the error may quote a claim
	}
	return caller, nil
}

// longestToken is in bytes, by the contract. A longer one would make the request to the sidecar invalid, as if it were our mistake.
const longestToken = 16 << 10

// token reads the one header of RFC 6750, section 2.1, and of RFC 9449, section 7.1; body and query are not looked at.
func (p presented) token(dpop bool) (token string, bound bool, err error) {
	switch len(p.authorization) {
	case 0:
		return "", false, errNoToken
	case 1:
	default:
		return "", false, errMalformed
	}
	scheme, token, _ := strings.Cut(p.authorization[0], " ")
	bound = dpop && strings.EqualFold(scheme, "DPoP")
	if !bound && !strings.EqualFold(scheme, "Bearer") {
		return "", false, errNoToken
	}
	token = strings.Trim(token, " ")
	if token == "" || strings.Trim(token, b64token) != "" {
		return "", false, errMalformed
	}
	if len(token) > longestToken {
		return "", false, errNoGood
	}
	return token, bound, nil
}

const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
