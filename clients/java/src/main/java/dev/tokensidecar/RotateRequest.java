package dev.tokensidecar;

import dev.tokensidecar.v1.RotateRequest.Builder;
import java.util.function.Consumer;

/** Which keys get a successor. Each {@code with} gives a changed request. */
public final class RotateRequest {
    private final dev.tokensidecar.v1.RotateRequest message;

    private RotateRequest(dev.tokensidecar.v1.RotateRequest message) {
        this.message = message;
    }

    private RotateRequest with(Consumer<Builder> change) {
        Builder builder = message.toBuilder();
        change.accept(builder);
        return new RotateRequest(builder.build());
    }

    /**
     * Encryption and signature of a profile.
     *
     * @param profile empty: "default"
     * @return the request
     */
    public static RotateRequest of(String profile) {
        return new RotateRequest(dev.tokensidecar.v1.RotateRequest.newBuilder()
                .setProfile(Messages.text("profile", profile))
                .build());
    }

    /**
     * Names one use.
     *
     * @param use this one alone
     * @return a changed request
     */
    public RotateRequest withKeyUse(KeyUse use) {
        if (use == KeyUse.UNKNOWN) {
            throw TokenSidecarException.refused("key_use", "this client knows no such use");
        }
        return with(builder -> builder.setKeyUse(dev.tokensidecar.v1.KeyUse.valueOf("KEY_USE_" + use.name())));
    }

    /**
     * Demands that the ring is at this revision, else {@link RingChangedException}.
     *
     * @param revision as {@link Key#ringRevision} says it
     * @return a changed request
     */
    public RotateRequest withExpectedRingRevision(long revision) {
        return with(builder -> builder.setExpectedRingRevision(revision));
    }

    /**
     * Makes repeats of this call the same call. Without it each call has a fresh one, kept over the client's own repeats.
     *
     * @param requestId at most 128 characters
     * @return a changed request
     */
    public RotateRequest withRequestId(String requestId) {
        return with(builder -> builder.setRequestId(Messages.text("request_id", requestId)));
    }

    /**
     * Says why.
     *
     * @param reason for the audit log; at most 256 characters
     * @return a changed request
     */
    public RotateRequest withReason(String reason) {
        return with(builder -> builder.setReason(Messages.text("reason", reason)));
    }

    dev.tokensidecar.v1.RotateRequest message() {
        return message.toBuilder()
                .setRequestId(Messages.orFresh(message.getRequestId()))
                .build();
    }

    @Override
    public String toString() {
        return "RotateRequest[profile=" + message.getProfile() + "]";
    }
}
