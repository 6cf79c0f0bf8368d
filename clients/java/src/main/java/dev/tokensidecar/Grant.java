package dev.tokensidecar;

import java.util.List;

/**
 * What a token for an outgoing call grants: equal grants share one token.
 *
 * @param profile the kind of token; empty: "default"
 * @param subject {@code sub}
 * @param audiences {@code aud}
 * @param scopes {@code scope}, one word each
 */
public record Grant(String profile, String subject, List<String> audiences, List<String> scopes) {

    /**
     * The grant, with lists that nobody changes.
     *
     * @param profile the kind of token; empty: "default"
     * @param subject {@code sub}
     * @param audiences {@code aud}
     * @param scopes {@code scope}, one word each
     */
    public Grant {
        audiences = List.copyOf(audiences);
        scopes = List.copyOf(scopes);
    }

    /**
     * A token of the profile "default".
     *
     * @param subject {@code sub}
     * @param audiences {@code aud}: the services that shall accept it
     * @return the grant
     */
    public static Grant of(String subject, String... audiences) {
        return new Grant("", subject, List.of(audiences), List.of());
    }

    /**
     * Sets the kind of token.
     *
     * @param profile its name
     * @return a changed grant
     */
    public Grant withProfile(String profile) {
        return new Grant(profile, subject, audiences, scopes);
    }

    /**
     * Sets {@code scope}.
     *
     * @param scopes one word each
     * @return a changed grant
     */
    public Grant withScopes(String... scopes) {
        return new Grant(profile, subject, audiences, List.of(scopes));
    }

    IssueRequest request() {
        return IssueRequest.of(subject, audiences.toArray(String[]::new))
                .withProfile(profile)
                .withScopes(scopes.toArray(String[]::new));
    }

    /** Leaves out the subject. */
    @Override
    public String toString() {
        return "Grant[profile=" + profile + ", audiences=" + audiences + ", scopes=" + scopes + "]";
    }
}
