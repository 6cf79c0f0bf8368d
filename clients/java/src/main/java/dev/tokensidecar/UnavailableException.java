package dev.tokensidecar;

import java.time.Duration;
import java.util.Optional;

/**
 * No answer now, because the sidecar is down, stale, overloaded or too slow. It says nothing about the token: do not let
 * the request through, and do not call the token forged; answer 503.
 */
public final class UnavailableException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    /** Null where the sidecar did not say. */
    private final Duration retryAfter;

    UnavailableException(Answer answer) {
        super("unavailable", answer);
        this.retryAfter = answer.retryAfter();
    }

    /**
     * How long to wait before the next try.
     *
     * @return nothing where the sidecar did not say
     */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }
}
