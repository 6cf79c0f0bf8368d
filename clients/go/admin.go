package tokensidecar

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// Admin looks after keys and revocations. It is safe for concurrent use.
type Admin struct {
	connection *grpc.ClientConn
	tokens     pb.TokenServiceClient
	keys       pb.AdminServiceClient
	options    options
}

// ConnectAdmin is [Connect] for the admin plane: TOKENSIDECAR_ADMIN_ADDRESS,
// admin/admin.sock in the same directories, 127.0.0.1:8791.
func ConnectAdmin(ctx context.Context, opts ...Option) (*Admin, error) {
	o := newOptions(opts)
	connection, err := connect(ctx, adminPlane, o)
	if err != nil {
		return nil, err
	}
	return &Admin{
		connection: connection,
		tokens:     pb.NewTokenServiceClient(connection),
		keys:       pb.NewAdminServiceClient(connection),
		options:    o,
	}, nil
}

// Close ends the connection; calls under way fail.
func (a *Admin) Close() error { return a.connection.Close() }

// KeyUse is what a key does in its profile.
type KeyUse string

// The uses of the contract.
const (
	UseEncryption KeyUse = "encryption" // the outer layer
	UseSignature  KeyUse = "signature"  // the inner layer
	UseRefresh    KeyUse = "refresh"    // refresh tokens
)

// KeyState follows from a key's times (NIST SP 800-57 Part 1).
type KeyState string

// The states of the contract.
const (
	StatePending     KeyState = "pending"     // opens, does not issue yet
	StateActive      KeyState = "active"      // issues and opens
	StateRetiring    KeyState = "retiring"    // opens until the last token made with it has expired
	StateDestroyed   KeyState = "destroyed"   // in no live ring and no memory
	StateCompromised KeyState = "compromised" // neither issues nor opens
)

// Key is what is public about a key. A zero time stands for one that is not set.
type Key struct {
	// KeyID is `kid`.
	KeyID string
	// Profile is the one whose ring holds the key.
	Profile string
	// Use is what the key is for.
	Use KeyUse
	// Algorithm is the key's one algorithm by its JWA name, such as "A256KW".
	Algorithm string
	// ContentEncryption is the JWA name of the content encryption; empty for signature keys.
	ContentEncryption string
	// State is that at the time of the answer.
	State KeyState
	// CreateTime is when the key was made.
	CreateTime time.Time
	// ActivateTime is when it starts to issue.
	ActivateTime time.Time
	// RetireTime is when it stops issuing; zero while it has no successor.
	RetireTime time.Time
	// DestroyTime is when it is destroyed; zero while it has no successor.
	DestroyTime time.Time
	// CompromiseTime is when it was declared compromised; else zero.
	CompromiseTime time.Time
	// RingRevision is what RotateRequest.ExpectedRingRevision takes.
	RingRevision uint64
}

// RotateRequest says which keys get a successor.
type RotateRequest struct {
	// Profile is the one whose keys are meant; empty: "default".
	Profile string
	// Use names one use; empty: encryption and signature.
	Use KeyUse
	// ExpectedRingRevision demands that the ring is at this revision, else ErrRingChanged; 0: any.
	ExpectedRingRevision uint64
	// RequestID makes repeats of this call the same call; empty: a fresh one, kept over retries.
	RequestID string
	// Reason is for the audit log.
	Reason string
}

// Rotation is the ring after a rotation.
type Rotation struct {
	// Keys are all keys of the profile.
	Keys []Key
	// ActivateTime is when the successors start to issue.
	ActivateTime time.Time
	// RingRevision is that after the change.
	RingRevision uint64
}

// Rotate prepares successors. No token becomes invalid by it.
func (a *Admin) Rotate(ctx context.Context, request RotateRequest) (*Rotation, error) {
	message := &pb.RotateRequest{
		Profile:              request.Profile,
		ExpectedRingRevision: request.ExpectedRingRevision,
		RequestId:            orFresh(request.RequestID),
		Reason:               request.Reason,
	}
	if request.Use != "" {
		use, ok := pb.KeyUse_value["KEY_USE_"+strings.ToUpper(string(request.Use))]
		if !ok || use == 0 {
			return nil, refused("key_use", "this client knows no such use")
		}
		message.KeyUse = pb.KeyUse(use)
	}
	ctx, cancel := context.WithTimeout(ctx, a.options.timeout)
	defer cancel()
	answer, err := a.tokens.Rotate(ctx, message)
	if err != nil {
		return nil, err
	}
	return &Rotation{
		Keys:         keys(answer.GetKeys()),
		ActivateTime: instant(answer.GetActivateTime()),
		RingRevision: answer.GetRingRevision(),
	}, nil
}

