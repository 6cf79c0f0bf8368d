// Command conformance is the Go client's driver: commands in, answers out, as
// clients/conformance/README.md says.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tokensidecar "tokensidecar.dev/go"
)

type facts map[string]any

// command has the arguments of all commands; each takes its own.
type command struct {
	Do               string
	Address          string
	StartTimeout     float64 `json:"start_timeout"`
	Timeout          float64
	ValidateTimeout  float64 `json:"validate_timeout"`
	TLS              *struct{ CA, Certificate, Key string }
	Token            string
	Tokens           []string
	Audiences        []string
	Profile          string
	Profiles         []string
	Subject          string
	TTL              float64
	Scopes           []string
	ClaimsJSON       string   `json:"claims_json"`
	JWKThumbprint    string   `json:"jwk_thumbprint"`
	WithRefreshToken bool     `json:"with_refresh_token"`
	RefreshToken     string   `json:"refresh_token"`
	RequiredScopes   []string `json:"required_scopes"`
	RequestID        string   `json:"request_id"`
	DPoP             *struct{ Proof, Method, URL string }
	Requests         []command
	KeyIDs           []string `json:"key_ids"`
	Callers          int
	Seconds          float64
	RotateAfter      float64 `json:"rotate_after"`
	RingRevision     uint64  `json:"expected_ring_revision"`
}

var ctx = context.Background()

func seconds(count float64) time.Duration { return time.Duration(count * float64(time.Second)) }

func failed(err error) facts {
	if rejected := (*tokensidecar.RejectedError)(nil); errors.As(err, &rejected) {
		return facts{"error": "rejected", "reason": rejected.Reason, "fields": []string{}}
	}
	kind, reason, fields := "failed", tokensidecar.Reason(""), []string{}
	switch {
	case errors.Is(err, tokensidecar.ErrInvalidRequest):
		kind = "invalid"
	case errors.Is(err, tokensidecar.ErrDenied):
		kind = "denied"
	case errors.Is(err, tokensidecar.ErrRingChanged):
		kind = "changed"
	case errors.Is(err, tokensidecar.ErrUnavailable):
		kind = "unavailable"
	}
	if call := (*tokensidecar.CallError)(nil); errors.As(err, &call) {
		reason = call.Reason
		for _, field := range call.Fields {
			fields = append(fields, field.Name)
		}
	}
	return facts{"error": kind, "reason": reason, "fields": fields}
}

func end(err error) string {
	if err == nil {
		return "ok"
	}
	failure := failed(err)
	return strings.TrimSpace(failure["error"].(string) + " " + string(failure["reason"].(tokensidecar.Reason)))
}

func answered(ok facts, err error) facts {
	if err != nil {
		return failed(err)
	}
	return facts{"ok": ok}
}

func issued(token *tokensidecar.IssuedToken, err error) facts {
	if err != nil {
		return failed(err)
	}
	return facts{"ok": facts{
		"token": token.Token, "token_id": token.TokenID, "key_id": token.KeyID, "scopes": token.Scopes,
		"refresh_token": token.RefreshToken,
	}}
}

func validated(token *tokensidecar.ValidatedToken, err error) facts {
	if err != nil {
		return failed(err)
	}
	return facts{"ok": facts{
		"subject": token.Subject, "profile": token.Profile, "audiences": token.Audiences, "scopes": token.Scopes,
		"client_id": token.ClientID, "key_id": token.KeyID, "claims_json": string(token.ClaimsJSON),
	}}
}

func keys(found []tokensidecar.Key, err error) facts {
	all := []string{}
	for _, key := range found {
		all = append(all, string(key.Use)+" "+string(key.State))
	}
	slices.Sort(all)
	return answered(facts{"keys": all}, err)
}

func (c *command) issue() tokensidecar.IssueRequest {
	request := tokensidecar.IssueRequest{
		Profile: c.Profile, Subject: c.Subject, Audiences: c.Audiences, TTL: seconds(c.TTL), Scopes: c.Scopes,
		Confirmation:     tokensidecar.Confirmation{JWKThumbprint: c.JWKThumbprint},
		WithRefreshToken: c.WithRefreshToken,
	}
	if c.ClaimsJSON != "" {
		request.Claims = json.RawMessage(c.ClaimsJSON)
	}
	return request
}

func (c *command) validate() tokensidecar.ValidateRequest {
	request := tokensidecar.ValidateRequest{
		Token: c.Token, Audiences: c.Audiences, Profiles: c.Profiles, RequiredScopes: c.RequiredScopes, RequestID: c.RequestID,
	}
	if c.DPoP != nil {
		request.Possession.DPoP = &tokensidecar.DPoPProof{Proof: c.DPoP.Proof, Method: c.DPoP.Method, URL: c.DPoP.URL}
	}
	return request
}

