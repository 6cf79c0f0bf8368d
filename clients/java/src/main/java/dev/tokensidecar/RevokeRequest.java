package dev.tokensidecar;

/** The token to end. */
public final class RevokeRequest {
    private final dev.tokensidecar.v1.RevokeRequest message;

    private RevokeRequest(dev.tokensidecar.v1.RevokeRequest message) {
        this.message = message;
    }

    /**
     * Ends one token.
     *
     * @param token an access token, or a refresh token with its family
     * @return the request
     */
    public static RevokeRequest of(String token) {
        return new RevokeRequest(
                dev.tokensidecar.v1.RevokeRequest.newBuilder().setToken(token).build());
    }

    /**
     * Says why.
     *
     * @param reason for the audit log; at most 256 characters
     * @return a changed request
     */
    public RevokeRequest withReason(String reason) {
        return new RevokeRequest(
                message.toBuilder().setReason(Messages.text("reason", reason)).build());
    }

    dev.tokensidecar.v1.RevokeRequest message() {
        return message;
    }

    /** Leaves out the token. */
    @Override
    public String toString() {
        return "RevokeRequest[reason=" + message.getReason() + "]";
    }
}
