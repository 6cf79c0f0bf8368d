package dev.tokensidecar;

import dev.tokensidecar.v1.RefreshRequest.Builder;
import java.util.List;
import java.util.function.Consumer;

/** A refresh token, and how to narrow what it grants. Each {@code with} gives a changed request. */
public final class RefreshRequest {
    private final dev.tokensidecar.v1.RefreshRequest message;

    private RefreshRequest(dev.tokensidecar.v1.RefreshRequest message) {
        this.message = message;
    }

    private RefreshRequest with(Consumer<Builder> change) {
        Builder builder = message.toBuilder();
        change.accept(builder);
        return new RefreshRequest(builder.build());
    }

    /**
     * All that was granted.
     *
     * @param refreshToken the refresh token
     * @return the request
     */
    public static RefreshRequest of(String refreshToken) {
        return new RefreshRequest(dev.tokensidecar.v1.RefreshRequest.newBuilder()
                .setRefreshToken(refreshToken)
                .build());
    }

    /**
     * Narrows the audiences.
     *
     * @param audiences only these
     * @return a changed request
     */
    public RefreshRequest withAudiences(String... audiences) {
        return with(
                builder -> builder.clearAudiences().addAllAudiences(Messages.texts("audiences", List.of(audiences))));
    }

    /**
     * Narrows the scopes.
     *
     * @param scopes only these
     * @return a changed request
     */
    public RefreshRequest withScopes(String... scopes) {
        return with(builder -> builder.clearScopes().addAllScopes(Messages.texts("scopes", List.of(scopes))));
    }

    dev.tokensidecar.v1.RefreshRequest message() {
        return message;
    }

    /** Leaves out the token. */
    @Override
    public String toString() {
        return "RefreshRequest[audiences=" + message.getAudiencesList() + ", scopes=" + message.getScopesList() + "]";
    }
}
