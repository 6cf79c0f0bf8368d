package dev.tokensidecar;

import dev.tokensidecar.v1.IssueRequest.Builder;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/** What a token shall say. Each {@code with} gives a changed request. */
public final class IssueRequest {
    private final dev.tokensidecar.v1.IssueRequest message;

    private IssueRequest(dev.tokensidecar.v1.IssueRequest message) {
        this.message = message;
    }

    private IssueRequest with(Consumer<Builder> change) {
        Builder builder = message.toBuilder();
        change.accept(builder);
        return new IssueRequest(builder.build());
    }

    /**
     * A token of the profile "default".
     *
     * @param subject {@code sub}
     * @param audiences {@code aud}: the services that shall accept it
     * @return the request
     */
    public static IssueRequest of(String subject, String... audiences) {
        return new IssueRequest(dev.tokensidecar.v1.IssueRequest.newBuilder()
                .setSubject(Messages.text("subject", subject))
                .addAllAudiences(Messages.texts("audiences", List.of(audiences)))
                .build());
    }

    /**
     * Sets the kind of token.
     *
     * @param profile its name
     * @return a changed request
     */
    public IssueRequest withProfile(String profile) {
        return with(builder -> builder.setProfile(Messages.text("profile", profile)));
    }

    /**
     * Sets the lifetime, where it shall not be the profile's.
     *
     * @param ttl above the profile's maximum the request is refused
     * @return a changed request
     */
    public IssueRequest withTtl(Duration ttl) {
        return with(builder -> builder.setTtl(Messages.duration(ttl)));
    }

    /**
     * Sets {@code client_id}, where it shall not be the caller's name as the sidecar sees it.
     *
     * @param clientId the name
     * @return a changed request
     */
    public IssueRequest withClientId(String clientId) {
        return with(builder -> builder.setClientId(Messages.text("client_id", clientId)));
    }

    /**
     * Sets {@code scope}.
     *
     * @param scopes one word each
     * @return a changed request
     */
    public IssueRequest withScopes(String... scopes) {
        return with(builder -> builder.clearScopes().addAllScopes(Messages.texts("scopes", List.of(scopes))));
    }

    /**
     * Sets further claims. Integers are exact.
     *
     * @param claims by name: text, numbers, booleans, null, and lists and maps of them
     * @return a changed request
     * @throws InvalidRequestException for a value that has no JSON form
     */
    public IssueRequest withClaims(Map<String, ?> claims) {
        return withClaimsJson(Claims.write(claims));
    }

    /**
     * Sets further claims, carried over byte for byte.
     *
     * @param json an object
     * @return a changed request
     */
    public IssueRequest withClaimsJson(String json) {
        return with(builder -> builder.setClaimsJson(Messages.text("claims_json", json)));
    }

    /**
     * Also makes a refresh token that carries this grant.
     *
     * @return a changed request
     */
    public IssueRequest withRefreshToken() {
        return with(builder -> builder.setWithRefreshToken(true));
    }

    dev.tokensidecar.v1.IssueRequest message() {
        return message;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof IssueRequest request && request.message.equals(message);
    }

    @Override
    public int hashCode() {
        return message.hashCode();
    }

    /** Leaves out the subject and the claims. */
    @Override
    public String toString() {
        return "IssueRequest[profile=" + message.getProfile() + ", audiences=" + message.getAudiencesList() + "]";
    }
}