func (c *command) options() ([]tokensidecar.Option, error) {
	options := []tokensidecar.Option{tokensidecar.WithAddress(c.Address)}
	if c.StartTimeout > 0 {
		options = append(options, tokensidecar.WithStartTimeout(seconds(c.StartTimeout)))
	}
	if c.Timeout > 0 {
		options = append(options, tokensidecar.WithTimeout(seconds(c.Timeout)))
	}
	if c.ValidateTimeout > 0 {
		options = append(options, tokensidecar.WithValidateTimeout(seconds(c.ValidateTimeout)))
	}
	if c.TLS == nil {
		return options, nil
	}
	own, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key)
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(c.TLS.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorities)
	return append(options, tokensidecar.WithTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}})), nil
}

// driver has one client of each plane, the last that was connected.
type driver struct {
	client *tokensidecar.Client
	admin  *tokensidecar.Admin
}

func (d *driver) answer(c *command) facts {
	switch c.Do {
	case "connect", "connect_admin":
		options, err := c.options()
		if err == nil && c.Do == "connect" {
			d.client, err = tokensidecar.Connect(ctx, options...)
		} else if err == nil {
			d.admin, err = tokensidecar.ConnectAdmin(ctx, options...)
		}
		return answered(facts{}, err)
	case "issue":
		return issued(d.client.Issue(ctx, c.issue()))
	case "validate":
		return validated(d.client.Validate(ctx, c.validate()))
	case "batch_issue":
		requests := make([]tokensidecar.IssueRequest, len(c.Requests))
		for i := range c.Requests {
			requests[i] = c.Requests[i].issue()
		}
		results, err := d.client.BatchIssue(ctx, requests)
		each := []facts{}
		for _, result := range results {
			each = append(each, issued(result.Token, result.Err))
		}
		return answered(facts{"results": each}, err)
	case "batch_validate":
		requests := make([]tokensidecar.ValidateRequest, len(c.Tokens))
		for i, token := range c.Tokens {
			requests[i] = tokensidecar.ValidateRequest{Token: token, Audiences: c.Audiences}
		}
		results, err := d.client.BatchValidate(ctx, requests)
		each := []facts{}
		for _, result := range results {
			each = append(each, validated(result.Token, result.Err))
		}
		return answered(facts{"results": each}, err)
	case "refresh":
		return issued(d.client.Refresh(ctx, tokensidecar.RefreshRequest{RefreshToken: c.RefreshToken, Scopes: c.Scopes}))
	case "revoke":
		_, err := d.client.Revoke(ctx, tokensidecar.RevokeRequest{Token: c.Token})
		return answered(facts{}, err)
	case "rotate":
		rotation, err := d.admin.Rotate(ctx, tokensidecar.RotateRequest{Profile: c.Profile, ExpectedRingRevision: c.RingRevision})
		if err != nil {
			return failed(err)
		}
		return keys(rotation.Keys, nil)
	case "keys":
		return keys(d.admin.ListKeys(ctx, c.Profile))
	case "revoke_keys":
		revocation, err := d.admin.RevokeKeys(ctx, tokensidecar.RevokeKeysRequest{Profile: c.Profile, KeyIDs: c.KeyIDs})
		if err != nil {
			return failed(err)
		}
		return keys(revocation.Keys, nil)
	case "traffic":
		return d.traffic(c)
	}
	return facts{"error": "lacks", "reason": c.Do}
}

// traffic: each caller goes on until the time is over, and at least once; the admin client may rotate meanwhile.
func (d *driver) traffic(c *command) facts {
	until := time.Now().Add(seconds(c.Seconds))
	ends, lock := map[string]int{}, sync.Mutex{}
	turn := func() error {
		request := c.validate()
		if c.Profile != "" {
			request.Profiles = []string{c.Profile}
		}
		if c.Token == "" {
			token, err := d.client.Issue(ctx, c.issue())
			if err != nil {
				return err
			}
			request.Token = token.Token
		}
		_, err := d.client.Validate(ctx, request)
		return err
	}
	callers := sync.WaitGroup{}
	for range c.Callers {
		callers.Go(func() {
			for again := true; again; again = time.Now().Before(until) {
				ended := end(turn())
				lock.Lock()
				ends[ended]++
				lock.Unlock()
			}
		})
	}
	var err error
	if c.RotateAfter > 0 {
		time.Sleep(seconds(c.RotateAfter))
		_, err = d.admin.Rotate(ctx, tokensidecar.RotateRequest{Profile: c.Profile})
	}
	callers.Wait()
	return answered(facts{"ends": ends}, err)
}

func main() {
	lines, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	d := &driver{}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		c := &command{}
		if err := json.Unmarshal(line, c); err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(d.answer(c)); err != nil {
			log.Fatal(err)
		}
	}
}
