package tokensidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Grant is what a token for an outgoing call shall say. Equal grants share one token.
type Grant struct {
	// Profile is the kind of token; empty: "default".
	Profile string
	// Subject is `sub`. Required.
	Subject string
	// Audiences are `aud`: the service that is called. Required.
	Audiences []string
	// Scopes are `scope`, one word each.
	Scopes []string
}

// key is the same for equal grants alone.
func (g Grant) key() string {
	return fmt.Sprintf("%q %q %q %q", g.Profile, g.Subject, g.Audiences, g.Scopes)
}

const (
	mostGrants = 1000        // of more, that which expires soonest is forgotten
	rounding   = time.Second // iat and exp are whole seconds
	renewPause = time.Second // between tries of a renewal while the sidecar is away
)

// TokenSource issues tokens for outgoing calls and keeps each for 80 % of its
// life. Whoever wants the same at the same time shares one call, and its failure
// too. It is safe for concurrent use: make one and keep it.
type TokenSource struct {
	issue func(context.Context, IssueRequest) (*IssuedToken, error)
	now   func() time.Time

	mutex sync.Mutex
	slots map[string]*slot
}

// slot is what is known of one grant.
type slot struct {
	token  *IssuedToken // nil: none yet
	renew  time.Time
	expire time.Time
	call   *issuing // nil: none under way
}

// issuing is one call that several may wait for.
type issuing struct {
	done  chan struct{}
	token *IssuedToken
	err   error
}

// NewTokenSource keeps nothing yet.
func NewTokenSource(client *Client) *TokenSource {
	return &TokenSource{issue: client.Issue, now: time.Now, slots: map[string]*slot{}}
}

// Token is one that is good for at least a fifth of its life; for less only
// while somebody else renews it, and where the sidecar does not answer. ctx ends
// the waiting, and not a call that is shared.
func (s *TokenSource) Token(ctx context.Context, grant Grant) (*IssuedToken, error) {
	if err := ctx.Err(); err != nil {
		return nil, ended(ctx)
	}
	kept, call := s.kept(ctx, grant)
	if call == nil {
		return kept, nil
	}
	select {
	case <-call.done:
		return call.token, call.err
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

// kept gives the token, or else a call to wait for.
func (s *TokenSource) kept(ctx context.Context, grant Grant) (*IssuedToken, *issuing) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	slot, now := s.slot(grant.key()), s.now()
	if slot.token != nil && now.Before(slot.renew) {
		return slot.token, nil
	}
	if slot.call != nil {
		if slot.alive(now) {
			return slot.token, nil
		}
		return nil, slot.call
	}
	slot.call = &issuing{done: make(chan struct{})}
	// Not in the context of whoever came first: its end is not that of the others.
	go s.renewed(context.WithoutCancel(ctx), slot, slot.call, grant, now)
	return nil, slot.call
}

// renewed ends the call. A life is reckoned by the sidecar's own times, from before the call: this machine's clock may jump.
func (s *TokenSource) renewed(ctx context.Context, slot *slot, call *issuing, grant Grant, asked time.Time) {
	token, err := s.issue(ctx, IssueRequest{
		Profile: grant.Profile, Subject: grant.Subject, Audiences: slices.Clone(grant.Audiences), Scopes: slices.Clone(grant.Scopes),
	})
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer close(call.done)
	slot.call = nil
	switch {
	case err == nil:
		life := token.ExpireTime.Sub(token.IssueTime)
		slot.token, slot.renew, slot.expire = token, asked.Add(life/5*4), asked.Add(life-rounding)
		call.token = token
	case errors.Is(err, ErrUnavailable) && slot.alive(s.now()):
		if slot.renew = s.now().Add(renewPause); slot.expire.Before(slot.renew) {
			slot.renew = slot.expire
		}
		call.token = slot.token
	default:
		call.err = err
	}
}

func (s *slot) alive(now time.Time) bool { return s.token != nil && now.Before(s.expire) }

// slot is that of the grant. The mutex is held.
func (s *TokenSource) slot(key string) *slot {
	if known, ok := s.slots[key]; ok {
		return known
	}
	if len(s.slots) >= mostGrants {
		first := ""
		for key, each := range s.slots {
			if each.call == nil && (first == "" || each.expire.Before(s.slots[first].expire)) {
				first = key
			}
		}
		delete(s.slots, first)
	}
	made := &slot{}
	s.slots[key] = made
	return made
}

// Forget is for a token that the other side turned down: the next one is fresh.
// Where another one has been issued meanwhile, that is kept.
func (s *TokenSource) Forget(grant Grant, token string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	key := grant.key()
	if slot, ok := s.slots[key]; ok && slot.token != nil && slot.token.Token == token {
		delete(s.slots, key)
	}
}

func bearer(token *IssuedToken) string { return "Bearer " + token.Token }
