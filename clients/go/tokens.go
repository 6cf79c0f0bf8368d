package tokensidecar

import (
	"crypto/rand"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// IssueRequest is what a token shall say.
type IssueRequest struct {
	// Profile is the kind of token; empty: "default".
	Profile string
	// Subject is `sub`. Required.
	Subject string
	// Audiences are `aud`: the services that shall accept the token. Required.
	Audiences []string
	// TTL is the lifetime; 0: the profile's. Above the profile's maximum the request is refused.
	TTL time.Duration
	// ClientID is `client_id`; empty: the caller's name, as the sidecar sees it.
	ClientID string
	// Scopes are `scope`, one word each.
	Scopes []string
	// Claims are further claims, a JSON object: anything that encoding/json
	// writes as one, or a json.RawMessage, carried over byte for byte.
	Claims any
	// Confirmation binds the token to a key of its presenter; zero: to none.
	Confirmation Confirmation
	// WithRefreshToken also makes a refresh token that carries this grant.
	WithRefreshToken bool
}

// Confirmation is the key that a token is bound to (RFC 7800). At most one is
// set, to 43 characters of base64url.
type Confirmation struct {
	// JWKThumbprint is `cnf.jkt`, the SHA-256 thumbprint of a DPoP key (RFC 9449).
	JWKThumbprint string
	// CertificateThumbprint is `cnf.x5t#S256`, SHA-256 of a client certificate (RFC 8705).
	CertificateThumbprint string
}

// IssuedToken is a token, and what was granted.
type IssuedToken struct {
	// Token is the encrypted JWT. Whoever has it may use it.
	Token string
	// TokenID is `jti`.
	TokenID string
	// KeyID is `kid` of the outermost layer.
	KeyID string
	// IssueTime is `iat`.
	IssueTime time.Time
	// ExpireTime is `exp`.
	ExpireTime time.Time
	// Audiences are as granted.
	Audiences []string
	// Scopes are as granted.
	Scopes []string
	// RefreshToken is for [Client.Refresh]; empty unless it was asked for.
	RefreshToken string
	// RefreshExpireTime is `exp` of the refresh token; zero without one.
	RefreshExpireTime time.Time
}

// ValidateRequest is a token, and what is demanded of it.
type ValidateRequest struct {
	// Token is the encrypted JWT. Required.
	Token string
	// Audiences are the names of the service that asks: the token must be for one of them. Required.
	Audiences []string
	// Profiles are the kinds of token that are accepted; empty: "default" alone.
	Profiles []string
	// RequiredScopes must all be in the token.
	RequiredScopes []string
	// RequestID makes repeats of this call the same call, for one-time tokens; empty: a fresh one, kept over retries.
	RequestID string
	// MinRevocationRevision demands that the sidecar knows of revocations up to this revision.
	MinRevocationRevision uint64
	// Possession proves that the presenter holds the key that the token is bound to; zero: nothing is proven, and a
	// bound token is rejected.
	Possession Possession
}

// Possession is a proof of one kind. At most one is set.
type Possession struct {
	// DPoP is a proof of RFC 9449.
	DPoP *DPoPProof
	// CertificateThumbprint is SHA-256 of the client certificate that the caller saw (RFC 8705), in base64url.
	CertificateThumbprint string
}

// DPoPProof is a DPoP proof, and the request that it must have been made for (RFC 9449, section 4.3).
type DPoPProof struct {
	// Proof is the value of the DPoP header.
	Proof string
	// Method is `htm`: the HTTP method.
	Method string
	// URL is `htu`: that of the request as its sender wrote it, without query and fragment.
	URL string
	// Nonce is the one expected in the proof, if the caller uses nonces.
	Nonce string
}

// ValidatedToken is what a good token says.
type ValidatedToken struct {
	// Profile is the kind of token that it is.
	Profile string
	// Issuer is `iss`.
	Issuer string
	// Subject is `sub`.
	Subject string
	// Audiences are `aud`.
	Audiences []string
	// ClientID is `client_id`.
	ClientID string
	// Scopes are `scope`.
	Scopes []string
	// TokenID is `jti`.
	TokenID string
	// IssueTime is `iat`.
	IssueTime time.Time
	// ExpireTime is `exp`.
	ExpireTime time.Time
	// KeyID is `kid` of the outermost layer.
	KeyID string
	// ClaimsJSON has every claim: the very bytes that were signed or sealed.
	ClaimsJSON json.RawMessage
	// RingRevision is that of the keys that the answer rests on.
	RingRevision uint64
	// RevocationRevision is that of the revocations that the answer rests on.
	RevocationRevision uint64
	// Confirmation is the key whose possession was proven; zero where the token is bound to none.
	Confirmation Confirmation
}

// DecodeClaims reads all claims into a struct or a map. Integers are exact: an
// int64 takes 2^63-1, and in a map[string]any numbers are [json.Number]. Names
// that differ in case only are an error, for encoding/json confuses them.
func (t *ValidatedToken) DecodeClaims(into any) error { return decodeClaims(t.ClaimsJSON, into) }

func (r IssueRequest) message() (*pb.IssueRequest, error) {
	message := &pb.IssueRequest{
		Profile:   r.Profile,
		Subject:   r.Subject,
		Audiences: r.Audiences,
		ClientId:  r.ClientID,
		Scopes:    r.Scopes,

		WithRefreshToken: r.WithRefreshToken,
	}
	if c := r.Confirmation; c.JWKThumbprint != "" && c.CertificateThumbprint != "" {
		return nil, refused("confirmation", "a token is bound to one key: give one thumbprint")
	} else if c.JWKThumbprint != "" {
		message.Confirmation = &pb.Confirmation{Method: &pb.Confirmation_JwkThumbprintSha256{JwkThumbprintSha256: c.JWKThumbprint}}
	} else if c.CertificateThumbprint != "" {
		message.Confirmation = &pb.Confirmation{
			Method: &pb.Confirmation_CertificateThumbprintSha256{CertificateThumbprintSha256: c.CertificateThumbprint},
		}
	}
	if r.TTL != 0 {
		message.Ttl = durationpb.New(r.TTL)
	}
	claims, err := encodeClaims(r.Claims)
	if err != nil {
		return nil, err
	}
	if claims != "" {
		message.ClaimsSource = &pb.IssueRequest_ClaimsJson{ClaimsJson: claims}
	}
	return message, nil
}

func (r ValidateRequest) message() (*pb.ValidateRequest, error) {
	possession, err := r.Possession.message()
	if err != nil {
		return nil, err
	}
	return &pb.ValidateRequest{
		Token:                 r.Token,
		Audiences:             r.Audiences,
		Profiles:              r.Profiles,
		RequiredScopes:        r.RequiredScopes,
		RequestId:             orFresh(r.RequestID),
		MinRevocationRevision: r.MinRevocationRevision,
		Possession:            possession,
	}, nil
}

func (p Possession) message() (*pb.Possession, error) {
	switch {
	case p.DPoP != nil && p.CertificateThumbprint != "":
		return nil, refused("possession", "one proof at a time: that of the kind that the token is bound by")
	case p.DPoP != nil:
		return &pb.Possession{Proof: &pb.Possession_Dpop{Dpop: &pb.DpopProof{
			Proof: p.DPoP.Proof, Method: p.DPoP.Method, Url: p.DPoP.URL, Nonce: p.DPoP.Nonce,
		}}}, nil
	case p.CertificateThumbprint != "":
		return &pb.Possession{
			Proof: &pb.Possession_CertificateThumbprintSha256{CertificateThumbprintSha256: p.CertificateThumbprint},
		}, nil
	}
	return nil, nil
}

func issuedToken(answer *pb.IssueResponse) *IssuedToken {
	return &IssuedToken{
		Token:      answer.GetToken(),
		TokenID:    answer.GetTokenId(),
		KeyID:      answer.GetKeyId(),
		IssueTime:  instant(answer.GetIssueTime()),
		ExpireTime: instant(answer.GetExpireTime()),
		Audiences:  answer.GetAudiences(),
		Scopes:     answer.GetScopes(),

		RefreshToken:      answer.GetRefreshToken(),
		RefreshExpireTime: instant(answer.GetRefreshExpireTime()),
	}
}

func validatedToken(answer *pb.ValidateResponse) *ValidatedToken {
	return &ValidatedToken{
		Profile:            answer.GetProfile(),
		Issuer:             answer.GetIssuer(),
		Subject:            answer.GetSubject(),
		Audiences:          answer.GetAudiences(),
		ClientID:           answer.GetClientId(),
		Scopes:             answer.GetScopes(),
		TokenID:            answer.GetTokenId(),
		IssueTime:          instant(answer.GetIssueTime()),
		ExpireTime:         instant(answer.GetExpireTime()),
		KeyID:              answer.GetKeyId(),
		ClaimsJSON:         json.RawMessage(answer.GetClaimsJson()),
		RingRevision:       answer.GetRingRevision(),
		RevocationRevision: answer.GetRevocationRevision(),
		Confirmation: Confirmation{
			JWKThumbprint:         answer.GetConfirmation().GetJwkThumbprintSha256(),
			CertificateThumbprint: answer.GetConfirmation().GetCertificateThumbprintSha256(),
		},
	}
}

// RefreshRequest is a refresh token, and how to narrow what it grants.
type RefreshRequest struct {
	// RefreshToken is the one of the last answer. Required.
	RefreshToken string
	// Audiences may be fewer than were granted; empty: all of them.
	Audiences []string
	// Scopes may be fewer than were granted; empty: all of them.
	Scopes []string
	// Possession is required where the grant is bound to a key.
	Possession Possession
}

// RevokeRequest is the token to end.
type RevokeRequest struct {
	// Token is an access token, or a refresh token with its family.
	Token string
	// Reason is for the audit log.
	Reason string
}

// Revocation says when a revocation holds.
type Revocation struct {
	// Revision is what ValidateRequest.MinRevocationRevision takes.
	Revision uint64
	// EffectiveTime is when every sidecar obeys or answers STATE_STALE.
	EffectiveTime time.Time
}

// instant is the zero time where the contract has no value.
func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// timestamp is unset for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// orFresh gives a request id of 128 random bits where the caller has none.
func orFresh(requestID string) string {
	if requestID == "" {
		return rand.Text()
	}
	return requestID
}
