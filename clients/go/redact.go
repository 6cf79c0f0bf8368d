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

func (p DPoPProof) shown() string { return fmt.Sprintf("DPoPProof(%s %q)", p.Method, p.URL) }

func (r RefreshRequest) shown() string {
	return fmt.Sprintf("RefreshRequest(audiences %q, scopes %q)", r.Audiences, r.Scopes)
}

func (r RevokeRequest) shown() string { return fmt.Sprintf("RevokeRequest(reason %q)", r.Reason) }

func (g Grant) shown() string {
	return fmt.Sprintf("Grant(profile %q, audiences %q, scopes %q)", g.Profile, g.Audiences, g.Scopes)
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

// Format leaves out the proof.
func (p DPoPProof) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.shown()) }

// MarshalText leaves out the proof.
func (p DPoPProof) MarshalText() ([]byte, error) { return []byte(p.shown()), nil }

// Format leaves out the token.
func (r RefreshRequest) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.shown()) }

// MarshalText leaves out the token.
func (r RefreshRequest) MarshalText() ([]byte, error) { return []byte(r.shown()), nil }

// Format leaves out the token.
func (r RevokeRequest) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.shown()) }

// MarshalText leaves out the token.
func (r RevokeRequest) MarshalText() ([]byte, error) { return []byte(r.shown()), nil }

// Format leaves out the subject.
func (g Grant) Format(f fmt.State, _ rune) { fmt.Fprint(f, g.shown()) }

// MarshalText leaves out the subject.
func (g Grant) MarshalText() ([]byte, error) { return []byte(g.shown()), nil }