// ListKeys gives the keys of a profile; of all profiles, if it is empty. The
// deadline holds for each page of 1,000.
func (a *Admin) ListKeys(ctx context.Context, profile string) ([]Key, error) {
	var all []Key
	page := ""
	for {
		answer, err := a.listPage(ctx, &pb.ListKeysRequest{Profile: profile, PageSize: 1000, PageToken: page})
		if err != nil {
			return nil, err
		}
		all = append(all, keys(answer.GetKeys())...)
		next := answer.GetNextPageToken()
		if next == "" {
			return all, nil
		}
		if next == page {
			return nil, broken("the next page of keys is the same one")
		}
		page = next
	}
}

func (a *Admin) listPage(ctx context.Context, request *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.timeout)
	defer cancel()
	return a.keys.ListKeys(ctx, request)
}

// RevokeKeysRequest says which keys are compromised.
type RevokeKeysRequest struct {
	// Profile is the one whose keys are meant. Required: there is no default.
	Profile string
	// KeyIDs name the keys. Required.
	KeyIDs []string
	// Reason is for the audit log.
	Reason string
}

// KeyRevocation is the ring after a compromise.
type KeyRevocation struct {
	// Keys are all keys of the profile.
	Keys []Key
	// RingRevision is that after the change.
	RingRevision uint64
	// EffectiveTime is when every sidecar obeys or answers STATE_STALE; this one does already.
	EffectiveTime time.Time
}

// RevokeKeys declares keys compromised: their tokens are rejected from now on,
// and successors issue.
func (a *Admin) RevokeKeys(ctx context.Context, request RevokeKeysRequest) (*KeyRevocation, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.timeout)
	defer cancel()
	answer, err := a.keys.RevokeKeys(ctx, &pb.RevokeKeysRequest{
		Profile: request.Profile,
		KeyIds:  request.KeyIDs,
		Reason:  request.Reason,
	})
	if err != nil {
		return nil, err
	}
	return &KeyRevocation{
		Keys:          keys(answer.GetKeys()),
		RingRevision:  answer.GetRingRevision(),
		EffectiveTime: instant(answer.GetEffectiveTime()),
	}, nil
}

// RevokeSubjectRequest says whose tokens to end.
type RevokeSubjectRequest struct {
	// Profile is the one whose tokens are meant. Required.
	Profile string
	// Subject is `sub` of the tokens. Required.
	Subject string
	// IssuedBefore ends the tokens with `iat` up to this time; zero: now.
	IssuedBefore time.Time
	// Reason is for the audit log.
	Reason string
}

// RevokeSubject ends all tokens of a subject issued up to a time, refresh
// families included.
func (a *Admin) RevokeSubject(ctx context.Context, request RevokeSubjectRequest) (*Revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.timeout)
	defer cancel()
	answer, err := a.keys.RevokeSubject(ctx, &pb.RevokeSubjectRequest{
		Profile:      request.Profile,
		Subject:      request.Subject,
		IssuedBefore: timestamp(request.IssuedBefore),
		Reason:       request.Reason,
	})
	if err != nil {
		return nil, err
	}
	return &Revocation{Revision: answer.GetRevocationRevision(), EffectiveTime: instant(answer.GetEffectiveTime())}, nil
}

// RevokeTokenIDRequest says which token to end.
type RevokeTokenIDRequest struct {
	// Profile is the token's. Required.
	Profile string
	// TokenID is `jti`. Required.
	TokenID string
	// ExpireTime is `exp`; zero: now and the profile's maximum lifetime.
	ExpireTime time.Time
	// Reason is for the audit log.
	Reason string
}

// RevokeTokenID ends one token, named by its id.
func (a *Admin) RevokeTokenID(ctx context.Context, request RevokeTokenIDRequest) (*Revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.timeout)
	defer cancel()
	answer, err := a.keys.RevokeTokenId(ctx, &pb.RevokeTokenIdRequest{
		Profile:    request.Profile,
		TokenId:    request.TokenID,
		ExpireTime: timestamp(request.ExpireTime),
		Reason:     request.Reason,
	})
	if err != nil {
		return nil, err
	}
	return &Revocation{Revision: answer.GetRevocationRevision(), EffectiveTime: instant(answer.GetEffectiveTime())}, nil
}

func keys(messages []*pb.Key) []Key {
	all := make([]Key, len(messages))
	for i, k := range messages {
		all[i] = Key{
			KeyID:             k.GetKeyId(),
			Profile:           k.GetProfile(),
			Use:               KeyUse(strings.ToLower(strings.TrimPrefix(k.GetKeyUse().String(), "KEY_USE_"))),
			Algorithm:         k.GetAlgorithm(),
			ContentEncryption: k.GetContentEncryption(),
			State:             KeyState(strings.ToLower(strings.TrimPrefix(k.GetState().String(), "KEY_STATE_"))),
			CreateTime:        instant(k.GetCreateTime()),
			ActivateTime:      instant(k.GetActivateTime()),
			RetireTime:        instant(k.GetRetireTime()),
			DestroyTime:       instant(k.GetDestroyTime()),
			CompromiseTime:    instant(k.GetCompromiseTime()),
			RingRevision:      k.GetRingRevision(),
		}
	}
	return all
}
