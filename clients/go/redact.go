package tokensidecar

import (
	"fmt"
	"time"
)

// What may be shown of a value that holds a token or claims: for every verb of fmt
// (Format), and for encoding/json and the loggers, slog included, that use it
// (MarshalText). The fields are for those who mean them.

func (r IssueRequest) shown() string {
	return fmt.Sprintf("IssueRequest(profile %q, audiences %q)", r.Profile, r.Audiences)
}

func (t IssuedToken) shown() string {
	return fmt.Sprintf("IssuedToken(token id %q, key id %q, until %s)", t.TokenID, t.KeyID, t.ExpireTime.Format(time.RFC3339))
}

func (r ValidateRequest) shown() string {
	return fmt.Sprintf("ValidateRequest(profiles %q, audiences %q, request id %q)", r.Profiles, r.Audiences, r.RequestID)
}

func (t ValidatedToken) shown() string {
	return fmt.Sprintf("ValidatedToken(profile %q, token id %q, key id %q, until %s)",
		t.Profile, t.TokenID, t.KeyID, t.ExpireTime.Format(time.RFC3339))
}

// Format leaves out the subject and the claims.
func (r IssueRequest) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.shown()) }

// Format leaves out the token.
func (t IssuedToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.shown()) }

// Format leaves out the token.
func (r ValidateRequest) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.shown()) }

// Format leaves out the subject and the claims.
func (t ValidatedToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.shown()) }

// MarshalText leaves out the subject and the claims.
func (r IssueRequest) MarshalText() ([]byte, error) { return []byte(r.shown()), nil }

// MarshalText leaves out the token.
func (t IssuedToken) MarshalText() ([]byte, error) { return []byte(t.shown()), nil }

// MarshalText leaves out the token.
func (r ValidateRequest) MarshalText() ([]byte, error) { return []byte(r.shown()), nil }

// MarshalText leaves out the subject and the claims.
func (t ValidatedToken) MarshalText() ([]byte, error) { return []byte(t.shown()), nil }
