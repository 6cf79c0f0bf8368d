package tokensidecar

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Handler lets through to next what is authorized; there [Caller] has who it is.
// Everything else it answers itself, as RFC 6750, section 3, says:
//
//	no token                                         401
//	a malformed Authorization, or two                400 invalid_request
//	a token that is no good, or whose claims are no C  401 invalid_token
//	without a required scope                         403 insufficient_scope
//	nobody can judge now                             503, with Retry-After if the sidecar said when
//	this program may not judge, or got it wrong      500
func (p *Protection[C]) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := p.judge(r.Context(), presented{
			authorization: r.Header.Values("Authorization"),
			proofs:        r.Header.Values("DPoP"),
			method:        r.Method,
			path:          sentPath(r),
		})
		if err != nil {
			p.rules.answer(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

// Func is [Protection.Handler] for a function that takes who calls: it cannot be
// reached without.
func (p *Protection[C]) Func(serve func(http.ResponseWriter, *http.Request, *Authorized[C])) http.Handler {
	return p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := Caller[C](r.Context())
		serve(w, r, caller)
	}))
}

// sentPath is the path as the client wrote it, whatever a router in between has cut off.
func sentPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") { // the absolute form of a proxy, or a request made by a test
		return r.URL.EscapedPath()
	}
	return path
}

func (r *rules) answer(w http.ResponseWriter, err error) {
	var rejected *RejectedError
	var call *CallError
	switch {
	case errors.Is(err, errNoToken):
		r.challenge(w, http.StatusUnauthorized, "")
	case errors.Is(err, errMalformed):
		r.challenge(w, http.StatusBadRequest, `, error="invalid_request"`)
	case errors.Is(err, errNoGood), errors.Is(err, errUnbound):
		r.challenge(w, http.StatusUnauthorized, `, error="invalid_token"`)
	case errors.As(err, &rejected) && rejected.Reason == ReasonTokenScopeMissing:
		r.challenge(w, http.StatusForbidden, `, error="insufficient_scope", scope="`+strings.Join(r.scopes, " ")+`"`)
	case errors.As(err, &rejected):
		r.challenge(w, http.StatusUnauthorized, `, error="invalid_token"`+description(rejected.Reason))
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled): // the latter is read by nobody
		if errors.As(err, &call) && call.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((call.RetryAfter+time.Second-1)/time.Second)))
		}
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
	default:
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
}

// description is a reason of the contract; another text might break out of the quotes.
func description(reason Reason) string {
	if reason == "" || strings.Trim(string(reason), "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return `, error_description="` + string(reason) + `"`
}

// challenge names each scheme that is accepted; RFC 6750 wants at least one parameter.
func (r *rules) challenge(w http.ResponseWriter, code int, parameters string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="tokensidecar"`+parameters)
	if r.origin != "" {
		w.Header().Add("WWW-Authenticate", `DPoP realm="tokensidecar"`+parameters+`, algs="ES256 ES384 EdDSA PS256 RS256"`)
	}
	http.Error(w, http.StatusText(code), code)
}
