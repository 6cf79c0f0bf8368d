package dev.tokensidecar;

import dev.tokensidecar.v1.ErrorReason;

/** Why a call did not end well: ErrorReason of the contract, where each is explained. */
public enum Reason {
    /** gRPC and not the sidecar's code answered, or a newer sidecar for a reason that this client does not know. */
    UNSPECIFIED,
    /** The request is no good. */
    REQUEST_INVALID,
    /** Not a token of the accepted profiles. */
    TOKEN_INVALID,
    /** {@code nbf} or {@code iat} lies in the future. */
    TOKEN_NOT_YET_VALID,
    /** {@code exp} has passed. */
    TOKEN_EXPIRED,
    /** The token is for other audiences than those asked for. */
    TOKEN_AUDIENCE_MISMATCH,
    /** The token, its subject or its refresh family has been revoked. */
    TOKEN_REVOKED,
    /** The token is bound to a key, and nobody proved that the presenter holds it. */
    TOKEN_POSSESSION_UNPROVEN,
    /** A required scope is not in the token. */
    TOKEN_SCOPE_MISSING,
    /** A one-time token that has been used. */
    TOKEN_ALREADY_CONSUMED,
    /** A spent refresh token was presented again: its family is revoked. */
    REFRESH_REUSED,
    /** Neither the transport nor the call's metadata says who is calling. */
    CALLER_UNIDENTIFIED,
    /** This caller may not do this here. */
    CALLER_DENIED,
    /** The ring is at another revision than expected, or a successor is pending already. */
    RING_CHANGED,
    /** The sidecar has not seen the store for too long to answer. */
    STATE_STALE,
    /** The store does not answer. */
    STORE_UNAVAILABLE,
    /** The key management service does not answer. */
    KMS_UNAVAILABLE,
    /** The decision could not be put on record. */
    AUDIT_UNAVAILABLE,
    /** The subject's tokens have just been revoked. */
    SUBJECT_REVOKED,
    /** Too much at once. */
    OVERLOADED,
    /** Not in this version of the sidecar. */
    NOT_IMPLEMENTED,
    /** The sidecar's fault. */
    INTERNAL;

    static Reason named(String name) {
        for (Reason reason : values()) {
            if (reason.name().equals(name)) {
                return reason;
            }
        }
        return UNSPECIFIED;
    }

    static Reason of(ErrorReason reason) {
        return named(reason.name());
    }
}
