package dev.tokensidecar;

import java.util.List;

/** Which keys are compromised. */
public final class RevokeKeysRequest {
    private final dev.tokensidecar.v1.RevokeKeysRequest message;

    private RevokeKeysRequest(dev.tokensidecar.v1.RevokeKeysRequest message) {
        this.message = message;
    }

    /**
     * Keys of a profile, both named: there is no default.
     *
     * @param profile the one whose keys are meant
     * @param keyIds {@code kid} of each
     * @return the request
     */
    public static RevokeKeysRequest of(String profile, String... keyIds) {
        return new RevokeKeysRequest(dev.tokensidecar.v1.RevokeKeysRequest.newBuilder()
                .setProfile(Messages.text("profile", profile))
                .addAllKeyIds(Messages.texts("key_ids", List.of(keyIds)))
                .build());
    }

    /**
     * Says why.
     *
     * @param reason for the audit log; at most 256 characters
     * @return a changed request
     */
    public RevokeKeysRequest withReason(String reason) {
        return new RevokeKeysRequest(
                message.toBuilder().setReason(Messages.text("reason", reason)).build());
    }

    dev.tokensidecar.v1.RevokeKeysRequest message() {
        return message;
    }

    @Override
    public String toString() {
        return "RevokeKeysRequest[profile=" + message.getProfile() + ", keyIds=" + message.getKeyIdsList() + "]";
    }
}
