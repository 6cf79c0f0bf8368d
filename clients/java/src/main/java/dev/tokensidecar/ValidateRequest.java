package dev.tokensidecar;

import dev.tokensidecar.v1.ValidateRequest.Builder;
import java.util.List;
import java.util.function.Consumer;

/** A token, and what is demanded of it. Each {@code with} gives a changed request. */
public final class ValidateRequest {
    private final dev.tokensidecar.v1.ValidateRequest message;

    private ValidateRequest(dev.tokensidecar.v1.ValidateRequest message) {
        this.message = message;
    }

    private ValidateRequest with(Consumer<Builder> change) {
        Builder builder = message.toBuilder();
        change.accept(builder);
        return new ValidateRequest(builder.build());
    }

    /**
     * A token of the profile "default".
     *
     * @param token the encrypted JWT
     * @param audiences the names of the service that asks: the token must be for one of them
     * @return the request
     */
    public static ValidateRequest of(String token, String... audiences) {
        return new ValidateRequest(dev.tokensidecar.v1.ValidateRequest.newBuilder()
                .setToken(token)
                .addAllAudiences(Messages.texts("audiences", List.of(audiences)))
                .build());
    }

    /**
     * Sets the kinds of token that are accepted, instead of "default".
     *
     * @param profiles their names
     * @return a changed request
     */
    public ValidateRequest withProfiles(String... profiles) {
        return with(builder -> builder.clearProfiles().addAllProfiles(Messages.texts("profiles", List.of(profiles))));
    }

    /**
     * Sets the scopes that must be in the token.
     *
     * @param scopes one word each
     * @return a changed request
     */
    public ValidateRequest withRequiredScopes(String... scopes) {
        return with(builder ->
                builder.clearRequiredScopes().addAllRequiredScopes(Messages.texts("required_scopes", List.of(scopes))));
    }

    /**
     * Makes repeats of this call the same call, for one-time tokens. Without it each call has a fresh one, kept over the
     * client's own repeats.
     *
     * @param requestId at most 128 characters
     * @return a changed request
     */
    public ValidateRequest withRequestId(String requestId) {
        return with(builder -> builder.setRequestId(Messages.text("request_id", requestId)));
    }

    /**
     * Demands that the sidecar knows of revocations up to a revision.
     *
     * @param revision as {@link Revocation#revocationRevision} says it
     * @return a changed request
     */
    public ValidateRequest withMinRevocationRevision(long revision) {
        return with(builder -> builder.setMinRevocationRevision(revision));
    }

    dev.tokensidecar.v1.ValidateRequest message() {
        return message.toBuilder()
                .setRequestId(Messages.orFresh(message.getRequestId()))
                .build();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof ValidateRequest request && request.message.equals(message);
    }

    @Override
    public int hashCode() {
        return message.hashCode();
    }

    /** Leaves out the token. */
    @Override
    public String toString() {
        return "ValidateRequest[profiles=" + message.getProfilesList() + ", audiences=" + message.getAudiencesList()
                + "]";
    }
}
