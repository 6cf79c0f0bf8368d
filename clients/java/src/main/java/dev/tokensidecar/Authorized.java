package dev.tokensidecar;

import java.security.Principal;

/**
 * Who may use the service.
 *
 * @param <C> what the claims are read into
 * @param token what the token says
 * @param claims its claims
 */
public record Authorized<C>(ValidatedToken token, C claims) implements Principal {

    /** The subject. */
    @Override
    public String getName() {
        return token.subject();
    }

    /** With the claims as that type; what Java cannot check by itself. */
    <D> Authorized<D> as(Class<D> type) {
        if (!type.isInstance(claims)) {
            throw new IllegalStateException("the claims are read into another type than " + type.getName());
        }
        return new Authorized<>(token, type.cast(claims));
    }

    /** Leaves out the claims. */
    @Override
    public String toString() {
        return "Authorized[token=" + token + "]";
    }
}
